/** For operators and admin tools: make accounts, revoke, and ask what came of it. */

import { decodeJwt } from "jose";
import { z } from "zod";
import { Refusal, type RefusalCode } from "#contract/refusal";
import type { Order } from "../account.ts";
import { cutoffFor, forgetCutoffs, revocationLog } from "../cutoffs.ts";
import { newRevocationId, subjectOf } from "../identifiers.ts";
import { readAccessToken } from "../issuer.ts";
import { logFailure } from "../log.ts";
import { ask } from "../outcome.ts";
import { type Receipt, receiptOf } from "../receipt.ts";
import type { Decision, RevocationDraft } from "../revocation-log.ts";
import { sameSecret } from "../subkeys.ts";
import { loginName, password } from "./login.ts";
import { bearer, type Exchange, pathPart, readBody } from "./request.ts";

const subject = z.string().regex(/^[A-Za-z0-9_-]{1,64}$/);
const sessionId = z.string().regex(/^[A-Za-z0-9_-]{1,64}\.[A-Za-z0-9_-]{22}$/);
const name = z.string().regex(/^[\x21-\x7e]{1,128}$/);
/** RFC 6749 section 3.3. */
const scope = z
  .string()
  .max(1024)
  .regex(/^[\x21\x23-\x5b\x5d-\x7e]+( [\x21\x23-\x5b\x5d-\x7e]+)*$/);

const accountBody = z.strictObject({
  login: loginName,
  password,
  sub: subject.optional(),
  tid: name.optional(),
  scope: scope.optional(),
});

const revocationBody = z.strictObject({
  target: z.union([
    z.strictObject({ kind: z.literal("token"), jti: name }),
    z.strictObject({ kind: z.literal("token"), token: z.string().min(1).max(8192) }),
    z.strictObject({ kind: z.literal("session"), sid: sessionId }),
    z.strictObject({ kind: z.literal("user"), sub: subject }),
    z.strictObject({ kind: z.literal("user"), login: loginName }),
    z.strictObject({ kind: z.literal("tenant"), tid: name }),
    z.strictObject({ kind: z.literal("everyone") }),
  ]),
  reason: z.string().trim().min(1).max(500),
});
type AskedTarget = z.output<typeof revocationBody>["target"];

const REVOCATION_ID = /^rev_[A-Za-z0-9_-]{22}$/;
const MAX_WAIT_SECONDS = 10;

/**
 * Lets administrators in.
 *
 * @throws {Refusal} `unavailable` where nobody is one, `token_missing`, `token_invalid`
 */
export function demandAdministrator(c: Exchange): void {
  const { adminToken } = c.var.config;
  if (adminToken === undefined) throw new Refusal("unavailable", { detail: "ADMIN_TOKEN is not set" });
  const token = bearer(c);
  if (token === undefined) throw new Refusal("token_missing", { detail: "no admin credential" });
  if (!sameSecret(token, adminToken)) throw new Refusal("token_invalid", { detail: "the admin credential is wrong" });
}

export async function createAccount(c: Exchange): Promise<Response> {
  demandAdministrator(c);
  const { login, password, sub: wanted, tid, scope } = await readBody(c, accountBody);
  const account = { login, password, sub: wanted, tid: tid ?? null, scope: scope ?? null };
  const sub = await ask(c.env.CREDENTIAL.getByName(login).create(account));
  const location = { location: `/admin/accounts/${sub}` };
  return c.json({ sub, login, ...(tid && { tid }), ...(scope && { scope }) }, 201, location);
}

export async function showAccount(c: Exchange): Promise<Response> {
  demandAdministrator(c);
  const sub = subject.safeParse(pathPart(c, "sub"));
  if (!sub.success) throw new Refusal("not_found", { detail: "not in the form of a subject" });
  const account = c.env.ACCOUNT.getByName(sub.data);
  const { tid, scope, sessions, ...rest } = await ask(account.summary());
  const cutoff = await cutoffFor(c.env, tid);
  return c.json({
    ...rest,
    ...(tid !== null && { tid }),
    ...(scope !== null && { scope }),
    sessions: sessions.filter(({ created_at }) => created_at > cutoff),
  });
}

export async function revoke(c: Exchange): Promise<Response> {
  demandAdministrator(c);
  const { target, reason } = await readBody(c, revocationBody);
  const decision = await decide(c, target, { id: newRevocationId(), reason });
  return c.json(await firstReceipt(c, decision), 202, { location: `/admin/revocations/${decision.id}` });
}

export async function showRevocation(c: Exchange): Promise<Response> {
  demandAdministrator(c);
  const id = pathPart(c, "id");
  if (!REVOCATION_ID.test(id)) throw new Refusal("not_found", { detail: "not in the form of a revocation id" });
  return c.json(await ask(revocationLog(c.env).receipt(id, waitMs(c))));
}

async function decide(c: Exchange, target: AskedTarget, order: Order): Promise<Decision> {
  const { ACCOUNT } = c.env;
  switch (target.kind) {
    case "token":
      return await ask(revocationLog(c.env).append(await tokenDraft(c, target, order)));
    case "session":
      return await ask(ACCOUNT.getByName(subjectOf(target.sid)).revokeSession(target.sid, order));
    case "user":
      return await ask(ACCOUNT.getByName(await subjectAsked(c, target)).revokeUser(order));
    case "tenant":
    case "everyone": {
      const tid = target.kind === "tenant" ? target.tid : undefined;
      const decision = await ask(revocationLog(c.env).revokeBefore(order.id, tid, order.reason));
      forgetCutoffs();
      return decision;
    }
  }
}

async function subjectAsked(c: Exchange, target: { sub: string } | { login: string }): Promise<string> {
  return "sub" in target ? target.sub : await ask(c.env.CREDENTIAL.getByName(target.login).subject());
}

async function tokenDraft(
  c: Exchange,
  target: { jti: string } | { token: string },
  order: Order,
): Promise<RevocationDraft> {
  const now = Date.now();
  const { jti, exp } = "jti" in target ? { jti: target.jti, exp: 0 } : await claimsOf(c, target.token);
  const least = Math.floor(now / 1000) + (exp === 0 ? c.var.config.accessTokenTtlSeconds : 0);
  const expires_at = Math.max(exp, least) + 60;
  return { ...order, targets: [{ kind: "token", jti }], code: "token_revoked", decided_at: now, expires_at };
}

/** Whose token it is and when it ends. One that has expired is as good as any: it is judged as of when it was issued. */
async function claimsOf(c: Exchange, token: string): Promise<{ jti: string; exp: number }> {
  try {
    const { iat } = decodeJwt(token);
    return await readAccessToken(c.env, token, new Date((iat ?? 0) * 1000));
  } catch (error) {
    const ours: RefusalCode[] = ["unavailable", "internal"];
    if (error instanceof Refusal && ours.includes(error.code)) throw error;
    // 401 would say that the administrator's own credential is wrong.
    throw new Refusal("request_malformed", { cause: error, detail: "target.token is not an access token of ours" });
  }
}

/** What came of a decision so far. Once decided it will happen, so that nothing here may turn the answer into an error. */
async function firstReceipt(c: Exchange, decision: Decision): Promise<Receipt> {
  const early = receiptOf(
    decision,
    c.var.config.clusters.map(({ id }) => ({ cluster: id, attempts: 0 })),
  );
  const wait = waitMs(c);
  if (decision.seq === undefined || wait === 0) return early;
  try {
    return await ask(revocationLog(c.env).receipt(decision.id, wait));
  } catch (error) {
    logFailure("the first receipt could not be had", { revocation: decision.id }, error);
    return early;
  }
}

/** `Prefer: wait=N` (RFC 7240 section 4.3). */
function waitMs(c: Exchange): number {
  const wait = /(?:^|[,;\s])wait\s*=\s*"?(\d{1,6})/i.exec(c.req.header("prefer") ?? "")?.[1];
  if (wait === undefined) return 0;
  const seconds = Math.min(MAX_WAIT_SECONDS, Number(wait));
  c.header("preference-applied", `wait=${seconds}`);
  return seconds * 1000;
}

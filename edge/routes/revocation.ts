/** For operators and admin tools: revoke, one or ten thousand at once, and ask what came of it. */
import { decodeJwt } from "jose";
import { z } from "zod";
import { Refusal, type RefusalCode } from "#contract/refusal";
import { MAX_MARGIN_SECONDS, type RevocationManner, type RevocationTarget, signRehearsal } from "#contract/revocation";
import type { Selection } from "../accounts/account.ts";
import { newBulkId, newRevocationId, randomName, subjectOf } from "../identifiers.ts";
import { forgetKeys, readEitherToken, signingKey } from "../keys/issuer.ts";
import { KEY_RING_NAME } from "../keys/signing-key.ts";
import { logFailure } from "../log.ts";
import { ask } from "../outcome.ts";
import { MAX_BULK_USERS } from "../revocations/bulk-revocation.ts";
import { Cluster } from "../revocations/cluster.ts";
import { forgetCutoffs, revocationLog } from "../revocations/cutoffs.ts";
import { type Decision, decidedBy, type RevocationDraft } from "../revocations/event-table.ts";
import { type Receipt, receiptOf, untold } from "../revocations/receipt.ts";
import type { Order } from "../revocations/revocation-log.ts";
import {
  actOfAdministrator,
  demandAdministrator,
  demandAllTenants,
  demandTenant,
  type Principal,
} from "./administrator.ts";
import { carryOutOnce } from "./idempotency.ts";
import { loginName } from "./login.ts";
import { name, reason, sessionId, subject } from "./names.ts";
import { receiptStream, wantsEventStream } from "./receipt-stream.ts";
import { type Exchange, pathPart, readBody } from "./request.ts";

const target = z.union([
  z.strictObject({ kind: z.literal("token"), jti: name }),
  z.strictObject({ kind: z.literal("token"), token: z.string().min(1).max(8192) }),
  z.strictObject({ kind: z.literal("session"), sid: sessionId }),
  z.strictObject({ kind: z.literal("user"), sub: subject }),
  z.strictObject({ kind: z.literal("user"), login: loginName }),
  z.strictObject({ kind: z.literal("tenant"), tid: name }),
  z.strictObject({ kind: z.literal("key"), kid: name }),
  z.strictObject({ kind: z.literal("everyone") }),
]);

type AskedTarget = z.output<typeof target>;

const marginNeedsMode = { path: ["margin"], message: "goes with mode reauthenticate" };

const manner = {
  mode: z.enum(["disconnect", "reauthenticate"]).default("disconnect"),
  /** Seconds, with `reauthenticate`. */
  margin: z.int().min(1).max(MAX_MARGIN_SECONDS).optional(),
};

export const revocationBody = z
  .strictObject({
    target,
    reason,
    ...manner,
    /** Seconds since the epoch. */
    issued_before: z.int().positive().optional(),
    except: sessionId.optional(),
    dry_run: z.boolean().default(false),
  })
  .refine(({ mode, margin }) => margin === undefined || mode === "reauthenticate", marginNeedsMode)
  .refine(({ target, mode }) => mode === "disconnect" || target.kind !== "key", {
    path: ["mode"],
    message: "is disconnect where a key is retired",
  })
  .refine(({ target, issued_before }) => issued_before === undefined || spansSessions(target), {
    path: ["issued_before"],
    message: "goes with a user, a tenant or everyone",
  })
  .refine(({ target, except }) => except === undefined || isOwnSession(target, except), {
    path: ["except"],
    message: "goes with a user, and must be a session of that user",
  });
type RevocationRequest = z.output<typeof revocationBody>;

export const bulkBody = z
  .strictObject({
    users: z
      .array(z.union([subject, z.strictObject({ login: loginName })], "a subject, or an object with a login"))
      .min(1)
      .max(MAX_BULK_USERS),
    reason,
    ...manner,
  })
  .refine(({ mode, margin }) => margin === undefined || mode === "reauthenticate", marginNeedsMode);

const REVOCATION_ID = /^rev_[A-Za-z0-9_-]{22}$/;
export const BULK_ID = /^blk_[A-Za-z0-9_-]{22}$/;
const MAX_WAIT_SECONDS = 10;
const DEFAULT_MARGIN_SECONDS = 30;
const MARGIN_SECONDS = 60;
/** Of a bulk revocation: 10,000 login names of the usual length. */
const MAX_BULK_BYTES = 2 * 1024 * 1024;

/** `POST /admin/revocations` */
export async function revoke(c: Exchange): Promise<Response> {
  const principal = await demandAdministrator(c, "revocations:write");
  const request = await readBody(c, revocationBody);
  demandPast(request.issued_before);
  if (request.dry_run) return c.json(await rehearse(c, principal, request));
  return await carryOutOnce(c, principal, request, newRevocationId(), async ({ id, again }) => {
    const { tid: tenant } = principal;
    const by = actOfAdministrator(c, principal);
    const order: Order = { id, again, reason: request.reason, by, tenant, manner: mannerOf(request) };
    const decision = await decide(c, principal, request, order);
    return c.json(await firstReceipt(c, decision), 202, { location: `/admin/revocations/${decision.id}` });
  });
}

/** `POST /admin/revocations/bulk`: accepted once it is stored, and worked off from there. */
export async function revokeInBulk(c: Exchange): Promise<Response> {
  const principal = await demandAdministrator(c, "revocations:write");
  const request = await readBody(c, bulkBody, MAX_BULK_BYTES);
  return await carryOutOnce(c, principal, request, newBulkId(), async ({ id }) => {
    const by = actOfAdministrator(c, principal);
    const order = { reason: request.reason, by, tenant: principal.tid, manner: mannerOf(request) };
    const users = request.users.map((user) => (typeof user === "string" ? { sub: user } : user));
    const accepted = await ask(c.env.BULK_REVOCATION.getByName(id).begin(id, users, order));
    return c.json(accepted, 202, { location: `/admin/revocations/${id}` });
  });
}

/** `GET /admin/revocations/:id`; with `Accept: text/event-stream` as it goes on. */
export async function showRevocation(c: Exchange): Promise<Response> {
  const principal = await demandAdministrator(c, "revocations:read");
  const id = pathPart(c, "id");
  if (BULK_ID.test(id)) return c.json(await ask(c.env.BULK_REVOCATION.getByName(id).receipt(principal.tid)));
  if (!REVOCATION_ID.test(id)) throw new Refusal("not_found", { detail: "not in the form of a revocation id" });
  const look = (wait: number, known?: string) => ask(revocationLog(c.env).receipt(id, wait, principal.tid, known));
  c.header("vary", "Accept", { append: true });
  if (wantsEventStream(c)) return receiptStream(c, await look(0), look);
  return c.json(await look(waitMs(c)));
}

async function decide(
  c: Exchange,
  principal: Principal,
  { target, ...request }: RevocationRequest,
  order: Order,
): Promise<Decision> {
  const { ACCOUNT } = c.env;
  switch (target.kind) {
    case "token":
      return await ask(revocationLog(c.env).append(await tokenDraft(c, principal, target, order), order.by));
    case "session":
      return await ask(ACCOUNT.getByName(subjectOf(target.sid)).revokeSession(target.sid, order));
    case "user":
      return await ask(ACCOUNT.getByName(await subjectAsked(c, target)).revokeUser(order, selectionOf(request)));
    case "key":
      return await retireKey(c, principal, target.kid, order);
    case "tenant":
    case "everyone": {
      demandReach(principal, target);
      const tid = target.kind === "tenant" ? target.tid : undefined;
      const decision = await ask(
        revocationLog(c.env).revokeBefore({ ...order, tid, issuedBefore: request.issued_before }),
      );
      forgetCutoffs();
      return decision;
    }
  }
}

/** What the key signed dies, and a fresh one signs: for those who may also write keys. */
async function retireKey(c: Exchange, principal: Principal, kid: string, { reason }: Order): Promise<Decision> {
  demandKeys(principal);
  const by = actOfAdministrator(c, principal);
  const line = { purpose: "access", alg: c.var.config.algorithm } as const;
  const ring = c.env.KEY_RING.getByName(KEY_RING_NAME);
  const { revocation: id = "" } = await ask(ring.rotate({ ...line, kid, retire: true, reason, ...by }));
  forgetKeys(c.env);
  const decided_at = Date.now();
  const early: Decision = {
    ...{ id, reason, targets: [{ kind: "key", kid }], code: "token_revoked", decided_at, ...decidedBy(by) },
    expires_at: Math.floor(decided_at / 1000),
  };
  return (await ask(revocationLog(c.env).decision(id))) ?? early;
}

function demandKeys(principal: Principal): void {
  demandAllTenants(principal);
  if (!principal.scopes.includes("keys:write")) {
    throw new Refusal("scope_insufficient", { detail: `${principal.id} does not have keys:write` });
  }
}

/**
 * How much would go: sessions as far as an account can tell, and what the clusters hold of them right now. A cluster that cannot be
 * asked is named by null, and so is what nobody counts without going through every account.
 */
async function rehearse(c: Exchange, principal: Principal, request: RevocationRequest) {
  const { sessions, targets } = await hitBy(c, principal, request);
  const key = await signingKey(c.env);
  const issuedAt = Math.floor(Date.now() / 1000);
  const clusters = await Promise.all(
    c.var.config.clusters.map(async (cluster) => {
      if (targets.length === 0) return { cluster: cluster.id, sockets: 0, sessions: 0, silent: [] };
      const envelope = { issuer: c.var.config.issuer, audience: cluster.id, issuedAt, id: randomName(128) };
      const counted = await new Cluster(cluster).rehearse(await signRehearsal(targets, envelope, key));
      return { cluster: cluster.id, ...(counted ?? { sockets: null, sessions: null, silent: [] }) };
    }),
  );
  const known = clusters.flatMap(({ sockets }) => (sockets === null ? [] : [sockets]));
  const sockets = known.length < clusters.length ? null : known.reduce((sum, count) => sum + count, 0);
  return { dry_run: true, target: shown(request.target), sessions, sockets, clusters };
}

/** Whom it would hit, as sessions of the account where there is one, and as targets for the nodes. */
async function hitBy(
  c: Exchange,
  principal: Principal,
  { target, ...request }: RevocationRequest,
): Promise<{ readonly sessions: number | null; readonly targets: readonly RevocationTarget[] }> {
  switch (target.kind) {
    case "token":
      return {
        sessions: 0,
        targets: (await tokenDraft(c, principal, target, { id: "", reason: request.reason })).targets,
      };
    case "session": {
      const { sessions } = await ask(c.env.ACCOUNT.getByName(subjectOf(target.sid)).summary(principal.tid));
      return ofSessions(sessions.map(({ sid }) => sid).filter((sid) => sid === target.sid));
    }
    case "user": {
      const account = c.env.ACCOUNT.getByName(await subjectAsked(c, target));
      return ofSessions(await ask(account.selected(selectionOf(request), principal.tid)));
    }
    case "key":
      demandKeys(principal);
      return { sessions: 0, targets: [target] };
    case "tenant":
    case "everyone": {
      demandReach(principal, target);
      return {
        sessions: null,
        targets: [{ ...target, cutoff: request.issued_before ?? Math.floor(Date.now() / 1000) }],
      };
    }
  }
}

function ofSessions(sids: readonly string[]) {
  return { sessions: sids.length, targets: sids.map((sid) => ({ kind: "session", sid }) as const) };
}

/** A token that was shown is a credential: it is not shown back. */
function shown(target: AskedTarget) {
  return "token" in target ? { kind: target.kind } : target;
}

function demandReach(principal: Principal, target: { kind: "tenant"; tid: string } | { kind: "everyone" }): void {
  if (target.kind === "tenant") demandTenant(principal, target.tid);
  else demandAllTenants(principal);
}

/** @throws {Refusal} `request_malformed`: a cutoff that is yet to come would hit people who are not there yet */
function demandPast(issuedBefore: number | undefined): void {
  if (issuedBefore === undefined || issuedBefore <= Math.floor(Date.now() / 1000)) return;
  const problems = [{ member: "issued_before", problem: "lies in the future" }];
  throw new Refusal("request_malformed", { detail: "issued_before lies in the future", problems });
}

function selectionOf({ issued_before, except }: Pick<RevocationRequest, "issued_before" | "except">): Selection {
  return { issuedBefore: issued_before, except };
}

function mannerOf({ mode, margin }: Pick<RevocationRequest, "mode" | "margin">): RevocationManner {
  return mode === "disconnect" ? {} : { mode, margin: margin ?? DEFAULT_MARGIN_SECONDS };
}

function spansSessions({ kind }: AskedTarget): boolean {
  return kind === "user" || kind === "tenant" || kind === "everyone";
}

function isOwnSession(target: AskedTarget, sid: string): boolean {
  // Whose login name it is turns out later; a session of somebody else then does not live in that account.
  return target.kind === "user" && (!("sub" in target) || target.sub === subjectOf(sid));
}

async function subjectAsked(c: Exchange, target: { sub: string } | { login: string }): Promise<string> {
  return "sub" in target ? target.sub : await ask(c.env.CREDENTIAL.getByName(target.login).subject());
}

async function tokenDraft(
  c: Exchange,
  principal: Principal,
  target: { jti: string } | { token: string },
  { id, reason, by, manner }: Order,
): Promise<RevocationDraft> {
  const now = Date.now();
  // A name says nothing of the tenant that the token is of.
  if ("jti" in target) demandAllTenants(principal);
  const { jti, exp, tid, sub } = "jti" in target ? { jti: target.jti, exp: 0 } : await claimsOf(c, target.token);
  if ("token" in target) demandTenant(principal, tid ?? null);
  const least = Math.floor(now / 1000) + (exp === 0 ? c.var.config.accessTokenTtlSeconds : 0);
  const expires_at = Math.max(exp, least) + MARGIN_SECONDS + (manner?.margin ?? 0);
  return {
    ...{ id, reason, targets: [{ kind: "token", jti }], code: "token_revoked", decided_at: now, expires_at },
    ...manner,
    ...(tid === undefined ? {} : { tid }),
    ...(sub === undefined ? {} : { sub }),
    ...(by === undefined ? {} : decidedBy(by)),
  };
}

/** Whose token it is and when it ends. One that has expired is as good as any: it is judged as of when it was issued. */
async function claimsOf(
  c: Exchange,
  token: string,
): Promise<{ readonly jti: string; readonly exp: number; readonly sub?: string; readonly tid?: string }> {
  try {
    const { iat } = decodeJwt(token);
    return await readEitherToken(c.env, token, new Date((iat ?? 0) * 1000));
  } catch (error) {
    const ours: RefusalCode[] = ["unavailable", "internal"];
    if (error instanceof Refusal && ours.includes(error.code)) throw error;
    // 401 would say that the administrator's own credential is wrong.
    const problems = [{ member: "target.token", problem: "is not an access token of this issuer" }];
    throw new Refusal("request_malformed", { cause: error, detail: "target.token is not a token of ours", problems });
  }
}

/** What came of a decision so far. Once decided it will happen, so that nothing here may turn the answer into an error. */
async function firstReceipt(c: Exchange, decision: Decision): Promise<Receipt> {
  const early = receiptOf(
    decision,
    c.var.config.clusters.map(({ id }) => untold(id)),
  );
  const wait = waitMs(c);
  if (decision.seq === undefined || wait === 0) return early;
  try {
    return await ask(revocationLog(c.env).receipt(decision.id, wait));
  } catch (error) {
    logFailure("the first receipt could not be had", { revocation: decision.id, request: c.var.requestId }, error);
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

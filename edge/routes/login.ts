/** For people and their apps: log in, refresh, log out, look after one's sessions. */
import { z } from "zod";
import { Refusal, toRefusal } from "#contract/refusal";
import type { Actor, OpenedSession } from "../accounts/account.ts";
import { normaliseLogin } from "../accounts/credential.ts";
import { type RefreshToken, readRefreshToken } from "../accounts/session.ts";
import { type Act, audit } from "../audit/audit.ts";
import { adminScopesIn } from "../clients/admin-scope.ts";
import { subjectOf } from "../identifiers.ts";
import { issueAccessToken, publicKeySet, signingKey } from "../keys/issuer.ts";
import { originOf } from "../origin.ts";
import { ask } from "../outcome.ts";
import { rememberTenant, standingOf } from "../revocations/cutoffs.ts";
import { bearerSession } from "./bearer.ts";
import {
  clearRefreshCookie,
  demandOwnOrigin,
  demandTrustedOrigin,
  giveRefreshCookie,
  isBrowser,
  refreshCookie,
} from "./browser.ts";
import { scope } from "./names.ts";
import { type Exchange, pathPart, readBody } from "./request.ts";

/** A login name in the form in which it names a credential. */
export const loginName = z.string().max(254).transform(normaliseLogin).pipe(z.string().min(1).max(254));
export const password = z.string().min(1).max(1024);

const refreshToken = z.string().min(1).max(1024);
/** What a person calls the device. */
export const device = z.string().min(1).max(128);
/** RFC 8707 section 2: where the access token is to be good. */
export const resource = z.string().max(1024);
export const loginBody = z.strictObject({
  login: loginName,
  password,
  device: device.optional(),
  scope: scope.optional(),
  resource: resource.optional(),
});
export const refreshBody = z.strictObject({ refresh_token: refreshToken.optional(), resource: resource.optional() });
export const logoutBody = z.strictObject({
  refresh_token: refreshToken.optional(),
  scope: z.enum(["local", "others", "global"]).default("local"),
  resource: resource.optional(),
});

export async function login(c: Exchange): Promise<Response> {
  demandTrustedOrigin(c);
  const { login, password, device, scope, resource } = await readBody(c, loginBody);
  const administration = isForAdministration(c, resource);
  const by = actOf(c, "unknown");
  const { sub, passwordGeneration } = await ask(c.env.CREDENTIAL.getByName(login).verify(password, by));
  const origin = originOf(c.req.raw);
  const opening = { method: "password", device, scope, origin, passwordGeneration, administration } as const;
  const opened = await recordingFailure(c, "sign_in_failed", sub, () => {
    return ask(c.env.ACCOUNT.getByName(sub).open(opening));
  });
  return await signedIn(c, opened, { administration });
}

/**
 * Whether a token is asked for that is for administration: its resource is the issuer itself, and no node takes it.
 *
 * @throws {Refusal} `resource_invalid` for any other resource, `origin_forbidden` for a page that is not the edge's own
 */
export function isForAdministration(c: Exchange, resource: string | undefined): boolean {
  if (resource === undefined) return false;
  if (resource !== c.var.config.issuer) throw new Refusal("resource_invalid");
  demandOwnOrigin(c);
  return true;
}

/**
 * The tokens of a session that was just opened.
 *
 * @param by who opened it, where that was not its holder
 */
export async function signedIn(c: Exchange, opened: OpenedSession, manner: Giving = {}, by?: Act): Promise<Response> {
  const { sub, sid, tid, method } = opened.grant;
  const reason = manner.administration === true ? `${method}, for administration` : method;
  audit(c.env, { type: "sign_in", ...(by ?? actOf(c, sub)), sub, sid, tid: tid ?? undefined, reason });
  return await tokens(c, opened, manner);
}

/** Who acts, and from where: a person, by the subject that is known or supposed. */
export function actOf(c: Exchange, sub: string): Act {
  return { actor: { kind: "user", id: sub }, from: originOf(c.req.raw), request: c.var.requestId };
}

/**
 * Does what may be refused, and has the audit trail know if it was.
 *
 * @param sub of whom it is known by then
 */
export async function recordingFailure<T>(
  c: Exchange,
  type: "sign_in_failed" | "password_change_failed",
  sub: string | undefined,
  attempt: () => Promise<T>,
): Promise<T> {
  try {
    return await attempt();
  } catch (error) {
    const { code } = toRefusal(error);
    audit(c.env, { type, ...actOf(c, sub ?? "unknown"), sub, reason: code });
    throw error;
  }
}

export async function refresh(c: Exchange): Promise<Response> {
  demandTrustedOrigin(c);
  const body = await readBody(c, refreshBody);
  const administration = isForAdministration(c, body.resource);
  const presented = presentedToken(c, body.refresh_token, administration);
  if (presented === undefined) throw new Refusal("token_missing", { detail: "no refresh token" });
  const token = readRefreshToken(presented, c.var.config.secret);
  // A trade without an answer is a danger to the holder, so that the key is at hand before it.
  await signingKey(c.env);
  return await tokens(c, await trade(c, token, administration), { administration });
}

/** Trades a refresh token with the account that it names. */
export async function trade(c: Exchange, token: RefreshToken, administration: boolean): Promise<OpenedSession> {
  const sub = subjectOf(token.sid);
  for (;;) {
    const standing = await standingOf(c.env, sub);
    const traded = await ask(c.env.ACCOUNT.getByName(sub).refresh(token, standing, administration));
    if (!("tenant" in traded)) return traded;
    rememberTenant(sub, traded.tenant);
  }
}

export async function logout(c: Exchange): Promise<Response> {
  demandTrustedOrigin(c);
  const { refresh_token, scope, resource } = await readBody(c, logoutBody);
  const administration = isForAdministration(c, resource);
  if (refreshCookie(c, administration) !== undefined) clearRefreshCookie(c, administration);
  const actor = await actorOf(c, presentedToken(c, refresh_token, administration));
  const sid = "access" in actor ? actor.access.sid : actor.refresh.sid;
  await ask(c.env.ACCOUNT.getByName(subjectOf(sid)).logout(actor, scope, actOf(c, subjectOf(sid))));
  return c.body(null, 204);
}

export async function listSessions(c: Exchange): Promise<Response> {
  const { sub, sid, cutoff } = await bearerSession(c);
  const sessions = await ask(c.env.ACCOUNT.getByName(sub).sessions(sid, cutoff));
  return c.json({ sessions: sessions.map((session) => ({ ...session, current: session.sid === sid })) });
}

export async function endSession(c: Exchange): Promise<Response> {
  const { sub, sid, cutoff } = await bearerSession(c);
  await ask(c.env.ACCOUNT.getByName(sub).endSession(sid, pathPart(c, "sid"), cutoff, actOf(c, sub)));
  return c.body(null, 204);
}

export async function jwks(c: Exchange): Promise<Response> {
  return c.json(await publicKeySet(c.env), 200, { "cache-control": "public, max-age=300" });
}

export function healthz(c: Exchange): Response {
  return c.json({ status: "ok" });
}

/** A browser's cookie is what it was given; elsewhere a token that is named outright is what is meant. */
function presentedToken(c: Exchange, named: string | undefined, administration: boolean): string | undefined {
  const cookie = refreshCookie(c, administration);
  return isBrowser(c) ? (cookie ?? named) : (named ?? cookie);
}

async function actorOf(c: Exchange, presented: string | undefined): Promise<Actor> {
  if (presented !== undefined) return { refresh: readRefreshToken(presented, c.var.config.secret) };
  const { sid } = await bearerSession(c);
  return { access: { sid } };
}

/** How tokens are given out. */
export interface Giving {
  /** Whether the refresh token goes where no script can read it, instead of into the body; for browsers, unless said otherwise. */
  readonly inCookie?: boolean | undefined;
  /** Whether the access token is for administration. It then has the admin scopes alone. */
  readonly administration?: boolean | undefined;
}

export async function tokens(
  c: Exchange,
  { grant: whole, refreshToken }: OpenedSession,
  { inCookie = isBrowser(c), administration = false }: Giving,
): Promise<Response> {
  const grant = administration ? { ...whole, scope: adminScopesIn(whole.scope).join(" ") } : whole;
  const { issuer, audience } = c.var.config;
  const access = await issueAccessToken(c.env, grant, administration ? issuer : audience);
  const refreshExpiresIn = Math.max(0, grant.expires_at - Math.floor(Date.now() / 1000));
  if (inCookie) giveRefreshCookie(c, refreshToken, refreshExpiresIn, administration);
  return c.json({
    access_token: access.token,
    token_type: "Bearer",
    expires_in: access.expiresIn,
    ...(grant.scope === null ? {} : { scope: grant.scope }),
    ...(inCookie ? {} : { refresh_token: refreshToken }),
    refresh_token_expires_in: refreshExpiresIn,
    sid: grant.sid,
    sub: grant.sub,
  });
}

/** For people and their apps: log in, refresh, log out, look after one's sessions. */
import { z } from "zod";
import { Refusal } from "#contract/refusal";
import type { Actor, OpenedSession } from "../account.ts";
import { normaliseLogin } from "../credential.ts";
import { rememberTenant, revocationLog, standingOf } from "../cutoffs.ts";
import { subjectOf } from "../identifiers.ts";
import { issueAccessToken, publicKeySet, readAccessToken, signingKey } from "../issuer.ts";
import { ask } from "../outcome.ts";
import { type RefreshToken, readRefreshToken } from "../session.ts";
import { clearRefreshCookie, demandTrustedOrigin, giveRefreshCookie, isBrowser, refreshCookie } from "./browser.ts";
import { bearer, type Exchange, pathPart, readBody } from "./request.ts";

/** A login name in the form in which it names a credential. */
export const loginName = z.string().max(254).transform(normaliseLogin).pipe(z.string().min(1).max(254));
export const password = z.string().min(1).max(1024);

const refreshToken = z.string().min(1).max(1024);
const loginBody = z.strictObject({ login: loginName, password, device: z.string().min(1).max(128).optional() });
const refreshBody = z.strictObject({ refresh_token: refreshToken.optional() });
const logoutBody = z.strictObject({
  refresh_token: refreshToken.optional(),
  scope: z.enum(["local", "others", "global"]).default("local"),
});

export async function login(c: Exchange): Promise<Response> {
  demandTrustedOrigin(c);
  const { login, password, device } = await readBody(c, loginBody);
  const sub = await ask(c.env.CREDENTIAL.getByName(login).verify(password));
  const opened = await ask(c.env.ACCOUNT.getByName(sub).open(device));
  return await tokens(c, opened);
}

export async function refresh(c: Exchange): Promise<Response> {
  demandTrustedOrigin(c);
  const body = await readBody(c, refreshBody);
  const presented = presentedToken(c, body.refresh_token);
  if (presented === undefined) throw new Refusal("token_missing", { detail: "no refresh token" });
  const token = readRefreshToken(presented, c.var.config.secret);
  // A trade without an answer is a danger to the holder, so that the key is at hand before it.
  await signingKey(c.env);
  return await tokens(c, await trade(c, token));
}

async function trade(c: Exchange, token: RefreshToken): Promise<OpenedSession> {
  const sub = subjectOf(token.sid);
  for (;;) {
    const standing = await standingOf(c.env, sub);
    const traded = await ask(c.env.ACCOUNT.getByName(sub).refresh(token, standing));
    if (!("tenant" in traded)) return traded;
    rememberTenant(sub, traded.tenant);
  }
}

export async function logout(c: Exchange): Promise<Response> {
  demandTrustedOrigin(c);
  const { refresh_token, scope } = await readBody(c, logoutBody);
  if (refreshCookie(c) !== undefined) clearRefreshCookie(c);
  const actor = await actorOf(c, refresh_token);
  const sid = "access" in actor ? actor.access.sid : actor.refresh.sid;
  await ask(c.env.ACCOUNT.getByName(subjectOf(sid)).logout(actor, scope));
  return c.body(null, 204);
}

export async function listSessions(c: Exchange): Promise<Response> {
  const { sub, sid, cutoff } = await bearerSession(c);
  const sessions = await ask(c.env.ACCOUNT.getByName(sub).sessions(sid, cutoff));
  return c.json({ sessions: sessions.map((session) => ({ ...session, current: session.sid === sid })) });
}

export async function endSession(c: Exchange): Promise<Response> {
  const { sub, sid, cutoff } = await bearerSession(c);
  await ask(c.env.ACCOUNT.getByName(sub).endSession(sid, pathPart(c, "sid"), cutoff));
  return c.body(null, 204);
}

export async function jwks(c: Exchange): Promise<Response> {
  return c.json(await publicKeySet(c.env), 200, { "cache-control": "public, max-age=300" });
}

export function healthz(c: Exchange): Response {
  return c.json({ status: "ok" });
}

/** A browser's cookie is what it was given; elsewhere a token that is named outright is what is meant. */
function presentedToken(c: Exchange, named: string | undefined): string | undefined {
  const cookie = refreshCookie(c);
  return isBrowser(c) ? (cookie ?? named) : (named ?? cookie);
}

async function actorOf(c: Exchange, named: string | undefined): Promise<Actor> {
  const presented = presentedToken(c, named);
  if (presented !== undefined) return { refresh: readRefreshToken(presented, c.var.config.secret) };
  const { sid } = await bearerSession(c);
  return { access: { sid } };
}

/** The session of a bearer whose token the log has not revoked. Whether the session lives is for the Account to say. */
async function bearerSession(c: Exchange): Promise<{ sub: string; sid: string; cutoff: number }> {
  const token = bearer(c);
  if (token === undefined) throw new Refusal("token_missing");
  const claims = await readAccessToken(c.env, token);
  const { cutoff, tokenRevoked } = await ask(revocationLog(c.env).standing(claims.tid ?? null, claims.jti));
  if (claims.auth_time <= cutoff) throw new Refusal("session_revoked", { detail: "it began before a cutoff" });
  if (tokenRevoked) throw new Refusal("token_revoked");
  return { sub: claims.sub, sid: claims.sid, cutoff };
}

async function tokens(c: Exchange, { grant, refreshToken }: OpenedSession): Promise<Response> {
  const access = await issueAccessToken(c.env, grant);
  const refreshExpiresIn = Math.max(0, grant.expires_at - Math.floor(Date.now() / 1000));
  const inCookie = isBrowser(c);
  if (inCookie) giveRefreshCookie(c, refreshToken, refreshExpiresIn);
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

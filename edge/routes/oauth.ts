/** OAuth for clients that speak it: forms in, JSON out, the errors of RFC 6749 section 5.2. */
import type { ContentfulStatusCode } from "hono/utils/http-status";
import { decodeJwt } from "jose";
import { z } from "zod";
import { Refusal, type RefusalCode } from "#contract/refusal";
import { openForeignSession, SUBJECT_TOKEN_TYPES } from "../accounts/foreign-issuer.ts";
import { readRefreshToken } from "../accounts/session.ts";
import type { ClientSummary } from "../clients/client.ts";
import { issueClientToken, readClientToken } from "../clients/client-token.ts";
import {
  authenticateClient,
  type Caller,
  type ClientParameters,
  clientParameters,
  oauthError,
  TOKEN_EXCHANGE_GRANT,
} from "../clients/oauth.ts";
import { newRevocationId, subjectOf } from "../identifiers.ts";
import { readEitherToken, signingKey } from "../keys/issuer.ts";
import { originOf } from "../origin.ts";
import { ask } from "../outcome.ts";
import { cutoffFor, revocationLog } from "../revocations/cutoffs.ts";
import { demandAdministrator, type Principal, principalFor } from "./administrator.ts";
import { device, isForAdministration, recordingFailure, resource, signedIn, tokens, trade } from "./login.ts";
import { bearer, type Exchange, readForm } from "./request.ts";

const token = z.string().min(1).max(8192);

export const tokenForm = z.object({
  ...clientParameters,
  grant_type: z.string().max(128),
  refresh_token: z.string().max(1024).optional(),
  scope: z.string().max(1024).optional(),
  subject_token: z.string().max(8192).optional(),
  subject_token_type: z.string().max(128).optional(),
  requested_token_type: z.string().max(128).optional(),
  actor_token: z.string().max(8192).optional(),
  /** The `nonce` that the subject token must repeat, where the app sent one to its provider. Not in RFC 8693. */
  nonce: z.string().max(256).optional(),
  device: device.optional(),
  resource: resource.optional(),
});
export const revokeForm = z.object({ ...clientParameters, token, token_type_hint: z.string().max(64).optional() });
export const introspectForm = revokeForm;

const MARGIN_SECONDS = 60;
/** RFC 8693 section 3. */
const ACCESS_TOKEN_KIND = "urn:ietf:params:oauth:token-type:access_token";

/** The grants that `/oauth/token` knows (RFC 6749 section 4.5 and 6). */
const GRANTS: Readonly<Record<string, (c: Exchange, form: TokenForm, caller: Caller) => Promise<Response>>> = {
  refresh_token: refreshGrant,
  client_credentials: clientCredentialsGrant,
  [TOKEN_EXCHANGE_GRANT]: tokenExchangeGrant,
};
export const GRANT_TYPES: readonly string[] = Object.keys(GRANTS);
type TokenForm = z.output<typeof tokenForm>;

export async function issueToken(c: Exchange): Promise<Response> {
  const form = await readForm(c, tokenForm);
  const grant = Object.hasOwn(GRANTS, form.grant_type) ? GRANTS[form.grant_type] : undefined;
  if (grant === undefined) throw new Refusal("grant_unsupported");
  return await grant(c, form, await callerOf(c, form));
}

/** RFC 6749 section 6. */
async function refreshGrant(c: Exchange, form: TokenForm, caller: Caller): Promise<Response> {
  if (caller.kind !== "public") throw new Refusal("client_unauthorized", { detail: "an admin client has no sessions" });
  if (form.refresh_token === undefined) throw missing("refresh_token");
  const presented = readRefreshToken(form.refresh_token, c.var.config.secret);
  const administration = isForAdministration(c, form.resource);
  // A trade without an answer is a danger to the holder, so that the key is at hand before it.
  await signingKey(c.env);
  const { grant, refreshToken } = await trade(c, presented, administration);
  const scope = narrowed(grant.scope, form.scope);
  return await tokens(c, { grant: { ...grant, scope }, refreshToken }, { inCookie: false, administration });
}

/**
 * RFC 6749 section 6 and 3.3: what is asked for beyond what was granted is left aside, and the answer says what was given. The
 * session keeps its whole scope.
 */
function narrowed(granted: string | null, asked: string | undefined): string | null {
  if (asked === undefined || granted === null) return granted;
  const wanted = new Set(asked.split(" "));
  return granted
    .split(" ")
    .filter((scope) => wanted.has(scope))
    .join(" ");
}

/** RFC 6749 section 4.4. */
async function clientCredentialsGrant(c: Exchange, form: TokenForm, caller: Caller): Promise<Response> {
  if (caller.kind !== "admin") throw new Refusal("client_invalid", { detail: "the grant is for admin clients" });
  // Its tokens are for administration, whether it says so or not.
  isForAdministration(c, form.resource);
  const scope = grantedScope(caller.client, form.scope);
  const { token, expiresIn } = await issueClientToken(c.env, caller.client, scope);
  return c.json({ access_token: token, token_type: "Bearer", expires_in: expiresIn, scope });
}

/** @throws {Refusal} `scope_invalid` for anything that the client does not have */
function grantedScope({ scopes }: ClientSummary, asked: string | undefined): string {
  if (asked === undefined) return scopes.join(" ");
  const wanted = [...new Set(asked.split(" "))];
  if (wanted.some((scope) => !scopes.some((held) => held === scope))) throw new Refusal("scope_invalid");
  return wanted.join(" ");
}

/** RFC 8693: an ID token of a trusted issuer for a session of ours. */
async function tokenExchangeGrant(c: Exchange, form: TokenForm, caller: Caller): Promise<Response> {
  if (caller.kind !== "public") throw new Refusal("client_unauthorized", { detail: "an admin client has no sessions" });
  const { subject_token, subject_token_type, requested_token_type = ACCESS_TOKEN_KIND, scope, device, nonce } = form;
  if (subject_token === undefined) throw missing("subject_token");
  if (subject_token_type === undefined) throw missing("subject_token_type");
  if (!SUBJECT_TOKEN_TYPES.includes(subject_token_type) || requested_token_type !== ACCESS_TOKEN_KIND) {
    throw new Refusal("request_malformed", { detail: "a token type that is not exchanged" });
  }
  if (form.actor_token !== undefined)
    throw new Refusal("request_malformed", { detail: "nobody acts for another here" });
  const administration = isForAdministration(c, form.resource);
  const opening = { device, scope, origin: originOf(c.req.raw), administration };
  const opened = await recordingFailure(c, "sign_in_failed", undefined, () => {
    return openForeignSession(c.env, subject_token, opening, nonce);
  });
  const response = await signedIn(c, opened, { inCookie: false, administration });
  // Section 2.2.1.
  return c.json({ ...(await response.json<object>()), issued_token_type: ACCESS_TOKEN_KIND });
}

/** RFC 7009. A token that is not ours, or dead already, is as good as revoked (section 2.2). */
export async function revokeToken(c: Exchange): Promise<Response> {
  const form = await readForm(c, revokeForm);
  const caller = await callerOf(c, form);
  if (form.token.startsWith("kcr.")) await endSessionOf(c, form.token, caller);
  else await revokeAccessToken(c, form.token, caller);
  return c.body(null, 200);
}

/** Section 2.1: with the refresh token goes the whole grant, which is the session. */
async function endSessionOf(c: Exchange, text: string, caller: Caller): Promise<void> {
  const refresh = orUndefined(() => readRefreshToken(text, c.var.config.secret));
  if (refresh === undefined) return;
  const sub = subjectOf(refresh.sid);
  const found = await ask(c.env.ACCOUNT.getByName(sub).inspect({ refresh }));
  if (found === null) return;
  demandOwn(caller, found.tid);
  await ask(c.env.ACCOUNT.getByName(sub).logout({ refresh }, "local"));
}

async function revokeAccessToken(c: Exchange, text: string, caller: Caller): Promise<void> {
  if (isOfClient(c, text)) {
    const claims = await judgedOrUndefined(readClientToken(c.env, text));
    if (claims === undefined) return;
    const own = caller.kind === "admin" && caller.client.client_id === claims.client_id;
    if (!own) throw new Refusal("client_unauthorized", { detail: "the token is another client's" });
    await ask(c.env.CLIENT.getByName(claims.client_id).revokeToken(claims.jti, claims.exp));
    return;
  }
  const claims = await judgedOrUndefined(readEitherToken(c.env, text));
  if (claims === undefined) return;
  demandOwn(caller, claims.tid ?? null);
  await ask(
    revocationLog(c.env).append({
      id: newRevocationId(),
      reason: "revoked by its holder",
      targets: [{ kind: "token", jti: claims.jti }],
      code: "token_revoked",
      decided_at: Date.now(),
      expires_at: claims.exp + MARGIN_SECONDS,
      sub: claims.sub,
      request: c.var.requestId,
      ...(claims.tid === undefined ? {} : { tid: claims.tid }),
    }),
  );
}

/** Section 2.1: a token must belong to the client. All people's tokens are the public client's; admins may by their scope. */
function demandOwn(caller: Caller, tid: string | null): void {
  if (caller.kind === "public") return;
  const { scopes, tid: bound } = principalFor(caller.client);
  if (!scopes.includes("revocations:write") || (bound !== undefined && bound !== tid)) {
    throw new Refusal("client_unauthorized", { detail: "the token is not for this client to revoke" });
  }
}

/** RFC 7662. Whatever is not a living token of ours, for this caller, is `{"active": false}` and nothing more (section 2.2). */
export async function introspectToken(c: Exchange): Promise<Response> {
  const form = await readForm(c, introspectForm);
  const principal = await introspector(c, form);
  const found = form.token.startsWith("kcr.")
    ? await inspectRefreshToken(c, form.token)
    : await inspectAccessToken(c, form.token);
  const visible = found !== undefined && (principal.tid === undefined || found.tid === principal.tid);
  return c.json(visible ? { active: true, iss: c.var.config.issuer, ...found } : { active: false });
}

/** Section 2.1: a client that proves itself, or a bearer. Asking must not be open to all, or tokens could be tried out. */
async function introspector(c: Exchange, form: ClientParameters): Promise<Principal> {
  if (bearer(c) !== undefined) return await demandAdministrator(c, "sessions:read");
  const caller = await callerOf(c, form);
  if (caller.kind !== "admin") throw new Refusal("client_invalid", { detail: "introspection needs a client" });
  const principal = principalFor(caller.client);
  if (!principal.scopes.includes("sessions:read")) throw new Refusal("scope_insufficient");
  return principal;
}

interface Introspected {
  readonly tid?: string;
  readonly [member: string]: unknown;
}

async function inspectAccessToken(c: Exchange, text: string): Promise<Introspected | undefined> {
  if (isOfClient(c, text)) return await inspectClientToken(c, text);
  const claims = await judgedOrUndefined(readEitherToken(c.env, text));
  if (claims === undefined) return undefined;
  const { cutoff, tokenRevoked } = await ask(revocationLog(c.env).standing(claims.tid ?? null, claims.jti));
  if (tokenRevoked || claims.auth_time <= cutoff) return undefined;
  const found = await ask(c.env.ACCOUNT.getByName(claims.sub).inspect({ access: { sid: claims.sid } }));
  if (found === null || claims.gen < found.gen) return undefined;
  // Of the token's header, and no claim of it.
  const { kid: _, ...said } = claims;
  return { ...said, token_type: "Bearer", username: found.login };
}

async function inspectClientToken(c: Exchange, text: string): Promise<Introspected | undefined> {
  const claims = await judgedOrUndefined(readClientToken(c.env, text));
  if (claims === undefined) return undefined;
  const client = await judgedOrUndefined(ask(c.env.CLIENT.getByName(claims.client_id).standing(claims.jti)));
  return client && { ...claims, token_type: "Bearer" };
}

async function inspectRefreshToken(c: Exchange, text: string): Promise<Introspected | undefined> {
  const refresh = orUndefined(() => readRefreshToken(text, c.var.config.secret));
  if (refresh === undefined) return undefined;
  const sub = subjectOf(refresh.sid);
  const found = await ask(c.env.ACCOUNT.getByName(sub).inspect({ refresh }));
  if (found === null || found.auth_time <= (await cutoffFor(c.env, found.tid))) return undefined;
  const { login, tid, scope, auth_time, expires_at } = found;
  return {
    sub,
    sid: refresh.sid,
    client_id: c.var.config.clientId,
    username: login,
    auth_time,
    exp: expires_at,
    ...(tid === null ? {} : { tid }),
    ...(scope === null ? {} : { scope }),
  };
}

/** A refusal as RFC 6749 section 5.2 has it. */
export function oauthRefused(c: Exchange, refusal: Refusal): Response {
  const { status, error } = bearer(c) === undefined ? oauthError(refusal.code) : bearerError(refusal.code);
  // RFC 6749 section 5.2: the challenge is of the scheme that the client used.
  if (status === 401) c.header("www-authenticate", bearer(c) === undefined ? 'Basic realm="keycard"' : "Bearer");
  c.header("pragma", "no-cache");
  return c.json({ error, error_description: refusal.message }, status satisfies ContentfulStatusCode);
}

/** RFC 6750 section 3.1, where the caller came with a bearer token (RFC 7662 section 2.1). */
function bearerError(code: RefusalCode): ReturnType<typeof oauthError> {
  return code.startsWith("token_") ? { status: 401, error: "invalid_token" } : oauthError(code);
}

async function callerOf(c: Exchange, form: ClientParameters): Promise<Caller> {
  return await authenticateClient(c.env, c.var.config, c.req.header("authorization"), form);
}

/** Whether it claims to be a client's access token: that decides only how it is judged. */
function isOfClient(c: Exchange, text: string): boolean {
  const claims = orUndefined(() => decodeJwt(text));
  return claims?.aud === c.var.config.issuer && !("sid" in claims);
}

function orUndefined<T>(read: () => T): T | undefined {
  try {
    return read();
  } catch {
    // Not in the form that it claims to have: then it is nothing of ours, which both RFCs answer kindly.
    return undefined;
  }
}

/** A token that is refused is none; a service that is away is not a token that is refused. */
async function judgedOrUndefined<T>(judging: Promise<T>): Promise<T | undefined> {
  try {
    return await judging;
  } catch (error) {
    if (error instanceof Refusal && error.code !== "unavailable" && error.code !== "internal") return undefined;
    throw error;
  }
}

function missing(member: string): Refusal {
  return new Refusal("request_malformed", { detail: `${member} is missing` });
}

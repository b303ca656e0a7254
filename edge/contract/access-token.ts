/**
 * The access token: a JWT in the profile of RFC 9068, signed by the edge and verified by realtime without a call to
 * anybody. Signing and verifying stand in one file so that they cannot drift apart.
 *
 * Two claims are Keycard's own. `gen` is the generation of the account when the session began: ending a user raises
 * it, so that "every session from before" is exact even within one second. `keys` are free revocation keys.
 */
import {
  type CryptoKey,
  errors,
  type JWTHeaderParameters,
  type JWTPayload,
  type JWTVerifyGetKey,
  jwtVerify,
  SignJWT,
} from "jose";
import { Refusal } from "./refusal.ts";
import { isCount, isName, isRecord } from "./shapes.ts";

/** RFC 9068 section 2.1. */
export const ACCESS_TOKEN_TYPE = "at+jwt";

/** Signature algorithms, RFC 7518 and RFC 8037. HMAC is absent by design: whoever verifies must not be able to sign. */
export const SIGNATURE_ALGORITHMS = ["EdDSA", "ES256", "RS256"] as const;
export type SignatureAlgorithm = (typeof SIGNATURE_ALGORITHMS)[number];

/** Characters. Checked before anything is parsed. */
export const MAX_TOKEN_LENGTH = 8192;
/** RFC 7515 section 2: base64url without padding, line breaks or white space, which decoders tend to forgive. */
const COMPACT_FORM = /^[\w-]+\.[\w-]+\.[\w-]+$/;

/** Claims of RFC 9068 section 2.2, and our own. Times are seconds since the epoch (NumericDate). */
export interface AccessTokenClaims {
  readonly iss: string;
  readonly aud: string | string[];
  readonly sub: string;
  readonly client_id: string;
  readonly iat: number;
  readonly exp: number;
  readonly jti: string;
  /** The session that the token belongs to. */
  readonly sid: string;
  /** When the session began: a cutoff for a tenant or for everyone is compared with this, so that no refresh escapes it. */
  readonly auth_time: number;
  /** The account's generation when the session began. */
  readonly gen: number;
  /** Tenant. */
  readonly tid?: string;
  /** Scopes, separated by spaces (RFC 8693 section 4.2). */
  readonly scope?: string;
  /** How the holder proved who they are (RFC 8176): `pwd`, or `fed` for another issuer's word. */
  readonly amr?: readonly string[];
  /** Free revocation keys: a device, a plan, a room. */
  readonly keys?: readonly string[];
}

/** What a verified token says, and the key that it was signed with, which can be revoked as well. */
export type VerifiedClaims = AccessTokenClaims & { readonly kid?: string | undefined };

export interface SigningKey {
  readonly kid: string;
  readonly alg: SignatureAlgorithm;
  readonly privateKey: CryptoKey;
}

/** Whom to believe, and about what. */
export interface TokenRules {
  readonly issuer: string;
  readonly audience: string;
  readonly algorithms: readonly SignatureAlgorithm[];
  /** How far the clocks of issuer and verifier may differ, in seconds. */
  readonly clockSkewSeconds: number;
}

export function signAccessToken(claims: AccessTokenClaims, key: SigningKey): Promise<string> {
  return signTyped(ACCESS_TOKEN_TYPE, { ...claims }, key);
}

/**
 * Judges an access token. `token` may be anything at all.
 *
 * @throws {Refusal} `token_missing`, `token_invalid`, `token_expired`; `unavailable` when the issuer's keys cannot be had
 */
export async function verifyAccessToken(
  token: unknown,
  keys: JWTVerifyGetKey,
  rules: TokenRules,
  now: Date = new Date(),
): Promise<VerifiedClaims> {
  return judgeAccessToken(await checkSignature(token, keys, rules), rules, now);
}

/** Judges all of an access token but its signature. @throws {Refusal} `token_invalid`, `token_expired` */
export function judgeAccessToken(jwt: SignedJwt, rules: TokenRules, now: Date = new Date()): VerifiedClaims {
  const { payload, kid } = judgeJwt(jwt, { ...rules, typ: ACCESS_TOKEN_TYPE }, now);
  const claims = accessTokenClaims(payload, Math.floor(now.getTime() / 1000) + rules.clockSkewSeconds);
  // One string for all who hold one of the issuer's tokens.
  return { ...claims, iss: rules.issuer, kid };
}

function accessTokenClaims(payload: JWTPayload, latestIssue: number): AccessTokenClaims {
  const { sub, client_id, iat, jti, sid, auth_time, gen, tid, scope, amr, keys } = payload;
  const wellFormed =
    isName(sub) &&
    isName(client_id) &&
    isName(jti) &&
    isName(sid) &&
    isCount(iat) &&
    isCount(payload.exp) &&
    isCount(auth_time) &&
    isCount(gen) &&
    (tid === undefined || isName(tid)) &&
    (scope === undefined || typeof scope === "string") &&
    (amr === undefined || (Array.isArray(amr) && amr.every(isName))) &&
    (keys === undefined || (Array.isArray(keys) && keys.every(isName)));
  if (!wellFormed) throw new Refusal("token_invalid", { detail: "a claim is missing or of the wrong type" });
  // A token from the future would outlive a cutoff made now.
  if (iat > latestIssue || auth_time > latestIssue) {
    throw new Refusal("token_invalid", { detail: "issued in the future" });
  }
  return payload as unknown as AccessTokenClaims;
}

/** The `typ` of a ticket: what a client shows that can set nothing but a URL, good once and for seconds. */
export const TICKET_TYPE = "ticket+jwt";

/** Seconds. */
export const TICKET_LIFETIME = 30;

/** A ticket speaks for one access token: it carries its claims, and names it. */
export interface TicketClaims extends AccessTokenClaims {
  /** `jti` and `exp` of the access token; the ticket's own are the ticket's. */
  readonly access: { readonly jti: string; readonly exp: number };
}

export function signTicket(ticket: TicketClaims, key: SigningKey): Promise<string> {
  return signTyped(TICKET_TYPE, { ...ticket }, key);
}

/**
 * Judges a ticket. That it is used once is for the caller to see to, by the `ticket` that is returned.
 *
 * @returns the claims of the access token that it speaks for
 * @throws {Refusal} as {@link verifyAccessToken}
 */
export async function verifyTicket(
  ticket: unknown,
  keys: JWTVerifyGetKey,
  rules: TokenRules,
  now: Date = new Date(),
): Promise<{ readonly claims: VerifiedClaims; readonly ticket: string }> {
  const { payload: whole, kid } = await verifyJwt(ticket, keys, { ...rules, typ: TICKET_TYPE }, now);
  const { access, ...payload } = whole;
  const own = accessTokenClaims(payload, Math.floor(now.getTime() / 1000) + rules.clockSkewSeconds);
  if (!isRecord(access) || !isName(access.jti) || !isCount(access.exp)) {
    throw new Refusal("token_invalid", { detail: "a ticket for nothing" });
  }
  return { claims: { ...own, jti: access.jti, exp: access.exp, kid }, ticket: own.jti };
}

/** Signs any of Keycard's own JWTs; `typ` keeps the kinds apart (RFC 8725 section 3.11). */
export function signTyped(typ: string, payload: JWTPayload, key: SigningKey): Promise<string> {
  const header: JWTHeaderParameters = { alg: key.alg, kid: key.kid, typ };
  return new SignJWT(payload).setProtectedHeader(header).sign(key.privateKey);
}

/** Verifies any of Keycard's own JWTs. @throws {Refusal} as {@link verifyJwt} */
export async function verifyTyped(
  typ: string,
  token: unknown,
  keys: JWTVerifyGetKey,
  rules: TokenRules,
  now: Date = new Date(),
): Promise<JWTPayload> {
  return (await verifyJwt(token, keys, { ...rules, typ }, now)).payload;
}

/** What any JWT must satisfy. Our own always name a type and an audience; other issuers leave out one or the other. */
export interface JwtRules extends Omit<TokenRules, "audience"> {
  readonly typ?: string | undefined;
  readonly audience?: string | undefined;
  /** Characters; MAX_TOKEN_LENGTH unless given. */
  readonly maxLength?: number | undefined;
}

/** A JWT whose signature is good. Whether it may be believed is still to be judged. */
export interface SignedJwt {
  readonly header: { readonly typ?: unknown; readonly kid?: string | undefined; readonly crit?: unknown };
  readonly payload: JWTPayload;
}

/**
 * Verifies a JWT: size and form before parsing, then algorithm, key, signature, `typ`, `iss`, `aud` and time.
 *
 * @returns the payload, and the `kid` of the key that it was signed with
 * @throws {Refusal} `token_missing`, `token_invalid`, `token_expired`; `unavailable` when the issuer's keys cannot be had
 */
export async function verifyJwt(
  token: unknown,
  keys: JWTVerifyGetKey,
  rules: JwtRules,
  now: Date = new Date(),
): Promise<{ readonly payload: JWTPayload; readonly kid: string | undefined }> {
  return judgeJwt(await checkSignature(token, keys, rules), rules, now);
}

/** A string in the compact form and of bounded size. @throws {Refusal} `token_missing`, `token_invalid` */
export function demandCompact(token: unknown, maxLength = MAX_TOKEN_LENGTH): string {
  if (token === undefined || token === null || token === "") throw new Refusal("token_missing");
  if (typeof token !== "string") throw new Refusal("token_invalid", { detail: `the token is a ${typeof token}` });
  if (token.length > maxLength) throw new Refusal("token_invalid", { detail: "the token is too long" });
  if (!COMPACT_FORM.test(token)) throw new Refusal("token_invalid", { detail: "not in the compact form" });
  return token;
}

/** For jose no time is too early or too late. */
const JUDGED_BY_US = { currentDate: new Date(0), clockTolerance: Number.MAX_SAFE_INTEGER };

/** The part of {@link verifyJwt} that needs the keys. @throws {Refusal} as it does, but for `token_expired` */
export async function checkSignature(
  token: unknown,
  keys: JWTVerifyGetKey,
  { algorithms, maxLength }: Pick<JwtRules, "algorithms" | "maxLength">,
): Promise<SignedJwt> {
  const compact = demandCompact(token, maxLength);
  try {
    const options = { algorithms: [...algorithms], ...JUDGED_BY_US };
    const { payload, protectedHeader } = await jwtVerify(compact, keys, options);
    return { header: protectedHeader, payload };
  } catch (error) {
    throw refusalOf(error);
  }
}

/**
 * The other part, and the only judge of what a JWT says, whoever has found its signature good: RFC 7519 section 4.1, RFC 8725 section 3.11.
 *
 * @throws {Refusal} `token_invalid`, `token_expired`
 */
export function judgeJwt(
  { header, payload }: SignedJwt,
  { typ, issuer, audience, clockSkewSeconds }: JwtRules,
  now: Date = new Date(),
): { readonly payload: JWTPayload; readonly kid: string | undefined } {
  const invalid = (detail: string) => new Refusal("token_invalid", { detail });
  const seconds = Math.floor(now.getTime() / 1000);
  const { iss, aud, exp, nbf, iat } = payload as Readonly<Record<string, unknown>>;
  // RFC 7515 section 4.1.11: whoever does not understand all of it must refuse, and there is nothing that we do.
  if (header.crit !== undefined) throw invalid('"crit" names an extension');
  if (typ !== undefined && !isType(header.typ, typ)) throw invalid('"typ" is another');
  if (iss !== issuer) throw invalid('"iss" is another');
  if (audience !== undefined && aud !== audience && !(Array.isArray(aud) && aud.includes(audience))) {
    throw invalid('"aud" is another');
  }
  for (const time of [exp, nbf, iat])
    if (time !== undefined && typeof time !== "number") throw invalid("a time is no number");
  if (typeof nbf === "number" && nbf > seconds + clockSkewSeconds) throw invalid('"nbf" is in the future');
  if (typeof exp === "number" && exp <= seconds - clockSkewSeconds) {
    throw new Refusal("token_expired", { detail: '"exp" has passed' });
  }
  return { payload, kid: header.kid };
}

/** RFC 7515 section 4.1.9: a media type, where `application/` may be left out. */
function isType(offered: unknown, wanted: string): boolean {
  if (offered === wanted) return true;
  return typeof offered === "string" && offered.toLowerCase().replace(/^application\//, "") === wanted;
}

/** jose's codes are exact and go to the log; the holder of the token learns only what to do. */
function refusalOf(error: unknown): Refusal {
  if (error instanceof Refusal) return error;
  if (error instanceof errors.JWKSTimeout) return new Refusal("unavailable", { cause: error, detail: error.code });
  if (error instanceof errors.JOSEError) {
    return new Refusal("token_invalid", { cause: error, detail: `${error.code}: ${error.message}` });
  }
  return new Refusal("unavailable", { cause: error, detail: "the issuer's keys cannot be had" });
}

/**
 * Tokens of issuers that are no Keycard edge: Auth0, Cognito, Firebase, Keycloak and the like. They are verified as ours
 * are, and then read into the same claims, so that everything behind the door is the same for all.
 *
 * They have no generation, and most have no time of sign-in: a cutoff is then compared with `iat`.
 */
import { createHash } from "node:crypto";
import type { JWTPayload } from "jose";
import {
  type AccessTokenClaims,
  judgeJwt,
  type SignedJwt,
  type TokenRules,
  type VerifiedClaims,
} from "#contract/access-token";
import { Refusal } from "#contract/refusal";

/** Claims as the app wants them read; what it leaves out is read as usual. */
export type ReadClaims = Partial<Pick<AccessTokenClaims, "sub" | "sid" | "jti" | "tid" | "scope" | "keys">>;

export interface ForeignTokens {
  /** The header's `typ`; any unless given, since many issuers write `JWT` into every kind of token. */
  readonly typ?: string | undefined;
  /** The claim that the audience is in: `client_id` for access tokens of Cognito. Default `aud`. */
  readonly audienceClaim?: string | undefined;
  /** Claims that a token must have with exactly this value, such as Cognito's `token_use: "access"`. */
  readonly required?: Readonly<Record<string, string>> | undefined;
  /** Reads what is elsewhere: a tenant in a namespaced claim, permissions instead of scopes. */
  claims?(payload: JWTPayload): ReadClaims;
}

/** Judges all of a token but its signature. @throws {Refusal} `token_invalid`, `token_expired` */
export function judgeForeignToken(
  jwt: SignedJwt,
  token: string,
  rules: TokenRules,
  foreign: ForeignTokens,
): VerifiedClaims {
  const inAud = (foreign.audienceClaim ?? "aud") === "aud";
  const audience = inAud ? rules.audience : undefined;
  const { payload, kid } = judgeJwt(jwt, { ...rules, typ: foreign.typ, audience });
  const required = { ...foreign.required, ...(inAud ? {} : { [foreign.audienceClaim ?? "aud"]: rules.audience }) };
  for (const [claim, value] of Object.entries(required)) {
    if (payload[claim] !== value) throw new Refusal("token_invalid", { detail: `the claim ${claim} is another` });
  }
  return { ...read(payload, token, rules, foreign.claims?.(payload) ?? {}), kid };
}

function read(payload: JWTPayload, token: string, rules: TokenRules, own: ReadClaims): AccessTokenClaims {
  const sub = own.sub ?? payload.sub;
  const { iat, exp } = payload;
  if (!isText(sub) || !isTime(iat) || !isTime(exp)) {
    throw new Refusal("token_invalid", { detail: "sub, iat or exp is missing" });
  }
  if (iat > Date.now() / 1000 + rules.clockSkewSeconds) {
    throw new Refusal("token_invalid", { detail: "issued in the future" });
  }
  // Without a name of its own a token is named by what it is, so that it can be revoked all the same.
  const jti = own.jti ?? textOf(payload.jti) ?? nameOf(token);
  const tid = own.tid ?? textOf(payload.tid);
  const scope = own.scope ?? scopeOf(payload);
  return {
    iss: rules.issuer,
    aud: rules.audience,
    sub,
    client_id: textOf(payload.client_id) ?? textOf(payload.azp) ?? rules.audience,
    iat: Math.floor(iat),
    exp: Math.floor(exp),
    jti,
    sid: own.sid ?? textOf(payload.sid) ?? jti,
    auth_time: isTime(payload.auth_time) ? Math.floor(payload.auth_time) : Math.floor(iat),
    gen: 0,
    ...(tid === undefined ? {} : { tid }),
    ...(scope === undefined ? {} : { scope }),
    ...(own.keys === undefined ? {} : { keys: own.keys }),
  };
}

/** By what was signed: the signature itself can be spelled in several ways, each of them good. */
function nameOf(token: string): string {
  return createHash("sha256")
    .update(token.slice(0, token.lastIndexOf(".")))
    .digest("base64url");
}

/** `scope` as text (RFC 8693), or `scp` or `permissions` as lists, as some issuers write it. */
function scopeOf(payload: JWTPayload): string | undefined {
  if (typeof payload.scope === "string") return payload.scope;
  const list = payload.scp ?? payload.permissions;
  return Array.isArray(list) ? list.filter(isText).join(" ") : textOf(list);
}

function textOf(value: unknown): string | undefined {
  return isText(value) ? value : undefined;
}

function isText(value: unknown): value is string {
  return typeof value === "string" && value.length > 0 && value.length <= 1024;
}

function isTime(value: unknown): value is number {
  return typeof value === "number" && Number.isFinite(value) && value >= 0;
}

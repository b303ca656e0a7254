/**
 * The edge as an issuer: signs, and verifies what it signed. The keys come from the KeyRing and stay in the isolate for a
 * while, so that a token costs no call.
 */
import { createLocalJWKSet, type JSONWebKeySet } from "jose";
import {
  type AccessTokenClaims,
  type SigningKey,
  signAccessToken,
  type TokenRules,
  verifyAccessToken,
} from "#contract/access-token";
import { readConfig } from "./config.ts";
import { randomName } from "./identifiers.ts";
import { KEY_RING_NAME } from "./key-ring.ts";
import { ask } from "./outcome.ts";
import { unwrapSigningKey } from "./signing-key.ts";

/** What a token is issued for: a session as its account vouches for it. */
export interface Grant {
  readonly sub: string;
  readonly sid: string;
  readonly tid: string | null;
  readonly scope: string | null;
  readonly auth_time: number;
  readonly gen: number;
  /** When the session ends if it is not refreshed, seconds since the epoch. No token outlives it. */
  readonly expires_at: number;
}

/** A key that was made or retired elsewhere is noticed after this long. */
const KEYS_FRESH_MS = 60_000;
/** Between the machines that the edge itself runs on. */
const CLOCK_SKEW_SECONDS = 5;

interface Kept<T> {
  readonly value: T;
  readonly at: number;
}
// Values, never promises: one request must not wait for what another one started. Per environment, as keys belong to one.
const signingKeys = new WeakMap<object, Kept<SigningKey>>();
const publicKeys = new WeakMap<object, Kept<JSONWebKeySet>>();

/** The key to sign with, unable to be exported. */
export async function signingKey(env: Env): Promise<SigningKey> {
  const kept = signingKeys.get(env);
  if (kept !== undefined && isFresh(kept)) return kept.value;
  const { algorithm, secret } = readConfig(env);
  const wrapped = await ask(keyRing(env).current(algorithm));
  const value = kept?.value.kid === wrapped.kid ? kept.value : await unwrapSigningKey(wrapped, secret);
  signingKeys.set(env, { value, at: Date.now() });
  return value;
}

/** The JWK Set that the world verifies with. */
export async function publicKeySet(env: Env): Promise<JSONWebKeySet> {
  const kept = publicKeys.get(env);
  if (kept !== undefined && isFresh(kept)) return kept.value;
  const value = await ask(keyRing(env).jwks(readConfig(env).algorithm));
  publicKeys.set(env, { value, at: Date.now() });
  return value;
}

/** @returns the token, and how many seconds it is good for */
export async function issueAccessToken(
  env: Env,
  grant: Grant,
): Promise<{ readonly token: string; readonly expiresIn: number }> {
  const config = readConfig(env);
  // A session that began in the second of a cutoff is stamped with the next one: its tokens must not be older than it.
  const iat = Math.max(Math.floor(Date.now() / 1000), grant.auth_time);
  const exp = Math.min(iat + config.accessTokenTtlSeconds, grant.expires_at);
  const claims: AccessTokenClaims = {
    iss: config.issuer,
    aud: config.audience,
    sub: grant.sub,
    client_id: config.clientId,
    iat,
    exp,
    jti: randomName(128),
    sid: grant.sid,
    auth_time: grant.auth_time,
    gen: grant.gen,
    ...(grant.tid === null ? {} : { tid: grant.tid }),
    ...(grant.scope === null ? {} : { scope: grant.scope }),
  };
  return { token: await signAccessToken(claims, await signingKey(env)), expiresIn: exp - iat };
}

/**
 * Judges an access token of our own. What it cannot see is whether the token is revoked; the Account and the log know.
 *
 * @param now when it is judged: the past for a token that may have expired since
 * @throws {Refusal} as `verifyAccessToken`
 */
export async function readAccessToken(env: Env, token: string, now: Date = new Date()): Promise<AccessTokenClaims> {
  const { issuer, audience } = readConfig(env);
  const keys = createLocalJWKSet(await publicKeySet(env));
  const rules: TokenRules = {
    issuer,
    audience,
    // A key of an algorithm that is no longer configured may still have living tokens.
    algorithms: ["RS256", "ES256", "EdDSA"],
    clockSkewSeconds: CLOCK_SKEW_SECONDS,
  };
  return await verifyAccessToken(token, keys, rules, now);
}

function isFresh(kept: Kept<unknown>): boolean {
  return Date.now() - kept.at < KEYS_FRESH_MS;
}

function keyRing(env: Env) {
  return env.KEY_RING.getByName(KEY_RING_NAME);
}

/**
 * The edge as an issuer: signs, and verifies what it signed. The keys come from the KeyRing and stay in the isolate for a
 * while, so that a token costs no call.
 */
import { createLocalJWKSet, decodeJwt, errors, type JSONWebKeySet, type JWTVerifyGetKey } from "jose";
import {
  type AccessTokenClaims,
  type SigningKey,
  signAccessToken,
  type TokenRules,
  type VerifiedClaims,
  verifyAccessToken,
} from "#contract/access-token";
import type { SignInMethod } from "../accounts/session.ts";
import { readConfig } from "../config.ts";
import { randomName } from "../identifiers.ts";
import { logFailure } from "../log.ts";
import { ask } from "../outcome.ts";
import { EVENTS_ALGORITHM, KEY_RING_NAME, type KeyPurpose, unwrapSigningKey } from "./signing-key.ts";

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
  readonly method: SignInMethod;
}

/** `amr` (RFC 8176); "fed", for federated, is what others use who say so, though it is not in its list. */
const AUTHENTICATION_METHODS: Readonly<Record<SignInMethod, Pick<AccessTokenClaims, "amr">>> = {
  password: { amr: ["pwd"] },
  token_exchange: { amr: ["fed"] },
  // How a backend came to trust somebody is not known here.
  backend: {},
};

/** A key that was made or retired elsewhere is noticed after this long: for so long may a retired key still sign. */
const KEYS_FRESH_MS = 10_000;
/** While the key ring cannot be reached, what was known last is good for this long. */
const KEYS_STALE_MS = 60_000;
/** A key that we do not know makes us ask, at most this often: garbage must not become a flood. */
const UNKNOWN_KEY_COOLDOWN_MS = 1_000;
/** Between the machines that the edge itself runs on. */
const CLOCK_SKEW_SECONDS = 5;

interface Kept<T> {
  readonly value: T;
  readonly at: number;
}
// Values, never promises: one request must not wait for what another one started. Per environment, as keys belong to one.
const signingKeys: Readonly<Record<KeyPurpose, WeakMap<object, Kept<SigningKey>>>> = {
  access: new WeakMap(),
  events: new WeakMap(),
};
const publicKeys = new WeakMap<object, Kept<PublicKeys>>();

interface PublicKeys {
  readonly jwks: JSONWebKeySet;
  /** Keeps what it has imported. */
  readonly find: JWTVerifyGetKey;
}

/** The key to sign with, unable to be exported. @throws {Refusal} `unavailable` */
export function signingKey(env: Env): Promise<SigningKey> {
  return currentKey(env, "access");
}

/** The key for Security Event Tokens to receivers outside: RS256, whatever the access tokens are signed with. */
export function eventSigningKey(env: Env): Promise<SigningKey> {
  return currentKey(env, "events");
}

/** After a change of the keys that this isolate knows of. */
export function forgetKeys(env: Env): void {
  for (const kept of Object.values(signingKeys)) kept.delete(env);
  publicKeys.delete(env);
}

function currentKey(env: Env, purpose: KeyPurpose): Promise<SigningKey> {
  return kept(signingKeys[purpose], env, async (before) => {
    const { algorithm, secret } = readConfig(env);
    const wrapped = await ask(keyRing(env).current(purpose === "events" ? EVENTS_ALGORITHM : algorithm, purpose));
    return before?.kid === wrapped.kid ? before : await unwrapSigningKey(wrapped, secret);
  });
}

/** The JWK Set that the world verifies with. */
export async function publicKeySet(env: Env): Promise<JSONWebKeySet> {
  return (await currentPublicKeys(env)).jwks;
}

function currentPublicKeys(env: Env): Promise<PublicKeys> {
  return kept(publicKeys, env, async () => {
    const jwks = await ask(keyRing(env).jwks(readConfig(env).algorithm));
    return { jwks, find: createLocalJWKSet(jwks) };
  });
}

/** Finds our own public keys for a verifier. One that was made a moment ago is asked for. */
export function ownKeys(env: Env): JWTVerifyGetKey {
  return async (header, token) => {
    const { find } = await currentPublicKeys(env);
    try {
      return await find(header, token);
    } catch (error) {
      const age = Date.now() - (publicKeys.get(env)?.at ?? 0);
      if (!(error instanceof errors.JWKSNoMatchingKey) || age < UNKNOWN_KEY_COOLDOWN_MS) throw error;
      publicKeys.delete(env);
      return await (await currentPublicKeys(env)).find(header, token);
    }
  };
}

/**
 * @param audience where it is good: at the doors, unless said otherwise
 * @returns the token, and how many seconds it is good for
 */
export async function issueAccessToken(
  env: Env,
  grant: Grant,
  audience: string = readConfig(env).audience,
): Promise<{ readonly token: string; readonly expiresIn: number }> {
  const config = readConfig(env);
  // A session that began in the second of a cutoff is stamped with the next one: its tokens must not be older than it.
  const iat = Math.max(Math.floor(Date.now() / 1000), grant.auth_time);
  const exp = Math.min(iat + config.accessTokenTtlSeconds, grant.expires_at);
  const claims: AccessTokenClaims = {
    iss: config.issuer,
    aud: audience,
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
    ...AUTHENTICATION_METHODS[grant.method],
  };
  return { token: await signAccessToken(claims, await signingKey(env)), expiresIn: exp - iat };
}

/** How a token is judged. */
export interface Reading {
  /** Where it must be good: at the doors, unless said otherwise. */
  readonly audience?: string | undefined;
  /** When it is judged: the past for a token that may have expired since. */
  readonly now?: Date | undefined;
}

/**
 * Judges a person's access token of our own. What it cannot see is whether the token is revoked; the Account and the log know.
 *
 * @throws {Refusal} as `verifyAccessToken`
 */
export async function readAccessToken(
  env: Env,
  token: string,
  { audience = readConfig(env).audience, now = new Date() }: Reading = {},
): Promise<VerifiedClaims> {
  const rules: TokenRules = {
    issuer: readConfig(env).issuer,
    audience,
    // A key of an algorithm that is no longer configured may still have living tokens.
    algorithms: ["RS256", "ES256", "EdDSA"],
    clockSkewSeconds: CLOCK_SKEW_SECONDS,
  };
  return await verifyAccessToken(token, ownKeys(env), rules, now);
}

/**
 * As `readAccessToken`, wherever the token is good: at the doors or for administration. What it claims decides only how it is judged.
 */
export async function readEitherToken(env: Env, token: string, now?: Date): Promise<VerifiedClaims> {
  const { issuer, audience } = readConfig(env);
  return await readAccessToken(env, token, { audience: audienceIn(token) === issuer ? issuer : audience, now });
}

function audienceIn(token: string): unknown {
  try {
    return decodeJwt(token).aud;
  } catch {
    return undefined; // refused a moment later
  }
}

/** What is known while it is fresh, else what `learn` brings; and what was known last while nothing can be learnt. */
async function kept<T>(
  known: WeakMap<object, Kept<T>>,
  env: Env,
  learn: (before: T | undefined) => Promise<T>,
): Promise<T> {
  const before = known.get(env);
  if (before !== undefined && Date.now() - before.at < KEYS_FRESH_MS) return before.value;
  try {
    const value = await learn(before?.value);
    known.set(env, { value, at: Date.now() });
    return value;
  } catch (error) {
    if (before === undefined || Date.now() - before.at > KEYS_STALE_MS) throw error;
    logFailure("the keys could not be had; those of before serve on", {}, error);
    return before.value;
  }
}

function keyRing(env: Env) {
  return env.KEY_RING.getByName(KEY_RING_NAME);
}

/**
 * Sign-in on the word of another issuer: its ID token (OpenID Connect Core section 2) is the subject token of a token exchange
 * (RFC 8693), and whoever it names gets a session of ours.
 *
 * What a token says of itself decides nothing but which configured issuer it is judged by. Its keys come from where the
 * configuration or the issuer's own discovery document says, and stay in the isolate; an issuer that is down is believed for an hour
 * on the keys that are known.
 */
import { createLocalJWKSet, decodeJwt, errors, type JSONWebKeySet, type JWK, type JWTPayload, jwtVerify } from "jose";
import { z } from "zod";
import { MAX_TOKEN_LENGTH } from "#contract/access-token";
import { Refusal } from "#contract/refusal";
import { parseJson, readAtMost } from "../bounded-body.ts";
import { readConfig, type TrustedIssuer } from "../config.ts";
import { linkName } from "../identifiers.ts";
import { logFailure } from "../log.ts";
import { ask } from "../outcome.ts";
import type { OpenedSession } from "./account.ts";
import type { Opening } from "./account-table.ts";
import type { LinkedAccount, SubjectToken } from "./link.ts";

/** RFC 8693 section 3: the kinds of subject token that are taken. An access token of another issuer is not meant for us. */
export const SUBJECT_TOKEN_TYPES: readonly string[] = [
  "urn:ietf:params:oauth:token-type:id_token",
  "urn:ietf:params:oauth:token-type:jwt",
];

const TIMEOUT_MS = 3_000;
const MAX_DOCUMENT_BYTES = 64 * 1024;
const FRESH_MS = 10 * 60_000;
const STALE_MS = 60 * 60_000;
/** Between two looks for a key that is not known, or at an issuer that is down. */
const COOL_DOWN_MS = 30_000;
/** The same while nothing is known of the issuer: nobody can sign in until it is reached. */
const FIRST_COOL_DOWN_MS = 5_000;
const CLOCK_SKEW_SECONDS = 30;

const jwkSet = z.object({ keys: z.array(z.custom<JWK>(isJwk)).max(100) });
const discovery = z.object({ issuer: z.string().max(512), jwks_uri: z.url({ protocol: /^https?$/ }).max(1024) });
const idToken = z.object({
  sub: z.string().min(1).max(255),
  exp: z.number(),
  iat: z.number(),
  aud: z.union([z.string(), z.array(z.string()).max(16)]),
  azp: z.string().optional(),
  nonce: z.string().optional(),
  jti: z.string().min(1).max(256).optional(),
});

type Resolver = ReturnType<typeof createLocalJWKSet>;

/** Whose keys are looked for, and where. */
export type KeyHolder = Pick<TrustedIssuer, "issuer" | "jwks_uri">;

interface Kept {
  /** Undefined while the issuer was never reached. */
  readonly keys: Resolver | undefined;
  readonly fetchedAt: number;
  readonly triedAt: number;
}
// Values, never promises: one request must not wait for what another one started. By issuer, per environment.
const kept = new WeakMap<object, Map<string, Kept>>();

/**
 * Opens a session for the holder of an ID token of a trusted issuer.
 *
 * @param opening what else the session is to be; `scope` as for a login
 * @param nonce what the token must repeat, where the caller asked for one
 * @throws {Refusal} `token_missing`, `token_invalid`, `token_expired`; as `Account.open`; `unavailable` when the issuer's keys cannot
 *   be had
 */
export async function openForeignSession(
  env: Env,
  subjectToken: string,
  opening: Pick<Opening, "device" | "scope" | "origin" | "administration">,
  nonce?: string,
): Promise<OpenedSession> {
  const { issuer, token } = await verifySubjectToken(env, subjectToken, nonce);
  const account: LinkedAccount = { tid: issuer.tenant ?? null, scope: issuer.scope ?? null };
  const link = env.LINK.getByName(linkName(token.identity));
  const how: Opening = { ...opening, method: "token_exchange", tenant: issuer.tenant };
  return await ask(link.open(token, issuer.create ? account : undefined, how));
}

/**
 * Judges an ID token (OpenID Connect Core section 3.1.3.7).
 *
 * @throws {Refusal} `token_missing`, `token_invalid`, `token_expired`, `unavailable`
 */
export async function verifySubjectToken(
  env: Env,
  text: string,
  nonce?: string,
): Promise<{ readonly issuer: TrustedIssuer; readonly token: SubjectToken }> {
  const issuer = issuerOf(env, text);
  const payload = await verified(env, issuer, text);
  const claims = idToken.safeParse(payload);
  if (!claims.success) throw invalid("a claim is missing or of the wrong type");
  const { sub, exp, iat, aud, azp, jti } = claims.data;
  if (iat > Math.floor(Date.now() / 1000) + CLOCK_SKEW_SECONDS) throw invalid("issued in the future");
  if (Array.isArray(aud) && aud.length > 1 && azp !== issuer.audience) throw invalid("meant for several, not for us");
  if (nonce !== undefined && claims.data.nonce !== nonce) throw invalid("the nonce is another one");
  const identity = { issuer: issuer.issuer, subject: sub };
  return { issuer, token: { identity, jti, deadAt: Math.ceil(exp) + CLOCK_SKEW_SECONDS } };
}

/** By the issuer that it claims to be of, which the signature then proves or not. */
function issuerOf(env: Env, text: string): TrustedIssuer {
  if (text === "") throw new Refusal("token_missing");
  if (text.length > MAX_TOKEN_LENGTH) throw invalid("the token is too long");
  const claimed = claimedIssuer(text);
  const issuer = readConfig(env).trustedIssuers.find((trusted) => trusted.issuer === claimed);
  if (issuer === undefined) throw invalid("the issuer is not trusted");
  return issuer;
}

function claimedIssuer(text: string): string | undefined {
  try {
    return decodeJwt(text).iss;
  } catch (cause) {
    throw new Refusal("token_invalid", { cause, detail: "the subject token is not a JWT" });
  }
}

async function verified(env: Env, issuer: TrustedIssuer, text: string): Promise<JWTPayload> {
  const options = {
    issuer: issuer.issuer,
    audience: issuer.audience,
    algorithms: [...issuer.algorithms],
    clockTolerance: CLOCK_SKEW_SECONDS,
    requiredClaims: ["sub", "exp", "iat"],
  };
  for (const look of ["known", "anew"] as const) {
    try {
      const { payload, protectedHeader } = await jwtVerify(text, await keysOf(env, issuer, look === "anew"), options);
      // RFC 8725 section 3.11: an access token (`at+jwt`) or a logout token of the same issuer is no sign-in.
      const { typ } = protectedHeader;
      if (typ !== undefined && typ.toLowerCase() !== "jwt") throw invalid(`its type is another one`);
      return payload;
    } catch (error) {
      if (look === "known" && error instanceof errors.JWKSNoMatchingKey) continue;
      throw refusalOf(error);
    }
  }
  throw invalid("no key fits");
}

function refusalOf(error: unknown): Refusal {
  if (error instanceof Refusal) return error;
  if (error instanceof errors.JWTExpired) return new Refusal("token_expired", { cause: error, detail: error.code });
  if (error instanceof errors.JOSEError) {
    return new Refusal("token_invalid", { cause: error, detail: `${error.code}: ${error.message}` });
  }
  return new Refusal("token_invalid", { cause: error, detail: "a key of the issuer cannot be used" });
}

/** @param anew whether a key is wanted that the known ones do not have; looked for once in a while, as anybody can ask for one */
export async function keysOf(env: Env, issuer: KeyHolder, anew: boolean): Promise<Resolver> {
  const all = kept.get(env) ?? new Map<string, Kept>();
  kept.set(env, all);
  const known = all.get(nameOf(issuer));
  const now = Date.now();
  const { keys, fetchedAt, triedAt } = known ?? { keys: undefined, fetchedAt: 0, triedAt: 0 };
  if (keys !== undefined && ((now - fetchedAt < FRESH_MS && !anew) || now - triedAt < COOL_DOWN_MS)) return keys;
  if (keys === undefined && now - triedAt < FIRST_COOL_DOWN_MS) throw unavailable(undefined);
  try {
    const latest = createLocalJWKSet(await fetchKeys(issuer));
    all.set(nameOf(issuer), { keys: latest, fetchedAt: now, triedAt: now });
    return latest;
  } catch (error) {
    logFailure("the keys of a trusted issuer cannot be had", { issuer: issuer.issuer }, error);
    const usable = now - fetchedAt < STALE_MS ? keys : undefined;
    all.set(nameOf(issuer), { keys: usable, fetchedAt, triedAt: now });
    if (usable === undefined) throw unavailable(error);
    return usable;
  }
}

/** One issuer may publish keys in two places, for two purposes. */
function nameOf({ issuer, jwks_uri }: KeyHolder): string {
  return `${issuer} ${jwks_uri ?? ""}`;
}

function unavailable(cause: unknown): Refusal {
  const retryAfterSeconds = FIRST_COOL_DOWN_MS / 1000;
  return new Refusal("unavailable", { cause, detail: "the keys of a trusted issuer cannot be had", retryAfterSeconds });
}

async function fetchKeys({ issuer, jwks_uri }: KeyHolder): Promise<JSONWebKeySet> {
  return jwkSet.parse(await fetchJson(jwks_uri ?? (await discovered(issuer))));
}

/** OpenID Connect Discovery section 4.3: a document that names another issuer is not this one's. */
async function discovered(issuer: string): Promise<string> {
  const document = discovery.parse(await fetchJson(`${issuer.replace(/\/$/, "")}/.well-known/openid-configuration`));
  if (document.issuer !== issuer) throw new Error("the discovery document is of another issuer");
  const downgraded = issuer.startsWith("https:") && !document.jwks_uri.startsWith("https:");
  if (downgraded) throw new Error("the keys would come over http");
  return document.jwks_uri;
}

/** RFC 7517 section 4: as much as jose must be able to rely on; a key that it cannot use fits no token. */
function isJwk(value: unknown): boolean {
  if (typeof value !== "object" || value === null || !("kty" in value) || typeof value.kty !== "string") return false;
  return !("kid" in value) || typeof value.kid === "string";
}

async function fetchJson(url: string): Promise<unknown> {
  const headers = { accept: "application/json" };
  const response = await fetch(url, { headers, redirect: "manual", signal: AbortSignal.timeout(TIMEOUT_MS) });
  const bytes = await readAtMost(response.body, MAX_DOCUMENT_BYTES);
  if (response.status !== 200) throw new Error(`HTTP ${response.status}`);
  const json = bytes === undefined ? undefined : parseJson(bytes);
  if (json === undefined) throw new Error("no JSON, or too much of it");
  return json;
}

function invalid(detail: string): Refusal {
  return new Refusal("token_invalid", { detail });
}

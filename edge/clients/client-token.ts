/**
 * Access tokens of admin clients (RFC 9068): their audience is the issuer itself, and they have no session. A realtime node takes
 * neither, so that a credential for the front desk opens no door.
 */
import { ACCESS_TOKEN_TYPE, signTyped, verifyTyped } from "#contract/access-token";
import { Refusal } from "#contract/refusal";
import { readConfig } from "../config.ts";
import { isClientId, randomName } from "../identifiers.ts";
import { ownKeys, signingKey } from "../keys/issuer.ts";

/** Claims of RFC 9068 section 2.2. Times are seconds since the epoch. */
export interface ClientTokenClaims {
  readonly iss: string;
  readonly aud: string;
  readonly sub: string;
  /** The same as `sub`: RFC 9068 section 2.2 for a token without a person. */
  readonly client_id: string;
  readonly iat: number;
  readonly exp: number;
  readonly jti: string;
  /** Separated by spaces. */
  readonly scope: string;
  readonly tid?: string;
}

const CLOCK_SKEW_SECONDS = 5;

/** @returns the token, and how many seconds it is good for */
export async function issueClientToken(
  env: Env,
  client: { readonly client_id: string; readonly tid: string | null },
  scope: string,
): Promise<{ readonly token: string; readonly expiresIn: number }> {
  const { issuer, accessTokenTtlSeconds } = readConfig(env);
  const iat = Math.floor(Date.now() / 1000);
  const claims: ClientTokenClaims = {
    iss: issuer,
    aud: issuer,
    sub: client.client_id,
    client_id: client.client_id,
    iat,
    exp: iat + accessTokenTtlSeconds,
    jti: randomName(128),
    scope,
    ...(client.tid === null ? {} : { tid: client.tid }),
  };
  const token = await signTyped(ACCESS_TOKEN_TYPE, { ...claims }, await signingKey(env));
  return { token, expiresIn: accessTokenTtlSeconds };
}

/**
 * Judges a client's access token. Whether the client may still use it is for its Client object to say.
 *
 * @throws {Refusal} `token_missing`, `token_invalid`, `token_expired`
 */
export async function readClientToken(env: Env, token: string): Promise<ClientTokenClaims> {
  const { issuer } = readConfig(env);
  const payload = await verifyTyped(ACCESS_TOKEN_TYPE, token, ownKeys(env), {
    issuer,
    audience: issuer,
    algorithms: ["RS256", "ES256", "EdDSA"],
    clockSkewSeconds: CLOCK_SKEW_SECONDS,
  });
  const { sub, client_id, jti, scope } = payload;
  const ofClient = typeof sub === "string" && isClientId(sub) && client_id === sub && !("sid" in payload);
  if (!ofClient || typeof jti !== "string" || typeof scope !== "string") {
    throw new Refusal("token_invalid", { detail: "not a client's token" });
  }
  return payload as unknown as ClientTokenClaims;
}

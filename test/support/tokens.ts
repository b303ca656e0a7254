/**
 * Signers, and tokens as an attacker would make them: `forge` signs exactly the bytes it is given, whatever they say,
 * so that each check can be failed alone. Runs in Node and in workerd.
 */

import { base64url, createLocalJWKSet, exportJWK, generateKeyPair, type JWK, type JWTVerifyGetKey } from "jose";
import type { AccessTokenClaims, SignatureAlgorithm, SigningKey } from "#contract/access-token";

export interface TestSigner {
  readonly key: SigningKey;
  readonly publicJwk: JWK;
}

export async function createSigner(alg: SignatureAlgorithm, kid: string): Promise<TestSigner> {
  const { privateKey, publicKey } = await generateKeyPair(alg);
  return { key: { kid, alg, privateKey }, publicJwk: { ...(await exportJWK(publicKey)), kid, alg, use: "sig" } };
}

export function keySetOf(...signers: readonly TestSigner[]): JWTVerifyGetKey {
  return createLocalJWKSet({ keys: signers.map((signer) => signer.publicJwk) });
}

/** Keys that nobody may ask for: proves that a check comes before the keys are looked at. */
export const untouchableKeys: JWTVerifyGetKey = () => {
  throw new Error("the keys were asked for");
};

/** The first two parts of a compact JWS. A string is taken as it is, anything else as JSON. */
export function signingInput(header: unknown, payload: unknown): string {
  return `${encodePart(header)}.${encodePart(payload)}`;
}

/** A compact JWS with a true signature over whatever it says. */
export async function forge(header: unknown, payload: unknown, signer: TestSigner): Promise<string> {
  const input = signingInput(header, payload);
  const signature = await crypto.subtle.sign(
    WEB_CRYPTO_ALGORITHM[signer.key.alg],
    signer.key.privateKey,
    new TextEncoder().encode(input),
  );
  return `${input}.${base64url.encode(new Uint8Array(signature))}`;
}

/** A compact JWS whose "signature" is an HMAC: what an attacker makes who knows only the public key. */
export async function forgeHmac(header: unknown, payload: unknown, secret: string): Promise<string> {
  const input = signingInput(header, payload);
  const algorithm = { name: "HMAC", hash: "SHA-256" };
  const key = await crypto.subtle.importKey("raw", new TextEncoder().encode(secret), algorithm, false, ["sign"]);
  const signature = await crypto.subtle.sign("HMAC", key, new TextEncoder().encode(input));
  return `${input}.${base64url.encode(new Uint8Array(signature))}`;
}

const WEB_CRYPTO_ALGORITHM = {
  EdDSA: { name: "Ed25519" },
  ES256: { name: "ECDSA", hash: "SHA-256" },
  RS256: { name: "RSASSA-PKCS1-v1_5" },
} as const satisfies Record<SignatureAlgorithm, unknown>;

function encodePart(part: unknown): string {
  return base64url.encode(typeof part === "string" ? part : JSON.stringify(part));
}

/** Claims that every check accepts at `now` (seconds since the epoch). */
export function goodClaims(now: number, rules: { readonly issuer: string; readonly audience: string }) {
  return {
    iss: rules.issuer,
    aud: rules.audience,
    sub: "u_ada",
    client_id: "keycard",
    iat: now,
    exp: now + 300,
    jti: "t_1",
    sid: "u_ada.s1",
    auth_time: now - 60,
    gen: 1,
    tid: "acme",
    scope: "chat",
    keys: ["device:7"],
  } satisfies AccessTokenClaims;
}

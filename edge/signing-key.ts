/**
 * A signing key as it is made, kept and brought back. The private half exists in two forms only: wrapped (AES-256-GCM under
 * a key derived from KEYCARD_SECRET), and as a CryptoKey that cannot be exported. Its bytes never appear in JavaScript.
 */
import { base64url, calculateJwkThumbprint, type JWK } from "jose";
import type { SignatureAlgorithm, SigningKey } from "#contract/access-token";
import { subkey } from "./subkeys.ts";

/** What is stored, and what may travel between objects. */
export interface WrappedKey {
  /** The key's JWK thumbprint (RFC 7638). */
  readonly kid: string;
  readonly alg: SignatureAlgorithm;
  /** base64url: 96 bits of nonce, then PKCS #8 sealed with the `kid` as additional data. */
  readonly wrapped: string;
}

const ALGORITHMS: Readonly<Record<SignatureAlgorithm, SubtleCryptoGenerateKeyAlgorithm>> = {
  // 2048 bits is what the CAEP interoperability profile asks of a transmitter at least.
  RS256: {
    name: "RSASSA-PKCS1-v1_5",
    hash: "SHA-256",
    modulusLength: 2048,
    publicExponent: new Uint8Array([1, 0, 1]),
  },
  ES256: { name: "ECDSA", namedCurve: "P-256" },
  EdDSA: { name: "Ed25519" },
};

const NONCE_BYTES = 12;

/** A new key: its public half ready for a JWK Set, its private half wrapped. */
export async function generateSigningKey(
  alg: SignatureAlgorithm,
  secret: string,
): Promise<{ readonly publicJwk: JWK; readonly key: WrappedKey }> {
  const pair = (await crypto.subtle.generateKey(ALGORITHMS[alg], true, ["sign", "verify"])) as CryptoKeyPair;
  const { kty, crv, x, y, n, e } = (await crypto.subtle.exportKey("jwk", pair.publicKey)) as JWK;
  const members = Object.entries({ kty, crv, x, y, n, e }).filter(([, value]) => value !== undefined);
  const publicJwk: JWK = Object.fromEntries(members);
  const kid = await calculateJwkThumbprint(publicJwk);
  const nonce = crypto.getRandomValues(new Uint8Array(NONCE_BYTES));
  const sealed = await crypto.subtle.wrapKey("pkcs8", pair.privateKey, await wrappingKey(secret), seal(nonce, kid));
  const bytes = new Uint8Array([...nonce, ...new Uint8Array(sealed)]);
  return { publicJwk: { ...publicJwk, use: "sig", alg, kid }, key: { kid, alg, wrapped: base64url.encode(bytes) } };
}

/** The key, able to sign and nothing else. Fails when KEYCARD_SECRET is not the one that it was wrapped under. */
export async function unwrapSigningKey({ kid, alg, wrapped }: WrappedKey, secret: string): Promise<SigningKey> {
  const bytes = base64url.decode(wrapped);
  const privateKey = await crypto.subtle.unwrapKey(
    "pkcs8",
    bytes.slice(NONCE_BYTES),
    await wrappingKey(secret),
    seal(bytes.slice(0, NONCE_BYTES), kid),
    ALGORITHMS[alg],
    false,
    ["sign"],
  );
  return { kid, alg, privateKey };
}

function wrappingKey(secret: string): Promise<CryptoKey> {
  return crypto.subtle.importKey("raw", subkey(secret, "key-wrapping"), "AES-GCM", false, ["wrapKey", "unwrapKey"]);
}

function seal(nonce: Uint8Array<ArrayBuffer>, kid: string) {
  return { name: "AES-GCM", iv: nonce, additionalData: new TextEncoder().encode(kid) };
}

/**
 * A signing key as it is made, kept and brought back. The private half exists in two forms only: wrapped (AES-256-GCM under
 * a key derived from KEYCARD_SECRET), and as a CryptoKey that cannot be exported. Its bytes never appear in JavaScript. Only while
 * it is made, or wrapped anew under another secret, is there a CryptoKey that could be exported, and nobody else sees that one.
 */
import { base64url, calculateJwkThumbprint, type JWK } from "jose";
import type { SignatureAlgorithm, SigningKey } from "#contract/access-token";
import { Refusal } from "#contract/refusal";
import { type Secrets, secretName, subkey } from "../subkeys.ts";

/** What a key signs: tokens and whatever else the cluster verifies, or events for receivers outside. */
export type KeyPurpose = "access" | "events";

/** The CAEP interoperability profile (section 2.6) demands RS256 of a transmitter. */
export const EVENTS_ALGORITHM = "RS256" satisfies SignatureAlgorithm;

/** The object that keeps them. There is one. */
export const KEY_RING_NAME = "keys";

/** What is stored, and what may travel between objects. */
export interface WrappedKey {
  /** The key's JWK thumbprint (RFC 7638). */
  readonly kid: string;
  readonly alg: SignatureAlgorithm;
  /** base64url: 96 bits of nonce, then PKCS #8 sealed with the `kid` as additional data. */
  readonly wrapped: string;
  /** `secretName` of the secret that it is wrapped under; null for keys of before this was written down. */
  readonly wrapped_by: string | null;
}

export interface NewKey {
  readonly publicJwk: JWK;
  readonly key: WrappedKey;
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
export async function generateSigningKey(alg: SignatureAlgorithm, [secret]: Secrets): Promise<NewKey> {
  const pair = (await crypto.subtle.generateKey(ALGORITHMS[alg], true, ["sign", "verify"])) as CryptoKeyPair;
  const { kty, crv, x, y, n, e } = (await crypto.subtle.exportKey("jwk", pair.publicKey)) as JWK;
  const members = Object.entries({ kty, crv, x, y, n, e }).filter(([, value]) => value !== undefined);
  const publicJwk: JWK = Object.fromEntries(members);
  const kid = await calculateJwkThumbprint(publicJwk);
  return { publicJwk: { ...publicJwk, use: "sig", alg, kid }, key: await wrap(kid, alg, pair.privateKey, secret) };
}

/** The same key under the current secret. @throws {Refusal} `unavailable` as `unwrapSigningKey` */
export async function rewrapSigningKey(key: WrappedKey, secrets: Secrets): Promise<WrappedKey> {
  const { kid, alg } = key;
  return await wrap(kid, alg, await unwrap(key, secrets, true), secrets[0]);
}

/**
 * The key, able to sign and nothing else.
 *
 * @throws {Refusal} `unavailable` when it was wrapped under none of the secrets
 */
export async function unwrapSigningKey(key: WrappedKey, secrets: Secrets): Promise<SigningKey> {
  return { kid: key.kid, alg: key.alg, privateKey: await unwrap(key, secrets, false) };
}

async function wrap(kid: string, alg: SignatureAlgorithm, privateKey: CryptoKey, secret: string): Promise<WrappedKey> {
  const nonce = crypto.getRandomValues(new Uint8Array(NONCE_BYTES));
  const sealed = await crypto.subtle.wrapKey("pkcs8", privateKey, await wrappingKey(secret), seal(nonce, kid));
  const bytes = new Uint8Array([...nonce, ...new Uint8Array(sealed)]);
  return { kid, alg, wrapped: base64url.encode(bytes), wrapped_by: secretName(secret) };
}

async function unwrap(
  { kid, alg, wrapped, wrapped_by }: WrappedKey,
  secrets: Secrets,
  extractable: boolean,
): Promise<CryptoKey> {
  const bytes = base64url.decode(wrapped);
  const [nonce, sealed] = [bytes.slice(0, NONCE_BYTES), bytes.slice(NONCE_BYTES)];
  let cause: unknown;
  for (const secret of secrets.filter((each) => wrapped_by === null || secretName(each) === wrapped_by)) {
    try {
      const by = await wrappingKey(secret);
      return await crypto.subtle.unwrapKey("pkcs8", sealed, by, seal(nonce, kid), ALGORITHMS[alg], extractable, [
        "sign",
      ]);
    } catch (error) {
      // AES-GCM says no more than that it does not fit; the next secret may.
      cause = error;
    }
  }
  const detail = "the signing key was wrapped under another KEYCARD_SECRET; set that one as KEYCARD_SECRET_PREVIOUS";
  throw new Refusal("unavailable", { cause, detail });
}

function wrappingKey(secret: string): Promise<CryptoKey> {
  return crypto.subtle.importKey("raw", subkey(secret, "key-wrapping"), "AES-GCM", false, ["wrapKey", "unwrapKey"]);
}

function seal(nonce: Uint8Array<ArrayBuffer>, kid: string) {
  return { name: "AES-GCM", iv: nonce, additionalData: new TextEncoder().encode(kid) };
}

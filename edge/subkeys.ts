/** One secret is configured. Every use gets a key of its own from it, so that no use can speak for another. */
import { createHash, createHmac, timingSafeEqual } from "node:crypto";
import { base64url } from "jose";

/**
 * The secret, and after it, while it is being replaced, the one before. What is written is written with the first; what is read
 * may have been written with any.
 */
export type Secrets = readonly [current: string, ...before: string[]];

type Use = "refresh-chain" | "refresh-tag" | "key-wrapping" | "secret-name";

/** Every refresh needs three. By secret and use; an isolate knows one secret, or two. */
const derived = new Map<string, Uint8Array<ArrayBuffer>>();
const MAX_DERIVED = 32;

/** 256 bits for one use: HMAC-SHA-256 as a pseudorandom function over a label. For reading only. */
export function subkey(secret: string, use: Use): Uint8Array<ArrayBuffer> {
  const known = derived.get(`${use}/${secret}`);
  if (known !== undefined) return known;
  const key = createHmac("sha256", secret).update(`keycard/1/${use}`).digest();
  if (derived.size >= MAX_DERIVED) derived.clear();
  derived.set(`${use}/${secret}`, key);
  return key;
}

/** Tells one secret from another, and nothing else of it: 64 bits, base64url. */
export function secretName(secret: string): string {
  return base64url.encode(subkey(secret, "secret-name").slice(0, 8));
}

/** Whether two texts are equal, in a time that tells nothing about where they differ or how long they are. */
export function sameSecret(a: string, b: string): boolean {
  return timingSafeEqual(createHash("sha256").update(a).digest(), createHash("sha256").update(b).digest());
}

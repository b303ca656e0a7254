/** One secret is configured. Every use gets a key of its own from it, so that no use can speak for another. */
import { createHash, createHmac, timingSafeEqual } from "node:crypto";

/** 256 bits for one use: HMAC-SHA-256 as a pseudorandom function over a label. */
export function subkey(secret: string, use: "refresh-chain" | "refresh-tag" | "key-wrapping"): Uint8Array<ArrayBuffer> {
  return createHmac("sha256", secret).update(`keycard/1/${use}`).digest();
}

/** Whether two texts are equal, in a time that tells nothing about where they differ or how long they are. */
export function sameSecret(a: string, b: string): boolean {
  return timingSafeEqual(createHash("sha256").update(a).digest(), createHash("sha256").update(b).digest());
}

/** Names that the edge makes up. All are random, so that no object has to be asked for the next one. */
import { createHash } from "node:crypto";
import { base64url } from "jose";

const BASE62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
/** The largest multiple of 62 in a byte: above it a remainder would favour the first letters. */
const FAIR_BYTES = 248;

/** `bits` of randomness as base64url without padding: 128 are 22 characters, 256 are 43. */
export function randomName(bits: 128 | 256): string {
  return base64url.encode(crypto.getRandomValues(new Uint8Array(bits / 8)));
}

/** A subject: `u_` and 16 characters of base62, 95 bits. */
export function newSubject(): string {
  let name = "u_";
  while (name.length < 18) {
    const [byte = FAIR_BYTES] = crypto.getRandomValues(new Uint8Array(1));
    if (byte < FAIR_BYTES) name += BASE62[byte % 62];
  }
  return name;
}

/** A revocation: `rev_` and 128 bits. */
export function newRevocationId(): string {
  return `rev_${randomName(128)}`;
}

/** A bulk revocation: `blk_` and 128 bits. */
export function newBulkId(): string {
  return `blk_${randomName(128)}`;
}

/** The id of a revocation that follows from what it is made of: the same parts, the same id. */
export function derivedRevocationId(...parts: readonly string[]): string {
  const whole = createHash("sha256").update(JSON.stringify(parts)).digest();
  return `rev_${base64url.encode(whole.slice(0, 16))}`;
}

/** An admin client: `c_` and 128 bits. */
export function newClientId(): string {
  return `c_${randomName(128)}`;
}

export function isClientId(text: string): boolean {
  return /^c_[A-Za-z0-9_-]{22}$/.test(text);
}

/** What the object that holds a link is named after: an issuer is a URL, so that no blank can be part of it. */
export function linkName({ issuer, subject }: { readonly issuer: string; readonly subject: string }): string {
  return `${issuer} ${subject}`;
}

/** The subject that a session belongs to: `sid` is `<sub>.<random>`. */
export function subjectOf(sid: string): string {
  return sid.slice(0, sid.lastIndexOf("."));
}

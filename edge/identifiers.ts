/** Names that the edge makes up. All are random, so that no object has to be asked for the next one. */
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

/** The subject that a session belongs to: `sid` is `<sub>.<random>`. */
export function subjectOf(sid: string): string {
  return sid.slice(0, sid.lastIndexOf("."));
}

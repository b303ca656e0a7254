/**
 * Seals what nodes of a cluster write into Redis, so that whoever can write there speaks for none of them. A seal is the signature of a JWS with
 * detached content (RFC 7515 appendix F), HS256 with the cluster's secret, whose payload is the words as a JSON array.
 *
 * It is made in the turn in which it is asked for: to hand so little to another thread takes longer than to do it, and a receipt is whole only when
 * every node's word is sealed.
 */
import { createHmac, timingSafeEqual } from "node:crypto";
import type { ClusterSecrets } from "#contract/cluster";

/** RFC 7518 section 3.2. */
const HEADER = Buffer.from(JSON.stringify({ alg: "HS256" })).toString("base64url");

/** @param words first what kind of thing it is, then all that it depends on, so that the seal fits nothing else */
export function seal([secret]: ClusterSecrets, words: readonly (string | number)[]): string {
  return sealBy(secret, words);
}

/** Whether somebody who knows the secret, or the one of before, put this seal on exactly these words. */
export function isSealed(secrets: ClusterSecrets, words: readonly (string | number)[], signature: string): boolean {
  const given = Buffer.from(signature);
  return secrets.some((secret) => {
    const own = Buffer.from(sealBy(secret, words));
    return own.length === given.length && timingSafeEqual(own, given);
  });
}

function sealBy(secret: string, words: readonly (string | number)[]): string {
  const payload = Buffer.from(JSON.stringify(words)).toString("base64url");
  return createHmac("sha256", secret).update(`${HEADER}.${payload}`).digest("base64url");
}

/** A seal: that it is the signature that the standard says, good for the words that it was put on and no others, by whoever knows the secret. */
import { FlattenedSign } from "jose";
import { expect, it } from "vitest";
import type { ClusterSecrets } from "#contract/cluster";
import { isSealed, seal } from "../../realtime/seal.ts";

const SECRET = "what the nodes of a cluster and its edge share";
const BEFORE = "the secret that they had before, also long";
const STRANGER = "a secret that somebody else has made up now";
const secrets: ClusterSecrets = [SECRET];
const both: ClusterSecrets = [SECRET, BEFORE];
const words = ["applied", "eu", "rev_é", 7] as const;

it("is the signature of a JWS with detached content, as another library makes it", async () => {
  const payload = new TextEncoder().encode(JSON.stringify(words));
  const key = new TextEncoder().encode(SECRET);
  const jws = await new FlattenedSign(payload).setProtectedHeader({ alg: "HS256" }).sign(key);
  expect(seal(secrets, words)).toBe(jws.signature);
});

it("is good for exactly the words that it was put on", () => {
  const signature = seal(secrets, words);
  expect(isSealed(secrets, words, signature)).toBe(true);
  for (const other of [
    ["applied", "eu", "rev_é", 8],
    ["applied", "eu", "rev_é", "7"],
    ["applied", "eu", "rev_é"],
    ["applied", "eu", "rev_é", 7, ""],
    ["applied", "eurev_é", 7],
    ["applied,eu", "rev_é", 7],
  ]) {
    expect(isSealed(secrets, other, signature)).toBe(false);
  }
});

it("is good by the secret of before as long as that is known, and by no other one", () => {
  const signature = seal([BEFORE], words);
  expect([isSealed(both, words, signature), isSealed(secrets, words, signature)]).toEqual([true, false]);
  expect(isSealed(both, words, seal([STRANGER], words))).toBe(false);
  for (const garbage of ["", "x", "a.b", "é", "A".repeat(43), `${seal(secrets, words)}=`]) {
    expect(isSealed(both, words, garbage)).toBe(false);
  }
});

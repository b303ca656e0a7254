/** A node checks signatures itself, and remembers which it found good: nobody gets in by that who would not get in without. */
import type { JWK } from "jose";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { SIGNATURE_ALGORITHMS } from "#contract/access-token";
import { Refusal } from "#contract/refusal";
import { until } from "../../infra/until.ts";
import { createVerifier, type Verifier } from "../../realtime/verifier.ts";
import { AUDIENCE, CLUSTER, createIssuer, type TestIssuer } from "../support/realtime-cluster.ts";
import { createSigner, forge, goodClaims, type TestSigner } from "../support/tokens.ts";

let issuer: TestIssuer;
let verifier: Verifier;
const signers: Record<string, TestSigner> = {};
const QUIET = { onProblem: () => undefined, onBack: () => undefined };

beforeAll(async () => {
  issuer = await createIssuer();
  for (const alg of SIGNATURE_ALGORITHMS) {
    const signer = await createSigner(alg, `key-${alg}`);
    issuer.publish(signer);
    signers[alg] = signer;
  }
  const trusted = { issuer: issuer.url, audience: AUDIENCE };
  verifier = createVerifier({ issuers: [trusted], cluster: CLUSTER, clockSkewSeconds: 0, ...QUIET });
  await verifier.ready();
});

afterAll(async () => {
  verifier.close();
  await issuer.stop();
});

function signer(alg: string): TestSigner {
  return signers[alg] as TestSigner;
}

function claims() {
  return goodClaims(Math.floor(Date.now() / 1000), { issuer: issuer.url, audience: AUDIENCE });
}

async function verdict(token: unknown): Promise<string> {
  return await verifier.accessToken(token).then(
    ({ sub }) => sub,
    (thrown: unknown) => (thrown instanceof Refusal ? thrown.code : String(thrown)),
  );
}

describe.each(SIGNATURE_ALGORITHMS)("a token signed with %s", (alg) => {
  it("is good, and good again, with the same claims", async () => {
    const token = await issuer.token({ sub: "u_ada", keys: ["device:7"] }, signer(alg));
    const first = await verifier.accessToken(token);
    const again = await verifier.accessToken(token);
    expect(again).toEqual(first);
    expect(again.kid).toBe(`key-${alg}`);
  });

  it("gives each socket claims of its own: an app that writes into them changes nobody else's", async () => {
    const token = await issuer.token({ sub: "u_ada", keys: ["device:7"] }, signer(alg));
    const first = await verifier.accessToken(token);
    Object.assign(first, { sub: "u_root", scope: "admin" });
    (first.keys as string[]).push("device:8");
    const again = await verifier.accessToken(token);
    expect([again.sub, again.scope, again.keys]).toEqual(["u_ada", undefined, ["device:7"]]);
  });

  it("is refused with anything of it changed, though the true one is remembered", async () => {
    const token = await issuer.token({ sub: "u_ada" }, signer(alg));
    expect(await verdict(token)).toBe("u_ada");
    const [header = "", payload = "", signature = ""] = token.split(".");
    const other = (await issuer.token({ sub: "u_root" }, signer(alg))).split(".");
    const flipped = (signature[9] === "A" ? "B" : "A") + signature.slice(10);
    for (const changed of [
      `${header}.${other[1]}.${signature}`,
      `${header}.${payload}.${other[2]}`,
      `${header}.${payload}.${signature.slice(0, 9)}${flipped}`,
      `${header}.${payload}.${signature.slice(0, -8)}`,
    ]) {
      expect(await verdict(changed)).toBe("token_invalid");
    }
    expect(await verdict(token)).toBe("u_ada");
  });

  it("ends with its key: once that is retired, what was remembered of it counts no longer", async () => {
    const retiring = await createSigner(alg, `retiring-${alg}`);
    const retire = issuer.publish(retiring);
    verifier.renewKeys(issuer.url);
    const token = await issuer.token({ sub: "u_ada" }, retiring);
    await until("the key is known", async () => (await verdict(token)) === "u_ada");
    retire();
    verifier.renewKeys(issuer.url);
    await until("it is refused", async () => (await verdict(token)) === "token_invalid");
    const successor = issuer.publish(await createSigner(alg, `retiring-${alg}`));
    verifier.renewKeys(issuer.url);
    expect(await verdict(token)).not.toBe("u_ada");
    successor();
  });

  it("is refused under the name of another key, and with a header that asks for more", async () => {
    const other = SIGNATURE_ALGORITHMS.find((each) => each !== alg);
    const header = { typ: "at+jwt", alg, kid: `key-${alg}` };
    expect(await verdict(await forge(header, claims(), signer(alg)))).toBe("u_ada");
    for (const change of [
      { kid: `key-${other}` },
      { alg: other },
      { crit: ["urn:x"], "urn:x": true },
      { crit: ["b64"], b64: false },
      { typ: "JWT" },
    ]) {
      expect(await verdict(await forge({ ...header, ...change }, claims(), signer(alg)))).toBe("token_invalid");
    }
  });
});

describe("a remembered token", () => {
  it("is judged anew each time: it expires", async () => {
    const token = await issuer.token({ sub: "u_ada", exp: Math.floor(Date.now() / 1000) + 2 });
    expect(await verdict(token)).toBe("u_ada");
    await until("it has expired", async () => (await verdict(token)) === "token_expired");
  });

  it("is good for nobody who trusts the issuer for something else", async () => {
    const token = await issuer.token({ sub: "u_ada" });
    expect(await verdict(token)).toBe("u_ada");
    const trusted = { issuer: issuer.url, audience: "elsewhere" };
    const stranger = createVerifier({ issuers: [trusted], cluster: CLUSTER, clockSkewSeconds: 0, ...QUIET });
    await stranger.ready();
    await expect(stranger.accessToken(token)).rejects.toMatchObject({ code: "token_invalid" });
    stranger.close();
  });
});

it("an RSA key that is too short signs for nobody", async () => {
  const algorithm = { name: "RSASSA-PKCS1-v1_5", modulusLength: 1024, publicExponent: new Uint8Array([1, 0, 1]) };
  const pair = await crypto.subtle.generateKey({ ...algorithm, hash: "SHA-256" }, true, ["sign", "verify"]);
  const publicJwk = { ...(await crypto.subtle.exportKey("jwk", pair.publicKey)), kid: "short", use: "sig" } as JWK;
  const short: TestSigner = { key: { kid: "short", alg: "RS256", privateKey: pair.privateKey }, publicJwk };
  const withdraw = issuer.publish(short);
  const bystander = await createSigner("RS256", "bystander");
  issuer.publish(bystander);
  verifier.renewKeys(issuer.url);
  const known = await issuer.token({ sub: "u_ada" }, bystander);
  await until("the keys are known", async () => (await verdict(known)) === "u_ada");
  const header = { typ: "at+jwt", alg: "RS256", kid: "short" };
  expect(await verdict(await forge(header, claims(), short))).not.toBe("u_ada");
  withdraw();
});

/** The signing keys: published, kept wrapped, of the kind that was asked for, replaced in time and retired at once. */
import { createExecutionContext, evictDurableObject, runInDurableObject } from "cloudflare:test";
import { env } from "cloudflare:workers";
import { createLocalJWKSet, createRemoteJWKSet, customFetch, type JSONWebKeySet, jwtVerify } from "jose";
import { expect, test } from "vitest";
import { SIGNATURE_ALGORITHMS, verifyAccessToken } from "#contract/access-token";
import { app } from "../../edge/app.ts";
import { signingKey } from "../../edge/keys/issuer.ts";
import { call, ISSUER, login, newMember, ok, PASSWORD, type Tokens } from "./edge.ts";

const keyRing = () => env.KEY_RING.getByName("keys");

async function jwks(): Promise<JSONWebKeySet> {
  return await ok(await call("GET", "/.well-known/jwks.json"));
}

test("the key set holds public keys only, each with its name, use and algorithm", async () => {
  const response = await call("GET", "/.well-known/jwks.json");
  expect(response.headers.get("cache-control")).toBe("public, max-age=300");
  const { keys } = await ok<JSONWebKeySet>(response);
  expect(keys.length).toBeGreaterThan(0);
  for (const key of keys) {
    expect(key).toMatchObject({ use: "sig", kid: expect.any(String), alg: expect.any(String) });
    for (const secret of ["d", "p", "q", "dp", "dq", "qi", "k"]) expect(key).not.toHaveProperty(secret);
  }
});

test("a node that knows nothing but the issuer verifies a token", async () => {
  const { access_token, sub } = await login(await newMember());
  const keys = createRemoteJWKSet(new URL(`${ISSUER}/.well-known/jwks.json`), {
    [customFetch]: () => call("GET", "/.well-known/jwks.json"),
  });
  const rules = { issuer: ISSUER, audience: "keycard", algorithms: ["RS256"], clockSkewSeconds: 0 } as const;
  expect((await verifyAccessToken(access_token, keys, rules)).sub).toBe(sub);
});

test.for(SIGNATURE_ALGORITHMS)("%s tokens verify, and the keys of before stay published", async (alg) => {
  const person = await newMember();
  const before = await login(person);
  const settings = { ...env, ACCESS_TOKEN_ALG: alg };
  const ask = (path: string, init?: RequestInit) => {
    return Promise.resolve(app.fetch(new Request(ISSUER + path, init), settings, createExecutionContext()));
  };
  const body = JSON.stringify({ login: person.login, password: PASSWORD });
  const headers = { "content-type": "application/json" };
  const after = await ok<Tokens>(await ask("/login", { method: "POST", body, headers }));
  const keys = createLocalJWKSet(await ok<JSONWebKeySet>(await ask("/.well-known/jwks.json")));
  const { protectedHeader } = await jwtVerify(after.access_token, keys, { algorithms: [alg], typ: "at+jwt" });
  expect(protectedHeader.alg).toBe(alg);
  expect((await jwtVerify(before.access_token, keys)).payload.sub).toBe(person.sub);
  const sessions = await ask("/sessions", { headers: { authorization: `Bearer ${before.access_token}` } });
  expect(sessions.status).toBe(200);
});

test("the private key cannot be taken out of the isolate", async () => {
  const { privateKey } = await signingKey(env);
  expect(privateKey.extractable).toBe(false);
  for (const format of ["pkcs8", "jwk"]) {
    await expect(crypto.subtle.exportKey(format, privateKey)).rejects.toThrow();
  }
});

test("the private key is stored only wrapped", async () => {
  const stored = await runInDurableObject(keyRing(), (_, { storage }) =>
    JSON.stringify(storage.sql.exec("SELECT * FROM keys").toArray()),
  );
  expect(stored).toContain("wrapped");
  // "MII" opens every PKCS #8 structure of an RSA key in base64.
  for (const sign of ['\\"d\\"', "PRIVATE KEY", '"MII']) expect(stored).not.toContain(sign);
});

test("the keys outlive the object, and are made once however many ask at first", async () => {
  const before = await jwks();
  await evictDurableObject(keyRing());
  const outcomes = await Promise.all(Array.from({ length: 10 }, () => keyRing().current("EdDSA")));
  expect(new Set(outcomes.map((outcome) => ("value" in outcome ? outcome.value.kid : ""))).size).toBe(1);
  expect((await jwks()).keys).toEqual(expect.arrayContaining(before.keys));
});

/**
 * The key ring through its years: every test has a ring of its own, an isolate of its own (an environment that nothing is cached
 * for), and its own time.
 */
import { createExecutionContext, evictDurableObject, runDurableObjectAlarm, runInDurableObject } from "cloudflare:test";
import { env } from "cloudflare:workers";
import { createLocalJWKSet, decodeJwt, decodeProtectedHeader, type JSONWebKeySet, jwtVerify } from "jose";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { type SignatureAlgorithm, signTyped } from "#contract/access-token";
import { verifyRevocation } from "#contract/revocation";
import { RevocationIndex } from "#contract/revocation-index";
import { app } from "../../edge/app.ts";
import { readConfig } from "../../edge/config.ts";
import { eventSigningKey, forgetKeys, readAccessToken, signingKey } from "../../edge/keys/issuer.ts";
import type { KeyRing, KeySummary } from "../../edge/keys/key-ring.ts";
import { generateSigningKey, type KeyPurpose } from "../../edge/keys/signing-key.ts";
import { ask } from "../../edge/outcome.ts";
import { lifeOf, until } from "./cluster.ts";
import type { Headers, Tokens } from "./edge.ts";
import { ADMIN, bearer, call, claims, ISSUER, login, newMember, ok, PASSWORD, post, refresh, refusal } from "./edge.ts";

const SECOND_MS = 1_000;
const HOUR_MS = 3_600_000;
const DAY_MS = 86_400_000;
/** Of an access token, with the rotation's own reserve for clocks and isolates. */
const LONGEST_TOKEN_MS = HOUR_MS;

let ring: DurableObjectStub<KeyRing>;
beforeEach(() => {
  ring = env.KEY_RING.getByName(crypto.randomUUID());
});
afterEach(() => {
  vi.useRealTimers();
});

function setNow(ms: number): void {
  vi.useFakeTimers({ toFake: ["Date"], now: ms });
}

const kidOfCurrent = async () => (await ask(ring.current("EdDSA"))).kid;
const published = async () => (await ask(ring.jwks("RS256"))).keys.map(({ kid }) => kid);
const current = async () => (await ask(ring.current("RS256"))).kid;
const states = async () => (await ask(ring.list())).map(({ state }) => state);
const alarmAt = () => runInDurableObject(ring, (_, { storage }) => storage.getAlarm());

/** Lets time pass until the ring wants to turn, and wakes it. It may want to be woken before, to tell what it has done. */
async function nextAlarm(): Promise<number> {
  let at = (await alarmAt())!;
  for (; at - Date.now() <= 60 * SECOND_MS; at = (await alarmAt())!) await runDurableObjectAlarm(ring);
  setNow(at);
  expect(await runDurableObjectAlarm(ring)).toBe(true);
  return at;
}

/** An isolate that has its own ring, as a Worker of its own would. */
function isolate(settings: object = {}): Env {
  return { ...env, KEY_RING: { getByName: () => ring }, ...settings } as unknown as Env;
}

function at(settings: Env, method: string, path: string, body?: unknown, headers: Headers = {}): Promise<Response> {
  const json = body === undefined ? {} : { "content-type": "application/json" };
  const text = body === undefined ? null : JSON.stringify(body);
  const request = new Request(ISSUER + path, { method, body: text, headers: { ...json, ...headers } });
  return Promise.resolve(app.fetch(request, settings, createExecutionContext()));
}

test("the next key is published longer than any cache lives before it signs, and the old one until its last token is dead", async () => {
  const begin = Date.now();
  setNow(begin);
  const first = await current();
  const prepared = await nextAlarm();
  expect(prepared - begin).toBe(30 * DAY_MS - HOUR_MS);
  expect(await current()).toBe(first);
  expect(await states()).toEqual(["next", "current"]);
  const second = (await published()).find((kid) => kid !== first);

  const tookOver = await nextAlarm();
  expect(tookOver - prepared).toBeGreaterThanOrEqual(HOUR_MS);
  expect(await current()).toBe(second);
  expect(await states()).toEqual(["current", "retiring"]);

  setNow(tookOver + LONGEST_TOKEN_MS);
  expect(await published()).toEqual([first, second]);
  setNow(tookOver + LONGEST_TOKEN_MS + 11 * 60 * SECOND_MS);
  expect(await published()).toEqual([second]);
  expect(await states()).toEqual(["current", "gone"]);
});

test("through ten rotations there is always one current key, known to the world an hour before it signs", async () => {
  setNow(Date.now());
  const since = new Map([[await current(), 0]]);
  let rotations = 0;
  let before = await current();
  while (rotations < 10) {
    const now = await nextAlarm();
    const states = (await ask(ring.list())).map(({ state }) => state);
    expect(states.filter((state) => state === "current")).toHaveLength(1);
    for (const kid of await published()) if (kid !== undefined && !since.has(kid)) since.set(kid, now);
    const signs = await current();
    if (signs !== before) {
      rotations++;
      expect(now - since.get(signs)!).toBeGreaterThanOrEqual(HOUR_MS);
      expect(await published()).toContain(before);
    }
    before = signs;
  }
});

test("an alarm that comes much too late rotates in good order all the same", async () => {
  const begin = Date.now();
  setNow(begin);
  const first = await current();
  setNow(begin + 300 * DAY_MS);
  await runDurableObjectAlarm(ring);
  expect(await current()).toBe(first);
  expect(await published()).toHaveLength(2);
  await nextAlarm();
  expect(await current()).not.toBe(first);
});

test("the private half is destroyed when a key signs no more", async () => {
  setNow(Date.now());
  const first = await current();
  await nextAlarm();
  await nextAlarm();
  const rows = await runInDurableObject(ring, (_, { storage }) =>
    storage.sql.exec<{ kid: string; wrapped: string }>("SELECT kid, wrapped FROM keys").toArray(),
  );
  expect(rows.find(({ kid }) => kid === first)?.wrapped).toBe("");
  expect(rows.filter(({ wrapped }) => wrapped !== "")).toHaveLength(1);
});

test("the rotation outlives the object, and a line that is not configured ends instead", async () => {
  setNow(Date.now());
  const other = await kidOfCurrent();
  const first = await current();
  await evictDurableObject(ring);
  for (let turns = 0; turns < 4; turns++) await nextAlarm();
  const keys = await ask(ring.list());
  expect(keys.find(({ kid }) => kid === other)?.state).not.toBe("current");
  expect(keys.filter(({ alg }) => alg === "EdDSA")).toHaveLength(1);
  expect(keys.find(({ kid }) => kid === first)?.state).toMatch(/retiring|gone/);
});

test("keys for events are RS256 and of their own, whatever signs the tokens", async () => {
  const settings = isolate({ ACCESS_TOKEN_ALG: "ES256" });
  const [access, events] = [await signingKey(settings), await eventSigningKey(settings)];
  expect([access.alg, events.alg]).toEqual(["ES256", "RS256"]);
  expect(events.privateKey.extractable).toBe(false);
  const set = await signTyped("secevent+jwt", { iss: ISSUER, jti: "x" }, events);
  const keys = createLocalJWKSet(await ok<JSONWebKeySet>(await at(isolate(), "GET", "/.well-known/jwks.json")));
  expect((await jwtVerify(set, keys)).payload.jti).toBe("x");
});

test("an administrator can hurry: the next key takes over as soon as it is known everywhere", async () => {
  const begin = Date.now();
  setNow(begin);
  const settings = isolate();
  const first = await current();
  const answer = await at(settings, "POST", "/admin/keys/rotate", { reason: "as every spring" }, ADMIN);
  const { keys, ...rest } = await ok<{ keys: KeySummary[] }>(answer);
  expect(rest).toEqual({});
  expect(keys.map(({ state }) => state).sort()).toEqual(["current", "next"]);
  expect(await current()).toBe(first);
  expect(await nextAlarm()).toBe(begin + HOUR_MS);
  expect(await current()).not.toBe(first);
});

test("an emergency: a fresh key signs at once, what the old one signed is dead, and every node is told which", async () => {
  const person = await newMember();
  const settings = isolate();
  const body = { login: person.login, password: PASSWORD };
  const before = await ok<Tokens>(await at(settings, "POST", "/login", body));
  const { kid } = decodeProtectedHeader(before.access_token);
  expect((await at(settings, "GET", "/sessions", undefined, bearer(before.access_token))).status).toBe(200);

  const order = { retire: true, reason: "it was seen on a screen" };
  const answer = await ok<{ keys: KeySummary[]; revocation: string }>(
    await at(settings, "POST", "/admin/keys/rotate", order, ADMIN),
  );
  expect(answer.keys.find((key) => key.kid === kid)).toMatchObject({ state: "gone", reason: order.reason });
  expect(answer.keys.filter(({ state }) => state === "current")).toHaveLength(1);
  const jwks = await ok<JSONWebKeySet>(await at(settings, "GET", "/.well-known/jwks.json"));
  expect(jwks.keys.map((key) => key.kid)).toEqual([answer.keys.find(({ state }) => state === "current")?.kid]);

  const rejected = await at(settings, "GET", "/sessions", undefined, bearer(before.access_token));
  expect(await refusal(rejected)).toBe("token_invalid");
  const after = await ok<Tokens>(await at(settings, "POST", "/refresh", { refresh_token: before.refresh_token }));
  expect(decodeProtectedHeader(after.access_token).kid).not.toBe(kid);
  expect((await at(settings, "GET", "/sessions", undefined, bearer(after.access_token))).status).toBe(200);

  const path = `/admin/revocations/${answer.revocation}`;
  const receipt = await ok(await call("GET", path, undefined, { ...ADMIN, prefer: "wait=5" }));
  expect(receipt).toMatchObject({ state: "enforced", target: { kind: "key", kid }, code: "token_revoked" });
  const { sets } = await lifeOf("south");
  const keys = createLocalJWKSet(await ok<JSONWebKeySet>(await call("GET", "/.well-known/jwks.json")));
  const rules = { issuer: ISSUER, audience: "south", algorithms: ["RS256"], clockSkewSeconds: 5 } as const;
  const ours = sets.find((set) => decodeJwt(set).jti === answer.revocation);
  const index = new RevocationIndex();
  index.merge(await verifyRevocation(ours, keys, rules));
  expect(index.check({ ...claims(before), kid })).toBe("token_revoked");
  expect(index.check({ ...claims(after), kid: decodeProtectedHeader(after.access_token).kid })).toBeUndefined();
});

test("the key that was to follow is retired with the current one", async () => {
  setNow(Date.now());
  await current();
  await nextAlarm();
  const known = await published();
  const actor = { kind: "admin", id: "root" } as const;
  const { revocation } = await ask(
    ring.rotate({ purpose: "access", alg: "RS256", retire: true, reason: "the secret got out", actor }),
  );
  expect(await published()).toHaveLength(1);
  expect(known).not.toContain(await current());
  const targets = await runInDurableObject(env.REVOCATION_LOG.getByName("log"), (_, { storage }) =>
    storage.sql.exec<{ targets: string }>("SELECT targets FROM events WHERE id = ?", revocation!).one(),
  );
  expect(
    JSON.parse(targets.targets)
      .map(({ kid }: { kid: string }) => kid)
      .sort(),
  ).toEqual([...known].sort());
});

test("of two who retire the same key at once one is told of the other, and one key is retired", async () => {
  const kid = await current();
  const order = { purpose: "access", alg: "RS256", retire: true, kid, reason: "twice" } as const;
  const actor = { kind: "admin", id: "root" } as const;
  const outcomes = await Promise.all([ring.rotate({ ...order, actor }), ring.rotate({ ...order, actor })]);
  expect(outcomes.map((outcome) => ("refused" in outcome ? outcome.refused.code : "done")).sort()).toEqual([
    "conflict",
    "done",
  ]);
  expect((await states()).sort()).toEqual(["current", "gone"]);
});

test("a key that is retiring can be ended early, and the one that signs goes on", async () => {
  setNow(Date.now());
  const first = await current();
  await nextAlarm();
  await nextAlarm();
  const signs = await current();
  const order = { purpose: "access", alg: "RS256", retire: true, reason: "an old backup was lost" } as const;
  const actor = { kind: "admin", id: "root" } as const;
  const { revocation } = await ask(ring.rotate({ ...order, kid: first, actor }));
  expect(revocation).toMatch(/^rev_/);
  expect(await published()).toEqual([signs]);
  expect(await current()).toBe(signs);
  expect(await ring.rotate({ ...order, kid: first, actor })).toMatchObject({ refused: { code: "conflict" } });
  expect(await ring.rotate({ ...order, kid: "nothing", actor })).toMatchObject({ refused: { code: "not_found" } });
});

test("every act on the keys is in the audit trail", async () => {
  await current();
  const actor = { kind: "admin", id: "root" } as const;
  const kid = await current();
  await ask(ring.rotate({ purpose: "access", alg: "RS256", retire: true, reason: "for the record", actor }));
  await until(async () => {
    const page = await ok<{ records: object[] }>(await call("GET", "/admin/audit?type=key_retired", undefined, ADMIN));
    expect(page.records).toContainEqual(expect.objectContaining({ kid, actor, reason: "for the record" }));
  });
});

test("an isolate that holds old keys asks again when it meets a new one, but not for every piece of garbage", async () => {
  const asked = vi.fn((alg: SignatureAlgorithm) => ring.jwks(alg));
  const settings = isolate({ KEY_RING: { getByName: () => ({ jwks: asked }) } });
  await ok(await at(settings, "GET", "/.well-known/jwks.json"));
  const actor = { kind: "admin", id: "root" } as const;
  await ask(ring.rotate({ purpose: "access", alg: "RS256", retire: true, reason: "elsewhere", actor }));
  const person = await newMember();
  const other = isolate();
  const { access_token } = await ok<Tokens>(
    await at(other, "POST", "/login", { login: person.login, password: PASSWORD }),
  );
  setNow(Date.now() + 2 * SECOND_MS);
  asked.mockClear();
  expect((await readAccessToken(settings, access_token)).sub).toBe(person.sub);
  expect(asked).toHaveBeenCalledTimes(1);
  const { key } = await generateSigningKey("RS256", ["a secret of nobody in particular, but long enough"]);
  expect(key.kid).not.toBe("");
  for (let times = 0; times < 5; times++) {
    const stranger = `${btoa(JSON.stringify({ alg: "RS256", kid: key.kid, typ: "at+jwt" }))}.e30.AAAA`.replaceAll(
      "=",
      "",
    );
    await expect(readAccessToken(settings, stranger)).rejects.toMatchObject({ code: "token_invalid" });
  }
  expect(asked).toHaveBeenCalledTimes(1);
});

test("while the key ring cannot be reached, keys serve on for a minute and no longer", async () => {
  let up = true;
  const demandUp = () => {
    if (!up) throw new Error("down");
  };
  const stub = {
    async jwks(alg: SignatureAlgorithm) {
      demandUp();
      return await ring.jwks(alg);
    },
    async current(alg: SignatureAlgorithm, purpose: KeyPurpose) {
      demandUp();
      return await ring.current(alg, purpose);
    },
  };
  const settings = isolate({ KEY_RING: { getByName: () => stub } });
  const now = Date.now();
  const { kid } = await signingKey(settings);
  up = false;
  setNow(now + 50 * SECOND_MS);
  expect((await signingKey(settings)).kid).toBe(kid);
  setNow(now + 90 * SECOND_MS);
  await expect(signingKey(settings)).rejects.toThrow("down");
  up = true;
  expect((await signingKey(settings)).kid).toBe(kid);
});

test.for([
  {},
  { reason: "" },
  { reason: "x", purpose: "other" },
  { reason: "x", retire: "yes" },
  { reason: "x", y: 1 },
])("an order like %j is refused and changes nothing", async (body) => {
  await current();
  const before = await ask(ring.list());
  expect(await refusal(await at(isolate(), "POST", "/admin/keys/rotate", body, ADMIN))).toBe("request_malformed");
  expect(await ask(ring.list())).toEqual(before);
});

test("nobody but administrators sees or turns the keys, and nobody sees a private one", async () => {
  expect(await refusal(await call("GET", "/admin/keys"))).toBe("token_missing");
  expect(await refusal(await post("/admin/keys/rotate", { reason: "x" }))).toBe("token_missing");
  await login(await newMember());
  const answer = await (await call("GET", "/admin/keys", undefined, ADMIN)).text();
  expect(answer).toContain('"state":"current"');
  expect(answer).not.toContain("wrapped");
});

const OLD = "a secret that only the tests have, and nobody else";
const NEW = "another secret, that took the place of the first one";

test("KEYCARD_SECRET can be replaced while people are logged in", async () => {
  const person = await newMember();
  const before = await login(person);
  const lost = await ok<Tokens>(await refresh(before.refresh_token));
  const settings = { ...env, KEYCARD_SECRET: NEW, KEYCARD_SECRET_PREVIOUS: OLD };
  await runInDurableObject(env.ACCOUNT.getByName(person.sub), async (account) => {
    expect(readConfig(env).secret).toEqual([OLD]);
    Object.defineProperty(account, "env", { value: settings });
  });
  // A retry across the change still gets the one successor that there is.
  const again = await ok<Tokens>(await at(settings, "POST", "/refresh", { refresh_token: before.refresh_token }));
  expect(again.refresh_token.split(".").slice(0, 5)).toEqual(lost.refresh_token.split(".").slice(0, 5));
  const on = await ok<Tokens>(await at(settings, "POST", "/refresh", { refresh_token: again.refresh_token }));
  expect((await at(settings, "GET", "/sessions", undefined, bearer(on.access_token))).status).toBe(200);

  // What was written under the new secret needs the old one no more.
  const later = { ...env, KEYCARD_SECRET: NEW };
  await runInDurableObject(env.ACCOUNT.getByName(person.sub), (account) => {
    Object.defineProperty(account, "env", { value: later });
  });
  const { refresh_token } = before;
  expect(await refusal(await at(later, "POST", "/refresh", { refresh_token }))).toBe("refresh_invalid");
});

test("keys are wrapped anew under the new secret, and open without the old one from then on", async () => {
  const kid = await current();
  const withSecrets = (settings: object) =>
    runInDurableObject(ring, (instance) => {
      Object.defineProperty(instance, "env", { value: { ...env, ...settings } });
    });
  await withSecrets({ KEYCARD_SECRET: NEW, KEYCARD_SECRET_PREVIOUS: OLD });
  const settings = isolate({ KEYCARD_SECRET: NEW, KEYCARD_SECRET_PREVIOUS: OLD });
  expect((await signingKey(settings)).kid).toBe(kid);
  await withSecrets({ KEYCARD_SECRET: NEW });
  const later = isolate({ KEYCARD_SECRET: NEW });
  const key = await signingKey(later);
  expect(key.kid).toBe(kid);
  expect(key.privateKey.extractable).toBe(false);
  const isolateOfBefore = isolate();
  forgetKeys(isolateOfBefore);
  await expect(signingKey(isolateOfBefore)).rejects.toMatchObject({ code: "unavailable" });
});

test("with a secret that opens no key nothing is signed, nothing is lost, and the log says what to do", async () => {
  const kid = await current();
  await runInDurableObject(ring, (instance) => {
    Object.defineProperty(instance, "env", { value: { ...env, KEYCARD_SECRET: NEW } });
  });
  await expect(signingKey(isolate({ KEYCARD_SECRET: NEW }))).rejects.toMatchObject({
    code: "unavailable",
    detail: expect.stringContaining("KEYCARD_SECRET_PREVIOUS"),
  });
  await evictDurableObject(ring);
  expect((await signingKey(isolate())).kid).toBe(kid);
});

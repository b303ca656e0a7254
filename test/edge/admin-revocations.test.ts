/** What an administrator can ask of a revocation besides a target: since when, except whom, how, whether once, and how many. */
import { abortAllDurableObjects, runDurableObjectAlarm, runInDurableObject } from "cloudflare:test";
import { env } from "cloudflare:workers";
import { decodeJwt } from "jose";
import { expect, test, vi } from "vitest";
import { asClient } from "./clients.ts";
import { lifeOf } from "./cluster.ts";
import {
  ADMIN,
  account,
  bearer,
  call,
  claims,
  type Headers,
  login,
  newMember,
  newPerson,
  ok,
  post,
  refresh,
  refusal,
  revocationLog,
} from "./edge.ts";

const PATH = "/admin/revocations";
const NOW = () => Math.floor(Date.now() / 1000);

async function revoked(body: object, headers: Headers = {}) {
  const response = await post(PATH, { reason: "a test", ...body }, { ...ADMIN, ...headers });
  expect(response.status).toBe(202);
  return await ok<{ id: string; target: Record<string, unknown>; mode: string; seq: number }>(response);
}

/** Makes a session look as if it had begun before. */
async function backdate(sid: string, seconds: number): Promise<void> {
  await runInDurableObject(account(sid.slice(0, sid.lastIndexOf("."))), (_, { storage }) => {
    storage.sql.exec("UPDATE sessions SET auth_time = auth_time - ? WHERE sid = ?", seconds, sid);
  });
}

async function lives(tokens: { refresh_token: string }): Promise<boolean> {
  return (await refresh(tokens.refresh_token)).status === 200;
}

async function eventOf(id: string) {
  await ok(await call("GET", `${PATH}/${id}`, undefined, { ...ADMIN, prefer: "wait=5" }));
  const set = (await lifeOf("south")).sets.find((each) => decodeJwt(each).jti === id) ?? "";
  return Object.values(decodeJwt<{ events: Record<string, Record<string, unknown>> }>(set).events)[0];
}

test("issued_before ends a user's sessions that began by then, and leaves the others with their tokens", async () => {
  const person = await newPerson();
  const [old, young] = [await login(person), await login(person)];
  await backdate(old.sid, 100);
  const { id } = await revoked({ target: { kind: "user", sub: person.sub }, issued_before: NOW() - 50 });
  expect([await lives(old), await lives(young)]).toEqual([false, true]);
  expect((await eventOf(id))?.targets).toEqual([{ kind: "session", sid: old.sid }]);
});

test("issued_before for a tenant is the cutoff, and never takes a later one back", async () => {
  const tid = crypto.randomUUID();
  const person = await newPerson({ tid });
  const tokens = await login(person);
  const past = NOW() - 50;
  const { target } = await revoked({ target: { kind: "tenant", tid }, issued_before: past });
  expect(target).toEqual({ kind: "tenant", tid, cutoff: past });
  expect(await lives(tokens)).toBe(true);
  const second = await login(person);
  await revoked({ target: { kind: "tenant", tid } });
  await revoked({ target: { kind: "tenant", tid }, issued_before: past });
  expect(await lives(second)).toBe(false);
});

test("the event of a past cutoff lives as long as a token that was refreshed just now", async () => {
  const target = { kind: "tenant", tid: crypto.randomUUID() };
  const { id } = await revoked({ target, issued_before: NOW() - 100_000 });
  expect(Number((await eventOf(id))?.expires_at)).toBeGreaterThan(NOW() + 300);
});

test("except leaves one session of a user, and no other", async () => {
  const person = await newPerson();
  const [kept, ...others] = [await login(person), await login(person), await login(person)];
  const { id } = await revoked({ target: { kind: "user", sub: person.sub }, except: kept?.sid });
  expect(kept && (await lives(kept))).toBe(true);
  for (const other of others) expect(await lives(other)).toBe(false);
  const targets = others.map(({ sid }) => ({ kind: "session", sid }));
  expect((await eventOf(id))?.targets).toEqual(expect.arrayContaining(targets));
});

test("a selection that nobody falls under is told, and hits nobody", async () => {
  const person = await newPerson();
  const tokens = await login(person);
  const { target, id } = await revoked({ target: { kind: "user", sub: person.sub }, issued_before: NOW() - 5000 });
  expect(target).toEqual({ kind: "user", sub: person.sub, generation: 0 });
  expect(claims(tokens).gen).toBeGreaterThanOrEqual(Number(target.generation));
  expect(await lives(tokens)).toBe(true);
  expect((await eventOf(id))?.targets).toEqual([target]);
});

test.for<[string, object]>([
  ["a second that is yet to come", { target: { kind: "everyone" }, issued_before: 4_000_000_000 }],
  ["a second for a session", { target: { kind: "session", sid: `a.${"A".repeat(22)}` }, issued_before: 1 }],
  ["a second for a token", { target: { kind: "token", jti: "a" }, issued_before: 1 }],
  ["an exception for a tenant", { target: { kind: "tenant", tid: "a" }, except: `a.${"A".repeat(22)}` }],
  ["somebody else's session excepted", { target: { kind: "user", sub: "b" }, except: `a.${"A".repeat(22)}` }],
  ["a margin without its mode", { target: { kind: "everyone" }, margin: 5 }],
  ["a margin of six minutes", { target: { kind: "everyone" }, mode: "reauthenticate", margin: 360 }],
  ["a mode that nobody knows", { target: { kind: "everyone" }, mode: "ask nicely" }],
])("a revocation with %s is malformed, and the member is named", async ([, body]) => {
  const response = await post(PATH, { reason: "x", ...body }, ADMIN);
  const { errors } = await response.clone().json<{ errors: { member: string; problem: string }[] }>();
  expect(errors[0]?.member).toMatch(/^(issued_before|except|margin|mode)$/);
  expect(await refusal(response)).toBe("request_malformed");
});

test("what is wrong with a member is told, and never what stood there", async () => {
  const secret = "a-token-that-was-put-in-the-wrong-place";
  const body = { target: { kind: "user", sub: `${secret} ` }, reason: 5, [secret]: 1 };
  const text = await (await post(PATH, body, ADMIN)).text();
  expect(
    JSON.parse(text)
      .errors.map(({ member }: { member: string }) => member)
      .sort(),
  ).toEqual(["body", "reason", "target.sub"]);
  expect(text).not.toContain(secret);
});

test("a session to be excepted that does not live is not found, and nothing changes", async () => {
  const person = await newPerson();
  const tokens = await login(person);
  const body = { target: { kind: "user", sub: person.sub }, except: `${person.sub}.${"A".repeat(22)}`, reason: "x" };
  expect(await refusal(await post(PATH, body, ADMIN))).toBe("not_found");
  expect(await lives(tokens)).toBe(true);
});

test("the manner goes with the event, and is kept with actor and reason", async () => {
  const headers = await asClient(["revocations:write", "revocations:read"]);
  const target = { kind: "token", jti: crypto.randomUUID() };
  const { id } = await revoked({ target, mode: "reauthenticate", margin: 20, reason: "a plan changed" }, headers);
  expect(await eventOf(id)).toMatchObject({ mode: "reauthenticate", margin: 20 });
  expect(await ok(await call("GET", `${PATH}/${id}`, undefined, headers))).toMatchObject({
    ...{ mode: "reauthenticate", margin: 20, reason: "a plan changed", actor: { kind: "client" } },
  });
  const plain = await revoked({ target });
  expect(Object.keys((await eventOf(plain.id)) ?? {})).not.toContain("mode");
  expect(plain.mode).toBe("disconnect");
});

test("a dry run counts sessions, and changes nothing", async () => {
  const person = await newPerson({ tid: "dry" });
  const [first, second] = [await login(person), await login(person)];
  await backdate(first.sid, 100);
  const counted = async (body: object) => await ok(await post(PATH, { reason: "x", dry_run: true, ...body }, ADMIN));
  const user = { kind: "user", sub: person.sub };
  expect(await counted({ target: user })).toMatchObject({ dry_run: true, target: user, sessions: 2, sockets: null });
  expect(await counted({ target: user, issued_before: NOW() - 50 })).toMatchObject({ sessions: 1 });
  expect(await counted({ target: user, except: first.sid })).toMatchObject({ sessions: 1 });
  expect(await counted({ target: { kind: "session", sid: first.sid } })).toMatchObject({ sessions: 1 });
  expect(await counted({ target: { kind: "tenant", tid: "dry" } })).toMatchObject({ sessions: null });
  const token = await counted({ target: { kind: "token", token: first.access_token } });
  expect(token).toMatchObject({ dry_run: true, target: { kind: "token" }, sessions: 0, sockets: null });
  expect([await lives(first), await lives(second)]).toEqual([true, true]);
});

test("a request that is repeated with its Idempotency-Key gets the first answer, and is carried out once", async () => {
  const person = await newPerson();
  const headers = { "idempotency-key": `"${crypto.randomUUID()}"` };
  const body = { target: { kind: "user", sub: person.sub } };
  const first = await revoked(body, headers);
  const between = await login(person);
  const again = await post(PATH, { reason: "a test", ...body }, { ...ADMIN, ...headers });
  expect(again.headers.get("idempotency-replayed")).toBe("true");
  expect(again.headers.get("location")).toBe(`${PATH}/${first.id}`);
  expect(await ok(again)).toEqual(first);
  expect(await lives(between)).toBe(true);
});

test("an Idempotency-Key with another request is refused, and another client's key is another one", async () => {
  const headers = { "idempotency-key": crypto.randomUUID() };
  const { id } = await revoked({ target: { kind: "token", jti: "one" } }, headers);
  const other = { target: { kind: "token", jti: "two" }, reason: "a test" };
  expect(await refusal(await post(PATH, other, { ...ADMIN, ...headers }))).toBe("idempotency_mismatch");
  const client = await asClient(["revocations:write"]);
  expect((await revoked({ target: { kind: "token", jti: "one" } }, { ...headers, ...client })).id).not.toBe(id);
  for (const key of ["", "x".repeat(129), "with space"]) {
    expect(await refusal(await post(PATH, other, { ...ADMIN, "idempotency-key": key }))).toBe("request_malformed");
  }
});

test("an order that was refused leaves its Idempotency-Key free", async () => {
  const headers = { "idempotency-key": crypto.randomUUID() };
  const wrong = { target: { kind: "user", sub: "nobody" }, reason: "x" };
  expect(await refusal(await post(PATH, wrong, { ...ADMIN, ...headers }))).toBe("not_found");
  await revoked({ target: { kind: "token", jti: "x" } }, headers);
});

test("an order whose answer was lost is not carried out again, wherever it had got to", async () => {
  const person = await newPerson();
  await login(person);
  const order = { id: `rev_${"a".repeat(21)}${Math.floor(Math.random() * 10)}`, reason: "x" };
  const first = await account(person.sub).revokeUser(order);
  const after = await login(person);
  const again = await account(person.sub).revokeUser({ ...order, again: true });
  expect(again).toMatchObject({ value: { targets: "value" in first ? first.value.targets : [] } });
  expect(await lives(after)).toBe(true);
});

interface Bulk {
  readonly id: string;
  readonly state: string;
  readonly users: number;
  readonly revoked: number;
  readonly not_found: number;
  readonly remaining: number;
  readonly clusters: readonly { cluster: string; delivered: number }[];
}

function bulk(id: string) {
  return env.BULK_REVOCATION.getByName(id);
}

async function workedOff(id: string, headers: Headers = ADMIN): Promise<Bulk> {
  return await vi.waitFor(
    async () => {
      await runDurableObjectAlarm(bulk(id));
      const receipt = await ok<Bulk>(await call("GET", `${PATH}/${id}`, undefined, headers));
      expect(receipt.remaining).toBe(0);
      return receipt;
    },
    { timeout: 60_000, interval: 20 },
  );
}

test("many users are revoked in one call, those that do not exist are counted, and the receipt says how far it is", async () => {
  const named = await newMember();
  const people = [await newPerson(), await newPerson(), named];
  const sessions = await Promise.all(people.map((person) => login(person)));
  const bystander = await login(await newPerson());
  const users = [people[0]?.sub, people[1]?.sub, { login: named.login }, "nobody", { login: "nobody@x.test" }];
  const response = await post(`${PATH}/bulk`, { users, reason: "a breach" }, ADMIN);
  expect(response.status).toBe(202);
  const accepted = await ok<Bulk>(response);
  expect(accepted).toMatchObject({ state: "pending", users: 5, remaining: 5 });
  expect(await workedOff(accepted.id)).toMatchObject({ users: 5, revoked: 3, not_found: 2, remaining: 0 });
  for (const tokens of sessions) expect(await lives(tokens)).toBe(false);
  expect(await lives(bystander)).toBe(true);
  await vi.waitFor(
    async () => {
      const receipt = await ok<Bulk>(await call("GET", `${PATH}/${accepted.id}`, undefined, ADMIN));
      expect(receipt).toMatchObject({ state: "enforced", clusters: [{ delivered: 3 }, { delivered: 3 }] });
    },
    { timeout: 60_000, interval: 50 },
  );
});

test("a bulk revocation outlives the crash of its object, and does nothing twice", async () => {
  const people = await Promise.all(Array.from({ length: 6 }, () => newPerson()));
  const users = people.map(({ sub }) => sub);
  const headers = { ...ADMIN, "idempotency-key": crypto.randomUUID() };
  const { id } = await ok<Bulk>(await post(`${PATH}/bulk`, { users, reason: "a breach" }, headers));
  await abortAllDurableObjects();
  expect((await ok<Bulk>(await post(`${PATH}/bulk`, { users, reason: "a breach" }, headers))).id).toBe(id);
  expect(await workedOff(id)).toMatchObject({ revoked: 6, not_found: 0 });
  // As if it had died between telling the accounts and writing that down.
  await runInDurableObject(bulk(id), (_, { storage }) => {
    storage.sql.exec(
      "INSERT INTO parts (users, attempts) VALUES (?, 0)",
      JSON.stringify(users.map((sub) => ({ sub }))),
    );
    storage.sql.exec("UPDATE bulk SET revoked = 0");
  });
  await workedOff(id);
  for (const { sub } of people) {
    expect(await ok(await call("GET", `/admin/accounts/${sub}`, undefined, ADMIN))).toMatchObject({ generation: 1 });
  }
});

test("a bulk revocation by a client of a tenant stays in it", async () => {
  const tid = crypto.randomUUID();
  const [inside, outside] = [await newPerson({ tid }), await newPerson()];
  const tokens = await login(outside);
  const headers = await asClient(["revocations:write", "revocations:read"], { tid });
  const body = { users: [inside.sub, outside.sub], reason: "x" };
  const { id } = await ok<Bulk>(await post(`${PATH}/bulk`, body, headers));
  expect(await workedOff(id, headers)).toMatchObject({ revoked: 1, not_found: 1 });
  expect(await lives(tokens)).toBe(true);
  const stranger = await asClient(["revocations:read"], { tid: "another" });
  expect(await refusal(await call("GET", `${PATH}/${id}`, undefined, stranger))).toBe("not_found");
});

test("ten thousand users are accepted in one call, and ten thousand and one are not", async () => {
  const users = Array.from({ length: 10_001 }, (_, index) => `u_nobody_${index}_${"x".repeat(40)}`);
  const refused = await post(`${PATH}/bulk`, { users, reason: "x" }, ADMIN);
  expect(await refusal(refused)).toBe("request_malformed");
  const response = await post(`${PATH}/bulk`, { users: users.slice(1), reason: "x" }, ADMIN);
  const { id, users: count } = await ok<Bulk>(response);
  expect(count).toBe(10_000);
  // Working them off is measured elsewhere: here it would only wake ten thousand objects of nobody.
  await runInDurableObject(bulk(id), async (_, { storage }) => await storage.deleteAll());
});

test("the log's older rows are read as they were", async () => {
  const { id } = await revoked({ target: { kind: "token", jti: "older" } });
  await runInDurableObject(revocationLog(), (_, { storage }) => {
    storage.sql.exec("UPDATE events SET tid = NULL, actor = NULL, mode = NULL, margin = NULL WHERE id = ?", id);
  });
  expect(await ok(await call("GET", `${PATH}/${id}`, undefined, ADMIN))).toMatchObject({ id, mode: "disconnect" });
});

test("a key is retired by name, by those who may also write keys", async () => {
  const listed = await ok<{ keys: { kid: string; state: string; purpose: string }[] }>(
    await call("GET", "/admin/keys", undefined, ADMIN),
  );
  const current = listed.keys.find(({ state, purpose }) => state === "current" && purpose === "access");
  const person = await newPerson();
  const tokens = await login(person);
  const target = { kind: "key", kid: current?.kid };
  const weak = await asClient(["revocations:write"]);
  expect(await refusal(await post(PATH, { target, reason: "x" }, weak))).toBe("scope_insufficient");
  expect(await refusal(await post(PATH, { target: { kind: "key", kid: "nobody" }, reason: "x" }, ADMIN))).toBe(
    "not_found",
  );
  const { id } = await revoked({ target });
  expect((await eventOf(id))?.targets).toEqual(expect.arrayContaining([target]));
  expect(await refusal(await call("GET", "/sessions", undefined, bearer(tokens.access_token)))).toBe("token_invalid");
  expect(await lives(tokens)).toBe(true);
});

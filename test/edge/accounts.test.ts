/** Accounts: changing a password, disabling, deleting, and sessions that a trusted backend opens. */
import { runDurableObjectAlarm, runInDurableObject } from "cloudflare:test";
import { env } from "cloudflare:workers";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import {
  ADMIN,
  account,
  bearer,
  call,
  claims,
  login,
  newLogin,
  newMember,
  ok,
  PASSWORD,
  type Person,
  post,
  receipt,
  refresh,
  refusal,
  revocationLog,
  type Tokens,
} from "./edge.ts";

const NEW_PASSWORD = "a better horse, and a longer battery";

interface AccountBody {
  readonly sub: string;
  readonly disabled: boolean;
  readonly disabled_until?: number;
  readonly generation: number;
  readonly revocation?: string;
  readonly sessions: readonly { sid: string }[];
}

function credential({ login }: { login: string }) {
  return env.CREDENTIAL.getByName(login);
}

function changePassword(tokens: Tokens, current = PASSWORD, next = NEW_PASSWORD): Promise<Response> {
  const body = { current_password: current, new_password: next };
  return post("/password", body, bearer(tokens.access_token));
}

function tryLogin({ login }: { login: string }, password = PASSWORD): Promise<Response> {
  return post("/login", { login, password });
}

async function change(person: { sub: string }, body: unknown): Promise<AccountBody> {
  return await ok(await call("PATCH", `/admin/accounts/${person.sub}`, body, ADMIN));
}

async function remove(person: { sub: string }): Promise<{ revocation: string }> {
  return await ok(await call("DELETE", `/admin/accounts/${person.sub}`, undefined, ADMIN));
}

async function show(query: string): Promise<Response> {
  return await call("GET", `/admin/accounts${query}`, undefined, ADMIN);
}

async function isOver({ refresh_token }: Tokens): Promise<boolean> {
  const response = await refresh(refresh_token);
  return !response.ok && (await refusal(response)) === "session_revoked";
}

async function announcedReasons(sub: string): Promise<string[]> {
  return await runInDurableObject(revocationLog(), (_, { storage }) =>
    storage.sql
      .exec<{ reason: string }>("SELECT reason FROM events WHERE instr(targets, ?) ORDER BY seq", sub)
      .toArray()
      .map(({ reason }) => reason),
  );
}

async function two(person: Person): Promise<[Tokens, Tokens]> {
  return [await login(person), await login(person)];
}

test("changing the password keeps this session, ends the others and says so", async () => {
  const person = await newMember();
  const [phone, laptop] = await two(person);
  expect((await changePassword(laptop)).status).toBe(204);
  expect([await isOver(phone), await isOver(laptop)]).toEqual([true, false]);
  expect(await announcedReasons(person.sub)).toEqual(["the password was changed"]);
  expect(await refusal(await tryLogin(person))).toBe("credentials_wrong");
  expect((await tryLogin(person, NEW_PASSWORD)).status).toBe(200);
});

// How long a guesser has to wait must not depend on how fast this machine guesses.
beforeEach(() => void vi.useFakeTimers({ toFake: ["Date"] }));
afterEach(() => void vi.useRealTimers());

test("a wrong present password changes nothing, is throttled like a login, and harms no living session", async () => {
  const person = await newMember();
  const [phone, laptop] = await two(person);
  for (let i = 0; i < 5; i++) expect(await refusal(await changePassword(laptop, "wrong"))).toBe("credentials_wrong");
  expect(await refusal(await changePassword(laptop))).toBe("too_many_attempts");
  expect(await refusal(await tryLogin(person))).toBe("too_many_attempts");
  expect([await isOver(phone), await isOver(laptop)]).toEqual([false, false]);
});

test.for([
  ["too short", PASSWORD, "1234567"],
  ["too long", PASSWORD, "x".repeat(1025)],
  ["empty, before", "", NEW_PASSWORD],
])("a password that is %s is refused before anything is judged", async ([, current, next]) => {
  expect(await refusal(await changePassword(await login(await newMember()), current, next))).toBe("request_malformed");
});

test("a session that is over changes no password", async () => {
  const person = await newMember();
  const tokens = await login(person);
  await post("/logout", {}, bearer(tokens.access_token));
  expect(await refusal(await changePassword(tokens))).toBe("session_revoked");
  expect(await refusal(await post("/password", { current_password: "x", new_password: NEW_PASSWORD }))).toBe(
    "token_missing",
  );
  expect((await tryLogin(person)).status).toBe(200);
});

test("of two who change it at once one wins, and only the winner's password counts", async () => {
  const person = await newMember();
  const tokens = await login(person);
  const words = ["the first new password", "the second new password"];
  const answers = await Promise.all(words.map((next) => changePassword(tokens, PASSWORD, next)));
  expect(answers.map(({ status }) => status).sort()).toEqual([204, 401]);
  const winner = words[answers.findIndex(({ status }) => status === 204)];
  expect((await tryLogin(person, winner)).status).toBe(200);
});

test("a login that was judged by the old password opens nothing after the change", async () => {
  const person = await newMember();
  const tokens = await login(person);
  const judged = await credential(person).verify(PASSWORD);
  if (!("value" in judged)) throw new Error("the password is right");
  await changePassword(tokens);
  const { passwordGeneration } = judged.value;
  expect(await account(person.sub).open({ method: "password", passwordGeneration })).toMatchObject({
    refused: { code: "credentials_wrong" },
  });
});

test("a change that the account could not be told of is told by the alarm, once", async () => {
  const person = await newMember();
  const [phone, laptop] = await two(person);
  const rename = (from: string, to: string) =>
    runInDurableObject(account(person.sub), (_, { storage }) => {
      storage.sql.exec(`ALTER TABLE ${from} RENAME TO ${to}`);
    });
  const by = { actor: { kind: "user", id: person.sub } } as const;
  const order = { sub: person.sub, keep: laptop.sid, by, current: PASSWORD, next: NEW_PASSWORD };
  await rename("account", "account_away");
  const told = await credential(person)
    .change(order)
    .finally(() => rename("account_away", "account"));
  expect(told).toEqual({ value: false });
  // Unless it has rung by itself by now.
  await runDurableObjectAlarm(credential(person));
  expect([await isOver(phone), await isOver(laptop)]).toEqual([true, false]);
  const later = await ok<Tokens>(await tryLogin(person, NEW_PASSWORD));
  await account(person.sub).passwordChanged(1, laptop.sid);
  expect(await isOver(later)).toBe(false);
});

test("a disabled account loses every session, and only who knows the password learns why", async () => {
  const person = await newMember();
  const [phone, laptop] = await two(person);
  const { disabled, generation, revocation, sessions } = await change(person, { disabled: true, reason: "left us" });
  expect({ disabled, generation, sessions }).toEqual({ disabled: true, generation: 1, sessions: [] });
  expect([await isOver(phone), await isOver(laptop)]).toEqual([true, true]);
  expect(await receipt(revocation ?? "")).toMatchObject({ reason: "left us", target: { kind: "user", generation: 1 } });
  const told = await tryLogin(person);
  expect([told.status, await refusal(told)]).toEqual([403, "account_disabled"]);
  expect(await refusal(await tryLogin(person, "wrong"))).toBe("credentials_wrong");
  expect((await change(person, { disabled: true })).generation).toBe(1);
  expect((await change(person, { disabled: false })).disabled).toBe(false);
  expect(claims(await login(person)).gen).toBe(1);
  expect([await isOver(phone), await isOver(laptop)]).toEqual([true, true]);
});

test("an account that is disabled until a time comes back by itself", async () => {
  const person = await newMember();
  const until = Math.floor(Date.now() / 1000) + 3600;
  expect(await change(person, { disabled: true, until })).toMatchObject({ disabled: true, disabled_until: until });
  expect(await refusal(await tryLogin(person))).toBe("account_disabled");
  await runInDurableObject(account(person.sub), (_, { storage }) => {
    storage.sql.exec("UPDATE account SET disabled_until = 1");
  });
  expect(await ok(await show(`/${person.sub}`))).toMatchObject({ disabled: false });
  await login(person);
});

test.for([
  ["nothing", {}],
  ["an end without a beginning", { until: 4_000_000_000 }],
  ["an end that is past", { disabled: true, until: 1_000_000_000 }],
  ["an end of being enabled", { disabled: false, until: 4_000_000_000 }],
  ["a scope that is none", { scope: "chat:read  chat:write" }],
  ["what nobody knows", { disabled: true, banned: true }],
])("a change of %s is refused, and changes nothing", async ([, body]) => {
  const person = await newMember();
  expect(await refusal(await call("PATCH", `/admin/accounts/${person.sub}`, body, ADMIN))).toBe("request_malformed");
  await login(person);
});

test("a scope that is taken away is gone from the next refresh on, and one that was not asked for stays away", async () => {
  const person = await newMember({ scope: "chat:read chat:write" });
  const reader = await ok<Tokens>(
    await post("/login", { login: person.login, password: PASSWORD, scope: "chat:read" }),
  );
  const whole = await login(person);
  expect([reader.scope, whole.scope]).toEqual(["chat:read", "chat:read chat:write"]);
  await change(person, { scope: "chat:write" });
  const [readerNext, wholeNext] = await Promise.all(
    [reader, whole].map(async ({ refresh_token }) => await ok<Tokens>(await refresh(refresh_token))),
  );
  expect([readerNext?.scope, wholeNext?.scope]).toEqual([undefined, "chat:write"]);
  await change(person, { scope: null });
  expect((await login(person)).scope).toBeUndefined();
});

test("a login that asks for more than the account has opens nothing", async () => {
  const person = await newMember({ scope: "chat:read" });
  const body = { login: person.login, password: PASSWORD, scope: "chat:read admin" };
  expect(await refusal(await post("/login", body))).toBe("scope_invalid");
  expect((await ok<AccountBody>(await show(`/${person.sub}`))).sessions).toEqual([]);
});

test("a deleted account is gone with its sessions; its login name is free, its subject never", async () => {
  const person = await newMember();
  const tokens = await login(person);
  const { revocation } = await remove(person);
  expect(await isOver(tokens)).toBe(true);
  expect(await receipt(revocation)).toMatchObject({ target: { kind: "user", sub: person.sub, generation: 1 } });
  expect(await refusal(await tryLogin(person))).toBe("credentials_wrong");
  for (const path of [`/${person.sub}`, `?login=${person.login}`])
    expect(await refusal(await show(path))).toBe("not_found");
  const { sub } = person;
  const taken = await post("/admin/accounts", { login: newLogin(), password: PASSWORD, sub }, ADMIN);
  expect(await refusal(taken)).toBe("conflict");
  expect(await refusal(await post("/admin/sessions", { sub, create: {} }, ADMIN))).toBe("conflict");
  const successor = { login: person.login, password: NEW_PASSWORD };
  expect(await ok<Person>(await post("/admin/accounts", successor, ADMIN))).not.toMatchObject({ sub });
  expect((await tryLogin(person, NEW_PASSWORD)).status).toBe(200);
  expect(await refusal(await call("DELETE", `/admin/accounts/${sub}`, undefined, ADMIN))).toBe("not_found");
});

test("a login name that could not be freed at once is freed by the alarm", async () => {
  const person = await newMember();
  const stored = await runInDurableObject(credential(person), (_, { storage }) => storage.kv.get("credential"));
  await remove(person);
  await runInDurableObject(credential(person), (_, { storage }) => storage.kv.put("credential", stored));
  await runInDurableObject(account(person.sub), async (object, { storage }) => {
    storage.sql.exec("UPDATE account SET login = ?", person.login);
    await object.alarm();
  });
  expect(await runInDurableObject(credential(person), (_, { storage }) => [...storage.kv.list()])).toEqual([]);
});

test("freeing a login name leaves it to whoever has it by now", async () => {
  const person = await newMember();
  expect(await credential(person).release("somebody-else")).toEqual({ value: null });
  await login(person);
});

test("an account is found by its login name, however it is typed", async () => {
  const person = await newMember({ tid: "acme" });
  const query = `?login=${encodeURIComponent(person.login.toUpperCase())}`;
  expect(await ok(await show(query))).toMatchObject({ sub: person.sub, login: person.login, tid: "acme" });
  expect(await refusal(await show(`?login=${newLogin()}`))).toBe("not_found");
  for (const query of ["?issuer=https://a.test", "?name=x"]) {
    expect(await refusal(await show(query))).toBe("request_malformed");
  }
});

test("a trusted backend opens a session for its own user, who need not exist before", async () => {
  const sub = `user-${crypto.randomUUID()}`;
  const asked = {
    sub,
    create: { tid: "acme", scope: "chat:read chat:write" },
    device: "phone",
    scope: "chat:read",
    user_agent: "App/1.0",
    address: "203.0.113.77",
  };
  const tokens = await ok<Tokens>(await post("/admin/sessions", asked, { ...ADMIN, origin: "https://keycard.test" }));
  expect(tokens).toMatchObject({ sub, scope: "chat:read", refresh_token: expect.stringMatching(/^kcr\./) });
  expect(claims(tokens)).toMatchObject({ tid: "acme", sub, gen: 0 });
  expect(claims(tokens)).not.toHaveProperty("amr");
  const { sessions } = await ok<{ sessions: unknown[] }>(
    await call("GET", "/sessions", undefined, bearer(tokens.access_token)),
  );
  expect(sessions).toMatchObject([
    { device: "phone", method: "backend", user_agent: "App/1.0", origin: { address: "203.0.113.0/24" } },
  ]);
  const again = await ok<Tokens>(await post("/admin/sessions", { sub, create: { tid: "other" } }, ADMIN));
  expect(claims(again).tid).toBe("acme");
  expect((await refresh(tokens.refresh_token)).status).toBe(200);
});

test.for<[string, (person: Person) => unknown, string]>([
  ["a user who is not known", () => ({ sub: "nobody" }), "not_found"],
  ["more than the user may do", ({ sub }) => ({ sub, scope: "admin" }), "scope_invalid"],
  ["a name that is none", () => ({ sub: "not a name" }), "request_malformed"],
  ["an address that is none", ({ sub }) => ({ sub, address: "here" }), "request_malformed"],
])("a backend is refused a session for %s", async ([, body, code]) => {
  expect(await refusal(await post("/admin/sessions", body(await newMember()), ADMIN))).toBe(code);
});

test("a session for a disabled user is refused, and asking for an unknown one leaves nothing behind", async () => {
  const person = await newMember();
  await change(person, { disabled: true });
  expect(await refusal(await post("/admin/sessions", { sub: person.sub }, ADMIN))).toBe("account_disabled");
  await post("/admin/sessions", { sub: "nobody-at-all" }, ADMIN);
  const left = await runInDurableObject(account("nobody-at-all"), (_, { storage }) => [...storage.kv.list()]);
  expect(left).toEqual([]);
});

test("nobody opens a session or touches an account without the credential", async () => {
  const { sub } = await newMember();
  const calls = [
    post("/admin/sessions", { sub }),
    call("PATCH", `/admin/accounts/${sub}`, { disabled: true }),
    call("DELETE", `/admin/accounts/${sub}`),
    call("GET", "/admin/accounts?login=x"),
  ];
  for (const response of await Promise.all(calls)) expect(await refusal(response)).toBe("token_missing");
});

test("an account of another tenant does not exist for who is bound to one", async () => {
  const { sub } = await newMember({ tid: "acme" });
  const order = { id: "rev_x", reason: "a test", tenant: "other" };
  const object = account(sub);
  const outcomes = [
    await object.summary("other"),
    await object.open({ method: "backend", tenant: "other" }),
    await object.change({ disabled: true }, order),
    await object.delete(order),
    await object.revokeUser(order),
  ];
  for (const outcome of outcomes) expect(outcome).toMatchObject({ refused: { code: "not_found" } });
  expect(await object.open({ method: "backend", tenant: "acme" })).toHaveProperty("value");
});

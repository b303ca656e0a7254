/** Accounts and passwords: making them, judging them, and what a guesser gets. */
import { evictDurableObject, runInDurableObject } from "cloudflare:test";
import { env } from "cloudflare:workers";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import type { Credential } from "../../edge/accounts/credential.ts";
import { ADMIN, account, call, claims, newLogin, newMember, ok, PASSWORD, post, refusal, signIn } from "./edge.ts";

// How long a guesser has to wait must not depend on how fast this machine guesses.
beforeEach(() => void vi.useFakeTimers({ toFake: ["Date"] }));
afterEach(() => void vi.useRealTimers());

function credential(login: string): DurableObjectStub<Credential> {
  return env.CREDENTIAL.getByName(login);
}

function guess(login: string, password = "wrong"): Promise<Response> {
  return post("/login", { login, password });
}

test("a login gives an access token, a refresh token and their lifetimes", async () => {
  const person = await newMember({ tid: "acme", scope: "chat:read" });
  const tokens = await signIn(person);
  expect(tokens).toMatchObject({ token_type: "Bearer", expires_in: 300, scope: "chat:read", sub: person.sub });
  expect(tokens.refresh_token).toMatch(/^kcr\./);
  const { iss, aud, sub, client_id, iat, exp, auth_time, gen, tid, scope, sid } = claims(tokens);
  expect({ iss, aud, sub, client_id, gen, tid, scope, sid }).toEqual({
    iss: "https://keycard.test",
    aud: "keycard",
    sub: person.sub,
    client_id: "keycard",
    gen: 0,
    tid: "acme",
    scope: "chat:read",
    sid: tokens.sid,
  });
  expect([exp - iat, iat - auth_time]).toEqual([300, 0]);
});

test("a login name is the same however it is typed", async () => {
  const name = newLogin();
  const created = await post("/admin/accounts", { login: ` ${name.toUpperCase()} `, password: PASSWORD }, ADMIN);
  expect(await ok(created)).toMatchObject({ login: name });
  expect((await signIn({ login: `${name.toUpperCase()} ` })).sid).toBeTruthy();
});

test("a password is the same in either normal form of Unicode", async () => {
  const name = newLogin();
  await ok(await post("/admin/accounts", { login: name, password: "caf\u00e9 caf\u00e9" }, ADMIN));
  expect((await guess(name, "cafe\u0301 cafe\u0301")).status).toBe(200);
});

test("a wrong password and an unknown login name look the same", async () => {
  const { login: known } = await newMember();
  const answers = await Promise.all([guess(known), guess(newLogin())]);
  const [a, b] = await Promise.all(answers.map(async (answer) => [answer.status, await answer.json()]));
  expect(a).toEqual(b);
  expect(a?.[0]).toBe(401);
});

test("guessing at an unknown login name stores nothing", async () => {
  const unknown = newLogin();
  await guess(unknown);
  await evictDurableObject(credential(unknown));
  const stored = await runInDurableObject(credential(unknown), (_, { storage }) => [...storage.kv.list()]);
  expect(stored).toEqual([]);
});

test.for([true, false])("after five wrong guesses one has to wait (the login name exists: %s)", async (exists) => {
  const name = exists ? (await newMember()).login : newLogin();
  for (let i = 0; i < 5; i++) expect(await refusal(await guess(name))).toBe("credentials_wrong");
  const refused = await guess(name);
  expect(refused.headers.get("retry-after")).toBe("1");
  expect(await refusal(refused)).toBe("too_many_attempts");
  expect(await refusal(await guess(name, PASSWORD))).toBe("too_many_attempts");
});

test("guesses made at once are counted one by one", async () => {
  const { login: name } = await newMember();
  const answers = await Promise.all(Array.from({ length: 12 }, () => guess(name)));
  const codes = await Promise.all(answers.map(refusal));
  expect(codes.filter((code) => code === "credentials_wrong").length).toBe(5);
  expect(codes.filter((code) => code === "too_many_attempts").length).toBe(7);
});

test("when too many passwords are being judged, the rest are sent away soon, and it counts as no guess", async () => {
  const names = Array.from({ length: 24 }, newLogin);
  const answers = await Promise.all(names.map(async (name) => ({ name, answer: await guess(name) })));
  const sentAway = answers.filter(({ answer }) => answer.status === 503);
  expect(sentAway.length).toBeGreaterThan(0);
  expect(answers.filter(({ answer }) => answer.status === 401).length).toBe(24 - sentAway.length);
  for (const { answer } of sentAway) expect(answer.headers.get("retry-after")).toBe("1");
  const [{ name } = { name: "" }] = sentAway;
  for (let i = 0; i < 5; i++) expect(await refusal(await guess(name))).toBe("credentials_wrong");
});

test("the wait doubles with every wrong guess, up to a minute, and outlives an eviction", async () => {
  const { login: name } = await newMember();
  const waitAfter = async (failures: number) => {
    await runInDurableObject(credential(name), (_, { storage }) => {
      storage.kv.put("throttle", { failures, lastAt: Date.now(), openAt: 0 });
    });
    await evictDurableObject(credential(name));
    expect(await refusal(await guess(name))).toBe("credentials_wrong");
    await evictDurableObject(credential(name));
    return Number((await guess(name)).headers.get("retry-after"));
  };
  expect([await waitAfter(5), await waitAfter(7), await waitAfter(40)]).toEqual([2, 8, 60]);
});

test("the right password wipes the slate clean", async () => {
  const person = await newMember();
  for (let i = 0; i < 3; i++) await guess(person.login);
  await signIn(person);
  for (let i = 0; i < 4; i++) expect(await refusal(await guess(person.login))).toBe("credentials_wrong");
  expect((await guess(person.login, PASSWORD)).status).toBe(200);
});

test("a hash made with other parameters still verifies, and is made anew", async () => {
  const person = await newMember();
  // scrypt of PASSWORD with N=2^10, r=8, p=1 and sixteen zero bytes of salt.
  const old = "$scrypt$ln=10,r=8,p=1$AAAAAAAAAAAAAAAAAAAAAA$u5ZMvjK7XcTUD1inpyUcc3gqsS0uCWtVMsQ9-RZ8OWk";
  await runInDurableObject(credential(person.login), (_, { storage }) => {
    const stored = storage.kv.get<object>("credential");
    storage.kv.put("credential", { ...stored, hash: old });
  });
  await signIn(person);
  const stored = await runInDurableObject(credential(person.login), (_, { storage }) =>
    storage.kv.get<{ hash: string }>("credential"),
  );
  expect(stored?.hash).toMatch(/^\$scrypt\$ln=14,r=8,p=5\$/);
  await signIn(person);
});

test("a login name that is taken is a conflict, and the first account stays as it is", async () => {
  const person = await newMember();
  const again = await post("/admin/accounts", { login: person.login, password: "something else" }, ADMIN);
  expect(await refusal(again)).toBe("conflict");
  await signIn(person);
});

test("a subject that is taken is a conflict, and the login name stays free", async () => {
  const { sub } = await newMember();
  const name = newLogin();
  expect(await refusal(await post("/admin/accounts", { login: name, password: PASSWORD, sub }, ADMIN))).toBe(
    "conflict",
  );
  await ok(await post("/admin/accounts", { login: name, password: PASSWORD }, ADMIN));
});

test("two that make the same account at once get one account", async () => {
  const body = { login: newLogin(), password: PASSWORD };
  const answers = await Promise.all([post("/admin/accounts", body, ADMIN), post("/admin/accounts", body, ADMIN)]);
  expect(answers.map(({ status }) => status).sort()).toEqual([201, 409]);
});

test("an account whose making broke off cannot log in, and is finished by making it again", async () => {
  const person = await newMember();
  await runInDurableObject(credential(person.login), (_, { storage }) => {
    storage.kv.put("credential", { ...storage.kv.get<object>("credential"), confirmed: false });
  });
  expect(await refusal(await guess(person.login, PASSWORD))).toBe("credentials_wrong");
  const again = await post("/admin/accounts", { login: person.login, password: PASSWORD }, ADMIN);
  expect(await ok(again)).toMatchObject({ sub: person.sub });
  await signIn(person);
});

test("an account shows its sessions to an administrator", async () => {
  const person = await newMember({ tid: "acme" });
  const { sid } = await signIn(person, "laptop");
  expect(await ok(await call("GET", `/admin/accounts/${person.sub}`, undefined, ADMIN))).toMatchObject({
    ...person,
    tid: "acme",
    generation: 0,
    sessions: [{ sid, device: "laptop" }],
  });
});

test("asking for an account that does not exist leaves nothing behind", async () => {
  expect(await refusal(await call("GET", "/admin/accounts/nobody", undefined, ADMIN))).toBe("not_found");
  const stored = await runInDurableObject(account("nobody"), (_, { storage }) => [...storage.kv.list()]);
  expect(stored).toEqual([]);
});

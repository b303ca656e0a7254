/** Looking after one's sessions: list them, end one, log out here, elsewhere or everywhere. */
import { runInDurableObject } from "cloudflare:test";
import { env } from "cloudflare:workers";
import { expect, test } from "vitest";
import { Account } from "../../edge/accounts/account.ts";
import {
  account,
  bearer,
  call,
  claims,
  login,
  newMember,
  newPerson,
  ok,
  PASSWORD,
  post,
  receipt,
  refresh,
  refreshed,
  refusal,
  revocationLog,
  revoke,
  type Tokens,
} from "./edge.ts";

interface Listed {
  readonly sessions: readonly { sid: string; device: string | null; current: boolean; created_at: number }[];
}

async function list(tokens: Tokens): Promise<Listed["sessions"]> {
  const { sessions } = await ok<Listed>(await call("GET", "/sessions", undefined, bearer(tokens.access_token)));
  return sessions;
}

function end(tokens: Tokens, sid: string): Promise<Response> {
  return call("DELETE", `/sessions/${sid}`, undefined, bearer(tokens.access_token));
}

function logout(tokens: Tokens, scope?: string): Promise<Response> {
  return post("/logout", { refresh_token: tokens.refresh_token, ...(scope && { scope }) });
}

async function isOver(tokens: Tokens): Promise<boolean> {
  const response = await refresh(tokens.refresh_token);
  return !response.ok && (await refusal(response)) === "session_revoked";
}

/** The events that the log has about a subject's sessions. */
async function announced(sub: string): Promise<readonly { code: string; targets: unknown[]; reason: string }[]> {
  return await runInDurableObject(revocationLog(), (_, { storage }) =>
    storage.sql
      .exec<{ code: string; targets: string; reason: string }>("SELECT * FROM events WHERE instr(targets, ?)", sub)
      .toArray()
      .map(({ code, targets, reason }) => ({ code, targets: JSON.parse(targets), reason })),
  );
}

test("a person sees their sessions, and which one is this", async () => {
  const person = await newPerson();
  const [phone, laptop] = [await login(person, "phone"), await login(person)];
  const seen = await list(laptop);
  expect(seen.map(({ sid }) => sid).sort()).toEqual([phone.sid, laptop.sid].sort());
  expect(seen.find(({ sid }) => sid === phone.sid)).toMatchObject({ device: "phone", current: false });
  expect(seen.find(({ sid }) => sid === laptop.sid)).toMatchObject({ device: null, current: true });
});

test("a person ends another session of theirs, and the world is told", async () => {
  const person = await newPerson();
  const [phone, laptop] = [await login(person), await login(person)];
  expect((await end(laptop, phone.sid)).status).toBe(204);
  expect(await isOver(phone)).toBe(true);
  expect(await isOver(laptop)).toBe(false);
  expect(await announced(person.sub)).toMatchObject([
    { code: "session_revoked", targets: [{ kind: "session", sid: phone.sid }] },
  ]);
  expect(await refusal(await end(laptop, phone.sid))).toBe("not_found");
});

test("nobody ends a session of somebody else", async () => {
  const [ada, eve] = [await login(await newPerson()), await login(await newPerson())];
  expect(await refusal(await end(eve, ada.sid))).toBe("not_found");
  expect(await isOver(ada)).toBe(false);
});

test("logging out ends this session and no other", async () => {
  const person = await newPerson();
  const [phone, laptop] = [await login(person), await login(person)];
  expect((await logout(phone)).status).toBe(204);
  expect([await isOver(phone), await isOver(laptop)]).toEqual([true, false]);
});

test("logging out twice is no mistake, and is announced once", async () => {
  const tokens = await login(await newPerson());
  expect([(await logout(tokens)).status, (await logout(tokens)).status]).toEqual([204, 204]);
  expect((await announced(tokens.sub)).length).toBe(1);
});

test("logging out of a session that is long forgotten is no mistake", async () => {
  const tokens = await login(await newPerson());
  await runInDurableObject(account(tokens.sub), (_, { storage }) => storage.sql.exec("DELETE FROM sessions").toArray());
  expect((await logout(tokens)).status).toBe(204);
});

test("logging out the others leaves this session", async () => {
  const person = await newPerson();
  const [phone, tablet, laptop] = [await login(person), await login(person), await login(person)];
  expect((await logout(laptop, "others")).status).toBe(204);
  expect([await isOver(phone), await isOver(tablet), await isOver(laptop)]).toEqual([true, true, false]);
});

test("logging out everywhere leaves none, and raises the generation", async () => {
  const person = await newPerson();
  const [phone, laptop] = [await login(person), await login(person)];
  expect((await logout(laptop, "global")).status).toBe(204);
  expect([await isOver(phone), await isOver(laptop)]).toEqual([true, true]);
  expect((await logout(laptop, "global")).status).toBe(204);
  expect(claims(await login(person)).gen).toBe(1);
});

test("a session that is over has no say over the others", async () => {
  const person = await newPerson();
  const [phone, laptop] = [await login(person), await login(person)];
  await logout(phone);
  for (const scope of ["others", "global"]) expect(await refusal(await logout(phone, scope))).toBe("session_revoked");
  expect(await isOver(laptop)).toBe(false);
});

test("a stolen old token cannot log out the others: it is theft, and ends its own session", async () => {
  const person = await newPerson();
  const [phone, laptop] = [await login(person), await login(person)];
  await refreshed((await refreshed(phone.refresh_token)).refresh_token);
  expect(await refusal(await logout(phone, "global"))).toBe("refresh_reused");
  expect([await isOver(phone), await isOver(laptop)]).toEqual([true, false]);
});

test("an access token logs out as well", async () => {
  const tokens = await login(await newPerson());
  expect((await post("/logout", {}, bearer(tokens.access_token))).status).toBe(204);
  expect(await isOver(tokens)).toBe(true);
});

test("logging out with a forged token ends nothing", async () => {
  const tokens = await login(await newPerson());
  const forged = tokens.refresh_token.replace(/[^.]{22}$/, "A".repeat(22));
  expect(await refusal(await post("/logout", { refresh_token: forged }))).toBe("refresh_invalid");
  expect(await refusal(await post("/logout", {}))).toBe("token_missing");
  expect(await isOver(tokens)).toBe(false);
});

test("the access token of a session that is over is of no use here either", async () => {
  const tokens = await login(await newPerson());
  await logout(tokens);
  expect(await refusal(await call("GET", "/sessions", undefined, bearer(tokens.access_token)))).toBe("session_revoked");
  expect(await refusal(await end(tokens, tokens.sid))).toBe("session_revoked");
});

test("an access token that was revoked by itself is of no use, and its session goes on", async () => {
  const tokens = await login(await newPerson());
  await revoke({ kind: "token", token: tokens.access_token });
  expect(await refusal(await call("GET", "/sessions", undefined, bearer(tokens.access_token)))).toBe("token_revoked");
  expect((await list(await refreshed(tokens.refresh_token))).length).toBe(1);
});

test("the twenty-first session ends the one unused for longest, and says so", async () => {
  const person = await newPerson();
  const first = await login(person);
  await runInDurableObject(account(person.sub), (_, { storage }) => {
    storage.sql.exec("UPDATE sessions SET rotated_at = rotated_at - 1000");
  });
  for (let i = 1; i < 20; i++)
    await runInDurableObject(account(person.sub), (object) => object.open({ method: "password" }));
  const last = await login(person);
  expect((await list(last)).length).toBe(20);
  expect(await isOver(first)).toBe(true);
  expect(await announced(person.sub)).toEqual([
    {
      code: "session_revoked",
      targets: [{ kind: "session", sid: first.sid }],
      reason: "more than 20 sessions",
    },
  ]);
});

test("sessions whose tokens are all dead are forgotten", async () => {
  const person = await newPerson();
  const [gone, here] = [await login(person), await login(person)];
  await logout(gone);
  const left = await runInDurableObject(account(person.sub), async (object, { storage }) => {
    storage.sql.exec("UPDATE sessions SET ended_at = ended_at - 1000 WHERE ended_at IS NOT NULL");
    await object.alarm();
    return storage.sql.exec<{ sid: string }>("SELECT sid FROM sessions").toArray();
  });
  expect(left).toEqual([{ sid: here.sid }]);
});

test("a session revoked by an administrator is over, and the answer names the revocation", async () => {
  const tokens = await login(await newPerson());
  const revocation = await revoke({ kind: "session", sid: tokens.sid });
  expect(await isOver(tokens)).toBe(true);
  expect(await receipt(revocation.id)).toMatchObject({
    target: { kind: "session", sid: tokens.sid },
    reason: "a test",
  });
});

test("a session shows what is known of the device, and where it is, no closer than the network", async () => {
  const person = await newMember();
  const response = await post(
    "/login",
    { login: person.login, password: PASSWORD, device: "phone" },
    { "user-agent": `App/1.0 ${"x".repeat(400)}`, "cf-connecting-ip": "203.0.113.77" },
  );
  const tokens = await ok<Tokens>(response);
  const [session] = await list(tokens);
  const { created_at = 0 } = session ?? {};
  expect(session).toMatchObject({
    device: "phone",
    user_agent: `App/1.0 ${"x".repeat(248)}`,
    origin: { address: "203.0.113.0/24" },
    method: "password",
    scope: null,
    last_used_at: created_at,
    idle_expires_at: created_at + 1_209_600,
    absolute_expires_at: created_at + 2_592_000,
    expires_at: created_at + 1_209_600,
  });
  const stored = await runInDurableObject(account(person.sub), (_, { storage }) =>
    JSON.stringify(storage.sql.exec("SELECT * FROM sessions").toArray()),
  );
  expect(stored).not.toContain("203.0.113.77");
  expect(claims(tokens).amr).toEqual(["pwd"]);
});

test("how many sessions an account may have is a setting, and lowering it ends the rest in one event", async () => {
  const { sub } = await newPerson();
  for (let i = 0; i < 7; i++) await account(sub).open({ method: "backend" });
  const left = await runInDurableObject(account(sub), async (_, state) => {
    const smaller = new Account(state, { ...env, SESSIONS_PER_ACCOUNT: "3" } as Env);
    await smaller.open({ method: "backend" });
    const outcome = await smaller.summary();
    return "value" in outcome ? outcome.value.sessions.length : undefined;
  });
  expect(left).toBe(3);
  expect((await announced(sub)).map(({ targets, reason }) => [targets.length, reason])).toEqual([
    [5, "more than 3 sessions"],
  ]);
});

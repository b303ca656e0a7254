/** The refresh token: rotation, retries, races and theft. Rows of the table in PROTOCOL, "Refresh token". */
import { evictDurableObject, runInDurableObject } from "cloudflare:test";
import { env } from "cloudflare:workers";
import { expect, test, vi } from "vitest";
import { readRefreshToken, writeRefreshToken } from "../../edge/accounts/session.ts";
import { ask } from "../../edge/outcome.ts";
import {
  account,
  bearer,
  call,
  claims,
  login,
  newPerson,
  post,
  refresh,
  refreshed,
  refusal,
  type Tokens,
} from "./edge.ts";

/** As if so much time had passed since the session was last refreshed. */
async function passTime(sub: string, seconds: number): Promise<void> {
  await runInDurableObject(account(sub), (_, { storage }) => {
    storage.sql.exec("UPDATE sessions SET rotated_at = rotated_at - ?", seconds * 1000);
  });
}

async function isAlive(tokens: Tokens): Promise<boolean> {
  return (await call("GET", "/sessions", undefined, bearer(tokens.access_token))).ok;
}

async function fresh(): Promise<Tokens> {
  return await login(await newPerson());
}

test("a refresh gives a new pair of tokens for the same session", async () => {
  const first = await login(await newPerson({ tid: "acme", scope: "chat:read chat:write" }), "laptop");
  const second = await refreshed(first.refresh_token);
  expect(second).toMatchObject({ token_type: "Bearer", sid: first.sid, sub: first.sub, scope: "chat:read chat:write" });
  expect(second.refresh_token).not.toBe(first.refresh_token);
  expect(claims(second).jti).not.toBe(claims(first).jti);
  expect(claims(second)).toMatchObject({ auth_time: claims(first).auth_time, gen: 0, tid: "acme", sid: first.sid });
});

test("a chain goes on for as long as it is refreshed in order", async () => {
  let tokens = await fresh();
  for (let position = 1; position <= 12; position++) {
    tokens = await refreshed(tokens.refresh_token);
    expect(tokens.refresh_token.split(".")[3]).toBe(String(position));
  }
});

test("a retry within the grace gets the same successor, byte for byte, and a new access token", async () => {
  const { refresh_token } = await fresh();
  const answer = await refreshed(refresh_token);
  const retry = await refreshed(refresh_token);
  expect(retry.refresh_token).toBe(answer.refresh_token);
  expect(retry.access_token).not.toBe(answer.access_token);
});

test("a retry gets the same successor after the object was evicted", async () => {
  const { refresh_token, sub } = await fresh();
  const answer = await refreshed(refresh_token);
  await evictDurableObject(account(sub));
  expect((await refreshed(refresh_token)).refresh_token).toBe(answer.refresh_token);
  expect((await refresh(answer.refresh_token)).status).toBe(200);
});

test("fifty refreshes at once leave one chain, and every answer is of use", async () => {
  const { refresh_token, sub } = await fresh();
  const answers = await Promise.all(Array.from({ length: 50 }, () => refreshed(refresh_token)));
  expect(new Set(answers.map((answer) => answer.refresh_token)).size).toBe(1);
  const [{ position } = { position: -1 }] = await runInDurableObject(account(sub), (_, { storage }) =>
    storage.sql.exec<{ position: number }>("SELECT position FROM sessions").toArray(),
  );
  expect(position).toBe(1);
  const again = await Promise.all(answers.slice(0, 5).map((answer) => refreshed(answer.refresh_token)));
  expect(new Set(again.map((answer) => answer.refresh_token)).size).toBe(1);
});

test("a token that comes back after the grace is theft: the session ends, for both who hold it", async () => {
  const first = await fresh();
  const second = await refreshed(first.refresh_token);
  await passTime(first.sub, 31);
  expect(await refusal(await refresh(first.refresh_token))).toBe("refresh_reused");
  expect(await refusal(await refresh(second.refresh_token))).toBe("session_revoked");
  expect(await isAlive(second)).toBe(false);
});

test("a token that comes back just within the grace is a retry", async () => {
  const { refresh_token, sub } = await fresh();
  const { refresh_token: successor } = await refreshed(refresh_token);
  await passTime(sub, 29);
  expect((await refreshed(refresh_token)).refresh_token).toBe(successor);
});

test("a token from two positions ago is theft even within the grace", async () => {
  const first = await fresh();
  const second = await refreshed(first.refresh_token);
  await refreshed(second.refresh_token);
  expect(await refusal(await refresh(first.refresh_token))).toBe("refresh_reused");
});

test("theft in one session of a person leaves the other one alone", async () => {
  const person = await newPerson();
  const [phone, laptop] = [await login(person, "phone"), await login(person, "laptop")];
  await refreshed((await refreshed(phone.refresh_token)).refresh_token);
  expect(await refusal(await refresh(phone.refresh_token))).toBe("refresh_reused");
  expect(await isAlive(laptop)).toBe(true);
  expect((await refresh(laptop.refresh_token)).status).toBe(200);
});

test.for<[string, (token: string) => string]>([
  ["nothing", () => ""],
  ["no token at all", () => "let me in"],
  ["an access token's form", () => "eyJhbGciOiJub25lIn0.e30."],
  ["a changed secret", (token) => token.replace(/\.([^.]{43})\./, (_, secret) => `.${turned(secret)}.`)],
  ["a changed tag", (token) => token.replace(/[^.]{22}$/, turned)],
  ["another position", (token) => token.replace(/\.0\.(?=[^.]{43}\.)/, ".7.")],
  ["another session", (token) => token.replace(/^(kcr\.[^.]+)\.[^.]{22}/, `$1.${"A".repeat(22)}`)],
  ["a tail", (token) => `${token}.x`],
  ["a tag cut short", (token) => token.slice(0, -1)],
  ["a thousand characters", (token) => token.padEnd(1024, "x")],
])("a token with %s is refused, and the session lives on", async ([, forge]) => {
  const tokens = await fresh();
  const next = await refreshed(tokens.refresh_token);
  const response = await refresh(forge(tokens.refresh_token));
  expect(["refresh_invalid", "request_malformed"]).toContain(await refusal(response));
  expect((await refresh(next.refresh_token)).status).toBe(200);
});

function turned(text: string): string {
  return [...text].reverse().join("");
}

test.for<[string, string]>([
  ["a position that the session has not reached", "UPDATE sessions SET position = 0"],
  ["a secret that is not the session's", "UPDATE sessions SET secret_hash = 'another'"],
])("a token of ours with %s, as after a restored backup, is refused and ends nothing", async ([, restore]) => {
  const first = await fresh();
  const second = await refreshed(first.refresh_token);
  await runInDurableObject(account(first.sub), (_, { storage }) => storage.sql.exec(restore).toArray());
  expect(await refusal(await refresh(second.refresh_token))).toBe("refresh_invalid");
  expect(await isAlive(second)).toBe(true);
});

test("a token of ours is not valid where the account is unknown, as after the storage was started anew", async () => {
  const { KEYCARD_SECRET } = env as unknown as { KEYCARD_SECRET: string };
  const token = { sid: `nobody.${"A".repeat(22)}`, position: 0, secret: "A".repeat(43) };
  const refresh_token = writeRefreshToken(token, [KEYCARD_SECRET]);
  expect(await refusal(await refresh(refresh_token))).toBe("refresh_invalid");
  expect(await refusal(await post("/logout", { refresh_token }))).toBe("refresh_invalid");
});

test("a token of a session that is forgotten is not valid", async () => {
  const { refresh_token, sub } = await fresh();
  await runInDurableObject(account(sub), (_, { storage }) => storage.sql.exec("DELETE FROM sessions").toArray());
  expect(await refusal(await refresh(refresh_token))).toBe("refresh_invalid");
});

test("a session that has expired cannot be refreshed, and a late retry does not make it theft", async () => {
  const first = await fresh();
  const second = await refreshed(first.refresh_token);
  await passTime(first.sub, 31);
  await runInDurableObject(account(first.sub), (_, { storage }) => {
    storage.sql.exec("UPDATE sessions SET expires_at = 1");
  });
  expect(await refusal(await refresh(second.refresh_token))).toBe("refresh_invalid");
  expect(await refusal(await refresh(first.refresh_token))).toBe("refresh_invalid");
});

test("a refresh moves the idle end and never passes the absolute one", async () => {
  const { refresh_token, sub, refresh_token_expires_in } = await fresh();
  expect(refresh_token_expires_in).toBeLessThanOrEqual(1_209_600);
  expect(refresh_token_expires_in).toBeGreaterThan(1_209_500);
  await runInDurableObject(account(sub), (_, { storage }) => {
    storage.sql.exec("UPDATE sessions SET auth_time = auth_time - 2591990");
  });
  const late = await refreshed(refresh_token);
  expect(late.refresh_token_expires_in).toBeLessThanOrEqual(10);
  expect(late.expires_in).toBeLessThanOrEqual(10);
});

test("nothing that is stored would let anybody refresh", async () => {
  const first = await fresh();
  const second = await refreshed(first.refresh_token);
  const stored = await runInDurableObject(account(first.sub), (_, { storage }) =>
    JSON.stringify(storage.sql.exec("SELECT * FROM sessions").toArray()),
  );
  for (const { refresh_token } of [first, second]) expect(stored).not.toContain(refresh_token.split(".")[4]);
});

test("a refresh writes one row, a retry none", async () => {
  const { refresh_token, sub } = await fresh();
  expect(await rowsWritten(sub, refresh_token)).toBe(1);
  expect(await rowsWritten(sub, refresh_token)).toBe(0);
});

/** What a refresh is billed for: the rows of every statement, and one for each change of the alarm. */
async function rowsWritten(sub: string, text: string): Promise<number> {
  const { KEYCARD_SECRET } = env as unknown as { KEYCARD_SECRET: string };
  const token = readRefreshToken(text, [KEYCARD_SECRET]);
  return await runInDurableObject(account(sub), async (object, { storage }) => {
    const statements = vi.spyOn<SqlStorage, "exec">(Object.getPrototypeOf(storage.sql), "exec");
    const alarms = vi.spyOn<DurableObjectStorage, "setAlarm">(Object.getPrototypeOf(storage), "setAlarm");
    expect(await object.refresh(token, { tid: null, cutoff: 0 })).toHaveProperty("value");
    const rows = statements.mock.results.map(({ value }) => (value as SqlStorageCursor<never>).rowsWritten);
    expect(rows.length).toBeGreaterThan(1);
    vi.restoreAllMocks();
    return rows.reduce((sum, written) => sum + written, alarms.mock.calls.length);
  });
}

test.for(["durable", "perhaps not durable"])(
  "a crash between the commit and the answer: the retry gets the very same token (%s)",
  async (kind) => {
    const { refresh_token, sub } = await fresh();
    const { KEYCARD_SECRET } = env as unknown as { KEYCARD_SECRET: string };
    const token = readRefreshToken(refresh_token, [KEYCARD_SECRET]);
    let lost: string | undefined;
    const crash = runInDurableObject(account(sub), async (object, state) => {
      const outcome = await object.refresh(token, { tid: null, cutoff: 0 });
      lost = "value" in outcome && "refreshToken" in outcome.value ? outcome.value.refreshToken : undefined;
      if (kind === "durable") await state.storage.sync();
      state.abort("the machine is gone");
    });
    await expect(crash).rejects.toThrow();
    expect(lost).toMatch(/^kcr\./);
    const answer = await refreshed(refresh_token);
    expect(answer.refresh_token).toBe(lost);
    expect((await refresh(answer.refresh_token)).status).toBe(200);
    expect(await isAlive(answer)).toBe(true);
  },
);

test("an object that is evicted between any two steps makes no difference to the chain", async () => {
  let tokens = await fresh();
  for (let i = 0; i < 4; i++) {
    const { refresh_token, sub } = tokens;
    await evictDurableObject(account(sub));
    tokens = await refreshed(refresh_token);
    await evictDurableObject(account(sub));
    expect((await refreshed(refresh_token)).refresh_token).toBe(tokens.refresh_token);
  }
  expect(tokens.refresh_token.split(".")[3]).toBe("4");
});

test.for([
  ["overloaded", { overloaded: true }],
  ["away for a moment", { retryable: true }],
])("an account that is %s is a reason to come again, never to give the session up", async ([, property]) => {
  const failing = Promise.reject(Object.assign(new Error("the platform says so"), property));
  await expect(ask(failing)).rejects.toMatchObject({ code: "unavailable", status: 503, retryAfterSeconds: 1 });
});

test("fifty refreshes at once, over an object that is evicted meanwhile, still leave one chain", async () => {
  const { refresh_token, sub } = await fresh();
  const calls = Array.from({ length: 50 }, () => refresh(refresh_token));
  const [answers] = await Promise.all([Promise.all(calls), evictDurableObject(account(sub))]);
  for (const answer of answers) expect([200, 503]).toContain(answer.status);
  const good = await Promise.all(answers.filter(({ ok }) => ok).map((answer) => answer.json<Tokens>()));
  expect(new Set(good.map((tokens) => tokens.refresh_token)).size).toBe(1);
  expect((await refresh(good[0]?.refresh_token ?? "")).status).toBe(200);
});

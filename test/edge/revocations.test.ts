/** Deciding revocations: who is out, who may come back, and that what was answered is never lost. */
import { evictDurableObject, runDurableObjectAlarm, runInDurableObject } from "cloudflare:test";
import { expect, test, vi } from "vitest";
import {
  ADMIN,
  account,
  bearer,
  call,
  claims,
  login,
  newMember,
  newPerson,
  ok,
  post,
  receipt,
  refresh,
  refusal,
  revocationLog,
  revoke,
} from "./edge.ts";

test("a user who is revoked and logs in again in the same second gets in, and everything from before stays out", async () => {
  const person = await newPerson();
  const before = [await login(person), await login(person)];
  const revocation = await revoke({ kind: "user", sub: person.sub });
  const after = await login(person);
  expect(revocation.target).toEqual({ kind: "user", sub: person.sub, generation: 1 });
  expect([...before.map((tokens) => claims(tokens).gen), claims(after).gen]).toEqual([0, 0, 1]);
  for (const tokens of before) expect(await refusal(await refresh(tokens.refresh_token))).toBe("session_revoked");
  expect((await refresh(after.refresh_token)).status).toBe(200);
});

test("a user can be revoked by login name", async () => {
  const person = await newMember();
  const revocation = await revoke({ kind: "user", login: person.login.toUpperCase() });
  expect(revocation.target).toEqual({ kind: "user", sub: person.sub, generation: 1 });
});

test("a tenant's cutoff ends every session of the tenant, and a login at once afterwards is stamped later", async () => {
  const tid = crypto.randomUUID();
  const [inside, outside] = [await newPerson({ tid }), await newPerson()];
  const [before, elsewhere] = [await login(inside), await login(outside)];
  const { target } = await revoke({ kind: "tenant", tid });
  const { cutoff } = target as { cutoff: number };
  const after = await login(inside);
  expect(claims(before).auth_time).toBeLessThanOrEqual(cutoff);
  expect(claims(after).auth_time).toBeGreaterThan(cutoff);
  expect(claims(after).iat).toBeGreaterThanOrEqual(claims(after).auth_time);
  expect(await refusal(await refresh(before.refresh_token))).toBe("session_revoked");
  expect((await refresh(after.refresh_token)).status).toBe(200);
  expect((await refresh(elsewhere.refresh_token)).status).toBe(200);
  const sessions = await call("GET", "/sessions", undefined, bearer(after.access_token));
  expect((await ok<{ sessions: unknown[] }>(sessions)).sessions.length).toBe(1);
  expect(await refusal(await call("GET", "/sessions", undefined, bearer(before.access_token)))).toBe("session_revoked");
});

test("a tenant's cutoff hits those who logged in before the clock was set back, also by an object that was evicted since", async () => {
  const tid = crypto.randomUUID();
  const person = await newPerson({ tid });
  const ahead = Date.now() + 4_000;
  vi.useFakeTimers({ toFake: ["Date"], now: ahead });
  try {
    const before = await login(person);
    vi.setSystemTime(ahead - 3_000);
    await evictDurableObject(revocationLog());
    const { target } = await revoke({ kind: "tenant", tid });
    expect((target as { cutoff: number }).cutoff).toBeGreaterThanOrEqual(claims(before).auth_time);
    expect(await refusal(await refresh(before.refresh_token))).toBe("session_revoked");
    // Whoever comes now waits until the clock is where it was, rather than be stamped beyond what nodes take.
    expect(await refusal(await post("/admin/sessions", { sub: person.sub }, ADMIN))).toBe("unavailable");
    vi.setSystemTime(ahead);
    expect(claims(await login(person)).auth_time).toBeGreaterThan((target as { cutoff: number }).cutoff);
  } finally {
    vi.useRealTimers();
  }
});

test("a second cutoff in the same second hits those who logged in after the first", async () => {
  const tid = crypto.randomUUID();
  const person = await newPerson({ tid });
  const first = (await revoke({ kind: "tenant", tid })).target as { cutoff: number };
  const between = await login(person);
  const second = (await revoke({ kind: "tenant", tid })).target as { cutoff: number };
  expect(second.cutoff).toBeGreaterThan(first.cutoff);
  expect(claims(between).auth_time).toBeLessThanOrEqual(second.cutoff);
  expect(await refusal(await refresh(between.refresh_token))).toBe("session_revoked");
});

test("a cutoff for everyone ends every session, with a tenant or without", async () => {
  const people = [await newPerson(), await newPerson({ tid: crypto.randomUUID() })];
  const sessions = await Promise.all(people.map((person) => login(person)));
  await revoke({ kind: "everyone" });
  for (const { refresh_token } of sessions) expect(await refusal(await refresh(refresh_token))).toBe("session_revoked");
  const [person] = people;
  // Where several cutoffs fell into this second, who logs in is asked to wait for the next.
  await vi.waitFor(
    async () => expect(person && (await refresh((await login(person)).refresh_token)).status).toBe(200),
    { timeout: 60_000, interval: 200 },
  );
});

test("the stricter one of everyone's and the tenant's cutoff decides, whichever came first", async () => {
  const standing = (everyone: number, tenant: number) =>
    runInDurableObject(revocationLog(), async (log, { storage }) => {
      const tid = crypto.randomUUID();
      const rows = storage.sql.exec<{ tid: string; cutoff: number }>("SELECT * FROM cutoffs").toArray();
      storage.sql.exec("INSERT OR REPLACE INTO cutoffs VALUES ('', ?), (?, ?)", everyone, tid, tenant);
      const outcome = await log.standing(tid);
      storage.sql.exec("DELETE FROM cutoffs");
      for (const row of rows) storage.sql.exec("INSERT INTO cutoffs VALUES (?, ?)", row.tid, row.cutoff);
      return "value" in outcome ? outcome.value.cutoff : undefined;
    });
  expect([await standing(10, 20), await standing(20, 10)]).toEqual([20, 20]);
});

test.for([
  ["a session", { kind: "session", sid: `nobody.${"A".repeat(22)}` }],
  ["a user", { kind: "user", sub: "nobody" }],
  ["a login name", { kind: "user", login: "nobody@example.test" }],
])("%s that does not exist is not found", async ([, target]) => {
  expect(await refusal(await post("/admin/revocations", { target, reason: "x" }, ADMIN))).toBe("not_found");
});

test("a token is revoked by its name or by itself, even when it has expired", async () => {
  const tokens = await login(await newPerson());
  const { jti } = claims(tokens);
  expect((await revoke({ kind: "token", jti })).target).toEqual({ kind: "token", jti });
  expect(await revoke({ kind: "token", token: tokens.access_token })).toMatchObject({
    target: { kind: "token", jti },
    code: "token_revoked",
  });
});

test.for([
  ["garbage", "abc"],
  ["a forged token", "eyJhbGciOiJSUzI1NiIsInR5cCI6ImF0K2p3dCJ9.eyJpYXQiOjF9.AAAA"],
])("%s cannot be revoked", async ([, token]) => {
  const response = await post("/admin/revocations", { target: { kind: "token", token }, reason: "x" }, ADMIN);
  expect(await refusal(response)).toBe("request_malformed");
});

test("a revocation that is not known has no receipt", async () => {
  for (const id of [`rev_${"A".repeat(22)}`, "rev_1", "x"]) {
    expect(await refusal(await call("GET", `/admin/revocations/${id}`, undefined, ADMIN))).toBe("not_found");
  }
});

test("the log numbers what comes at once without a gap, and what comes twice once", async () => {
  const last = (await revoke({ kind: "token", jti: "before" })).seq;
  const draft = (id: string) => ({
    id,
    targets: [{ kind: "token", jti: id } as const],
    code: "token_revoked" as const,
    reason: "a test",
    decided_at: Date.now(),
    expires_at: Math.floor(Date.now() / 1000) + 360,
  });
  const ids = Array.from({ length: 40 }, () => crypto.randomUUID());
  const outcomes = await Promise.all([...ids, ...ids].map((id) => revocationLog().append(draft(id))));
  const seqs = outcomes.map((outcome) => ("value" in outcome ? (outcome.value.seq ?? 0) : 0));
  expect(seqs.slice(40)).toEqual(seqs.slice(0, 40));
  expect([...new Set(seqs)].sort((a, b) => a - b)).toEqual(Array.from({ length: 40 }, (_, i) => last + 1 + i));
});

test("a revocation that was answered is told even though the log failed just then", async () => {
  const person = await newPerson();
  const tokens = await login(person);
  const rename = (from: string, to: string) =>
    runInDurableObject(revocationLog(), (_, { storage }) => {
      storage.sql.exec(`ALTER TABLE ${from} RENAME TO ${to}`);
    });
  await rename("events", "events_away");
  const response = await post(
    "/admin/revocations",
    { target: { kind: "user", sub: person.sub }, reason: "x" },
    { ...ADMIN, prefer: "wait=5" },
  ).finally(() => rename("events_away", "events"));
  expect(response.status).toBe(202);
  const revocation: { id: string; state: string } = await response.json();
  expect(revocation.state).toBe("pending");
  expect(await refusal(await refresh(tokens.refresh_token))).toBe("session_revoked");
  expect(await runDurableObjectAlarm(account(person.sub))).toBe(true);
  expect(await receipt(revocation.id)).toMatchObject({ id: revocation.id, target: { kind: "user", sub: person.sub } });
  const outbox = await runInDurableObject(account(person.sub), (_, { storage }) =>
    storage.sql.exec("SELECT * FROM outbox").toArray(),
  );
  expect(outbox).toEqual([]);
});

test("a refresh that finds the log away trades nothing, so that nobody looks like a thief afterwards", async () => {
  const tid = crypto.randomUUID();
  const tokens = await login(await newPerson({ tid }));
  const rename = (from: string, to: string) =>
    runInDurableObject(revocationLog(), (_, { storage }) => {
      storage.sql.exec(`ALTER TABLE ${from} RENAME TO ${to}`);
    });
  await rename("cutoffs", "cutoffs_away");
  const response = await refresh(tokens.refresh_token).finally(() => rename("cutoffs_away", "cutoffs"));
  expect(response.status).toBeGreaterThanOrEqual(500);
  const [row] = await runInDurableObject(account(tokens.sub), (_, { storage }) =>
    storage.sql.exec<{ position: number }>("SELECT position FROM sessions").toArray(),
  );
  expect(row?.position).toBe(0);
  expect((await refresh(tokens.refresh_token)).status).toBe(200);
});

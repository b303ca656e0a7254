/** The audit trail: it takes every entry once, in one order, and no change to it goes unseen. */
import { evictDurableObject, runDurableObjectAlarm, runInDurableObject } from "cloudflare:test";
import { env } from "cloudflare:workers";
import { createHash } from "node:crypto";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import {
  AUDIT_TYPES,
  type AuditDraft,
  AuditOutbox,
  type AuditRecord,
  type AuditType,
  audit,
  entryOf,
} from "../../edge/audit/audit.ts";
import { type AuditPage, canonicalJson, type Verification } from "../../edge/audit/audit-trail.ts";
import { AUDIT_TYPES as SHOWN_TYPES } from "../../edge/console/audit-types.ts";
import { ask } from "../../edge/outcome.ts";
import { asClient } from "./clients.ts";
import { until } from "./cluster.ts";
import { ADMIN, call, newMember, ok, PASSWORD, post, refusal, revoke, signIn } from "./edge.ts";

const DAY_MS = 86_400_000;
const trail = () => env.AUDIT_TRAIL.getByName("trail");

/** Every test has a trail of its own, so that breaking one harms nobody. */
let own = trail();
beforeEach(() => {
  own = env.AUDIT_TRAIL.getByName(crypto.randomUUID());
});
afterEach(() => {
  vi.useRealTimers();
});

const draft: AuditDraft = { type: "sign_in", actor: { kind: "user", id: "u_ada" }, sub: "u_ada" };

async function write(count: number, more: Partial<AuditDraft> = {}): Promise<void> {
  const entries = Array.from({ length: count }, () => entryOf({ ...draft, ...more }));
  expect(await ask(own.append(entries))).toBe(count);
}

async function verification(after = 0): Promise<Verification> {
  return await ask(own.verify(after));
}

async function tamper(sql: string): Promise<void> {
  await runInDurableObject(own, (_, { storage }) => {
    storage.sql.exec(sql);
  });
}

async function records(query: string): Promise<AuditRecord[]> {
  const page = await ok<{ records: AuditRecord[] }>(await call("GET", `/admin/audit?${query}`, undefined, ADMIN));
  return page.records;
}

/** Entries arrive after the answer. */
async function recorded(type: AuditType, sub: string): Promise<AuditRecord> {
  return await until(async () => {
    const [record] = await records(`type=${type}&sub=${sub}`);
    if (record === undefined) throw new Error(`no ${type} of ${sub}`);
    return record;
  });
}

test("an entry is taken once, however often it is told, and in the order in which it came", async () => {
  const entries = ["a", "b", "c"].map((reason) => entryOf({ ...draft, reason }));
  expect(await ask(own.append(entries))).toBe(3);
  expect(await ask(own.append([...entries].reverse()))).toBe(0);
  const { records, next } = await ask(own.read({ after: 0, limit: 10 }));
  expect(next).toBeUndefined();
  expect(records.map(({ position, reason }) => [position, reason])).toEqual([
    [1, "a"],
    [2, "b"],
    [3, "c"],
  ]);
  expect(records[0]).toMatchObject(entries[0]!);
});

test("whoever has only the records can check the chain", async () => {
  await write(3, { from: { user_agent: "Zoë's \u2028 browser", country: "DE" }, reason: 'a "quoted" reason' });
  const { records } = await ask(own.read({ after: 0, limit: 10 }));
  let before = "";
  for (const { hash, ...record } of records) {
    expect(createHash("sha256").update(before).update(canonicalJson(record)).digest("base64url")).toBe(hash);
    before = hash;
  }
});

test("canonical JSON is that of RFC 8785: sorted, without white space, absent members left out", () => {
  const value = { b: [3, { d: 1, c: undefined }], "\u20ac": "€", a: null, "1": true };
  expect(canonicalJson(value)).toBe('{"1":true,"a":null,"b":[3,{"d":1}],"€":"€"}');
});

test("an untouched chain is intact, from the start and from anywhere, and over an eviction", async () => {
  expect(await verification()).toMatchObject({ intact: true, checked: 0, head: { position: 0 } });
  await write(5);
  await evictDurableObject(own);
  await write(1);
  expect(await verification()).toMatchObject({ intact: true, checked: 6, head: { position: 6 } });
  expect(await verification(4)).toMatchObject({ intact: true, checked: 2 });
  expect(await verification(99)).toMatchObject({ intact: true, checked: 0 });
});

test.for([
  ["altered", 3, "UPDATE records SET record = replace(record, 'u_ada', 'u_bob') WHERE position = 3"],
  ["altered", 3, "UPDATE records SET hash = 'AAAA' WHERE position = 3"],
  ["altered", 3, "UPDATE records SET record = json_set(record, '$.type', 'sign_in_failed') WHERE position = 3"],
  ["missing", 3, "DELETE FROM records WHERE position = 3"],
  ["missing", 1, "DELETE FROM records WHERE position = 1"],
  ["missing", 5, "DELETE FROM records WHERE position = 5"],
  ["missing", 4, "DELETE FROM records WHERE position >= 4"],
  ["missing", 1, "DELETE FROM records"],
  [
    "surplus",
    6,
    "INSERT INTO records (position, record, hash) SELECT 6, json_set(record, '$.id', 'x'), hash FROM records LIMIT 1",
  ],
  ["altered", 5, "UPDATE ends SET hash = 'AAAA' WHERE which = 'head'"],
] as const)("what is %s at %i shows: %s", async ([problem, position, sql]) => {
  await write(5);
  await tamper(sql);
  expect(await verification()).toMatchObject({ intact: false, broken: { position, problem } });
});

test("records that were changed places are both found out", async () => {
  await write(4);
  await tamper(
    `UPDATE records SET position = 99 WHERE position = 2; UPDATE records SET position = 2 WHERE position = 3;
     UPDATE records SET position = 3 WHERE position = 99`,
  );
  expect(await verification()).toMatchObject({ intact: false, broken: { position: 2, problem: "altered" } });
});

test("what is older than the retention goes, says that it went, and the rest still verifies", async () => {
  await write(3);
  const { head } = await verification();
  vi.useFakeTimers({ toFake: ["Date"], now: Date.now() + 300 * DAY_MS });
  await write(2);
  vi.setSystemTime(Date.now() + 100 * DAY_MS);
  expect(await runDurableObjectAlarm(own)).toBe(true);
  const verified = await verification();
  expect(verified).toMatchObject({ intact: true, checked: 3, anchor: head, head: { position: 6 } });
  const { records } = await ask(own.read({ after: 0, limit: 10 }));
  expect(records.map(({ position }) => position)).toEqual([4, 5, 6]);
  expect(records.at(-1)).toMatchObject({ type: "audit_truncated", reason: "3 records up to position 3" });

  await tamper("DELETE FROM records WHERE position = 4");
  expect(await verification()).toMatchObject({ intact: false, broken: { position: 4, problem: "missing" } });
});

test("a trail without room for more lets go of its oldest and no others, says so, and the rest still verifies", async () => {
  for (let times = 0; times < 4; times++) await write(80, { receipt: "x".repeat(100_000) });
  expect((await ask(own.ends())).bytes).toBeGreaterThan(30_000_000);
  await until(async () => {
    await runDurableObjectAlarm(own);
    const alarm = await runInDurableObject(own, (_, { storage }) => storage.getAlarm());
    expect(alarm).toBeGreaterThan(Date.now() + 60_000);
  });
  const { bytes, anchor, head } = await ask(own.ends());
  expect(bytes).toBeLessThanOrEqual(30_000_000);
  expect(bytes).toBeGreaterThan(28_000_000);
  expect(await verification(anchor)).toMatchObject({ intact: true, checked: head - anchor });
  const [last] = (await ask(own.read({ order: "desc", limit: 1 }))).records;
  expect(last).toMatchObject({ type: "audit_truncated", reason: expect.stringContaining("there is no room for more") });
});

test("retention keeps what is young, and comes again within the day", async () => {
  await write(2);
  expect(await runDurableObjectAlarm(own)).toBe(true);
  expect(await verification()).toMatchObject({ intact: true, checked: 2 });
  const alarm = await runInDurableObject(own, (_, { storage }) => storage.getAlarm());
  expect(alarm).toBeGreaterThan(Date.now() + DAY_MS / 48);
});

test("pages go on where the last one ended, and filters find what they name", async () => {
  await write(3, { sub: "u_ada", tid: "acme" });
  await write(4, { sub: "u_bob", type: "sign_in_failed" });
  const first = await ask(own.read({ after: 0, limit: 2 }));
  expect(first.next).toBe(2);
  const second = await ask(own.read({ after: 2, limit: 10 }));
  expect([...first.records, ...second.records].map(({ position }) => position)).toEqual([1, 2, 3, 4, 5, 6, 7]);
  const found = async (query: object) => (await ask(own.read({ after: 0, limit: 10, ...query }))).records.length;
  expect(await found({ sub: "u_bob" })).toBe(4);
  expect(await found({ tid: "acme" })).toBe(3);
  expect(await found({ type: "sign_in_failed", tid: "acme" })).toBe(0);
  expect(await found({ since: Date.now() + 60_000 })).toBe(0);
  expect(await found({ since: Date.now() - 60_000, until: Date.now() + 60_000 })).toBe(7);
  expect(await found({ sub: "' OR 1=1 --" })).toBe(0);
});

test("the newest first goes back page by page, to the first that is left and no further", async () => {
  await write(5, { sub: "u_ada" });
  const positions = async (after?: number) => {
    const { records, next } = await ask(own.read({ order: "desc", after, limit: 2 }));
    return { found: records.map(({ position }) => position), next };
  };
  expect(await positions()).toEqual({ found: [5, 4], next: 4 });
  expect(await positions(4)).toEqual({ found: [3, 2], next: 2 });
  expect(await positions(2)).toEqual({ found: [1], next: undefined });
  await ask(trail().append([entryOf(draft)]));
  const { head } = await ok<Verification>(await call("GET", "/admin/audit/verify", undefined, ADMIN));
  const newest = await ok<AuditPage>(await call("GET", "/admin/audit?order=desc&limit=1", undefined, ADMIN));
  expect(newest.records[0]?.position).toBeGreaterThanOrEqual(head.position);
  expect((await call("GET", "/admin/audit?order=random", undefined, ADMIN)).status).toBe(400);
});

test("records with long receipts are cut into pages that can travel, and none is left out", async () => {
  const receipt = "x".repeat(1024 * 1024);
  for (let i = 0; i < 10; i++) await write(2, { type: "revocation_enforced", reason: `${i}`, receipt });
  const pages = [await ask(own.read({ after: 0, limit: 100 }))];
  for (let next = pages[0]?.next; next !== undefined; next = pages.at(-1)?.next) {
    pages.push(await ask(own.read({ after: next, limit: 100 })));
  }
  expect(pages.length).toBe(3);
  expect(pages.flatMap(({ records }) => records.map(({ position }) => position))).toEqual(
    Array.from({ length: 20 }, (_, index) => index + 1),
  );
  expect(await verification()).toMatchObject({ intact: true, checked: 20 });
});

test("what an object owes arrives however long it is", async () => {
  const sub = `u_${crypto.randomUUID()}`;
  await runInDurableObject(env.KEY_RING.getByName(crypto.randomUUID()), async (_, { storage }) => {
    const outbox = new AuditOutbox(storage.sql, env);
    for (let i = 0; i < 40; i++) outbox.add({ ...draft, sub, receipt: "x".repeat(1024 * 1024) });
    await outbox.tell();
    expect(outbox.retryAt()).toBeUndefined();
  });
  const found: AuditRecord[] = [];
  for (let after: number | undefined = 0; after !== undefined; ) {
    const { records, next }: { records: readonly AuditRecord[]; next?: number } = await ask(
      trail().read({ after, limit: 500, sub }),
    );
    found.push(...records);
    after = next;
  }
  expect(found).toHaveLength(40);
});

test("a search through more than one call can look through says where to go on, even when it found nothing", async () => {
  await tamper(
    `WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20005)
     INSERT INTO records (position, record, hash) SELECT i,
       json_object('id', 'aud_' || i, 'at', i, 'type', 'sign_in', 'position', i, 'recorded_at', i), '' FROM n;
     INSERT OR REPLACE INTO ends (which, position, hash, recorded_at) VALUES ('head', 20005, '', 1)`,
  );
  expect(await ask(own.read({ after: 0, limit: 10, type: "key_retired" }))).toEqual({ records: [], next: 20_000 });
  expect(await ask(own.read({ after: 20_000, limit: 10, type: "key_retired" }))).toEqual({ records: [] });
});

test("a sign-in is recorded with who and from where, but never with the full address", async () => {
  const person = await newMember({ tid: "acme" });
  const headers = { "cf-connecting-ip": "203.0.113.77", "user-agent": "a browser" };
  await ok(await post("/login", { login: person.login, password: PASSWORD }, headers));
  const record = await recorded("sign_in", person.sub);
  expect(record).toMatchObject({
    actor: { kind: "user", id: person.sub },
    sub: person.sub,
    from: { address: "203.0.113.0/24", user_agent: "a browser" },
    request: expect.any(String),
  });
  expect(JSON.stringify(record)).not.toContain("203.0.113.77");
});

test("a failed sign-in is recorded without the password, and without the login name of nobody", async () => {
  const secret = `typed-in-the-wrong-field-${crypto.randomUUID()}`;
  const before = await ask(trail().verify(Number.MAX_SAFE_INTEGER));
  expect(await refusal(await post("/login", { login: secret, password: `pw-${secret}` }))).toBe("credentials_wrong");
  const found = await until(async () => {
    const list = await records(`type=sign_in_failed&after=${before.head.position}`);
    if (list.length === 0) throw new Error("not there yet");
    return list;
  });
  expect(JSON.stringify(found)).not.toContain(secret);
});

test("a revocation is recorded with its actor, its reason and the way to its receipt", async () => {
  const person = await newMember();
  await signIn(person);
  const { id } = await revoke({ kind: "user", sub: person.sub });
  const record = await recorded("revocation", person.sub);
  expect(record).toMatchObject({ revocation: id, actor: { kind: "admin", id: "root" } });
  expect(record.reason).toContain("a test");
});

test("an entry that was decided outlives a trail that cannot be reached", async () => {
  const sub = `u_${crypto.randomUUID()}`;
  const object = env.KEY_RING.getByName(crypto.randomUUID());
  await runInDurableObject(object, async (_, { storage }) => {
    const down = { AUDIT_TRAIL: { getByName: () => ({ append: () => Promise.reject(new Error("down")) }) } };
    const unlucky = new AuditOutbox(storage.sql, down as unknown as Env);
    unlucky.add({ type: "account_deleted", actor: { kind: "admin", id: "root" }, sub });
    await unlucky.tell();
    expect(unlucky.retryAt()).toBeGreaterThan(Date.now());
  });
  await evictDurableObject(object);
  await runInDurableObject(object, async (_, { storage }) => {
    const outbox = new AuditOutbox(storage.sql, env);
    await Promise.all([outbox.tell(), outbox.tell()]);
    await outbox.tell();
    expect(outbox.retryAt()).toBeUndefined();
  });
  expect(await records(`sub=${sub}`)).toHaveLength(1);
});

test("the console can look for every type that there is", () => {
  expect(SHOWN_TYPES).toEqual(AUDIT_TYPES);
});

test("what merely happened never fails or delays whoever writes it", async () => {
  const down = { AUDIT_TRAIL: { getByName: () => ({ append: () => Promise.reject(new Error("down")) }) } };
  expect(() => audit(down as unknown as Env, draft)).not.toThrow();
});

test("an export is one record a line, from `after` on, as many as there are", async () => {
  const sub = `u_${crypto.randomUUID()}`;
  const entries = Array.from({ length: 1_100 }, () => entryOf({ ...draft, sub }));
  await ask(trail().append(entries));
  const accept = { ...ADMIN, accept: "application/x-ndjson" };
  const response = await call("GET", `/admin/audit?sub=${sub}`, undefined, accept);
  expect(response.headers.get("content-type")).toBe("application/x-ndjson");
  const lines = new TextDecoder()
    .decode(await response.arrayBuffer())
    .trimEnd()
    .split("\n");
  expect(lines.map((line) => JSON.parse(line).id)).toEqual(entries.map(({ id }) => id));
  const some = await call("GET", `/admin/audit?sub=${sub}&limit=7`, undefined, accept);
  expect(
    new TextDecoder()
      .decode(await some.arrayBuffer())
      .trimEnd()
      .split("\n"),
  ).toHaveLength(7);
});

test("who is turned away from the admin calls is recorded, without the credential, and not for ever", async () => {
  const guess = `a-guess-at-the-token-${crypto.randomUUID()}`;
  const path = `/admin/accounts/${crypto.randomUUID()}`;
  const headers = { authorization: `Bearer ${guess}`, "cf-connecting-ip": "192.0.2.200" };
  const { head } = await ask(trail().verify(Number.MAX_SAFE_INTEGER));
  const flood = await Promise.all(Array.from({ length: 150 }, () => call("GET", path, undefined, headers)));
  expect(new Set(flood.map(({ status }) => status))).toEqual(new Set([401]));
  const found = await until(async () => {
    const list = await records(`type=admin_refused&after=${head.position}&limit=500`);
    if (list.length < 60) throw new Error(`${list.length} so far`);
    return list.filter(({ reason }) => reason?.includes(path));
  });
  // Windows are aligned to the clock, so that two may be met.
  expect(found.length).toBeLessThanOrEqual(120);
  expect(found[0]).toMatchObject({ from: { address: "192.0.2.0/24" }, reason: expect.stringContaining(`GET ${path}`) });
  expect(JSON.stringify(found)).not.toContain(guess);
});

test("the whole trail verifies over HTTP", async () => {
  const verified = await ok<Verification>(await call("GET", "/admin/audit/verify", undefined, ADMIN));
  expect(verified).toMatchObject({ intact: true });
});

test.for([
  "limit=0",
  "limit=501",
  "limit=x",
  "after=-1",
  "type=nonsense",
  "since=yesterday",
  "what=ever",
  "after=1&after=2",
])("a query with %s is refused", async (query) => {
  expect(await refusal(await call("GET", `/admin/audit?${query}`, undefined, ADMIN))).toBe("request_malformed");
});

test("times may be written as RFC 3339", async () => {
  const sub = `u_${crypto.randomUUID()}`;
  await ask(trail().append([entryOf({ ...draft, sub })]));
  expect(await records(`sub=${sub}&since=${new Date(Date.now() - 60_000).toISOString()}`)).toHaveLength(1);
  expect(await records(`sub=${sub}&until=${new Date(Date.now() - 60_000).toISOString()}`)).toHaveLength(0);
});

test("whoever looks after one tenant sees the records of that one, whatever they ask for, and not the chain", async () => {
  const [mine, other] = [crypto.randomUUID(), crypto.randomUUID()];
  const entries = [mine, other, mine].map((tid) => entryOf({ ...draft, tid }));
  await ask(trail().append(entries));
  const headers = await asClient(["audit:read", "keys:write"], { tid: mine });
  for (const query of ["", "&sub=u_ada", `&tid=${other}`]) {
    const page = await call("GET", `/admin/audit?limit=500${query}`, undefined, headers);
    const { records } = await ok<{ records: AuditRecord[] }>(page);
    expect(records.filter(({ tid }) => tid !== mine)).toEqual([]);
    expect(records.map(({ id }) => id)).toEqual(expect.arrayContaining([entries[0]?.id, entries[2]?.id]));
  }
  const lines = await call("GET", `/admin/audit?tid=${other}`, undefined, {
    ...headers,
    accept: "application/x-ndjson",
  });
  expect(new TextDecoder().decode(await lines.arrayBuffer())).not.toContain(other);
  for (const path of ["/admin/audit/verify", "/admin/keys"]) {
    expect(await refusal(await call("GET", path, undefined, headers))).toBe("scope_insufficient");
  }
});

test("nobody but administrators reads it", async () => {
  const { access_token } = await signIn(await newMember());
  for (const path of ["/admin/audit", "/admin/audit/verify"]) {
    expect(await refusal(await call("GET", path))).toBe("token_missing");
    const response = await call("GET", path, undefined, { authorization: `Bearer ${access_token}` });
    expect([401, 403]).toContain(response.status);
  }
});

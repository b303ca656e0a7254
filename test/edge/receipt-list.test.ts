/** The list of receipts: what is found by whom and how, page after page, and that looking back costs the log next to nothing. */
import { runInDurableObject } from "cloudflare:test";
import { env } from "cloudflare:workers";
import { afterEach, beforeEach, expect, test } from "vitest";
import { Chronicle } from "../../edge/revocations/chronicle.ts";
import { EventTable } from "../../edge/revocations/event-table.ts";
import { FeedLeases } from "../../edge/revocations/feed-leases.ts";
import { ReceiptList, type ReceiptQuery } from "../../edge/revocations/receipt-list.ts";
import { Receipts } from "../../edge/revocations/receipts.ts";
import { asClient } from "./clients.ts";
import { behave, GOOD, until } from "./cluster.ts";
import { countingSql } from "./counting-sql.ts";
import {
  ADMIN,
  call,
  type Headers,
  login,
  newPerson,
  ok,
  post,
  type ReceiptBody,
  receipt,
  refusal,
  revoke,
} from "./edge.ts";

interface Listed extends ReceiptBody {
  readonly created_at: number;
  readonly batch?: string;
  readonly users?: number;
}
interface Page {
  readonly receipts: readonly Listed[];
  readonly next?: string;
}

beforeEach(() => behave("south", GOOD));
afterEach(() => behave("south", GOOD));

async function list(query: Record<string, string | number>, headers: Headers = ADMIN): Promise<Page> {
  const text = new URLSearchParams(Object.entries(query).map(([name, value]) => [name, String(value)]));
  return await ok(await call("GET", `/admin/revocations?${text}`, undefined, headers));
}

async function ids(query: Record<string, string | number>, headers: Headers = ADMIN): Promise<string[]> {
  return (await list(query, headers)).receipts.map(({ id }) => id);
}

async function enforced(id: string): Promise<void> {
  await until(async () => expect(await receipt(id)).toMatchObject({ state: "enforced" }));
}

async function bulk(users: readonly string[], headers: Headers = ADMIN): Promise<{ readonly id: string }> {
  const made = await ok<{ id: string }>(await post("/admin/revocations/bulk", { users, reason: "a breach" }, headers));
  await until(async () => expect(await receipt(made.id)).toMatchObject({ remaining: 0 }));
  return made;
}

test("a person's receipts, newest first, whichever kind of target hit them, and without their proofs", async () => {
  const person = await newPerson();
  const [first, second] = [await login(person), await login(person)];
  const token = await revoke({ kind: "token", token: first.access_token });
  const session = await revoke({ kind: "session", sid: second.sid });
  const user = await revoke({ kind: "user", sub: person.sub });
  await enforced(user.id);
  const { receipts } = await list({ sub: person.sub });
  expect(receipts.map(({ id }) => id)).toEqual([user.id, session.id, token.id]);
  const { proof, ...whole } = await receipt(user.id);
  expect(proof).toBeDefined();
  expect(receipts[0]).toEqual(whole);
});

test("a receipt names the request in which it was decided, as the audit trail does", async () => {
  const person = await newPerson();
  const tokens = await login(person);
  const body = { target: { kind: "user", sub: person.sub }, reason: "a test" };
  const response = await post("/admin/revocations", body, ADMIN);
  const request = response.headers.get("x-request-id");
  expect(await ok(response)).toMatchObject({ request });
  const out = await post("/logout", { refresh_token: (await login(person)).refresh_token });
  const [byHolder, byAdmin] = (await list({ sub: tokens.sub })).receipts;
  expect([byHolder, byAdmin]).toMatchObject([{ request: out.headers.get("x-request-id") }, { request }]);
  const trail = await ok<{ records: object[] }>(await call("GET", `/admin/audit?sub=${person.sub}`, undefined, ADMIN));
  expect(trail.records).toContainEqual(expect.objectContaining({ type: "revocation", request }));
});

test("page after page has everything once, in order, and nothing after the last", async () => {
  const person = await newPerson();
  const made: string[] = [];
  for (let i = 0; i < 5; i++) made.unshift((await revoke({ kind: "user", sub: person.sub })).id);
  const seen: string[] = [];
  let after: string | undefined;
  for (let pages = 0; pages < 3; pages++) {
    const page = await list({ sub: person.sub, limit: 2, ...(after && { after }) });
    seen.push(...page.receipts.map(({ id }) => id));
    after = page.next;
  }
  expect(seen).toEqual(made);
  expect(after).toBeUndefined();
});

test("since and until bound the time of the decision, in milliseconds or as RFC 3339", async () => {
  const person = await newPerson();
  const made: Listed[] = [];
  for (let i = 0; i < 3; i++) {
    const { id } = await revoke({ kind: "user", sub: person.sub });
    made.push((await receipt(id)) as Listed);
    await until(async () => expect(Date.now()).toBeGreaterThan(made.at(-1)?.created_at ?? 0));
  }
  const [, middle, last] = made.map(({ id, created_at }) => ({ id, created_at }));
  const at = new Date(middle?.created_at ?? 0).toISOString();
  expect(await ids({ sub: person.sub, since: at, until: middle?.created_at ?? 0 })).toEqual([middle?.id]);
  expect(await ids({ since: at, limit: 2 })).toEqual([last?.id, middle?.id]);
});

test("what is open is found by its state, and so is what is enforced", async () => {
  const tid = crypto.randomUUID();
  const over = await revoke({ kind: "tenant", tid });
  await enforced(over.id);
  await behave("south", { receipts: "pending" });
  const delivered = await revoke({ kind: "tenant", tid });
  await until(async () => expect(await ids({ tid, state: "delivered" })).toEqual([delivered.id]));
  await behave("south", { events: "later" });
  const pending = await revoke({ kind: "tenant", tid });
  expect(await ids({ tid, state: "pending" })).toEqual([pending.id]);
  expect(await ids({ state: "pending" })).toContain(pending.id);
  expect(await ids({ tid, state: "enforced" })).toEqual([over.id]);
  expect(await ids({ tid, state: "no_clusters" })).toEqual([]);
  expect(await ids({ tid })).toEqual([pending.id, delivered.id, over.id]);
  await behave("south", GOOD);
  await enforced(pending.id);
});

test("a bulk revocation stands in the list once, and each of its receipts where it is asked for", async () => {
  const tid = crypto.randomUUID();
  const people = [await newPerson({ tid }), await newPerson({ tid }), await newPerson({ tid })];
  const single = await revoke({ kind: "user", sub: people[0]?.sub });
  const { id } = await bulk(people.map(({ sub }) => sub));
  const { receipts } = await list({ tid });
  expect(receipts).toMatchObject([{ id, users: 3, request: expect.any(String) }, { id: single.id }]);
  expect(await ids({ limit: 2 })).toEqual(expect.arrayContaining([id]));
  const parts = (await list({ batch: id })).receipts;
  expect(parts.map(({ batch, target }) => [batch, (target as { sub: string }).sub]).sort()).toEqual(
    people.map(({ sub }) => [id, sub]).sort(),
  );
  expect((await list({ sub: people[0]?.sub ?? "" })).receipts).toMatchObject([{ batch: id }, { id: single.id }]);
  for (const { sub } of people) {
    expect((await list({ batch: id, sub })).receipts).toMatchObject([{ batch: id, target: { kind: "user", sub } }]);
  }
});

test("who is bound to a tenant sees what is of it, whatever they ask for", async () => {
  const [ours, theirs] = [crypto.randomUUID(), crypto.randomUUID()];
  const [inside, outside] = [await newPerson({ tid: ours }), await newPerson({ tid: theirs })];
  const mine = await revoke({ kind: "user", sub: inside.sub });
  const other = await revoke({ kind: "user", sub: outside.sub });
  const { id } = await bulk([outside.sub, inside.sub]);
  const headers = await asClient(["revocations:read"], { tid: ours });
  // Of the bulk revocation, which is not theirs to see, the part that is.
  const part = (await ids({ batch: id, sub: inside.sub }))[0];
  expect(await ids({}, headers)).toEqual([part, mine.id]);
  expect(await ids({ tid: theirs }, headers)).toEqual([part, mine.id]);
  expect(await ids({ batch: id }, headers)).toEqual([part]);
  expect(await ids({ sub: outside.sub }, headers)).toEqual([]);
  expect(await ids({ state: "pending" }, headers)).not.toContain(other.id);
});

test.for<[string, string]>([
  ["a place that is none", "after=yesterday"],
  ["a limit of 101", "limit=101"],
  ["a state that nobody knows", "state=over"],
  ["a parameter that nobody knows", "login=ada"],
  ["a parameter that is given twice", "sub=a&sub=b"],
])("%s is malformed", async ([, query]) => {
  expect(await refusal(await call("GET", `/admin/revocations?${query}`, undefined, ADMIN))).toBe("request_malformed");
});

const EVENTS = 20_000;
/** Of the last ones. */
const OPEN = 3;

/** A log with very many events; every tenth is of the tenant, every hundredth of the person, and the newest are open. */
async function inLongLog(work: (list: ReceiptList, rowsRead: () => number) => void): Promise<void> {
  await runInDurableObject(env.REVOCATION_LOG.getByName(crypto.randomUUID()), (_, { storage: { sql } }) => {
    sql.exec(
      `WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?)
       INSERT INTO events (id, targets, code, reason, decided_at, expires_at, tid, sub)
       SELECT 'rev_' || i, '[{"kind":"everyone","cutoff":1}]', 'session_revoked', 'a test', i, 4000000000,
         CASE WHEN i % 10 = 0 THEN 'acme' END, CASE WHEN i % 100 = 0 THEN 'ada' END FROM n`,
      EVENTS,
    );
    sql.exec(
      `INSERT INTO open_receipts (seq, decided_at, expires_at)
       SELECT seq, decided_at, expires_at FROM events WHERE seq <= ?`,
      OPEN,
    );
    const { sql: counting, rowsRead } = countingSql(sql);
    const events = new EventTable(counting);
    const receipts = new Receipts(counting, events, new FeedLeases(counting), new Chronicle(counting), () => ["south"]);
    work(new ReceiptList(counting, events, receipts), rowsRead);
  });
}

test.for<[string, Partial<ReceiptQuery>, number[]]>([
  ["newest", {}, [20_000, 19_999]],
  ["of a tenant", { tid: "acme" }, [20_000, 19_990]],
  ["of a person", { sub: "ada" }, [20_000, 19_900]],
  ["of some time ago", { until: 5_000 }, [5_000, 4_999]],
  ["open", { state: "pending" }, [3, 2]],
])("the receipts that are %s are found among very many without going through them", async ([, query, expected]) => {
  await inLongLog((list, rowsRead) => {
    const page = list.page({ limit: 2, ...query });
    expect(page.receipts.map(({ seq }) => seq)).toEqual(expected);
    expect(rowsRead()).toBeLessThan(100);
    const { seq = 0, decided_at = 0 } = page.next ?? {};
    expect([seq, decided_at]).toEqual([expected.at(-1), expected.at(-1)]);
  });
});

test("what is rare takes many pages, of which each looks at so many receipts and no more", async () => {
  await inLongLog((list, rowsRead) => {
    let pages = 0;
    let after: ReceiptQuery["after"];
    do {
      const before = rowsRead();
      const { receipts, next } = list.page({ limit: 10, state: "no_clusters", after });
      expect(receipts).toEqual([]);
      expect(rowsRead() - before).toBeLessThan(10_000);
      after = next;
      pages += 1;
    } while (after !== undefined && pages < EVENTS);
    expect(pages).toBe(EVENTS / 1_000 + 1);
  });
});

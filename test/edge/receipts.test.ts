/** Receipts: collected without being asked for, complete only when no node is left that could hold a socket, and proven for good. */
import { abortAllDurableObjects, runDurableObjectAlarm, runInDurableObject } from "cloudflare:test";
import { env } from "cloudflare:workers";
import { decodeJwt, jwtVerify } from "jose";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import type { AuditRecord } from "../../edge/audit/audit.ts";
import { forgetKeys } from "../../edge/keys/issuer.ts";
import { Chronicle } from "../../edge/revocations/chronicle.ts";
import { DeliveryTable } from "../../edge/revocations/delivery-table.ts";
import { EventTable } from "../../edge/revocations/event-table.ts";
import { FeedLeases } from "../../edge/revocations/feed-leases.ts";
import { PROOF_TYPE } from "../../edge/revocations/receipt-proof.ts";
import { Receipts } from "../../edge/revocations/receipts.ts";
import {
  aNode,
  behave,
  edgeKeys,
  feed,
  GOOD,
  lifeOf,
  type Manner,
  type Node,
  queryToken,
  questionsAbout,
  until,
} from "./cluster.ts";
import { ADMIN, bearer, call, ISSUER, ok, type ReceiptBody, receipt, refusal, revocationLog, revoke } from "./edge.ts";

const HOUR_MS = 3_600_000;

beforeEach(async () => {
  await behave("north", GOOD);
  await behave("south", GOOD);
});
afterEach(async () => {
  vi.useRealTimers();
  await behave("south", GOOD);
  await runInDurableObject(revocationLog(), (_, { storage }) => {
    // A node that lives on would be waited for by the next test.
    storage.sql.exec("DELETE FROM feed_leases");
  });
  await abortAllDurableObjects();
});

function aRevocation(headers: Record<string, string> = {}): Promise<ReceiptBody> {
  return revoke({ kind: "token", jti: crypto.randomUUID() }, headers);
}

/** An event as an object decides it. `expires_at` in seconds. */
async function append(expires_at: number): Promise<string> {
  const id = `rev_${crypto.randomUUID().replaceAll("-", "").slice(0, 22)}`;
  const draft = { id, targets: [{ kind: "token", jti: id } as const], code: "token_revoked" as const };
  await revocationLog().append({ ...draft, reason: "a test", decided_at: Date.now(), expires_at });
  return id;
}

function now(): number {
  return Math.floor(Date.now() / 1000);
}

async function enforced(id: string): Promise<ReceiptBody> {
  return await until(async () => {
    const seen = await receipt(id);
    expect(seen.state).toBe("enforced");
    return seen;
  });
}

/** Once both clusters have been asked. */
async function asked(id: string): Promise<ReceiptBody> {
  return await until(async () => {
    const seen = await receipt(id);
    for (const { applied } of seen.clusters) expect(applied).not.toEqual([]);
    return seen;
  });
}

function lineOf(seen: ReceiptBody, name: string) {
  const line = seen.clusters.find(({ cluster }) => cluster === name);
  if (line === undefined) throw new Error(`no line of ${name}`);
  return line;
}

async function recordOf(id: string): Promise<AuditRecord> {
  return await until(async () => {
    const query = "/admin/audit?type=revocation_enforced&limit=500";
    const { records } = await ok<{ records: AuditRecord[] }>(await call("GET", query, undefined, ADMIN));
    const found = records.filter(({ revocation }) => revocation === id);
    expect(found).toHaveLength(1);
    return found[0]!;
  });
}

/** Where the log ends. */
async function headOf(node: Node): Promise<number> {
  return (await feed(node)).head;
}

/** A node that begins to live by the feed, knowing all that there is. */
async function living(node: Node, ms = 60_000): Promise<number> {
  const head = await headOf(node);
  await feed(node, `?after=${head}`, { ms, done: head, words: [] });
  return head;
}

test("a receipt that is enforced says when, and is proven by a key that the world knows", async () => {
  const { id } = await aRevocation();
  const { proof = "", ...seen } = await enforced(id);
  expect(seen).toMatchObject({ enforced_at: expect.any(Number), closed: 4 });
  for (const line of seen.clusters) {
    expect(line).toMatchObject({ expected: ["one"], pending: [], fenced: [], enforced_at: expect.any(Number) });
    expect(line.enforced_at).toBeLessThanOrEqual(seen.enforced_at ?? 0);
    expect(line.enforced_at).toBeGreaterThanOrEqual(line.delivered_at ?? Number.NaN);
  }
  // Its key may have been made for it, and the set that is known here is of before.
  forgetKeys(env);
  const options = { issuer: ISSUER, typ: PROOF_TYPE, algorithms: ["RS256"] };
  const { payload, protectedHeader } = await jwtVerify(proof, await edgeKeys(), options);
  expect(payload).toEqual({ iss: ISSUER, iat: expect.any(Number), jti: id, txn: id, receipt: seen });
  const { keys } = await ok<{ keys: { kid: string; purpose: string }[] }>(
    await call("GET", "/admin/keys", undefined, ADMIN),
  );
  expect(keys.find(({ kid }) => kid === protectedHeader.kid)?.purpose).toBe("events");
});

test("that it was enforced is in the audit trail, with the proof, and the chain is whole", async () => {
  await behave("south", { receipts: "fenced" });
  const { id, proof } = await enforced((await aRevocation()).id);
  expect(await recordOf(id)).toMatchObject({
    actor: { kind: "system", id: "edge" },
    reason: "2 nodes of 2 clusters, 4 sockets closed, 1 node fenced",
    receipt: proof,
  });
  expect(await ok(await call("GET", "/admin/audit/verify", undefined, ADMIN))).toMatchObject({ intact: true });
});

test("the record of a revocation that concerns a tenant is for those who look after that one", async () => {
  const tid = crypto.randomUUID();
  const { id } = await revoke({ kind: "tenant", tid });
  await enforced(id);
  expect(await recordOf(id)).toMatchObject({ tid });
});

test("what is proven does not change any more, whatever the clusters say later", async () => {
  const before = await enforced((await aRevocation()).id);
  await behave("south", { receipts: "pending", flush: true });
  await abortAllDurableObjects();
  await runDurableObjectAlarm(revocationLog());
  expect(await receipt(before.id, { prefer: "wait=1" })).toEqual(before);
});

test("a receipt that lacks only its proof is open again when a cluster is added meanwhile", async () => {
  await runInDurableObject(env.REVOCATION_LOG.getByName(crypto.randomUUID()), (_, { storage: { sql } }) => {
    const events = new EventTable(sql);
    const receiptsOf = (...clusters: string[]) =>
      new Receipts(sql, events, new FeedLeases(sql), new Chronicle(sql), () => clusters);
    const targets = [{ kind: "token", jti: "x" } as const];
    const draft = { id: "rev_1", targets, code: "token_revoked" as const, reason: "x", decided_at: Date.now() };
    const seq = events.insert({ ...draft, expires_at: now() + 600 });
    receiptsOf("north").open({ seq, decided_at: Date.now(), expires_at: now() + 600 });
    const give = (cluster: string) => {
      new DeliveryTable(sql, events).delivered(cluster, seq);
      const words = {
        expected: ["one"],
        applied: [{ node: "one", applied_at: 1, closed: 1 }],
        pending: [],
        fenced: [],
      };
      receiptsOf("north", "east").heard(cluster, [{ seq, id: "rev_1", fresh: true }], [{ id: "rev_1", ...words }]);
    };
    sql.exec("UPDATE open_receipts SET enforced_at = 1");
    expect(receiptsOf("north", "east").provable(9)).toEqual([]);
    give("north");
    expect(receiptsOf("north", "east").provable(9)).toEqual([]);
    give("east");
    expect(receiptsOf("north", "east").provable(9)).toMatchObject([{ receipt: { state: "enforced", closed: 2 } }]);
  });
});

test("a fenced node is named with the time at which it was over", async () => {
  await behave("south", { receipts: "fenced" });
  const seen = await enforced((await aRevocation()).id);
  expect(lineOf(seen, "south")).toMatchObject({
    expected: ["one", "two"],
    applied: [{ node: "one", closed: 2 }],
    pending: [],
    fenced: [{ node: "two", fenced_at: 1_790_000_000_500 }],
  });
});

test("a cluster is asked at once, then a second after each answer, though nobody asks for the receipt", async () => {
  await behave("south", { receipts: "pending" });
  const { id } = await aRevocation();
  const questions = await until(async () => {
    const all = await questionsAbout("south", id);
    expect(all.length).toBe(3);
    return all;
  });
  expect(questions.map(({ waitMs }) => waitMs)).toEqual([500, 0, 0]);
  const gaps = questions.slice(1).map(({ at }, index) => at - (questions[index]?.at ?? 0));
  expect(gaps[0]).toBeGreaterThan(1_400);
  expect(gaps[1]).toBeGreaterThan(900);
});

test("while somebody waits it is asked again soon, with the time to answer, and the last word ends the waiting", async () => {
  await behave("south", { receipts: "pending" });
  const { id } = await aRevocation();
  await asked(id);
  const waiting = receipt(id, { prefer: "wait=10" });
  await until(async () =>
    expect((await questionsAbout("south", id)).filter(({ waitMs }) => waitMs > 0).length).toBe(3),
  );
  await behave("south", GOOD);
  expect(await waiting).toMatchObject({ state: "enforced", proof: expect.any(String) });
});

test("what is pending outlives the crash of the object that collects, and is collected without being asked for", async () => {
  await behave("south", { receipts: "pending" });
  const { id } = await aRevocation();
  expect(lineOf(await asked(id), "south").pending).toEqual(["two"]);
  await abortAllDurableObjects();
  await behave("south", GOOD);
  await until(async () => expect((await lifeOf("south")).queries.at(-1)?.ids).toContain(id));
  await enforced(id);
});

test("an event that a cluster does not know any more is given to it again", async () => {
  await behave("south", { receipts: "pending" });
  const { id } = await aRevocation();
  await asked(id);
  await behave("south", { ...GOOD, flush: true });
  await enforced(id);
  const { sets } = await lifeOf("south");
  expect(sets.filter((set) => decodeJwt(set).jti === id)).toHaveLength(2);
  expect((await lifeOf("north")).sets.filter((set) => decodeJwt(set).jti === id)).toHaveLength(1);
});

test("that a cluster has lost an event outlives the crash of the object that found out", async () => {
  await behave("south", { receipts: "pending" });
  const { id } = await aRevocation();
  await asked(id);
  await behave("south", { events: "later", flush: true });
  await until(async () => {
    const { state, clusters } = await receipt(id);
    expect([state, clusters[1]?.delivered_at]).toEqual(["pending", undefined]);
  });
  await abortAllDurableObjects();
  await behave("south", GOOD);
  await runDurableObjectAlarm(revocationLog());
  await enforced(id);
});

test("a hundred events that a cluster has lost all come back", async () => {
  await behave("south", { receipts: "pending" });
  const ids: string[] = [];
  for (let i = 0; i < 100; i++) ids.push((await aRevocation()).id);
  await asked(ids[99] ?? "");
  await behave("south", { ...GOOD, flush: true });
  for (const id of ids) await enforced(id);
});

test.for(["forged", "stale", "nonsense", "later"] as const)(
  "an answer that is %s is no receipt: it is told as an error, and asked for again",
  async (receipts) => {
    await behave("south", { receipts });
    const { id } = await aRevocation();
    const seen = await until(async () => {
      const { state, clusters } = await receipt(id);
      expect(clusters[1]?.last_error).toMatch(/HTTP 503|the receipts are not good/);
      return { state, line: clusters[1] };
    });
    expect(seen).toMatchObject({ state: "delivered", line: { expected: [], applied: [] } });
    await behave("south", GOOD);
    await enforced(id);
  },
);

test.for<[string, Partial<Manner>]>([
  ["takes no events and never says so", { events: "never" }],
  ["never answers when it is asked for receipts", { receipts: "never" }],
])("a cluster that %s delays no other one", async ([, manner]) => {
  await behave("south", manner);
  const ids = await Promise.all(Array.from({ length: 20 }, async () => (await aRevocation()).id));
  for (const id of ids) {
    const seen = await until(async () => {
      const all = await receipt(id);
      expect(lineOf(all, "north").enforced_at).toBeDefined();
      return all;
    });
    expect(seen.state).not.toBe("enforced");
  }
  await behave("south", GOOD);
  await abortAllDurableObjects();
  await runDurableObjectAlarm(revocationLog());
  for (const id of ids) await enforced(id);
});

test("a cluster that was down for an hour is brought everything, and gives its receipts", async () => {
  await behave("south", { events: "later", receipts: "later" });
  const ids = await Promise.all(Array.from({ length: 60 }, () => append(now() + 7_200)));
  await until(async () => {
    for (const id of ids) expect(lineOf(await receipt(id), "north").enforced_at).toBeDefined();
  });
  expect(lineOf(await receipt(ids[0] ?? ""), "south").last_error).toContain("HTTP 503");
  vi.useFakeTimers({ toFake: ["Date"], now: Date.now() + HOUR_MS });
  await behave("south", GOOD);
  await until(async () => {
    vi.setSystemTime(Date.now() + 1_000);
    await runDurableObjectAlarm(revocationLog());
    for (const id of ids) expect((await receipt(id)).state).toBe("enforced");
  });
  for (const id of ids) {
    const seen = await enforced(id);
    expect(lineOf(seen, "south")).toMatchObject({ applied: [{ node: "one" }], pending: [] });
    expect(lineOf(seen, "south").expired).toBeUndefined();
  }
});

test("when no token that it hits can be alive a receipt is complete, whoever is pending", async () => {
  await behave("south", { receipts: "pending" });
  const pending = await append(now() - 58);
  await asked(pending);
  const seen = await enforced(pending);
  expect(lineOf(seen, "south")).toMatchObject({ pending: ["two"], expired: true });
  expect(lineOf(seen, "north").expired).toBeUndefined();
  expect((await recordOf(pending)).reason).toBe(
    "2 nodes of 2 clusters, 4 sockets closed, 1 node never heard of until it expired",
  );
  await behave("south", { events: "later" });
  const untaken = await enforced(await append(now() - 59));
  expect(lineOf(untaken, "south")).toMatchObject({ expected: [], pending: [], expired: true });
  expect(lineOf(untaken, "south").delivered_at).toBeUndefined();
});

test("a log without room for more lets go of its oldest receipts, and of nothing that can still hit a token", async () => {
  const [old, living] = [await append(now() + 60), await append(now() + 36_000)];
  for (const id of [old, living]) await enforced(id);
  const ballast = async (sql: string) =>
    await runInDurableObject(revocationLog(), (_, { storage }) => void storage.sql.exec(sql));
  await ballast(
    "CREATE TABLE ballast AS WITH RECURSIVE n (i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n LIMIT 31) SELECT zeroblob(1000000) FROM n",
  );
  vi.useFakeTimers({ toFake: ["Date"], now: Date.now() + HOUR_MS });
  await until(async () => {
    vi.setSystemTime(Date.now() + 60_000);
    await runDurableObjectAlarm(revocationLog());
    expect((await call("GET", `/admin/revocations/${old}`, undefined, ADMIN)).status).toBe(404);
  });
  expect((await receipt(living)).state).toBe("enforced");
  await ballast("DROP TABLE ballast");
});

test("a node that lives by the feed is pending until it is done, though Redis knows nothing of it", async () => {
  const node = aNode("south");
  await living(node);
  const { id, seq } = await aRevocation();
  const early = await asked(id);
  expect(early.state).toBe("delivered");
  expect(lineOf(early, "south")).toMatchObject({ expected: ["one", node.node], pending: [node.node] });
  expect(lineOf(early, "north").enforced_at).toBeDefined();
  await feed(node, `?after=${seq}`, { ms: 60_000, done: seq, words: [] });
  const seen = await enforced(id);
  const applied = { node: node.node, applied_at: expect.any(Number), closed: 0 };
  expect(lineOf(seen, "south").applied).toEqual([expect.objectContaining({ node: "one" }), applied]);
  expect(lineOf(seen, "south").pending).toEqual([]);
});

test("its word completes the receipt, and says how many sockets it closed", async () => {
  const node = aNode("south");
  const head = await living(node);
  const { id } = await aRevocation();
  await asked(id);
  const words = [
    { id, applied_at: 1_790_000_000_042, closed: 3 },
    { id: "rev_unknown", applied_at: 1, closed: 9 },
  ];
  await feed(node, `?after=${head}`, { ms: 60_000, done: head, words });
  const seen = await enforced(id);
  expect(lineOf(seen, "south").applied).toContainEqual({ node: node.node, applied_at: 1_790_000_000_042, closed: 3 });
  expect(seen.closed).toBe(7);
});

test("a node that says no more is fenced when its lease is over", async () => {
  const node = aNode("south");
  await living(node, 500);
  const { id } = await aRevocation();
  expect(lineOf(await asked(id), "south").pending).toEqual([node.node]);
  const seen = await enforced(id);
  const fence = { node: node.node, fenced_at: expect.any(Number) };
  expect(lineOf(seen, "south")).toMatchObject({ pending: [], fenced: [fence] });
  expect(lineOf(seen, "south").enforced_at).toBeGreaterThanOrEqual(lineOf(seen, "south").fenced[0]?.fenced_at ?? 0);
});

test("the lease of a node begins with its page: one that was waiting lives from then on", async () => {
  const node = aNode("south");
  const head = await headOf(node);
  const waiting = feed(node, `?after=${head}&wait=25`, { ms: 60_000, done: head, words: [] });
  await until(async () => {
    const [row] = await leases();
    expect(row).toMatchObject({ node: node.node, until: 0 });
  });
  const asOf = Date.now();
  const { id } = await aRevocation();
  expect((await waiting).events).toMatchObject([{ id }]);
  const [row] = await leases();
  expect(row?.until).toBeGreaterThanOrEqual(asOf + 62_000);
  expect(lineOf(await asked(id), "south").pending).toEqual([node.node]);
});

test("leases and what nodes have said outlive the object", async () => {
  const [silent, spoken] = [aNode("south"), aNode("south")];
  await living(silent);
  await living(spoken);
  const { id, seq } = await aRevocation();
  await asked(id);
  await feed(spoken, `?after=${seq}`, { ms: 60_000, done: seq, words: [{ id, applied_at: 5, closed: 1 }] });
  await abortAllDurableObjects();
  expect(lineOf(await receipt(id), "south")).toMatchObject({ pending: [silent.node] });
  await feed(silent, `?after=${seq}`, { ms: 60_000, done: seq, words: [] });
  const words = lineOf(await enforced(id), "south").applied;
  expect(words).toContainEqual({ node: spoken.node, applied_at: 5, closed: 1 });
});

test("a node that Redis and the feed know is one: its word by the feed counts where Redis waits for it", async () => {
  await behave("south", { receipts: "pending" });
  const node = aNode("south", "two");
  await living(node);
  const { id, seq } = await aRevocation();
  expect(lineOf(await asked(id), "south")).toMatchObject({ expected: ["one", "two"], pending: ["two"] });
  await feed(node, `?after=${seq}`, { ms: 60_000, done: seq, words: [{ id, applied_at: 5, closed: 4 }] });
  const seen = await enforced(id);
  expect(lineOf(seen, "south").applied).toEqual([
    expect.objectContaining({ node: "one" }),
    { node: "two", applied_at: 5, closed: 4 },
  ]);
});

test("that Redis takes a node for fenced does not count while it lives by the feed", async () => {
  await behave("south", { receipts: "fenced" });
  const node = aNode("south", "two");
  await living(node);
  const { id, seq } = await aRevocation();
  expect(lineOf(await asked(id), "south")).toMatchObject({ pending: ["two"], fenced: [] });
  await feed(node, `?after=${seq}`, { ms: 60_000, done: seq, words: [] });
  expect(lineOf(await enforced(id), "south").fenced).toEqual([]);
});

test("a node that was started anew has to catch up by itself", async () => {
  const [before, after] = [aNode("south", "again"), aNode("south", "again")];
  await living(before);
  await living(after);
  const { id, seq } = await aRevocation();
  await asked(id);
  await feed(before, `?after=${seq}`, { ms: 60_000, done: seq, words: [{ id, applied_at: 5, closed: 1 }] });
  expect(lineOf(await receipt(id), "south").pending).toEqual(["again"]);
  await feed(after, `?after=${seq}`, { ms: 60_000, done: seq, words: [{ id, applied_at: 7, closed: 1 }] });
  expect(lineOf(await enforced(id), "south").applied).toContainEqual({ node: "again", applied_at: 7, closed: 2 });
});

test("a node that claims to be ahead of the log speaks of another one, and is not believed", async () => {
  const node = aNode("south");
  const head = await headOf(node);
  const claim = async (done: number) => await feed(node, `?after=${done}`, { ms: 60_000, done, words: [] });
  await claim(head + 50);
  const { id, seq } = await aRevocation();
  await asked(id);
  await claim(head + 50);
  expect(lineOf(await receipt(id), "south").pending).toEqual([node.node]);
  await claim(seq);
  await enforced(id);
});

test("a query without a lease promises nothing, and nobody waits for it", async () => {
  await feed(aNode("south"));
  await enforced((await aRevocation()).id);
  expect(await leases()).toEqual([]);
});

test("a cluster has so many nodes and no more; who comes beyond them gets no page to live by", async () => {
  await runInDurableObject(revocationLog(), (_, { storage }) => {
    storage.sql.exec(
      `WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000)
       INSERT INTO feed_leases (cluster, node, boot, until, done) SELECT 'south', 'n' || i, 'x', ?, 0 FROM n`,
      Date.now() + HOUR_MS,
    );
  });
  const lease = { ms: 1_000, done: 0, words: [] };
  const response = await call("GET", "/revocations", undefined, bearer(await queryToken(aNode("south"), { lease })));
  expect(await refusal(response)).toBe("unavailable");
  expect((await feed({ cluster: "south", node: "n7", boot: "x" }, "", lease)).after).toBe(0);
});

test("leases that are over are remembered for a day", async () => {
  await living(aNode("south"), 0);
  await aRevocation({ prefer: "wait=5" });
  const after = async (ms: number) => {
    vi.useFakeTimers({ toFake: ["Date"], now: Date.now() + ms });
    await runDurableObjectAlarm(revocationLog());
    vi.useRealTimers();
    return (await leases()).length;
  };
  expect([await after(23 * HOUR_MS), await after(25 * HOUR_MS)]).toEqual([1, 0]);
});

async function leases() {
  return await runInDurableObject(revocationLog(), (_, { storage }) =>
    storage.sql.exec<{ node: string; until: number; done: number }>("SELECT * FROM feed_leases").toArray(),
  );
}

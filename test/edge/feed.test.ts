/** The feed: what a node reads that does without Redis, and who may. */
import { abortAllDurableObjects, runDurableObjectAlarm, runInDurableObject } from "cloudflare:test";
import { SignJWT } from "jose";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { type FeedPage, signFeedPage, signFeedQuery, verifyFeedPage } from "#contract/cluster";
import type { RevocationEvent } from "#contract/revocation";
import { EventTable } from "../../edge/revocations/event-table.ts";
import { RevocationLog } from "../../edge/revocations/revocation-log.ts";
import { createSigner } from "../support/tokens.ts";
import { aNode, edgeKeys, feed, jwtIn, type Node, queryToken, rulesFor, until } from "./cluster.ts";
import { CLUSTER_SECRETS, SECRETS } from "./cluster-secrets.ts";
import { bearer, call, ISSUER, login, newPerson, receipt, refusal, revocationLog, revoke } from "./edge.ts";

const DAY_MS = 86_400_000;
const NOW = () => Math.floor(Date.now() / 1000);
const node = aNode("south");

let head = 0;
beforeEach(async () => {
  head = (await feed(node)).head;
});
afterEach(() => {
  vi.useRealTimers();
});

async function aRevocation(): Promise<RevocationEvent["id"]> {
  return (await revoke({ kind: "token", jti: crypto.randomUUID() })).id;
}

async function appended(expires_at: number): Promise<string> {
  const id = `rev_${crypto.randomUUID()}`;
  const target = { kind: "token", jti: id } as const;
  const draft = { id, targets: [target], code: "token_revoked", reason: "a test", decided_at: Date.now() } as const;
  await revocationLog().append({ ...draft, expires_at });
  return id;
}

/** Events that no cluster is to be brought, since there are many. */
async function fill(count: number, targets: unknown, expiresAt: number): Promise<void> {
  await abortAllDurableObjects();
  await runInDurableObject(revocationLog(), (_, { storage }) => {
    storage.sql.exec(
      `WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?)
       INSERT INTO events (id, targets, code, reason, decided_at, expires_at)
       SELECT 'rev_' || hex(randomblob(16)), ?, 'token_revoked', 'a test', ?, ? FROM n`,
      ...[count, JSON.stringify(targets), Date.now(), expiresAt],
    );
    storage.sql.exec("UPDATE cursors SET seq = (SELECT MAX(seq) FROM events)");
  });
}

async function forget(after: number): Promise<void> {
  await abortAllDurableObjects();
  await runInDurableObject(revocationLog(), (_, { storage }) => {
    storage.sql.exec("DELETE FROM events WHERE seq > ?", after);
  });
}

/** Reads on until the end, as a node does. */
async function readAll(after: number): Promise<FeedPage[]> {
  const pages = [await feed(node, `?after=${after}`)];
  for (let last = pages[0]; last !== undefined && last.upto < last.head; last = pages.at(-1)) {
    pages.push(await feed(node, `?after=${last.upto}`));
  }
  return pages;
}

test("a page has what came after, oldest first, as the clusters are told it", async () => {
  const ids = [await aRevocation(), await aRevocation(), await aRevocation()];
  const page = await feed(node, `?after=${head}`);
  expect(page).toMatchObject({ after: head, upto: head + 3, head: head + 3 });
  expect(page.events.map(({ id, seq }) => [id, seq])).toEqual(ids.map((id, index) => [id, head + 1 + index]));
  expect(Object.keys(page.events[0] ?? {}).sort()).toEqual([
    "code",
    "decided_at",
    "expires_at",
    "id",
    "request",
    "seq",
    "targets",
  ]);
  const rest = await feed(node, `?after=${head + 2}`);
  expect(rest.events.map(({ id }) => id)).toEqual(ids.slice(2));
});

test("the answer is a JWT for the cluster that asked, in answer to its question, and is not kept", async () => {
  const nonce = crypto.randomUUID();
  const response = await call("GET", "/revocations", undefined, bearer(await queryToken(node, { nonce })));
  expect(response.headers.get("content-type")).toBe("application/jwt");
  expect(response.headers.get("cache-control")).toBe("no-store");
  const body = await jwtIn(response);
  expect(await verifyFeedPage(body, nonce, await edgeKeys(), rulesFor("south"))).toMatchObject({ after: 0, head });
  await expect(verifyFeedPage(body, "another", await edgeKeys(), rulesFor("south"))).rejects.toThrow();
  await expect(verifyFeedPage(body, nonce, await edgeKeys(), rulesFor("north"))).rejects.toThrow();
});

test("more than a thousand events are several pages, without a gap and without a repetition", async () => {
  await fill(2_300, [{ kind: "token", jti: "x" }], NOW() + 600);
  const pages = await readAll(head);
  expect(pages.map(({ events }) => events.length)).toEqual([1_000, 1_000, 300]);
  const seqs = pages.flatMap(({ events }) => events.map(({ seq }) => seq));
  expect(seqs).toEqual(Array.from({ length: 2_300 }, (_, index) => head + 1 + index));
  expect(pages.at(-1)).toMatchObject({ upto: head + 2_300, head: head + 2_300 });
  await forget(head);
});

test("a page of large events is cut before it is too large for a node", async () => {
  const targets = Array.from({ length: 50 }, () => ({ kind: "session", sid: `${"s".repeat(64)}.${"x".repeat(150)}` }));
  await fill(400, targets, NOW() + 600);
  const pages = await readAll(head);
  expect(pages.length).toBeGreaterThan(3);
  expect(pages.flatMap(({ events }) => events)).toHaveLength(400);
  for (const page of pages) expect(JSON.stringify(page).length).toBeLessThan(1.1 * 1024 * 1024);
  await forget(head);
});

test("a page does not go through what is over, however much that is and wherever one that lives stands", async () => {
  const before = await appended(NOW() + 600);
  await fill(30_000, [{ kind: "token", jti: "x" }], NOW() - 100_000);
  const after = await appended(NOW() + 600);
  expect((await readAll(head)).flatMap(({ events }) => events.map(({ id }) => id))).toEqual([before, after]);
  const read = await runInDurableObject(revocationLog(), (_, { storage }) => {
    const cursors: SqlStorageCursor<Record<string, SqlStorageValue>>[] = [];
    const exec: SqlStorage["exec"] = (query, ...values) => {
      const cursor = storage.sql.exec(query, ...values);
      cursors.push(cursor);
      return cursor as never;
    };
    const events = new EventTable({ exec } as SqlStorage);
    expect([...events.living(head, Date.now(), 1_000)].map(({ id }) => id)).toEqual([before, after]);
    expect(events.firstLiving(Date.now())).toBeLessThanOrEqual(head + 1);
    return cursors.reduce((sum, { rowsRead }) => sum + rowsRead, 0);
  });
  expect(read).toBeLessThan(1_000);
  await forget(head + 1);
});

test("what can hit no token any more is not told, but for a minute more than its time", async () => {
  const [lately, long] = [await appended(NOW() - 50), await appended(NOW() - 70)];
  const ids = (await feed(node, `?after=${head}`)).events.map(({ id }) => id);
  expect([ids.includes(lately), ids.includes(long)]).toEqual([true, false]);
});

test("first is the first that is still told, and one beyond the last when none is", async () => {
  const { first, events } = await feed(node);
  expect(first).toBeLessThanOrEqual(events[0]?.seq ?? 0);
  vi.useFakeTimers({ toFake: ["Date"], now: Date.now() + 3_600_000 });
  const { head } = await feed(node);
  expect(await feed(node)).toMatchObject({ after: 0, upto: head, head, first: head + 1, events: [] });
});

test("an event ends the waiting of everybody who waits, at once", async () => {
  const waiting = Array.from({ length: 40 }, () => feed(aNode("south"), `?after=${head}&wait=25`));
  const settled = vi.fn();
  for (const page of waiting) void page.then(settled);
  // Later in than they are, and answered before them.
  await feed(node, `?after=${head}`);
  expect(settled).not.toHaveBeenCalled();
  const id = await aRevocation();
  for (const page of await Promise.all(waiting)) {
    expect(page).toMatchObject({ after: head, upto: head + 1, head: head + 1, events: [{ id }] });
  }
});

test("who waits and nothing comes is answered when the time is over, with nothing", async () => {
  const began = performance.now();
  expect(await feed(node, `?after=${head}&wait=1`)).toMatchObject({ after: head, upto: head, head, events: [] });
  expect(performance.now() - began).toBeGreaterThan(900);
});

test("who has something to read does not wait", async () => {
  const id = await aRevocation();
  expect((await feed(node, `?after=${head}&wait=25`)).events).toMatchObject([{ id }]);
});

test("who is ahead of the log has read another one, and is told so at once", async () => {
  const page = await feed(node, `?after=${head + 1_000}&wait=25`);
  expect(page).toMatchObject({ after: head + 1_000, upto: head, head, events: [] });
});

test("so many may wait, and who comes beyond them is answered at once", async () => {
  const query = (run: number) => ({ ...node, boot: `${run}`, nonce: "x" });
  const waiting = Array.from({ length: 2_000 }, (_, run) => revocationLog().feed(query(run), head, 25_000));
  expect(await revocationLog().feed(query(2_000), head, 25_000)).toMatchObject({ value: { upto: head, events: [] } });
  const id = await aRevocation();
  const pages = await Promise.all(waiting);
  expect(pages.filter((page) => "value" in page && page.value.events[0]?.id === id)).toHaveLength(2_000);
});

test("a log that has let go of everything still knows how far it had come", async () => {
  await until(async () =>
    expect(await receipt(await aRevocation(), { prefer: "wait=5" })).toMatchObject({ state: "enforced" }),
  );
  const { head } = await feed(node);
  vi.useFakeTimers({ toFake: ["Date"], now: Date.now() + 9 * DAY_MS });
  await runDurableObjectAlarm(revocationLog());
  await runInDurableObject(revocationLog(), (_, { storage }) => {
    expect(storage.sql.exec("SELECT seq FROM events").toArray()).toEqual([]);
    for (const table of ["deliveries", "proofs", "open_receipts"]) {
      expect(storage.sql.exec(`SELECT * FROM ${table} WHERE seq < ?`, head).toArray()).toEqual([]);
    }
  });
  expect(await feed(node)).toMatchObject({ upto: head, head, first: head + 1, events: [] });
  const id = await aRevocation();
  expect((await feed(node, `?after=${head}`)).events).toMatchObject([{ id, seq: head + 1 }]);
  vi.useRealTimers();
  await abortAllDurableObjects();
});

function signed(
  claims: Record<string, unknown>,
  secret: string,
  typ = "feed-query+jwt",
  alg = "HS256",
): Promise<string> {
  const whole = { iss: "south", sub: "one", aud: ISSUER, jti: "x", boot: "x", iat: NOW(), exp: NOW() + 60, ...claims };
  return new SignJWT(whole).setProtectedHeader({ alg, typ }).sign(new TextEncoder().encode(secret));
}

test("who is no node is turned away, and the log does not notice", async () => {
  const { access_token } = await login(await newPerson());
  const south: Node = { cluster: "south", node: "one", boot: "x" };
  const old = await signFeedQuery({ ...south, nonce: "x" }, ISSUER, [SECRETS.south], NOW() - 600);
  const empty = { after: 0, upto: 0, head: 0, first: 1, events: [] };
  const envelope = { issuer: ISSUER, audience: "south", issuedAt: NOW(), nonce: "x" };
  const page = await signFeedPage(empty, envelope, (await createSigner("EdDSA", "x")).key);
  const refused = [
    access_token,
    "an-admin-token-that-only-the-tests-have",
    page,
    old,
    await signed({}, SECRETS.north),
    await signed({ iss: "east" }, SECRETS.north),
    await signed({ iss: 7 }, SECRETS.south),
    await signed({ iss: undefined }, SECRETS.south),
    await signed({ aud: "https://another.test" }, SECRETS.south),
    await signed({}, SECRETS.south, "receipt-query+jwt"),
    await signed({}, SECRETS.south, "cluster-receipts+jwt"),
    await signed({}, SECRETS.south, "feed-query+jwt", "HS512"),
    "a.b.c",
  ];
  const asked = vi.spyOn(RevocationLog.prototype, "feed");
  for (const token of refused) {
    expect(await refusal(await call("GET", "/revocations", undefined, bearer(token)))).toBe("token_invalid");
  }
  expect(await refusal(await call("GET", "/revocations"))).toBe("token_missing");
  expect(asked).not.toHaveBeenCalled();
  const good = await call("GET", "/revocations", undefined, bearer(await signed({}, SECRETS.south)));
  expect([good.status, asked.mock.calls.length]).toEqual([200, 1]);
  asked.mockRestore();
});

test("while a secret is replaced a node may have either one", async () => {
  const south: Node = { cluster: "south", node: "one", boot: "x" };
  for (const secret of CLUSTER_SECRETS.south) {
    const token = await signFeedQuery({ ...south, nonce: "x" }, ISSUER, [secret], NOW());
    expect((await call("GET", "/revocations", undefined, bearer(token))).status).toBe(200);
  }
});

test.for(["after=-1", "after=x", "after=1.5", "wait=26", "wait=-1", "after=1&after=2", "since=1"])(
  "a query with %s is malformed",
  async (query) => {
    const response = await call("GET", `/revocations?${query}`, undefined, bearer(await queryToken(node)));
    expect(await refusal(response)).toBe("request_malformed");
  },
);

/** What operators are shown of the clusters as of now, and that a cluster that is away, lies or talks nonsense is shown as what it is. */

import { runInDurableObject } from "cloudflare:test";
import { env } from "cloudflare:workers";
import { afterEach, beforeEach, expect, inject, test } from "vitest";
import { VERSION } from "#contract/version";
import { EventTable } from "../../edge/revocations/event-table.ts";
import { LogStanding, MAX_COUNTED } from "../../edge/revocations/log-status.ts";
import { aNode, behave, feed, GOOD, until } from "./cluster.ts";
import { countingSql } from "./counting-sql.ts";
import { ADMIN, call, newPerson, ok, receipt, refusal, revocationLog, revoke } from "./edge.ts";

interface Cluster {
  readonly cluster: string;
  readonly endpoints?: readonly { origin: string; reachable?: boolean; error?: string }[];
  readonly undelivered: number;
  readonly oldest_undelivered_at?: number;
  readonly last_delivered_at?: number;
  readonly last_error?: string;
  readonly open_receipts: number;
  readonly redis?: { reachable: boolean };
  readonly nodes: readonly { node: string; sockets: number }[];
  readonly silent: readonly string[];
  readonly sockets?: number | null;
  readonly error?: string;
}
interface Status {
  readonly at: number;
  readonly version: string;
  readonly log: { readonly head: number; readonly open: number };
  readonly clusters: readonly Cluster[];
}

beforeEach(() => behave("south", GOOD));
afterEach(async () => {
  await behave("south", GOOD);
  await runInDurableObject(revocationLog(), (_, { storage }) => {
    // A node that lives on would be missed by the next test.
    storage.sql.exec("DELETE FROM feed_leases");
  });
});

async function status(): Promise<Status> {
  return await ok(await call("GET", "/admin/status", undefined, ADMIN));
}

async function south(): Promise<Cluster> {
  const { clusters } = await status();
  const found = clusters.find(({ cluster }) => cluster === "south");
  if (found === undefined) throw new Error("south is not there");
  return found;
}

test("the status says how the log, each cluster and each node is", async () => {
  const { id } = await revoke({ kind: "token", jti: crypto.randomUUID() });
  await until(async () => expect(await receipt(id)).toMatchObject({ state: "enforced" }));
  const { seq } = await receipt(id);
  const seen = await status();
  expect(seen).toMatchObject({ version: VERSION, log: { head: seq, open: 0 } });
  expect(Math.abs(seen.at - Date.now())).toBeLessThan(60_000);
  const server = inject("clusterServer");
  expect(seen.clusters).toMatchObject([
    // The first one is down, and the other one is found.
    {
      cluster: "north",
      endpoints: [
        { origin: `${server}/down`, reachable: true, error: "HTTP 503" },
        { origin: `${server}/north`, reachable: true },
      ],
    },
    { cluster: "south", endpoints: [{ origin: `${server}/south`, reachable: true }] },
  ]);
  for (const cluster of seen.clusters) {
    expect(cluster).toMatchObject({ undelivered: 0, open_receipts: 0, redis: { reachable: true }, silent: [] });
    expect(cluster.nodes).toMatchObject([{ node: "one", boot: "one-boot", applied: 1 }, { node: "two" }]);
    expect(cluster.last_delivered_at).toBeGreaterThan(0);
    expect(cluster.error ?? cluster.last_error ?? cluster.oldest_undelivered_at).toBeUndefined();
  }
});

test("the endpoint that answered last is asked first from then on", async () => {
  await status();
  const [north] = (await status()).clusters;
  const server = inject("clusterServer");
  expect(north?.endpoints).toEqual([{ origin: `${server}/north`, reachable: true }, { origin: `${server}/down` }]);
});

test("what a cluster has not taken is counted, with since when and why", async () => {
  await behave("south", { events: "later" });
  const first = await revoke({ kind: "token", jti: "x" });
  await revoke({ kind: "token", jti: "x" });
  await until(async () => {
    expect(await south()).toMatchObject({
      undelivered: 2,
      oldest_undelivered_at: ((await receipt(first.id)) as unknown as { created_at: number }).created_at,
      last_error: expect.stringContaining("HTTP 503"),
      open_receipts: 2,
    });
  });
  expect((await status()).log.open).toBe(2);
  await behave("south", GOOD);
  await until(async () => expect(await south()).toMatchObject({ undelivered: 0, open_receipts: 0 }));
});

test("where only the node that was asked could answer, that is said, and who was not heard", async () => {
  await behave("south", { nodes: "one without Redis" });
  expect(await south()).toMatchObject({ redis: { reachable: false }, nodes: [{ node: "one" }], silent: ["two"] });
});

test("a node that lives by the feed, and that the others do not know of, is named", async () => {
  const node = aNode("south", "cut-off");
  await feed(node, "?after=0", { ms: 60_000, done: 0, words: [] });
  expect((await south()).silent).toEqual(["cut-off"]);
});

test.for([
  ["forged", /the answers are not good: .*SIGNATURE/],
  ["stale", /an answer to another query/],
  ["nonsense", /the answers are not good/],
  ["later", /HTTP 503/],
] as const)(
  "a cluster whose answer is %s is one that could not be asked, for either question",
  async ([nodes, why]) => {
    await behave("south", { nodes });
    const seen = await south();
    expect(seen).toMatchObject({ nodes: [], silent: [], undelivered: 0, error: expect.stringMatching(why) });
    expect(seen.redis).toBeUndefined();
    const { sub } = await newPerson();
    const held = await ok<{ sockets: number | null; clusters: Cluster[] }>(
      await call("GET", `/admin/accounts/${sub}/sockets`, undefined, ADMIN),
    );
    expect(held.sockets).toBeNull();
    expect(held.clusters).toMatchObject([
      { cluster: "north", sockets: 2 },
      { cluster: "south", sockets: null, nodes: [], error: expect.stringMatching(why) },
    ]);
  },
);

test("a person's sockets are shown by cluster and node; who holds none is left out", async () => {
  const { sub } = await newPerson();
  const held = await ok<Record<string, unknown>>(await call("GET", `/admin/accounts/${sub}/sockets`, undefined, ADMIN));
  const times = { connected_at: 1_790_000_000, expires_at: 1_790_000_300 };
  const listed = [{ id: "s1", sid: `${sub}.a`, nsp: "/", transport: "websocket", ...times }];
  const nodes = [{ node: "one", sockets: 2, listed }];
  const cluster = { sockets: 2, nodes, silent: [], redis: { reachable: true } };
  expect(held).toEqual({
    ...{ sub, at: expect.any(Number), sockets: 4 },
    clusters: [
      { cluster: "north", ...cluster },
      { cluster: "south", ...cluster },
    ],
  });
});

test("nobody has sockets who is not there", async () => {
  for (const sub of ["nobody", "not a subject"]) {
    const asked = await call("GET", `/admin/accounts/${encodeURIComponent(sub)}/sockets`, undefined, ADMIN);
    expect(await refusal(asked)).toBe("not_found");
  }
});

test("a long backlog is counted to a bound and no further", async () => {
  const object = env.REVOCATION_LOG.getByName(crypto.randomUUID());
  await runInDurableObject(object, (_, { storage: { sql } }) => {
    sql.exec(
      `WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?)
       INSERT INTO events (id, targets, code, reason, decided_at, expires_at)
       SELECT 'rev_' || i, '[]', 'session_revoked', 'a test', i, 4000000000 FROM n`,
      MAX_COUNTED + 5_000,
    );
    sql.exec("INSERT INTO open_receipts (seq, decided_at, expires_at) SELECT seq, decided_at, expires_at FROM events");
    const { sql: counting, rowsRead } = countingSql(sql);
    const [standing] = new LogStanding(counting, new EventTable(counting)).read(
      new Map([["south", 0]]),
      Date.now(),
    ).clusters;
    expect(standing).toMatchObject({ undelivered: MAX_COUNTED, open_receipts: MAX_COUNTED, oldest_undelivered_at: 1 });
    expect(rowsRead()).toBeLessThan(10 * MAX_COUNTED);
  });
});

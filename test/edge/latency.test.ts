/** How soon revocations were enforced: counted by the minute, read along time, and true within what is promised. */
import { runInDurableObject } from "cloudflare:test";
import { env } from "cloudflare:workers";
import { afterEach, expect, test } from "vitest";
import { Latencies, type LatencyBucket } from "../../edge/revocations/latencies.ts";
import { behave, GOOD, until } from "./cluster.ts";
import { countingSql } from "./counting-sql.ts";
import { ADMIN, call, ok, receipt, refusal, revocationLog, revoke } from "./edge.ts";

interface Answer {
  readonly since: number;
  readonly until: number;
  readonly step: number;
  readonly buckets: readonly LatencyBucket[];
}

const MINUTE = 60_000;
const DAY = 86_400_000;
/** The beginning of a day, so that steps begin where the test thinks. */
const NOON = Math.floor(1_790_000_000_000 / DAY) * DAY;

afterEach(() => behave("south", GOOD));

async function latency(query = ""): Promise<Answer> {
  return await ok(await call("GET", `/admin/latency${query}`, undefined, ADMIN));
}

/** Latencies of nobody else. */
async function withLatencies(work: (latencies: Latencies, rowsRead: () => number, sql: SqlStorage) => void) {
  await runInDurableObject(env.REVOCATION_LOG.getByName(crypto.randomUUID()), (_, { storage }) => {
    const { sql, rowsRead } = countingSql(storage.sql);
    work(new Latencies(sql), rowsRead, storage.sql);
  });
}

test("a revocation is counted in the minute in which it was decided, once every cluster has enforced it", async () => {
  await behave("south", { receipts: "pending" });
  const since = Date.now() - 60 * MINUTE;
  const counted = async () =>
    (await latency(`?step=60&since=${since}`)).buckets.reduce((sum, { count }) => sum + count, 0);
  const before = await counted();
  const { id } = await revoke({ kind: "token", jti: crypto.randomUUID() });
  await until(async () => expect(await receipt(id)).toMatchObject({ state: "delivered" }));
  expect(await counted()).toBe(before);
  await behave("south", GOOD);
  const over = await until(async () => {
    const seen = await receipt(id);
    expect(seen).toMatchObject({ state: "enforced" });
    return seen as unknown as { created_at: number; enforced_at: number };
  });
  expect(await counted()).toBe(before + 1);
  const at = Math.floor(over.created_at / MINUTE) * MINUTE;
  const [bucket] = (await latency(`?step=60&since=${at}&until=${at}`)).buckets;
  expect(bucket).toMatchObject({ at, expired: 0 });
  expect(bucket?.max).toBeGreaterThanOrEqual(over.enforced_at - over.created_at);
});

test("one that is over only because its tokens are is counted as such", async () => {
  await behave("south", { events: "later" });
  const id = `rev_${crypto.randomUUID().replaceAll("-", "").slice(0, 22)}`;
  const decided_at = Date.now() - 10 * MINUTE;
  const expires_at = Math.floor(Date.now() / 1000) - 61;
  const draft = { id, targets: [{ kind: "token", jti: id } as const], code: "token_revoked" as const, reason: "x" };
  await revocationLog().append({ ...draft, decided_at, expires_at });
  await until(async () => {
    await revocationLog().receipt(id, 0);
    const at = Math.floor(decided_at / MINUTE) * MINUTE;
    const { buckets } = await latency(`?step=60&since=${at}&until=${at}`);
    expect(buckets).toMatchObject([{ at, count: 1, expired: 1 }]);
    expect(buckets[0]?.max).toBeGreaterThanOrEqual(10 * MINUTE);
  });
});

test("the quantiles are right within 9 %, whatever the latencies are, and the longest one to the millisecond", async () => {
  await withLatencies((latencies) => {
    const all: number[] = [];
    for (let i = 0; i < 1_000; i++) {
      const ms = Math.floor(1.012 ** i);
      all.push(ms);
      latencies.add(NOON + (i % 50), NOON + (i % 50) + ms, false);
    }
    const [bucket] = latencies.read({ since: NOON, until: NOON, step: 60 });
    const exact = (share: number) => all[Math.ceil(share * all.length) - 1] ?? 0;
    expect(bucket).toMatchObject({ at: NOON, count: 1_000, max: all.at(-1) });
    for (const [said, true_] of [
      [bucket?.p50, exact(0.5)],
      [bucket?.p90, exact(0.9)],
    ] as const) {
      expect(said).toBeGreaterThanOrEqual(true_);
      expect(said).toBeLessThanOrEqual(Math.ceil(true_ * 1.0906));
    }
  });
});

test("one latency is itself, and a clock that was set back makes none negative", async () => {
  await withLatencies((latencies) => {
    latencies.add(NOON, NOON + 777, false);
    latencies.add(NOON + MINUTE, NOON, false);
    expect(latencies.read({ since: NOON, until: NOON + MINUTE, step: 60 })).toEqual([
      { at: NOON, count: 1, expired: 0, p50: 777, p90: 777, max: 777 },
      { at: NOON + MINUTE, count: 1, expired: 0, p50: 0, p90: 0, max: 0 },
    ]);
  });
});

test("steps begin where the clock would begin them, and what lies outside is left out", async () => {
  await withLatencies((latencies) => {
    for (const minute of [0, 4, 5, 9, 10]) latencies.add(NOON + minute * MINUTE, NOON + minute * MINUTE + 10, false);
    const read = latencies.read({ since: NOON + 4 * MINUTE, until: NOON + 9 * MINUTE, step: 300 });
    expect(read.map(({ at, count }) => [(at - NOON) / MINUTE, count])).toEqual([
      [0, 1],
      [5, 2],
    ]);
    latencies.forget(NOON + 9 * MINUTE);
    expect(latencies.read({ since: NOON, until: NOON + DAY, step: 86_400 })).toMatchObject([{ at: NOON, count: 2 }]);
  });
});

test("a look costs as much as the time that is looked at, and not as much as happened in it", async () => {
  await withLatencies((latencies, rowsRead) => {
    for (let i = 0; i < 5_000; i++) latencies.add(NOON + (i % 10) * MINUTE, NOON + (i % 10) * MINUTE + (i % 7), false);
    const before = rowsRead();
    expect(latencies.read({ since: NOON, until: NOON + DAY, step: 3_600 })).toMatchObject([{ count: 5_000 }]);
    expect(rowsRead() - before).toBeLessThan(500);
  });
});

test("unless it is said, it is the last day, in steps that fit on a page", async () => {
  const { since, until: end, step } = await latency();
  expect(end - since).toBe(DAY);
  expect(Math.abs(end - Date.now())).toBeLessThan(MINUTE);
  expect(step).toBe(900);
  expect((await latency(`?since=${end - 3_600_000}`)).step).toBe(60);
  expect((await latency(`?since=${end - 7 * DAY}`)).step).toBe(7_200);
});

test.for([
  ["more than 500 buckets", `step=60&since=${NOON}&until=${NOON + DAY}`],
  ["a step of half a minute", "step=30"],
  ["a step of a minute and a half", "step=90"],
  ["a beginning after the end", `since=${NOON + 1}&until=${NOON}`],
  ["a time that is none", "since=yesterday"],
  ["something that nobody knows", "tid=acme"],
])("%s is malformed", async ([, query]) => {
  expect(await refusal(await call("GET", `/admin/latency?${query}`, undefined, ADMIN))).toBe("request_malformed");
});

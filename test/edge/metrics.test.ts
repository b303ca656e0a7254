/** What a Prometheus that scrapes the edge gets: how the log stands, and what was counted, by an object that sleeps in between. */
import { abortAllDurableObjects, runDurableObjectAlarm } from "cloudflare:test";
import { afterEach, beforeEach, expect, test } from "vitest";
import { asClient } from "./clients.ts";
import { aNode, behave, feed, GOOD, until } from "./cluster.ts";
import { ADMIN, call, ok, receipt, revocationLog, revoke } from "./edge.ts";

beforeEach(async () => {
  await behave("north", GOOD);
  await behave("south", GOOD);
});
afterEach(async () => {
  await behave("south", GOOD);
  await until(async () => {
    await runDurableObjectAlarm(revocationLog());
    expect((await scrape()).value("keycard_edge_open_receipts")).toBe(0);
  });
});

interface Scrape {
  readonly text: string;
  /** Of one line, by everything in front of its value; NaN where there is none. */
  value(name: string): number;
}

async function scrape(): Promise<Scrape> {
  const response = await call("GET", "/metrics", undefined, ADMIN);
  expect(response.headers.get("content-type")).toBe("text/plain; version=0.0.4; charset=utf-8");
  const text = new TextDecoder().decode(await response.arrayBuffer());
  const lines = new Map(text.split("\n").map((line) => [line.slice(0, line.lastIndexOf(" ")), line] as const));
  return { text, value: (name) => Number(lines.get(name)?.split(" ").at(-1)) };
}

const aRevocation = () => revoke({ kind: "token", jti: crypto.randomUUID() });

test("the figures are for those who may read the revocations of every tenant", async () => {
  expect((await call("GET", "/metrics")).status).toBe(401);
  const statusFor = async (scopes: string[], more = {}) =>
    (await call("GET", "/metrics", undefined, await asClient(scopes, more))).status;
  expect(await statusFor(["audit:read"])).toBe(403);
  expect(await statusFor(["revocations:read"], { tid: "acme" })).toBe(403);
  expect(await statusFor(["revocations:read"])).toBe(200);
});

test("a revocation is counted from its decision to the last cluster that enforced it, and the counts outlive the object", async () => {
  const { id } = await aRevocation();
  await until(async () => expect((await receipt(id)).state).toBe("enforced"));
  const before = await scrape();
  const second = await aRevocation();
  await until(async () => expect((await receipt(second.id)).state).toBe("enforced"));
  await abortAllDurableObjects();
  const after = await scrape();
  const risen = (name: string) => after.value(name) - before.value(name);
  expect(risen("keycard_edge_log_head")).toBe(1);
  expect(risen('keycard_edge_revocations_total{code="token_revoked"}')).toBe(1);
  for (const cluster of ["north", "south"]) {
    expect(risen(`keycard_edge_deliveries_total{cluster="${cluster}",outcome="taken"}`)).toBe(1);
    expect(risen(`keycard_edge_delivery_seconds_count{cluster="${cluster}"}`)).toBe(1);
    expect(risen(`keycard_edge_enforced_total{cluster="${cluster}",how="applied"}`)).toBe(1);
    expect(risen(`keycard_edge_closed_sockets_total{cluster="${cluster}"}`)).toBe(2);
    expect(after.value(`keycard_edge_undelivered{cluster="${cluster}"}`)).toBe(0);
  }
  expect(risen("keycard_edge_revocation_seconds_count")).toBe(1);
  expect(risen('keycard_edge_revocation_seconds_bucket{le="+Inf"}')).toBe(1);
  const buckets = after.text.split("\n").filter((line) => line.startsWith("keycard_edge_revocation_seconds_bucket"));
  const counts = buckets.map((line) => Number(line.split(" ").at(-1)));
  expect(counts).toEqual(counts.toSorted((a, b) => a - b));
  expect(after.value("keycard_edge_revocation_seconds_sum")).toBeGreaterThan(0);
});

test("what a cluster has not taken is shown with its age, and each failed attempt is counted", async () => {
  await behave("south", { events: "later" });
  const { id } = await aRevocation();
  await aRevocation();
  await until(async () => {
    const { value } = await scrape();
    expect(value('keycard_edge_undelivered{cluster="south"}')).toBe(2);
    expect(value('keycard_edge_oldest_undelivered_seconds{cluster="south"}')).toBeGreaterThan(0);
    expect(value('keycard_edge_oldest_undelivered_seconds{cluster="north"}')).toBe(0);
    expect(value('keycard_edge_undelivered{cluster="north"}')).toBe(0);
    expect(value('keycard_edge_deliveries_total{cluster="south",outcome="failed"}')).toBeGreaterThan(1);
    expect(value("keycard_edge_open_receipts")).toBe(2);
    expect(value("keycard_edge_oldest_open_receipt_seconds")).toBeGreaterThan(0);
  });
  await behave("south", GOOD);
  expect(await receipt(id, { prefer: "wait=10" })).toMatchObject({ state: "enforced" });
  const { value } = await scrape();
  expect(value('keycard_edge_undelivered{cluster="south"}')).toBeLessThan(2);
});

test("what a cluster has lost is counted, and so are questions that got no answer", async () => {
  await behave("south", { receipts: "later" });
  const { id } = await aRevocation();
  await until(async () => {
    expect(
      (await scrape()).value('keycard_edge_receipt_questions_total{cluster="south",outcome="failed"}'),
    ).toBeGreaterThan(0);
  });
  await behave("south", { ...GOOD, flush: true });
  expect(await receipt(id, { prefer: "wait=10" })).toMatchObject({ state: "enforced" });
  expect((await scrape()).value('keycard_edge_lost_events_total{cluster="south"}')).toBeGreaterThan(0);
});

test("nodes that live by the feed are shown", async () => {
  await feed(aNode("north"), "", { ms: 60_000, done: 0, words: [] });
  expect((await scrape()).value('keycard_edge_feed_nodes{cluster="north"}')).toBe(1);
  expect((await scrape()).value('keycard_edge_feed_nodes{cluster="south"}')).toBe(0);
});

test("the audit trail's ends are what it says of itself", async () => {
  const { head } = await ok<{ head: { position: number } }>(await call("GET", "/admin/audit/verify", undefined, ADMIN));
  const { value } = await scrape();
  expect(value("keycard_edge_audit_reachable")).toBe(1);
  expect(value("keycard_edge_audit_head")).toBeGreaterThanOrEqual(head.position);
  expect(value("keycard_edge_audit_anchor")).toBe(0);
  expect(value("keycard_edge_audit_unsent")).toBe(0);
});

/** Bringing revocations to clusters over real HTTP, and collecting their receipts. */
import { abortAllDurableObjects, runDurableObjectAlarm } from "cloudflare:test";
import { decodeJwt, decodeProtectedHeader } from "jose";
import { afterEach, beforeEach, expect, test } from "vitest";
import { verifyReceiptQuery } from "#contract/cluster";
import { verifyRevocation } from "#contract/revocation";
import { behave, edgeKeys, GOOD, lifeOf, questionsAbout, rulesFor, until } from "./cluster.ts";
import { type ReceiptBody, receipt, revocationLog, revoke } from "./edge.ts";

beforeEach(async () => {
  await behave("north", GOOD);
  await behave("south", GOOD);
});
afterEach(async () => {
  await behave("south", GOOD);
  // What a test left undelivered must not reach into the next one.
  await until(async () => {
    await runDurableObjectAlarm(revocationLog());
    const { state } = await receipt((await revoke({ kind: "token", jti: "the-last" })).id, { prefer: "wait=1" });
    expect(state).toBe("enforced");
  });
});

function aRevocation(headers: Record<string, string> = {}): Promise<ReceiptBody> {
  return revoke({ kind: "token", jti: crypto.randomUUID() }, headers);
}

async function setsFor(cluster: string, id: string): Promise<string[]> {
  return (await lifeOf(cluster)).sets.filter((set) => decodeJwt(set).jti === id);
}

test("every cluster is given a signed event that is meant for it, with the name of the call that decided it", async () => {
  const { id, seq, request } = await aRevocation({ prefer: "wait=5" });
  expect(request).toMatch(/^[\w-]{1,64}$/);
  for (const cluster of ["north", "south"]) {
    const [set] = await setsFor(cluster, id);
    expect(decodeProtectedHeader(set ?? "").typ).toBe("secevent+jwt");
    const event = await verifyRevocation(set, await edgeKeys(), rulesFor(cluster));
    expect(event).toMatchObject({ id, seq, request, code: "token_revoked", targets: [{ kind: "token" }] });
    const members = ["code", "decided_at", "expires_at", "id", "request", "seq", "targets"];
    expect(Object.keys(event).sort()).toEqual(members);
  }
});

test("with Prefer: wait the answer says that every node has applied it, and how many sockets it closed", async () => {
  const revocation = await aRevocation({ prefer: "wait=5" });
  expect(revocation).toMatchObject({ state: "enforced", closed: 4 });
  expect(revocation.clusters.map(({ cluster, attempts }) => [cluster, attempts])).toEqual([
    ["north", 1],
    ["south", 1],
  ]);
});

test("without it the answer does not wait, and the receipt follows", async () => {
  const { id, state } = await aRevocation();
  expect(state).toBe("pending");
  expect(await receipt(id, { prefer: "respond-async, wait=5" })).toMatchObject({ state: "enforced", closed: 4 });
});

test("nobody needs to ask for a receipt: it is collected, and the last word of a cluster is asked for once", async () => {
  const { id } = await aRevocation();
  await until(async () => expect(await receipt(id)).toMatchObject({ state: "enforced" }));
  await receipt(id, { prefer: "wait=1" });
  const questions = await questionsAbout("south", id);
  expect(questions.length).toBe(1);
  const [{ query, waitMs } = { query: "", waitMs: 0 }] = questions;
  expect((await verifyReceiptQuery(query, await edgeKeys(), rulesFor("south"))).ids).toEqual([id]);
  const { iat = 0, exp = 0 } = decodeJwt(query);
  expect(exp - iat).toBe(60);
  expect(waitMs).toBe(500);
});

test("while a node has not applied it the state is delivered, and the node is named", async () => {
  await behave("south", { receipts: "pending" });
  const { id } = await aRevocation();
  const early = await receipt(id, { prefer: "wait=1" });
  expect(early).toMatchObject({ state: "delivered", closed: 4 });
  expect(early.clusters.find(({ cluster }) => cluster === "south")?.pending).toEqual(["two"]);
  await behave("south", GOOD);
  expect((await receipt(id, { prefer: "wait=5" })).state).toBe("enforced");
});

test.for(["later", "refuse", "elsewhere"] as const)(
  "an event that a cluster does not take (%s) is brought again, and holds no other cluster up",
  async (events) => {
    await behave("south", { events });
    const { id } = await aRevocation();
    const early = await until(async () => {
      const seen = await receipt(id);
      expect(seen.clusters.every(({ attempts }) => attempts > 0)).toBe(true);
      return seen;
    });
    expect(early.state).toBe("pending");
    const [north, south] = early.clusters;
    expect(north?.delivered_at).toBeDefined();
    expect(south?.delivered_at).toBeUndefined();
    expect(south?.last_error).toContain("HTTP");
    await behave("south", GOOD);
    expect(await receipt(id, { prefer: "wait=10" })).toMatchObject({ state: "enforced" });
    expect((await setsFor("south", id)).length).toBe(1);
    expect((await lifeOf("thief")).sets).toEqual([]);
  },
);

test("an event outlives the crash of the object that was to deliver it", async () => {
  await behave("south", { events: "later" });
  const { id } = await aRevocation();
  await until(async () => expect((await receipt(id)).clusters[1]?.attempts).toBeGreaterThan(0));
  await abortAllDurableObjects();
  await behave("south", GOOD);
  expect(await receipt(id, { prefer: "wait=10" })).toMatchObject({ state: "enforced" });
});

test("many events for a cluster that was away all arrive, each once", async () => {
  await behave("south", { events: "later" });
  const ids: string[] = [];
  for (let i = 0; i < 60; i++) ids.push((await aRevocation()).id);
  await behave("south", GOOD);
  const arrived = await until(async () => {
    const seen = (await lifeOf("south")).sets.map((set) => decodeJwt(set).jti ?? "").filter((id) => ids.includes(id));
    expect(new Set(seen).size).toBe(60);
    return seen;
  });
  expect(arrived.length).toBe(60);
});

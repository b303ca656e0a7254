/** Nodes about themselves: each speaks for itself, one that is asked gathers them, and nobody else can put words into their mouths. */
import { Redis } from "ioredis";
import { afterAll, beforeAll, expect, it } from "vitest";
import { VERSION } from "#contract/version";
import { until } from "../../infra/until.ts";
import { heartbeat } from "../../realtime/lease.ts";
import { seal } from "../../realtime/seal.ts";
import {
  CLUSTER,
  CLUSTER_SECRET,
  connected,
  startCluster,
  type TestCluster,
  type TestNode,
} from "../support/realtime-cluster.ts";
import { createSigner } from "../support/tokens.ts";

const STATUS = { about: "status" } as const;

let cluster: TestCluster;
let one: TestNode;
let two: TestNode;
let redis: Redis;

beforeAll(async () => {
  cluster = await startCluster();
  one = await cluster.startNode({ NODE_NAME: "one" });
  two = await cluster.startNode({ NODE_NAME: "two" });
  await Promise.all([one.door.ready(), two.door.ready()]);
  redis = new Redis(cluster.redis.url);
  await until("they know each other", async () => (await cluster.ask(one, STATUS)).answers.length === 2);
});
afterAll(async () => {
  redis.disconnect();
  await cluster.stop();
});

it("every node says how it is, whichever is asked", async () => {
  const startedBy = Date.now();
  await cluster.revoke(one, [{ kind: "session", sid: "u_nobody.a" }]);
  await connected(cluster.client(two, await cluster.issuer.token()));
  for (const asked of [one, two]) {
    const { answers, silent, redis: reached } = await cluster.ask(asked, STATUS);
    expect({ silent, reached }).toEqual({ silent: [], reached: true });
    expect(answers).toMatchObject([{ node: "one" }, { node: "two", sockets: 1 }]);
    for (const answer of answers) {
      expect(answer).toMatchObject({ version: VERSION, ready: true, link: "redis", gap: false, unsettled: 0 });
      expect(answer.started_at).toBeLessThanOrEqual(startedBy);
      expect(answer.lease_ms).toBeGreaterThan(0);
      expect(answer.applied).toBeGreaterThan(0);
    }
    expect(new Set(answers.map(({ boot }) => boot)).size).toBe(2);
  }
});

it("a person's sockets are told by node, with what they are over, and nobody else's", async () => {
  const sub = "u_ada";
  const laptop = await cluster.issuer.token({ sub, sid: "u_ada.laptop" });
  const phone = await cluster.issuer.token({ sub, sid: "u_ada.phone", exp: Math.floor(Date.now() / 1000) + 200 });
  const clients = [
    cluster.client(one, laptop),
    cluster.client(one, phone, { transports: ["polling"] }),
    cluster.client(two, phone),
    cluster.client(two, await cluster.issuer.token({ sub: "u_ad", sid: "u_ad.a" })),
  ];
  await Promise.all(clients.map(connected));
  const { answers } = await cluster.ask(two, { about: "sockets", sub });
  const [atOne, atTwo] = answers;
  expect([atOne?.sockets, atTwo?.sockets]).toEqual([2, 1]);
  expect(atOne?.listed.toSorted((a, b) => (a.sid < b.sid ? -1 : 1))).toMatchObject([
    { id: clients[0]?.id, sid: "u_ada.laptop", nsp: "/", transport: "websocket" },
    { id: clients[1]?.id, sid: "u_ada.phone", nsp: "/", transport: "polling" },
  ]);
  expect(atTwo?.listed).toMatchObject([{ id: clients[2]?.id, sid: "u_ada.phone" }]);
  for (const { connected_at, expires_at } of atTwo?.listed ?? []) {
    expect(Math.abs(connected_at - Date.now() / 1000)).toBeLessThan(60);
    expect(expires_at).toBeGreaterThan(connected_at);
  }
  await cluster.revoke(one, [{ kind: "session", sid: "u_ada.phone" }]);
  const after = await cluster.ask(one, { about: "sockets", sub });
  expect(after.answers.map(({ sockets }) => sockets)).toEqual([1, 0]);
});

it("of very many sockets all are counted, and some are listed", async () => {
  const sub = "u_many";
  const token = await cluster.issuer.token({ sub, sid: "u_many.a" });
  const clients = Array.from({ length: 103 }, () => cluster.client(one, token));
  await Promise.all(clients.map(connected));
  const [atOne] = (await cluster.ask(two, { about: "sockets", sub })).answers;
  expect([atOne?.sockets, atOne?.listed.length]).toEqual([103, 100]);
  for (const client of clients) client.disconnect();
});

it("nobody is told anything who is not the edge", async () => {
  const mallory = await createSigner("ES256", "mallory");
  const ask = (body: string, type = "application/jwt") =>
    fetch(`${one.url}/nodes`, { method: "POST", headers: { "content-type": type }, body });
  const { jwt } = await cluster.issuer.nodeQuery(STATUS);
  const forged = (await cluster.issuer.nodeQuery(STATUS, mallory)).jwt;
  // Unavailable while the issuer was asked for a key just now: it may be one that is new.
  const judged = async () => {
    const { status } = await ask(forged);
    return status !== 503 && status;
  };
  expect(await until("it is judged", judged)).toBe(401);
  expect((await ask(await cluster.issuer.token())).status).toBe(401);
  expect((await ask(jwt, "application/json")).status).toBe(400);
  expect((await ask("")).status).toBe(400);
  expect((await ask("x".repeat(20_000))).status).toBe(400);
  expect((await fetch(`${one.url}/nodes`)).status).toBe(405);
});

/** What nodes of the cluster seal, sealed by somebody. */
function answerOf(nonce: string, member: string, text: string, secret = CLUSTER_SECRET): string {
  return `${seal([secret], ["answer", CLUSTER, nonce, member, text])}.${text}`;
}

it("whoever writes to Redis speaks for no node, and keeps none from being heard by speaking first", async () => {
  const { jwt, nonce } = await cluster.issuer.nodeQuery(STATUS);
  const { answers } = await cluster.ask(one, STATUS);
  const two_ = answers.find(({ node }) => node === "two");
  const member = `two ${two_?.boot}`;
  const lie = JSON.stringify({ ...two_, sockets: 999 });
  const key = `{keycard}:answer:${nonce}`;
  const elsewhere = await cluster.issuer.nodeQuery(STATUS);
  await redis.hset(key, {
    [member]: answerOf(nonce, member, lie, "a secret that somebody has made up"),
    // What a node said to another question, and in the name of a node that is not there.
    "two old": answerOf(elsewhere.nonce, "two old", lie),
    "ghost b": answerOf(nonce, "ghost b", lie),
    nonsense: "nonsense",
  });
  const ignored: unknown[] = [];
  one.door.events.on("ignored", (about) => ignored.push(about));
  const request = { method: "POST", headers: { "content-type": "application/jwt" }, body: jwt };
  const response = await fetch(`${one.url}/nodes`, request);
  const said = JSON.parse(Buffer.from((await response.text()).split(".")[1] ?? "", "base64url").toString());
  expect(said.answers.map(({ node, sockets }: { node: string; sockets: number }) => [node, sockets])).toEqual(
    answers.map(({ node, sockets }) => [node, sockets]),
  );
  expect(ignored).toContainEqual({ detail: "a node's answer that no node of this cluster sealed" });
});

it("a node that holds its lease and says nothing is named", async () => {
  const ghost = { node: "ghost", boot: "b", leaseMs: 3_000, keepMs: 0 };
  await redis.hset("{keycard}:leases", "ghost b", heartbeat(ghost, 1, CLUSTER, [CLUSTER_SECRET]));
  await until("it is seen", async () => {
    const { answers, silent } = await cluster.ask(one, STATUS);
    return answers.length === 2 && silent.join() === "ghost";
  });
  await until("its lease is over", async () => (await cluster.ask(one, STATUS)).silent.length === 0);
});

it("a run that ended a moment ago is not taken for the one that follows it", async () => {
  const before = { node: "two", boot: "before", leaseMs: 3_000, keepMs: 0 };
  await redis.hset("{keycard}:leases", "two before", heartbeat(before, 1, CLUSTER, [CLUSTER_SECRET]));
  await until("it is seen", async () => (await cluster.ask(one, STATUS)).silent.join() === "two~before");
  expect((await cluster.ask(one, STATUS)).answers.map(({ node }) => node)).toEqual(["one", "two"]);
});

it("without Redis the node that is asked answers for itself, says so, and names those whom it knew", async () => {
  await cluster.redis.stop();
  await until("it lives by the feed", () => one.door.health().link === "feed");
  const { answers, silent, redis: reached } = await cluster.ask(one, STATUS);
  expect(reached).toBe(false);
  expect(answers).toMatchObject([{ node: "one", link: "feed", ready: true }]);
  expect(silent.every((node) => node === "two")).toBe(true);
});

/** What a node knows and does when one of its links, or both, are gone: Redis, which is fast, and the edge's feed, which is the truth. */
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { Redis } from "ioredis";
import { Server } from "socket.io";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { until } from "../../infra/until.ts";
import { protect } from "../../realtime/protect.ts";
import { type Link, linkTo } from "../support/link.ts";
import {
  AUDIENCE,
  CLUSTER,
  CLUSTER_SECRET,
  connected,
  revocationOf,
  startCluster,
  type TestCluster,
  type TestNode,
} from "../support/realtime-cluster.ts";

let cluster: TestCluster;
/** Its link to Redis can be cut; the other node's cannot. */
let node: TestNode;
let other: TestNode;
let link: Link;
let people = 0;
/** Ends a silence of the feed. */
let speak = () => {};

beforeAll(async () => {
  cluster = await startCluster();
  other = await cluster.startNode();
  await other.door.ready();
});
beforeEach(async () => {
  link = await linkTo(cluster.redis.port);
  node = await cluster.startNode({ REDIS_URL: `redis://127.0.0.1:${link.port}`, LEASE_SECONDS: "2" }, (io) => {
    io.on("connection", (socket) => {
      socket.on("answer me", (answer) => answer("yes"));
      socket.on("emit soon", (ms, accepted) => {
        setTimeout(() => io.emit("app data"), ms);
        accepted();
      });
    });
  });
  await node.door.ready();
});
afterEach(async () => {
  speak();
  await node.stop();
  await link.close();
});
afterAll(() => cluster.stop());

const newSession = () => `u_cut${++people}.a`;
const QUICKLY = { reconnectionDelay: 20, reconnectionDelayMax: 50 };
const linkOf = ({ door }: TestNode) => door.health().link;

/** As the edge does it: in its log first, then pushed. */
async function revoke(sid: string, to: TestNode): Promise<string> {
  const event = revocationOf([{ kind: "session", sid }]);
  cluster.issuer.record(event);
  expect((await cluster.push(to, await cluster.issuer.set(event))).status).toBe(202);
  return event.id;
}

describe("a node without Redis", () => {
  it("follows the edge's feed: it stays ready, lets people in, and closes who is revoked", async () => {
    const sid = newSession();
    const token = await cluster.issuer.token({ sid });
    const client = cluster.client(node, token);
    await connected(client);
    link.cut();
    await until("it lives by the feed", () => linkOf(node) === "feed");
    await revoke(sid, other);
    await until("it is out", () => !client.connected);
    expect(client.history).toEqual(["connect", "unauthorized:session_revoked", "disconnect:io server disconnect"]);
    const again = cluster.client(node, token);
    await until("it was refused", () => again.history.length > 0);
    expect(again.history).toEqual(["connect_error:session_revoked"]);
    await connected(cluster.client(node, await cluster.issuer.token()));
    expect((await fetch(`${node.url}/readyz`)).status).toBe(200);
    const told = cluster.issuer.feedQueries.filter((query) => query.node === node.door.node && query.lease);
    expect(told.at(-1)?.lease?.ms).toBe(2_000);
    link.heal();
    await until("it goes by Redis again", () => linkOf(node) === "redis");
  });

  it("tells the edge up to where it has closed everybody", async () => {
    link.cut();
    await until("it lives by the feed", () => linkOf(node) === "feed");
    const event = revocationOf([{ kind: "session", sid: newSession() }]);
    cluster.issuer.record(event);
    await until("it is done", () => {
      const query = cluster.issuer.feedQueries.findLast((asked) => asked.node === node.door.node);
      return (query?.lease?.done ?? 0) >= event.seq && query?.lease?.words.some(({ id }) => id === event.id);
    });
  });
});

describe("a node without Redis and without the feed", () => {
  it("lets nobody in and closes its sockets, so that they go elsewhere; and begins anew when it has heard both", async () => {
    const client = cluster.client(node, await cluster.issuer.token(), QUICKLY);
    await connected(client);
    speak = cluster.issuer.silenceFeed();
    link.cut();
    await until("it is closed", () => client.history.includes("unauthorized:unavailable"));
    expect((await fetch(`${node.url}/readyz`)).status).toBe(503);
    await until("it was refused", () => client.history.includes("connect_error:transport"));
    expect(client.history).not.toContain("disconnect:io server disconnect");
    link.heal();
    await until("Redis is back", () => Number(node.door.health().log_silence_ms) < 1_000);
    expect(node.door.health().ready).toBe(false);
    speak();
    await until("it is in again", () => client.connected);
  });

  it("that was asleep until its lease was over lets nothing in or out on waking, before it closes anybody", async () => {
    const client = cluster.client(node, await cluster.issuer.token(), { reconnection: false });
    await connected(client);
    expect(await client.emitWithAck("answer me")).toBe("yes");
    const heard: unknown[] = [];
    client.on("app data", () => heard.push("app data"));
    await client.emitWithAck("emit soon", 300);
    client.emit("answer me", (answer: unknown) => heard.push(answer));
    // Its timers, its sockets and all that came meanwhile are due at once when it wakes.
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 2_500);
    await until("it is closed", () => !client.connected);
    expect(heard.filter((what) => what === "yes" || what === "app data")).toEqual([]);
    expect(client.history).toContain("unauthorized:unavailable");
  });

  it("keeps sockets for as long as it was told, and none that is revoked meanwhile gets a word in", async () => {
    const keeping = await cluster.startNode({
      REDIS_URL: `redis://127.0.0.1:${link.port}`,
      LEASE_SECONDS: "1",
      FENCED_KEEP_SECONDS: "600",
    });
    await keeping.door.ready();
    const client = cluster.client(keeping, await cluster.issuer.token());
    await connected(client);
    speak = cluster.issuer.silenceFeed();
    link.cut();
    await until("it is fenced", () =>
      keeping.lines.some((line) => line.includes('"sockets":0') && line.includes("fenced")),
    );
    expect((await fetch(`${keeping.url}/readyz`)).status).toBe(503);
    expect(client.history).toEqual(["connect"]);
    speak();
    link.heal();
    await until("it is ready again", () => keeping.door.health().ready);
    expect(client.history).toEqual(["connect"]);
    await keeping.stop();
  });

  it("is said to be fenced once nobody can believe it alive, and not before", async () => {
    const sid = newSession();
    const client = cluster.client(node, await cluster.issuer.token({ sid }), { reconnection: false });
    await connected(client);
    speak = cluster.issuer.silenceFeed();
    link.cut();
    const id = await revoke(sid, other);
    const early = await cluster.receipt(other, id, 0);
    expect(early.pending).toContain(node.door.node);
    await until("it is fenced", async () => {
      const { fenced, pending } = await cluster.receipt(other, id, 0);
      const isFenced = fenced.some((one) => one.node === node.door.node);
      if (isFenced) expect(client.connected).toBe(false);
      return isFenced && pending.length === 0;
    });
    speak();
  });

  it("that comes back to an emptied Redis knows what was decided while it was away", async () => {
    const sid = newSession();
    const token = await cluster.issuer.token({ sid });
    speak = cluster.issuer.silenceFeed();
    link.cut();
    await until("it is fenced", () => !node.door.health().ready);
    await revoke(sid, other);
    const redis = new Redis(cluster.redis.url);
    await redis.flushall();
    redis.disconnect();
    link.heal();
    speak();
    const client = cluster.client(node, token, QUICKLY);
    await until("it was judged", () => client.history.some((what) => what !== "connect_error:transport"));
    expect(client.history.at(-1)).toBe("connect_error:session_revoked");
  });
});

describe("what Redis has lost", () => {
  it("a node that starts after it was emptied asks the edge for, before its first handshake", async () => {
    const sid = newSession();
    const token = await cluster.issuer.token({ sid });
    await revoke(sid, other);
    const redis = new Redis(cluster.redis.url);
    await redis.flushall();
    redis.disconnect();
    const late = await cluster.startNode();
    const client = cluster.client(late, token, QUICKLY);
    await until("it was judged", () => client.history.some((what) => what !== "connect_error:transport"));
    expect(client.history.at(-1)).toBe("connect_error:session_revoked");
    await late.stop();
  });

  it("shows as a hole in the numbers, and is asked for", async () => {
    const sid = newSession();
    const client = cluster.client(node, await cluster.issuer.token({ sid }));
    await connected(client);
    cluster.issuer.record(revocationOf([{ kind: "session", sid }]));
    await revoke(newSession(), other);
    await until("it is out", () => !client.connected);
    await until("nothing is missing", () => !node.door.health().gap);
  });

  it("of what a node said is said again when it is connected anew", async () => {
    const redis = new Redis(cluster.redis.url);
    const id = await revoke(newSession(), other);
    await until("the receipt is whole", async () => (await cluster.receipt(other, id, 0)).pending.length === 0);
    const key = `{keycard}:receipt:${cluster.issuer.url} ${id}`;
    const word = (await redis.hkeys(key)).find((field) => field.startsWith(`node:${node.door.node} `)) ?? "";
    expect(await redis.hdel(key, word)).toBe(1);
    expect((await cluster.receipt(other, id, 0)).pending).toEqual([node.door.node]);
    link.cut();
    link.heal();
    await until("it has said it again", async () => (await cluster.receipt(other, id, 0)).pending.length === 0);
    redis.disconnect();
  });

  it("and nothing shows, is found by asking now and then", async () => {
    const http = createServer();
    const io = new Server(http);
    const door = protect(io, {
      redis: new Redis(cluster.redis.url, { lazyConnect: true }),
      issuers: [{ issuer: cluster.issuer.url, audience: AUDIENCE }],
      cluster: CLUSTER,
      clusterSecret: CLUSTER_SECRET,
      feedCheckMs: 300,
    });
    await new Promise<void>((resolve) => http.listen(0, "127.0.0.1", resolve));
    await door.ready();
    const sid = newSession();
    const url = `http://127.0.0.1:${(http.address() as AddressInfo).port}`;
    const client = cluster.client({ url } as TestNode, await cluster.issuer.token({ sid }));
    await connected(client);
    cluster.issuer.record(revocationOf([{ kind: "session", sid }]));
    await until("it is out", () => !client.connected);
    await door.close();
    await io.close();
  });
});

describe("whoever can write to Redis", () => {
  let redis: Redis;
  beforeEach(() => {
    redis = new Redis(cluster.redis.url);
  });
  afterEach(() => redis.disconnect());

  it("cannot speak for a node: a receipt waits for the node itself", async () => {
    link.cut();
    const id = await revoke(newSession(), other);
    const key = `{keycard}:receipt:${cluster.issuer.url} ${id}`;
    const member = (await redis.hkeys("{keycard}:leases")).find((name) => name.startsWith(`${node.door.node} `));
    await redis.hset(
      key,
      `node:${member}`,
      `${Date.now()}.0.AAAA`,
      `node:${node.door.node}`,
      '{"applied_at":1,"closed":0}',
    );
    const receipt = await cluster.receipt(other, id, 0);
    expect(receipt.applied.map(({ node: name }) => name)).not.toContain(node.door.node);
    expect(receipt.pending).toContain(node.door.node);
    await until("it shows", () => other.lines.some((line) => line.includes("no node of this cluster sealed")));
    link.heal();
    await until("its own word counts", async () => (await cluster.receipt(other, id, 0)).pending.length === 0);
    const { applied } = await cluster.receipt(other, id, 0);
    expect(applied.map(({ node: name }) => name)).toContain(node.door.node);
  });

  it("cannot make others forget a node by removing its heartbeat", async () => {
    const member = (await redis.hkeys("{keycard}:leases")).find((name) => name.startsWith(`${other.door.node} `)) ?? "";
    const before = await redis.hget("{keycard}:leases", member);
    await until("the other has looked around", async () => (await redis.hget("{keycard}:leases", member)) !== before);
    link.cut();
    await redis.del("{keycard}:leases");
    const id = await revoke(newSession(), other);
    expect((await cluster.receipt(other, id, 0)).pending).toContain(node.door.node);
    link.heal();
    await until("both have applied it", async () => (await cluster.receipt(other, id, 0)).pending.length === 0);
  });

  it("cannot shorten the list of those who are awaited: the event is then unknown, and the edge pushes it again", async () => {
    link.cut();
    const event = revocationOf([{ kind: "session", sid: newSession() }]);
    const set = await cluster.issuer.set(event);
    expect((await cluster.push(other, set)).status).toBe(202);
    await redis.hset(`{keycard}:receipt:${cluster.issuer.url} ${event.id}`, "expected", "AAAA.[1,[]]");
    await expect(cluster.receipt(other, event.id, 0)).rejects.toThrow("does not know");
    expect((await cluster.push(other, set)).status).toBe(202);
    expect((await cluster.receipt(other, event.id, 0)).expected).toContain(node.door.node);
  });

  it("cannot bring a dead node back with an old heartbeat", async () => {
    const member = (await redis.hkeys("{keycard}:leases")).find((name) => name.startsWith(`${node.door.node} `)) ?? "";
    const old = (await redis.hget("{keycard}:leases", member)) ?? "";
    await until("it has beaten again", async () => (await redis.hget("{keycard}:leases", member)) !== old);
    await node.stop();
    await until("it is gone", () => other.door.health().peers === 1);
    await redis.hset("{keycard}:leases", member, old);
    const receipt = await cluster.revoke(other, [{ kind: "session", sid: newSession() }]);
    expect(receipt.expected).not.toContain(node.door.node);
  });
});

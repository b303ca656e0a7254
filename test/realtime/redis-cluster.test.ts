/** Redis Cluster: the log's slot changes hands, planned and not, under nodes that go on. */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Server } from "socket.io";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type RedisCluster, startRedisCluster, type TopologyServer } from "../../infra/redis-topology.ts";
import { until } from "../../infra/until.ts";
import type { LogLinks } from "../../realtime/redis.ts";
import { LOG_SLOT } from "../../realtime/slot-owner.ts";
import { connected, startNodesOn, type TestNode, type TestNodes } from "../support/realtime-cluster.ts";
import { deniedBy, linksTo, PASSWORD, readUsers } from "../support/redis.ts";

let dir: string;
let redis: RedisCluster;
let cluster: TestNodes;
let nodes: TestNode[];
/** Each node's own Socket.IO server. */
const apps = new Map<TestNode, Server>();
let links: LogLinks;
/** What links to the log heard. */
const heard: string[] = [];

beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), "keycard-cluster-"));
  redis = await startRedisCluster({ dir, users: [...(await readUsers()).values()] });
  const settings = {
    // Two of six: the others are found by asking.
    REDIS_CLUSTER: redis.servers
      .map(({ address }) => address)
      .slice(0, 2)
      .join(),
    REDIS_URL: `redis://keycard-cluster:${PASSWORD}@_`,
  };
  cluster = await startNodesOn(settings);
  nodes = await Promise.all([1, 2].map(startNode));
  await Promise.all(nodes.map(({ door }) => door.ready()));
  links = linksTo(settings);
  links.connect();
  await links.subscribe(["{keycard}:bell"], (_channel, message) => heard.push(message));
});

afterAll(async () => {
  links.disconnect();
  await cluster.stop();
  await redis.stop();
  await rm(dir, { recursive: true, force: true });
});

const [one, two] = [() => nodes[0] as TestNode, () => nodes[1] as TestNode];

async function startNode(): Promise<TestNode> {
  let app: Server | undefined;
  const node = await cluster.startNode({}, (io) => {
    app = io;
  });
  apps.set(node, app as Server);
  return node;
}

/** Closed on both nodes, and told by every node that had a lease. */
async function expectEnforced(sid: string): Promise<void> {
  const token = await cluster.issuer.token({ sid });
  const clients = nodes.map((node) => cluster.client(node, token));
  await Promise.all(clients.map(connected));
  const receipt = await cluster.insist(one(), [{ kind: "session", sid }]);
  expect(receipt.pending).toEqual([]);
  for (const { closed } of receipt.applied) expect(closed).toBe(1);
  await until("all are out", () => clients.every((client) => !client.connected));
}

/** A write that a replica of its own master has confirmed. */
function confirmed(): Promise<unknown> {
  const write = "redis.call('HSET', KEYS[1], 'a', 'b') return 'done'";
  return links.evalDurable(write, ["{keycard}:written"], [], 1, 200);
}

/** Rung by a script and heard: not found by reading on. */
async function expectBell(word: string): Promise<void> {
  const ring = "return redis.call(ARGV[1], '{keycard}:bell', ARGV[2])";
  await until(`${word} is heard`, async () => {
    // As the log does: only its user can tell a connection that swallows commands from one that is slow.
    await links.eval(ring, ["{keycard}:log"], [links.publishCommand, word]).catch(() => links.reset());
    return heard.includes(word);
  });
}

/** What the app says on one node reaches the other, to everybody and to a room. */
async function expectMessages(word: string): Promise<void> {
  const client = cluster.client(two(), await cluster.issuer.token());
  const got: string[] = [];
  client.on("said", (what: string) => got.push(what));
  await connected(client);
  apps
    .get(two())
    ?.in(client.id as string)
    .socketsJoin(word);
  const speaker = apps.get(one());
  await until("everybody is reached", () => {
    speaker?.emit("said", `${word} to all`);
    return got.includes(`${word} to all`);
  });
  await until("a room is reached", () => {
    speaker?.to(word).emit("said", `${word} to a room`);
    return got.includes(`${word} to a room`);
  });
  client.disconnect();
}

describe("in a cluster", () => {
  it("all that is tagged {keycard} is in the slot that we take it to be in", async () => {
    expect(await redis.servers[0]?.root.call("CLUSTER", "KEYSLOT", "{keycard}:any")).toBe(LOG_SLOT);
  });

  it("a revocation closes its sockets on every node", () => expectEnforced("u_plain.a"));

  it("the app's messages go from node to node", () => expectMessages("plain"));

  it("what is not on the replica of the very master that took it is not confirmed", async () => {
    expect(await confirmed()).toBe("done");
    const replica = redis.servers[5] as TopologyServer;
    await replica.kill("SIGSTOP");
    await expect(confirmed()).rejects.toThrow("0 of 1 replicas");
    await replica.kill("SIGCONT");
    await until("it is confirmed again", () => confirmed().catch(() => undefined));
  });

  it("goes on when the slot moves to another master", async () => {
    const target = redis.servers.find((server) => server === redis.servers[0]) as TopologyServer;
    expect(await redis.ownerOf(LOG_SLOT)).not.toBe(target);
    await redis.moveSlot(LOG_SLOT, target);
    expect(await redis.ownerOf(LOG_SLOT)).toBe(target);
    await expectBell("moved");
    await expectEnforced("u_moved.a");
    await expectMessages("moved");
    await until("the nodes are ready", () => nodes.every(({ door }) => door.health().ready));
  });

  it.each(["hangs", "dies"])("goes on when the master of the slot %s and its replica takes over", async (how) => {
    await until("it has a replica", () => confirmed().catch(() => undefined));
    const before = await redis.ownerOf(LOG_SLOT);
    await before.kill(how === "dies" ? "SIGKILL" : "SIGSTOP");
    await expectEnforced(`u_${how}.a`);
    await expectBell(how);
    await expectMessages(how);
    if (how === "hangs") await before.kill("SIGCONT");
    expect(await redis.ownerOf(LOG_SLOT)).not.toBe(before);
  });

  it("needs no right for all this that it was not given", async () => {
    expect(await deniedBy(redis.servers)).toEqual([]);
  });
});

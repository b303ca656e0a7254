/** The rights in `infra/redis.acl` are all that a node needs, and it needs each of them. */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Redis } from "ioredis";
import type { Server } from "socket.io";
import { afterAll, beforeAll, describe, expect, it } from "vitest";

import { signRehearsal } from "#contract/revocation";
import { startRedisCluster, startSingleServer, type TopologyServer } from "../../infra/redis-topology.ts";
import { until } from "../../infra/until.ts";
import { CLUSTER, connected, startNodesOn, type TestNodes } from "../support/realtime-cluster.ts";
import { deniedBy, linksTo, PASSWORD, readUsers } from "../support/redis.ts";

interface Flavour {
  readonly user: string;
  start(options: { dir: string; users: readonly string[] }): Promise<{
    readonly servers: readonly TopologyServer[];
    stop(): Promise<void>;
  }>;
  settings(servers: readonly TopologyServer[], user: string): Record<string, string>;
}

const flavours: readonly Flavour[] = [
  {
    user: "keycard",
    start: startSingleServer,
    settings: ([server], user) => ({ REDIS_URL: `redis://${user}:${PASSWORD}@${server?.address}` }),
  },
  {
    user: "keycard-cluster",
    start: startRedisCluster,
    settings: ([server], user) => ({
      REDIS_CLUSTER: `${server?.address}`,
      REDIS_URL: `redis://${user}:${PASSWORD}@_`,
    }),
  },
];

/** Used after a failover of a cluster, and for the heartbeat of a node that has been dead for a minute. */
const SELDOM = new Set(["readwrite", "hdel"]);

describe.each(flavours)("the user $user", ({ user, start, settings }) => {
  let dir: string;
  let redis: Awaited<ReturnType<Flavour["start"]>>;
  let users: ReadonlyMap<string, string>;
  let cluster: TestNodes;

  beforeAll(async () => {
    dir = await mkdtemp(join(tmpdir(), "keycard-acl-"));
    users = await readUsers();
    redis = await start({ dir, users: [...users.values()] });
    cluster = await startNodesOn({ ...settings(redis.servers, user), QUERY_TICKET: "on" });
  });

  afterAll(async () => {
    await cluster.stop();
    await redis.stop();
    await rm(dir, { recursive: true, force: true });
  });

  /** Of all servers: the commands that were called, as an ACL names them. */
  async function called(): Promise<ReadonlySet<string>> {
    const stats = await Promise.all(redis.servers.map(({ root }) => root.info("commandstats")));
    return new Set(
      stats.flatMap((text) => [...text.matchAll(/^cmdstat_([\w|-]+):calls=[1-9]/gm)].map(([, name]) => name as string)),
    );
  }

  it("may do all that a node does, and each of its rights is used", async () => {
    for (const { root } of redis.servers) await root.config("RESETSTAT");
    await doEverything(cluster, settings(redis.servers, user));
    // One is for a replica that has become the master.
    const always = [...(users.get(user) as string).matchAll(/ \+(\S+)/g)]
      .map(([, name]) => name as string)
      .filter((name) => !SELDOM.has(name));
    const used = await called();
    expect(await deniedBy(redis.servers)).toEqual([]);
    expect(always.filter((name) => !used.has(name))).toEqual([]);
  });

  it.each([
    ["flushall"],
    ["keys", "*"],
    ["scan", "0"],
    ["config", "get", "*"],
    ["acl", "whoami"],
    ["script", "flush"],
    ["client", "kill", "type", "normal"],
    ["shutdown"],
    ["replicaof", "no", "one"],
    ["del", "{keycard}:log"],
    ["hgetall", "somebody else's"],
    ["eval", "return redis.call('FLUSHALL')", "0"],
    ["eval", "return redis.call('HGETALL', KEYS[1])", "1", "somebody else's"],
    ["publish", "somebody else's", ""],
    ["ssubscribe", "somebody else's"],
  ])("may not %s", async (command, ...args) => {
    const [{ port }] = redis.servers as [TopologyServer];
    const client = new Redis({ port, host: "127.0.0.1", username: user, password: PASSWORD, disableClientInfo: true });
    // Redis and Valkey, for commands and for scripts, and before Redis 7.
    const refusal = /NOPERM|ACL failure|can't (run this command|access)/;
    await expect(client.call(command, ...args).finally(() => client.disconnect())).rejects.toThrow(refusal);
  });
});

/** All that goes through Redis, from the start of two nodes to their end. */
async function doEverything(cluster: TestNodes, settings: Record<string, string>): Promise<void> {
  const apps: Server[] = [];
  const nodes = await Promise.all([1, 2].map(() => cluster.startNode({}, (io) => void apps.push(io))));
  await Promise.all(nodes.map(({ door }) => door.ready()));
  const [one, two] = nodes as [(typeof nodes)[0], (typeof nodes)[0]];
  const client = cluster.client(one, await cluster.issuer.token({ sid: "u_all.a" }));
  await connected(client);
  await connected(cluster.client(two, undefined, { query: { ticket: await cluster.issuer.ticket() } }));
  const question = {
    issuer: cluster.issuer.url,
    audience: CLUSTER,
    issuedAt: Math.floor(Date.now() / 1000),
    id: "q_all",
  };
  const body = await signRehearsal([{ kind: "session", sid: "u_all.a" }], question, cluster.issuer.signer.key);
  const asked = { method: "POST", headers: { "content-type": "application/jwt" }, body };
  expect(await (await fetch(`${two.url}/rehearsals`, asked)).json()).toMatchObject({
    sockets: 1,
    sessions: 1,
    silent: [],
  });
  const { answers, silent, redis } = await cluster.ask(two, { about: "status" });
  expect({ nodes: answers.length, silent, redis }).toEqual({ nodes: 2, silent: [], redis: true });
  expect(await apps[0]?.fetchSockets()).toHaveLength(2);
  apps[0]?.in(client.id as string).socketsJoin("a room");
  let heard = false;
  client.on("said", () => {
    heard = true;
  });
  await until("the app is heard", () => {
    for (const app of apps) app.to("a room").emit("said");
    return heard;
  });
  const receipt = await cluster.revoke(two, [{ kind: "session", sid: "u_all.a" }]);
  expect(receipt.applied.map(({ closed }) => closed).sort()).toEqual([0, 1]);
  const links = linksTo(settings);
  links.connect();
  await until("the master is reached", () => links.commands.status === "ready");
  // With no replica there is none to confirm it.
  await links.evalDurable("return redis.call('EXISTS', KEYS[1])", ["{keycard}:log"], [], 1, 100).catch(() => undefined);
  links.disconnect();
  for (const node of nodes) await node.stop();
}

/** A master that dies, hangs or loses its replicas under running nodes, and sentinels that name another. */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, beforeEach, describe, expect, it, vi } from "vitest";
import {
  PEER,
  SENTINEL_PASSWORD,
  type SentinelSet,
  startSentinelSet,
  type TopologyServer,
} from "../../infra/redis-topology.ts";
import { until } from "../../infra/until.ts";
import type { LogLinks } from "../../realtime/redis.ts";
import { connected, startNodesOn, type TestNode, type TestNodes } from "../support/realtime-cluster.ts";
import { deniedBy, linksTo, PASSWORD, readUsers } from "../support/redis.ts";

let dir: string;
let set: SentinelSet;
let settings: Record<string, string>;
let cluster: TestNodes;
let nodes: TestNode[];

beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), "keycard-sentinel-"));
  set = await startSentinelSet({ dir, users: [...(await readUsers()).values()] });
  settings = {
    REDIS_SENTINELS: set.sentinels.map(({ address }) => address).join(),
    REDIS_MASTER: set.master,
    REDIS_SENTINEL_PASSWORD: SENTINEL_PASSWORD,
    REDIS_URL: `redis://keycard:${PASSWORD}@_`,
  };
  cluster = await startNodesOn(settings);
  nodes = await Promise.all([1, 2].map(() => cluster.startNode()));
  await Promise.all(nodes.map(({ door }) => door.ready()));
});

beforeEach(() => set.settle());

afterAll(async () => {
  await cluster.stop();
  await set.stop();
  await rm(dir, { recursive: true, force: true });
});

const one = () => nodes[0] as TestNode;

/** One client of this session on each node. */
async function everywhere(sid: string) {
  const token = await cluster.issuer.token({ sid });
  const clients = nodes.map((node) => cluster.client(node, token));
  await Promise.all(clients.map(connected));
  return clients;
}

describe("with sentinels", () => {
  it("a name that they do not know is said", async () => {
    const told: string[] = [];
    const onProblem = (_message: string, error: unknown) => void told.push(String(error));
    const links = linksTo({ ...settings, REDIS_MASTER: "somebody else" }, { onProblem });
    links.connect();
    await until("it is said", () => told.includes("Error: the sentinels know no master of this name"));
    links.disconnect();
  });

  it("one that is dead is counted and told, once, and nothing is printed as unhandled", async () => {
    const printed = vi.spyOn(console, "error").mockImplementation(() => undefined);
    const [dead] = set.sentinels;
    await dead?.kill("SIGKILL");
    try {
      const node = await cluster.startNode();
      await node.door.ready();
      const lost = async () => {
        const text = await (await fetch(`${node.url}/metrics`)).text();
        const line = /^keycard_redis_connections_total\{connection="sentinel",outcome="lost".*\} (\d+)$/m;
        return Number(line.exec(text)?.[1]);
      };
      // The failover detectors of the log's two links and of the adapter's two.
      await until("each link has looked for it", async () => (await lost()) >= 4);
      expect(node.lines.filter((line) => line.includes("a sentinel cannot be reached"))).toHaveLength(1);
      expect(printed.mock.calls).toEqual([]);
      await node.stop();
    } finally {
      printed.mockRestore();
      await dead?.restart();
    }
  });

  it("a revocation closes its sockets on every node", async () => {
    const clients = await everywhere("u_plain.a");
    const receipt = await cluster.revoke(one(), [{ kind: "session", sid: "u_plain.a" }]);
    expect(receipt.applied.map(({ closed }) => closed)).toEqual([1, 1]);
    await until("all are out", () => clients.every((client) => !client.connected));
  });

  const ends: readonly (readonly [string, string, (master: TopologyServer) => Promise<void>, typeof revive])[] = [
    ["dies", "u_dead.a", (master) => master.kill("SIGKILL"), (master) => master.restart()],
    ["hangs", "u_hung.a", (master) => master.kill("SIGSTOP"), revive],
  ];
  function revive(master: TopologyServer): Promise<void> {
    return master.kill("SIGCONT");
  }

  it.each(ends)(
    "a revocation while the master %s is enforced by the next one, to which the nodes come by themselves",
    async (_how, sid, end, bringBack) => {
      const clients = await everywhere(sid);
      const before = await set.current();
      await end(before);
      // The sentinel that leads announces the new master once more when it is done, and clients part with it once more.
      const receipt = await cluster.insist(one(), [{ kind: "session", sid }]);
      expect(receipt.pending).toEqual([]);
      expect(receipt.applied.map(({ closed }) => closed)).toEqual([1, 1]);
      await until("all are out", () => clients.every((client) => !client.connected));
      await until("the nodes are ready", () => nodes.every(({ door }) => door.health().ready));
      await bringBack(before);
    },
  );
});

describe("a master without replicas", () => {
  const WRITE = "return redis.call('HSET', KEYS[1], 'said', ARGV[1])";
  let links: LogLinks;
  const durably = (word: string, replicas: number) =>
    links.evalDurable(WRITE, [`{keycard}:${word}`], [word], replicas, 500);
  const read = async (word: string) => (await links.commands.hgetall(`{keycard}:${word}`)).said;

  beforeAll(async () => {
    links = linksTo(settings);
    await set.settle();
    links.connect();
    await until("it is reached", () => links.commands.status === "ready");
  });

  afterAll(() => links.disconnect());

  it("cannot acknowledge what it would lose, and loses it", async () => {
    const master = await set.current();
    const replicas = set.servers.filter((server) => server !== master);
    expect(await durably("kept", 2)).toBe(1);
    const setPassword = (password: string) =>
      Promise.all(replicas.map(({ root }) => root.config("SET", "masterauth", password)));
    await setPassword("not this");
    await master.root.call("CLIENT", "KILL", "TYPE", "replica");
    await expect(durably("lost", 1)).rejects.toThrow("0 of 1 replicas");
    expect(await read("lost")).toBe("lost");
    await master.kill("SIGKILL");
    await setPassword(PEER.password);
    await until("another is reached", () => read("kept").catch(() => undefined));
    expect([await read("kept"), await read("lost")]).toEqual(["kept", undefined]);
    await until("it has a replica again", () => durably("new", 1).catch(() => undefined));
    await master.restart();
  });

  it("and all this needs no right that was not given", async () => {
    const other = (entry: string) => !/reason auth .*username keycard-peer/.test(entry); // with the wrong password above
    expect((await deniedBy(set.servers)).filter(other)).toEqual([]);
  });
});

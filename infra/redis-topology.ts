/**
 * Redis as it is run where one server is not enough: a master with replicas that sentinels watch, or a cluster. Every
 * server is a process of its own on the loopback, and its times are short, so that a failover takes seconds.
 */
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { Redis, type RedisOptions } from "ioredis";
import type { Certificates } from "./certificates.ts";
import { type Child, startChild } from "./child.ts";
import { type Part, startPart } from "./part.ts";
import { LOOPBACK, reservePort } from "./ports.ts";
import { obtainRedisServer } from "./redis.ts";
import { until } from "./until.ts";

export interface TopologyOptions {
  /** Where the servers keep their files; made if it does not exist. */
  readonly dir: string;
  /** Makes every connection one of TLS: to servers and sentinels, and among them. */
  readonly tls?: Certificates | undefined;
  /** `user` lines of a configuration file, one of them PEER's. Nobody else gets in then. */
  readonly users?: readonly string[] | undefined;
}

export interface TopologyServer extends Part {
  readonly port: number;
  /** `host:port`. */
  readonly address: string;
  /** May do everything on this server; closed with it. */
  readonly root: Redis;
}

export interface SingleServer {
  readonly servers: readonly [TopologyServer];
  stop(): Promise<void>;
}

export interface SentinelSet {
  /** What the sentinels call it. */
  readonly master: string;
  readonly servers: readonly TopologyServer[];
  readonly sentinels: readonly TopologyServer[];
  /** The server that the sentinels name as the master. */
  current(): Promise<TopologyServer>;
  /** Waits until no failover is under way, the sentinels know of everybody, and both replicas follow the master. */
  settle(): Promise<void>;
  stop(): Promise<void>;
}

export interface RedisCluster {
  /** Masters first, then a replica of each in the same order. */
  readonly servers: readonly TopologyServer[];
  /** Who serves this slot, once all servers that run agree on it. */
  ownerOf(slot: number): Promise<TopologyServer>;
  /** Moves a slot with all its keys, as `redis-cli --cluster reshard` does. */
  moveSlot(slot: number, to: TopologyServer): Promise<void>;
  stop(): Promise<void>;
}

/** As whom replicas and sentinels come to a server, where there are users. */
export const PEER = { username: "keycard-peer", password: "servers-know-it" };
export const SENTINEL_PASSWORD = "sentinels-know-it";
const ROOT = { username: "root", password: "nobody-else-knows-it" };
const MASTER = "keycard";
const MASTERS = 3;
const SLOTS = 16_384;
const READY = /Ready to accept connections|Sentinel ID is/;
const READY_WITHIN_MS = 15_000;

export function startSingleServer(options: TopologyOptions): Promise<SingleServer> {
  return withCrew(options, async (crew) => ({ servers: [await crew.start(dataSettings(options))], stop: crew.stop }));
}

/** A master with two replicas, and three sentinels of which two must agree. */
export function startSentinelSet(options: TopologyOptions): Promise<SentinelSet> {
  return withCrew(options, async (crew) => {
    const first = await crew.start(dataSettings(options));
    const following = [...dataSettings(options), `replicaof ${LOOPBACK} ${first.port}`];
    const servers = [first, ...(await Promise.all([crew.start(following), crew.start(following)]))];
    const watching = watchSettings(first.port, options);
    const sentinels = await Promise.all([1, 2, 3].map(() => crew.start(watching, ["--sentinel"])));
    await Promise.all(sentinels.map(hurry));
    const current = () => namedBy(sentinels, servers);
    const settle = async () => {
      await until("the sentinels agree, and nothing is under way", () => areAgreed(sentinels));
      await until("both replicas follow", async () => isFollowed(await current(), 2));
    };
    await settle();
    return { master: MASTER, servers, sentinels, current, settle, stop: crew.stop };
  });
}

/** Three masters with a replica each. */
export function startRedisCluster(options: TopologyOptions): Promise<RedisCluster> {
  return withCrew(options, async (crew) => {
    const servers = await Promise.all(
      Array.from({ length: 2 * MASTERS }, async () => crew.start(await clusterSettings(options))),
    );
    await meet(servers);
    const ownerOf = (slot: number) => until(`all agree on slot ${slot}`, () => agreedOwner(slot, servers));
    return {
      servers,
      ownerOf,
      moveSlot: async (slot, to) => moveSlot(slot, await ownerOf(slot), to, servers, options),
      stop: crew.stop,
    };
  });
}

interface Crew {
  /** Starts a server with these lines of configuration and waits until it takes connections. */
  start(settings: readonly string[], args?: readonly string[]): Promise<TopologyServer>;
  stop(): Promise<void>;
}

async function withCrew<T>(options: TopologyOptions, gather: (crew: Crew) => Promise<T>): Promise<T> {
  const binary = await obtainRedisServer();
  const servers: TopologyServer[] = [];
  const stop = async () => {
    for (const { root } of servers) root.disconnect();
    await Promise.all(servers.map((server) => server.stop()));
  };
  const start: Crew["start"] = async (settings, args = []) => {
    const server = await startServer(binary, options, settings, args);
    servers.push(server);
    return server;
  };
  try {
    return await gather({ start, stop });
  } catch (error) {
    await stop();
    throw error;
  }
}

async function startServer(
  binary: string,
  options: TopologyOptions,
  settings: readonly string[],
  args: readonly string[],
): Promise<TopologyServer> {
  const reserved = await reservePort();
  const { port } = reserved;
  const dir = join(options.dir, String(port));
  await mkdir(dir, { recursive: true, mode: 0o700 });
  const file = join(dir, "redis.conf");
  await writeFile(
    file,
    [`bind ${LOOPBACK}`, `dir "${dir}"`, ...portSettings(port, options), ...settings, ""].join("\n"),
  );
  await reserved.release();
  const part = await startPart(() => launch(binary, [file, ...args]));
  const isSentinel = args.includes("--sentinel");
  const root = new Redis({ port, host: LOOPBACK, ...(await rootOptions(options, isSentinel)) });
  root.on("error", () => {}); // whoever asks it something is told
  return {
    port,
    address: `${LOOPBACK}:${port}`,
    root,
    get pid() {
      return part.pid;
    },
    get running() {
      return part.running;
    },
    kill: part.kill,
    restart: part.restart,
    stop: part.stop,
  };
}

async function launch(command: string, args: readonly string[]): Promise<Child> {
  const child = await startChild({ command, argv0: "redis-server", args });
  const ready = () => !child.running || child.lastLines.some((line) => READY.test(line));
  await until("Redis takes connections", ready, { withinMs: READY_WITHIN_MS }).catch(() => child.stop());
  if (!child.running) throw new Error(`Redis did not start: ${child.lastLines.at(-1) ?? "it said nothing"}`);
  return child;
}

function portSettings(port: number, { tls }: TopologyOptions): string[] {
  if (tls === undefined) return [`port ${port}`];
  const files = [`tls-ca-cert-file "${tls.ca}"`, `tls-cert-file "${tls.cert}"`, `tls-key-file "${tls.key}"`];
  return ["port 0", `tls-port ${port}`, "tls-replication yes", ...files];
}

function dataSettings({ users }: TopologyOptions): string[] {
  const peers = [`masteruser ${PEER.username}`, `masterauth ${PEER.password}`];
  const root = `user ${ROOT.username} on >${ROOT.password} ~* &* +@all`;
  // Without the delay a replica waits for others before its first copy.
  return ['save ""', "repl-diskless-sync-delay 0", ...(users ? [...users, root, ...peers] : [])];
}

function watchSettings(port: number, { users }: TopologyOptions): string[] {
  const peer = [`sentinel auth-user ${MASTER} ${PEER.username}`, `sentinel auth-pass ${MASTER} ${PEER.password}`];
  return [
    `sentinel monitor ${MASTER} ${LOOPBACK} ${port} 2`,
    `sentinel down-after-milliseconds ${MASTER} 1000`,
    `sentinel failover-timeout ${MASTER} 3000`,
    ...(users ? peer : []),
    `requirepass ${SENTINEL_PASSWORD}`,
    `sentinel sentinel-pass ${SENTINEL_PASSWORD}`,
  ];
}

async function clusterSettings(options: TopologyOptions): Promise<string[]> {
  const bus = await reservePort();
  await bus.release();
  return [
    ...dataSettings(options),
    "cluster-enabled yes",
    `cluster-port ${bus.port}`,
    "cluster-node-timeout 1000",
    // A replica that was sent nothing yet, not even a ping, is named to nobody.
    "repl-ping-replica-period 1",
    `tls-cluster ${options.tls ? "yes" : "no"}`,
  ];
}

async function rootOptions({ tls, users }: TopologyOptions, isSentinel: boolean): Promise<RootOptions> {
  const credentials = isSentinel ? { password: SENTINEL_PASSWORD } : users ? ROOT : {};
  const common: RootOptions = { ...credentials, retryStrategy: () => 50, maxRetriesPerRequest: 3 };
  if (tls === undefined) return common;
  const [ca, cert, key] = await Promise.all([tls.ca, tls.cert, tls.key].map((path) => readFile(path)));
  return { ...common, tls: { ca, cert, key } };
}

type RootOptions = Omit<RedisOptions, "replyMapping">;

/**
 * Their own periods are of seconds: to find each other alone takes ten. A ping has to come well before it is missed, and
 * who is elected must have been heard of within five pings, though during a failover sentinels ask only once a second.
 */
async function hurry({ root }: TopologyServer): Promise<void> {
  const periods = { "info-period": 100, "publish-period": 100, "ask-period": 100, "ping-period": 300 };
  await root.call("SENTINEL", "DEBUG", ...Object.entries(periods).flat());
}

async function areAgreed(sentinels: readonly TopologyServer[]): Promise<boolean> {
  const views = await Promise.all(
    sentinels.map(async ({ root }) => {
      const reply = (await root.call("SENTINEL", "MASTER", MASTER)) as string[];
      const told = ["port", "flags", "num-slaves", "num-other-sentinels"].map((name) => reply[reply.indexOf(name) + 1]);
      return told.join(" ");
    }),
  );
  return new Set(views).size === 1 && /^\d+ master 2 2$/.test(views[0] ?? "");
}

/** A replica that hung is still in the list as it was before, and comes to it once more: so that they have to answer. */
async function isFollowed({ root }: TopologyServer, replicas: number): Promise<boolean> {
  await root.publish("are you there", "");
  const answered = await root.wait(replicas, 200).catch(() => 0); // it is no master any more
  return answered === replicas;
}

async function countFollowers({ root }: TopologyServer): Promise<number> {
  return ((await root.info("replication")).match(/state=online/g) ?? []).length;
}

async function namedBy(
  sentinels: readonly TopologyServer[],
  servers: readonly TopologyServer[],
): Promise<TopologyServer> {
  const asked = sentinels.find(({ running }) => running) as TopologyServer;
  const [, port] = (await asked.root.call("SENTINEL", "GET-MASTER-ADDR-BY-NAME", MASTER)) as [string, string];
  return servers.find((server) => server.port === Number(port)) as TopologyServer;
}

async function meet(servers: readonly TopologyServer[]): Promise<void> {
  const [first, ...others] = servers as [TopologyServer, ...TopologyServer[]];
  const masters = servers.slice(0, MASTERS);
  for (const [index, { root }] of masters.entries()) {
    const [from, to] = [index, index + 1].map((nth) => Math.floor((nth * SLOTS) / MASTERS)) as [number, number];
    await root.call("CLUSTER", "SET-CONFIG-EPOCH", index + 1);
    await root.call("CLUSTER", "ADDSLOTSRANGE", from, to - 1);
  }
  for (const { port, root } of others) {
    const bus = ((await root.call("CONFIG", "GET", "cluster-port")) as string[])[1] as string;
    await first.root.call("CLUSTER", "MEET", LOOPBACK, port, bus);
  }
  await until("all have met", async () =>
    (await Promise.all(servers.map(acquaintances))).every((n) => n === servers.length),
  );
  for (const [index, { root }] of masters.entries()) {
    await servers[MASTERS + index]?.root.call("CLUSTER", "REPLICATE", (await root.call("CLUSTER", "MYID")) as string);
  }
  await until("every master is followed", async () =>
    (await Promise.all(masters.map(countFollowers))).every((count) => count === 1),
  );
  await until("all know the whole", async () => (await Promise.all(servers.map(knowsTheWhole))).every(Boolean));
}

async function acquaintances({ root }: TopologyServer): Promise<number> {
  const nodes = (await root.call("CLUSTER", "NODES")) as string;
  return nodes.split("\n").filter((line) => line !== "" && !line.includes("handshake")).length;
}

async function knowsTheWhole({ root }: TopologyServer): Promise<boolean> {
  const ranges = (await root.call("CLUSTER", "SLOTS")) as SlotRange[];
  const isHealthy = ((await root.call("CLUSTER", "INFO")) as string).includes("cluster_state:ok");
  return isHealthy && ranges.length === MASTERS && ranges.every(({ length }) => length === 4);
}

/** As CLUSTER SLOTS has it: from, to, the master, its replicas. */
type SlotRange = [from: number, to: number, owner: [host: string, port: number], ...replicas: unknown[]];

async function agreedOwner(slot: number, servers: readonly TopologyServer[]): Promise<TopologyServer | undefined> {
  const views = await Promise.all(
    servers
      .filter(({ running }) => running)
      .map(async ({ root }) => {
        const ranges = (await root.call("CLUSTER", "SLOTS")) as SlotRange[];
        return ranges.find(([from, to]) => from <= slot && slot <= to)?.[2][1];
      }),
  );
  const owner = servers.find(({ port }) => port === views[0]);
  return owner?.running && views.every((port) => port === owner.port) ? owner : undefined;
}

async function moveSlot(
  slot: number,
  from: TopologyServer,
  to: TopologyServer,
  servers: readonly TopologyServer[],
  { users }: TopologyOptions,
): Promise<void> {
  const [source, target] = (await Promise.all([from, to].map(({ root }) => root.call("CLUSTER", "MYID")))) as [
    string,
    string,
  ];
  await to.root.call("CLUSTER", "SETSLOT", slot, "IMPORTING", source);
  await from.root.call("CLUSTER", "SETSLOT", slot, "MIGRATING", target);
  const credentials = users ? ["AUTH2", ROOT.username, ROOT.password] : [];
  for (;;) {
    const keys = (await from.root.call("CLUSTER", "GETKEYSINSLOT", slot, 100)) as string[];
    if (keys.length === 0) break;
    await from.root.call("MIGRATE", LOOPBACK, to.port, "", 0, 5_000, ...credentials, "KEYS", ...keys);
  }
  // The two that are concerned first: the others would send clients to a server that does not know yet.
  const rest = servers.filter((server) => server !== from && server !== to && server.running);
  for (const { root } of [to, from, ...rest]) {
    await root.call("CLUSTER", "SETSLOT", slot, "NODE", target).catch(() => undefined); // a replica learns it from its master
  }
}

/**
 * How soon a revocation is enforced, in each situation that the README names a bound for: one thing is broken at a time, right before the
 * call, with a socket on each of three nodes at the default lease. Times are from the call to the last socket closed, as its client sees
 * it, and to the receipt that says enforced, as an admin tool sees it.
 */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Redis } from "ioredis";
import { EdgeClient } from "../../infra/edge-client.ts";
import { type ObservedSocket, openSocket } from "../../infra/observed-socket.ts";
import { until } from "../../infra/until.ts";
import { startWorld, type World } from "../chaos/world.ts";
import type { Bench } from "./bench.ts";
import { type Distribution, distributionOf } from "./distribution.ts";

const CLUSTER = "north";
const NODES = 3;
/** The node that something happens to; another one than the edge turns to first. */
const VICTIM = `${CLUSTER}-2`;
const PASSWORD = "a password for measuring";
const WITHIN_MS = 90_000;
const LOOK_MS = 20;

interface Situation {
  readonly name: string;
  /** As the README says it. */
  readonly bound: string;
  readonly rounds: number;
  /** A process that is frozen closes nothing: its clients see that only when it runs again. */
  readonly frozen?: boolean;
  /** The receipt is complete only when this is over, and its time is counted from there. */
  readonly receiptAfterwards?: boolean;
  /** @returns what mends it */
  begin(world: World): Promise<() => Promise<void> | void>;
}

const SITUATIONS: readonly Situation[] = [
  { name: "normal", bound: "milliseconds", rounds: 40, begin: async () => () => undefined },
  { name: "the bell is lost", bound: "1 s", rounds: 10, begin: silenceTheBell },
  { name: "a node is cut from Redis", bound: "2 s", rounds: 6, begin: (world) => stall(world, ["redis"]) },
  {
    name: "Redis is emptied",
    bound: "2 s",
    rounds: 6,
    begin: async (world) => {
      await withRedis(world, (redis) => redis.flushall());
      return () => undefined;
    },
  },
  {
    name: "Redis is down",
    bound: "2 s",
    rounds: 4,
    receiptAfterwards: true,
    begin: async (world) => {
      await world.kill(`${CLUSTER}-redis`);
      return () => world.restart(`${CLUSTER}-redis`);
    },
  },
  {
    name: "a node is cut from Redis and the edge",
    bound: "7 s",
    rounds: 4,
    begin: (world) => stall(world, ["redis", "edge", "push"]),
  },
  {
    name: "a node hangs",
    bound: "7 s",
    rounds: 4,
    frozen: true,
    begin: async (world) => {
      await world.kill(VICTIM, "SIGSTOP");
      return () => world.kill(VICTIM, "SIGCONT");
    },
  },
  {
    name: "the edge cannot reach the region, its nodes reach the edge",
    bound: "30 s",
    rounds: 3,
    receiptAfterwards: true,
    begin: async (world) => {
      const links = world.nodes.map(({ name }) => world.link(`${name}:push`));
      for (const link of links) link.cut();
      return () => links.forEach((link) => void link.heal());
    },
  },
];

interface Figures {
  readonly situation: string;
  readonly bound: string;
  readonly rounds: number;
  /** Milliseconds; absent where nobody can see it. */
  readonly closed?: Distribution;
  readonly receipt: Distribution;
  readonly receipt_from: "the call" | "the end of it";
}

interface Bounds {
  readonly nodes: number;
  readonly situations: readonly Figures[];
}

export const BOUNDS: Bench = {
  about: "how soon a revocation is enforced in each situation that the README has a bound for",
  async run(tell) {
    const result = await measureAll(tell);
    return { result, rows: [], print: () => print(result) };
  },
};

async function measureAll(onProgress: (text: string) => void): Promise<Bounds> {
  const dir = await mkdtemp(join(tmpdir(), "keycard-bench-"));
  const world = await startWorld({
    dir,
    clusters: { [CLUSTER]: NODES },
    edgeSettings: { ACCESS_TOKEN_TTL_SECONDS: "900", SESSIONS_PER_ACCOUNT: "50" },
    nodeSettings: { LOG_LEVEL: "warn" },
    onStep: onProgress,
  });
  try {
    const edge = new EdgeClient({ edgeUrl: world.urls.admin, adminToken: world.adminToken });
    await edge.createAccount({ login: "ada", password: PASSWORD });
    const situations = [];
    for (const situation of SITUATIONS) {
      onProgress(situation.name);
      situations.push(await measure(world, edge, situation));
    }
    return { nodes: NODES, situations };
  } finally {
    await world.stop();
    await rm(dir, { recursive: true, force: true });
  }
}

async function measure(world: World, edge: EdgeClient, situation: Situation): Promise<Figures> {
  const samples = [];
  for (let round = 0; round < situation.rounds; round++) samples.push(await play(world, edge, situation));
  const { name, bound, rounds, frozen, receiptAfterwards } = situation;
  return {
    ...{ situation: name, bound, rounds },
    ...(frozen ? {} : { closed: distributionOf(samples.map(({ closedMs }) => closedMs)) }),
    receipt: distributionOf(samples.map(({ receiptMs }) => receiptMs)),
    receipt_from: receiptAfterwards ? "the end of it" : "the call",
  };
}

async function play(
  world: World,
  edge: EdgeClient,
  { begin, frozen, receiptAfterwards }: Situation,
): Promise<{ readonly closedMs: number; readonly receiptMs: number }> {
  await everythingWorks(world);
  const session = await edge.login("ada", PASSWORD);
  const sockets = world.nodes.map((node) => openSocket(node, session.access_token, { transports: ["websocket"] }));
  await until("a socket is open on each node", () => sockets.every(({ socket }) => socket.connected));
  const mend = await begin(world);
  const calledAt = performance.now();
  const { id } = await edge.revoke({ kind: "session", sid: session.sid }, "measuring");
  const seen = sockets.filter(({ node }) => !frozen || node !== VICTIM);
  let countedFrom = calledAt;
  if (receiptAfterwards) {
    await allClosed(seen);
    await mend();
    countedFrom = performance.now();
  }
  const receiptAt = await enforcedAt(edge, id);
  const closedAt = await allClosed(seen);
  if (!receiptAfterwards) await mend();
  for (const { socket } of sockets) socket.close();
  return { closedMs: closedAt - calledAt, receiptMs: receiptAt - countedFrom };
}

async function everythingWorks(world: World): Promise<void> {
  const isReady = async ({ directUrl }: { readonly directUrl: string }) => {
    const answer = await fetch(`${directUrl}/readyz`).catch(() => undefined);
    const health = (await answer?.json().catch(() => undefined)) as Health | undefined;
    return answer?.ok === true && health?.link === "redis" && health.peers === NODES;
  };
  const all = async () => (await Promise.all(world.nodes.map(isReady))).every((ready) => ready);
  await until("every node lives by Redis and sees the others", all, { withinMs: WITHIN_MS });
}

interface Health {
  readonly link: string;
  readonly peers: number;
}

async function enforcedAt(edge: EdgeClient, id: string): Promise<number> {
  const isEnforced = async () => {
    const receipt = await edge.receipt(id);
    if (receipt.state === "enforced") return performance.now();
    await new Promise((resolve) => setTimeout(resolve, LOOK_MS));
    return undefined;
  };
  return await until("the receipt says enforced", isEnforced, { withinMs: WITHIN_MS });
}

/** When the last of them closed. The clock is read in its event, so that looking for it costs nothing. */
async function allClosed(sockets: readonly ObservedSocket[]): Promise<number> {
  const times = () => sockets.map(({ disconnectedAt }) => disconnectedAt);
  await until("all are closed", () => times().every((at) => at !== undefined), { withinMs: WITHIN_MS });
  return Math.max(...times().map((at) => at ?? Number.NaN));
}

async function stall(world: World, ways: readonly string[]): Promise<() => void> {
  const links = ways.map((way) => world.link(`${VICTIM}:${way}`));
  for (const link of links) link.stall();
  return () => links.forEach((link) => void link.heal());
}

/** Whoever listens is thrown out again and again, so that nothing that is published is heard. */
async function silenceTheBell(world: World): Promise<() => void> {
  const redis = new Redis(redisUrl(world));
  const deafen = () => redis.call("CLIENT", "KILL", "TYPE", "pubsub");
  await deafen();
  let mended = false;
  const deafening = (async () => {
    while (!mended) await deafen();
  })();
  return async () => {
    mended = true;
    await deafening;
    redis.disconnect();
  };
}

async function withRedis(world: World, use: (redis: Redis) => Promise<unknown>): Promise<void> {
  const redis = new Redis(redisUrl(world));
  await use(redis);
  redis.disconnect();
}

function redisUrl({ clusters }: World): string {
  return clusters[0]?.redisUrl ?? "";
}

function print({ situations }: Bounds): void {
  const seconds = (ms: number | undefined) => (ms === undefined ? "" : (ms / 1000).toFixed(2)).padStart(9);
  console.log(`\nseconds, p50 and the longest\n`);
  console.log(`  ${"".padEnd(60)}${"bound".padStart(13)}${"closed".padStart(13)}${"receipt".padStart(18)}`);
  for (const { situation, bound, closed, receipt, receipt_from } of situations) {
    const figures = [closed?.p50, closed?.max, receipt.p50, receipt.max].map(seconds).join("");
    console.log(`  ${situation.padEnd(60)}${bound.padStart(13)}${figures}  from ${receipt_from}`);
  }
}

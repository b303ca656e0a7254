/**
 * What revocations weigh while they are remembered: in Redis, as events and as receipts, and in each node; and that Redis keeps no more than
 * it is meant to. From the weight of one follows what a thousand a second come to, since all of it is forgotten after minutes.
 */
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { Redis } from "ioredis";
import { until } from "../../infra/until.ts";
import { revocationOf, startCluster, type TestCluster, type TestNode } from "../support/realtime-cluster.ts";
import type { Bench } from "./bench.ts";
import { round } from "./distribution.ts";

const EVENTS = 20_000;
const AT_ONCE = 16;
const NODES = 2;
const LOG = "{keycard}:log";
/** As nodes keep them where the edge has a feed. */
const KEPT_EVENTS = 100_000;
const KEPT_SECONDS = 300;
/** Until no token that it hits can be alive. */
const LIFE_SECONDS = 360;
const PER_SECOND = 1_000;
/** Redis removes 10,000 entries at a time. */
const EVENTS_TO_TRIM = 10;
const WITHIN_MS = 600_000;

interface Retention {
  readonly events: number;
  readonly nodes: number;
  /** Bytes. */
  readonly each: { readonly in_stream: number; readonly receipt: number; readonly in_a_node: number };
  /** The stream after it was filled beyond what it keeps, and some events more. */
  readonly filled: { readonly before: number; readonly after: number };
  /** What a thousand revocations a second come to, in megabytes, however long that goes on. */
  readonly steady_mb: { readonly stream: number; readonly receipts: number; readonly each_node: number };
}

setFlagsFromString("--expose-gc");
const collectGarbage: () => void = runInNewContext("gc");

export const RETENTION: Bench = {
  about: "what a thousand revocations a second weigh in Redis and in a node",
  async run(tell) {
    const result = await measureAll(tell);
    return { result, rows: [], print: () => print(result) };
  },
};

async function measureAll(onProgress: (text: string) => void): Promise<Retention> {
  const cluster = await startCluster();
  const redis = new Redis(cluster.redis.url);
  try {
    const nodes = [];
    for (let index = 0; index < NODES; index++) nodes.push(await cluster.startNode({ LOG_LEVEL: "fatal" }));
    return await measure(cluster, nodes, redis, onProgress);
  } finally {
    redis.disconnect();
    await cluster.stop();
  }
}

async function measure(
  cluster: TestCluster,
  nodes: readonly TestNode[],
  redis: Redis,
  onProgress: (text: string) => void,
): Promise<Retention> {
  await revokeMany(cluster, nodes, 1_000, onProgress);
  const before = { heap: heapUsed(nodes), redis: await usedMemory(redis), stream: await streamBytes(redis) };
  await revokeMany(cluster, nodes, EVENTS, onProgress);
  const each = {
    in_stream: (await streamBytes(redis)) - before.stream,
    receipt: 0,
    in_a_node: (heapUsed(nodes) - before.heap) / NODES,
  };
  each.receipt = (await usedMemory(redis)) - before.redis - each.in_stream;
  for (const what of Object.keys(each) as (keyof typeof each)[]) each[what] = Math.round(each[what] / EVENTS);
  const filled = await fill(cluster, nodes, redis, onProgress);
  const megabytes = (bytes: number, count: number) => round((bytes * count) / 1e6);
  return {
    ...{ events: EVENTS, nodes: NODES, each, filled },
    steady_mb: {
      stream: megabytes(each.in_stream, Math.min(KEPT_EVENTS, KEPT_SECONDS * PER_SECOND)),
      receipts: megabytes(each.receipt, KEPT_SECONDS * PER_SECOND),
      each_node: megabytes(each.in_a_node, LIFE_SECONDS * PER_SECOND),
    },
  };
}

/** Resolves when every node has applied every event, and its word stands in the receipt. */
async function revokeMany(
  { issuer, push }: TestCluster,
  nodes: readonly TestNode[],
  count: number,
  onProgress: (text: string) => void,
): Promise<void> {
  const applied = () => nodes.map(({ door }) => Number(door.health().revocations));
  const goal = applied().map((entries) => entries + count);
  let given = 0;
  const worker = async () => {
    while (given < count) {
      given += 1;
      if (given % 5_000 === 0) onProgress(`${given} of ${count} events`);
      const event = revocationOf([
        { kind: "session", sid: `u_${crypto.randomUUID()}.${crypto.randomUUID().slice(0, 22)}` },
      ]);
      const [node] = nodes;
      if (node === undefined) throw new Error("there is no node");
      const set = await issuer.set(event);
      // As the edge does: a node that is busy may have lost its lease for a moment.
      await until("an event is taken", async () => (await push(node, set)).status === 202);
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, worker));
  const isDone = () => applied().every((entries, index) => entries >= (goal[index] ?? 0));
  await until("every node has applied everything", isDone, { withinMs: WITHIN_MS });
}

/** Fills the stream with what everybody knows already; the next events are to bring it down to what it keeps. */
async function fill(
  cluster: TestCluster,
  nodes: readonly TestNode[],
  redis: Redis,
  onProgress: (text: string) => void,
): Promise<Retention["filled"]> {
  onProgress("filling the stream");
  const [[, fields = []] = []] = await redis.xrange(LOG, "-", "+", "COUNT", 1);
  const pipeline = redis.pipeline();
  for (let index = 0; index < KEPT_EVENTS * 1.2; index++) pipeline.xadd(LOG, "*", ...fields);
  await pipeline.exec();
  const before = await redis.xlen(LOG);
  await revokeMany(cluster, nodes, EVENTS_TO_TRIM, onProgress);
  return { before, after: await redis.xlen(LOG) };
}

async function streamBytes(redis: Redis): Promise<number> {
  return Number(await redis.call("MEMORY", "USAGE", LOG, "SAMPLES", "0"));
}

async function usedMemory(redis: Redis): Promise<number> {
  return Number(/used_memory:(\d+)/.exec(await redis.info("memory"))?.[1]);
}

/** Without what they logged, which a process does not keep. */
function heapUsed(nodes: readonly TestNode[]): number {
  for (const { lines } of nodes) lines.length = 0;
  collectGarbage();
  return process.memoryUsage().heapUsed;
}

function print({ events, nodes, each, filled, steady_mb }: Retention): void {
  console.log(`\n${events} events, ${nodes} nodes`);
  console.log(
    `  bytes each: ${each.in_stream} in the stream, ${each.receipt} as a receipt, ${each.in_a_node} in a node`,
  );
  console.log(`  a stream of ${filled.before} events has ${filled.after} after ${EVENTS_TO_TRIM} more`);
  console.log(`\n  at ${PER_SECOND} revocations a second, however long:`);
  console.log(`  Redis ${round(steady_mb.stream + steady_mb.receipts)} MB, each node ${steady_mb.each_node} MB`);
}

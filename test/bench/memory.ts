/**
 * What an idle socket weighs on the server: heap and resident memory after a collection, with so many sockets less with none, divided by so many. The
 * server, its adapter and its settings are those of `handshake`; Keycard's sockets each show a token of their own, the bare ones none at all.
 * Every measurement is of a fresh process, since one that has held many gives nothing back.
 */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { obtainRedisServer, startRedis } from "../../infra/redis.ts";
import { until } from "../../infra/until.ts";
import { AUDIENCE, CLUSTER_SECRET, createIssuer, type TestIssuer } from "../support/realtime-cluster.ts";
import type { Bench, Row } from "./bench.ts";
import type { CrowdOrder } from "./crowd.ts";
import { ratioOf, type Spread, spreadOf, spreadText } from "./distribution.ts";
import type { ServerReady, ServerSettings } from "./handshake-server.ts";
import { inTurns } from "./in-turns.ts";
import { atMost } from "./leavers.ts";
import type { Offer } from "./raw-client.ts";
import { startServerProcess } from "./server-process.ts";

/** The largest take long, and vary least. */
const SIZES = [
  { wanted: 1_000, rounds: 5 },
  { wanted: 10_000, rounds: 2 },
  { wanted: 20_000, rounds: 2 },
];
const WHY_NOT =
  "the heap is what sockets hold; RSS counts whole pages, with what the allocator has not given back since the handshakes";
const ARRIVE_WITHIN_MS = 120_000;
/** The runtime itself grows while the first ones come. */
const FIRST = 500;

type Door = "bare" | "keycard";
/** Bytes for each socket. */
interface Weight {
  readonly heap: number;
  readonly rss: number;
}

interface MemoryFigures {
  readonly sizes: readonly {
    readonly sockets: number;
    readonly bytes: Readonly<Record<Door, { readonly heap: Spread; readonly rss: Spread }>>;
    /** Keycard to bare. */
    readonly ratio: { readonly heap: Spread; readonly rss: Spread };
  }[];
}

export const MEMORY: Bench = {
  about: "what an idle authenticated socket weighs, beside one of bare Socket.IO",
  async run(tell) {
    const result = await measureAll(tell);
    return { result, rows: rowsOf(result), print: () => print(result) };
  },
};

function rowsOf({ sizes }: MemoryFigures): Row[] {
  return sizes.map(({ sockets, bytes, ratio }) => ({
    work: `memory of one of ${sockets.toLocaleString("en")} idle sockets relative to bare Socket.IO, heap and RSS`,
    goal: "< 1.00 and < 1.00",
    measured: `${spreadText(ratio.heap)} and ${spreadText(ratio.rss)} (${kilobytes(bytes.keycard.heap)} and ${kilobytes(bytes.keycard.rss)} KB)`,
    ...(ratio.heap.median < 1 && ratio.rss.median < 1 ? { met: true } : { met: false, because: WHY_NOT }),
  }));
}

async function measureAll(tell: (text: string) => void): Promise<MemoryFigures> {
  const dir = await mkdtemp(join(tmpdir(), "keycard-bench-"));
  const issuer = await createIssuer();
  const redis = await startRedis({ binary: await obtainRedisServer(tell), dir: join(dir, "redis") });
  try {
    const sizes = [];
    for (const { wanted, rounds } of SIZES) {
      const sockets = atMost(wanted + FIRST) - FIRST;
      const weights = await inTurns(["bare", "keycard"], { rounds, warmUpRounds: 0 }, (door, round) => {
        tell(`${sockets} sockets, ${door}, round ${round + 1} of ${rounds}`);
        return weigh(door, sockets, issuer, redis.url);
      });
      sizes.push(compare(sockets, weights));
    }
    return { sizes };
  } finally {
    await redis.stop();
    await issuer.stop();
    await rm(dir, { recursive: true, force: true });
  }
}

async function weigh(door: Door, sockets: number, issuer: TestIssuer, redisUrl: string): Promise<Weight> {
  const settings = {
    door,
    redisUrl,
    secret: "",
    issuer: issuer.url,
    audience: AUDIENCE,
    clusterSecret: CLUSTER_SECRET,
  };
  const server = await startServerProcess<ServerReady>(
    join(import.meta.dirname, "handshake-server.ts"),
    settings satisfies ServerSettings,
  );
  const crowd = await startServerProcess(join(import.meta.dirname, "crowd.ts"), {});
  try {
    const order = async (count: number) => ({ port: server.ready.port, offers: await offersFor(door, count, issuer) });
    await crowd.ask("open", (await order(FIRST)) satisfies CrowdOrder);
    const before = await server.memory();
    await crowd.ask("open", (await order(sockets)) satisfies CrowdOrder);
    const all = async () => (await server.ask<number>("connected")) === FIRST + sockets;
    await until("all are in", all, { withinMs: ARRIVE_WITHIN_MS });
    const after = await server.memory();
    return { heap: (after.heap - before.heap) / sockets, rss: (after.rss - before.rss) / sockets };
  } finally {
    await crowd.stop();
    await server.stop();
  }
}

async function offersFor(door: Door, count: number, issuer: TestIssuer): Promise<Offer[]> {
  const offers: Offer[] = [];
  const exp = Math.floor(Date.now() / 1000) + 3600;
  while (offers.length < count) offers.push(door === "bare" ? {} : { auth: { token: await issuer.token({ exp }) } });
  return offers;
}

function compare(sockets: number, weights: Readonly<Record<Door, readonly Weight[]>>): MemoryFigures["sizes"][number] {
  const of = (door: Door, what: keyof Weight) => weights[door].map((weight) => weight[what]);
  const both = (door: Door) => ({ heap: spreadOf(of(door, "heap")), rss: spreadOf(of(door, "rss")) });
  const ratio = (what: keyof Weight) => ratioOf(of("keycard", what), of("bare", what));
  return {
    sockets,
    bytes: { bare: both("bare"), keycard: both("keycard") },
    ratio: { heap: ratio("heap"), rss: ratio("rss") },
  };
}

function kilobytes({ median }: Spread): string {
  return (median / 1000).toFixed(1);
}

function print({ sizes }: MemoryFigures): void {
  console.log(`\nKB for each idle socket, medians; Keycard to bare\n`);
  const titles = ["sockets", "bare heap", "RSS", "keycard heap", "RSS"];
  console.log(`${titles.map((title) => title.padStart(14)).join("")}   heap, RSS`);
  for (const { sockets, bytes, ratio } of sizes) {
    const { bare, keycard } = bytes;
    const figures = [String(sockets), ...[bare.heap, bare.rss, keycard.heap, keycard.rss].map(kilobytes)];
    const ratios = `${spreadText(ratio.heap)}, ${spreadText(ratio.rss)}`;
    console.log(`${figures.map((figure) => figure.padStart(14)).join("")}   ${ratios}`);
  }
}

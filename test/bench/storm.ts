/**
 * A node of three is killed with 5,000 sockets on it, and all of them come to the other two: how long it takes until the last one is in, what that
 * costs the survivors, and how often somebody is turned away. Keycard beside bare Socket.IO, the same servers and clients; Keycard's clients
 * show the token that they had, to nodes that have never seen it. The clients wait as stock ones do, up to a second and a half before the first
 * attempt, so that much of the time is theirs. All come from one address: Keycard's bound on connections for each address is lifted.
 */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { obtainRedisServer, startRedis } from "../../infra/redis.ts";
import { until } from "../../infra/until.ts";
import { AUDIENCE, CLUSTER_SECRET, createIssuer, type TestIssuer } from "../support/realtime-cluster.ts";
import { createSigner, type TestSigner } from "../support/tokens.ts";
import type { Bench, Row } from "./bench.ts";
import { ratioOf, type Spread, spreadOf, spreadText } from "./distribution.ts";
import type { ServerReady, ServerSettings } from "./handshake-server.ts";
import { inTurns } from "./in-turns.ts";
import type { Offer } from "./raw-client.ts";
import { startServerProcess } from "./server-process.ts";
import type { Storm, StormOrder } from "./storm-client.ts";

const SOCKETS = 5_000;
const NODES = 3;
const TURNS = { rounds: 3, warmUpRounds: 0 };
const BACK_WITHIN_MS = 60_000;

type Door = "bare" | "keycard";

interface Sample extends Storm {
  /** Of both survivors, for each socket, microseconds. */
  readonly cpuUs: number;
  readonly loopMaxMs: number;
}

interface StormFigures {
  readonly sockets: number;
  readonly storms: Readonly<Record<Door, readonly Sample[]>>;
}

export const STORM: Bench = {
  about: "5,000 sockets of a killed node come back to the other two, beside bare Socket.IO",
  async run(tell) {
    const result = await measureAll(tell);
    return { result, rows: rowsOf(result), print: () => print(result) };
  },
};

function ratio({ storms }: StormFigures, pick: (sample: Sample) => number): Spread {
  return ratioOf(storms.keycard.map(pick), storms.bare.map(pick));
}

function rowsOf(figures: StormFigures): Row[] {
  const [time, cpu] = [ratio(figures, ({ lastMs }) => lastMs), ratio(figures, ({ cpuUs }) => cpuUs)];
  const last = spreadOf(figures.storms.keycard.map(({ lastMs }) => lastMs / 1000)).median;
  const refusals = figures.storms.keycard.reduce((sum, each) => sum + each.refusals, 0);
  return [
    {
      work: `${SOCKETS.toLocaleString("en")} sockets of a killed node come back to the other two, until the last is in, relative to bare Socket.IO`,
      goal: "≤ 1.20, nobody turned away",
      measured: `${spreadText(time)} (${last.toFixed(1)} s), ${refusals} turned away; processor time ${spreadText(cpu)}`,
      met: time.median <= 1.2 && refusals === 0,
    },
  ];
}

async function measureAll(tell: (text: string) => void): Promise<StormFigures> {
  const dir = await mkdtemp(join(tmpdir(), "keycard-bench-"));
  const issuer = await createIssuer();
  const redis = await startRedis({ binary: await obtainRedisServer(tell), dir: join(dir, "redis") });
  try {
    const signer = await createSigner("RS256", "storm");
    issuer.publish(signer);
    const storms = await inTurns(["bare", "keycard"], TURNS, async (door, round) => {
      tell(`${door}, round ${round + 1} of ${TURNS.rounds}`);
      return await play(door, issuer, redis.url, await offersFor(door, issuer, signer));
    });
    return { sockets: SOCKETS, storms };
  } finally {
    await redis.stop();
    await issuer.stop();
    await rm(dir, { recursive: true, force: true });
  }
}

async function offersFor(door: Door, issuer: TestIssuer, signer: TestSigner): Promise<Offer[]> {
  const offers: Offer[] = [];
  while (offers.length < SOCKETS) {
    offers.push(door === "bare" ? {} : { auth: { token: await issuer.token({}, signer) } });
  }
  return offers;
}

async function play(door: Door, issuer: TestIssuer, redisUrl: string, offers: readonly Offer[]): Promise<Sample> {
  const settings = {
    door,
    redisUrl,
    secret: "",
    issuer: issuer.url,
    audience: AUDIENCE,
    clusterSecret: CLUSTER_SECRET,
  };
  const module = join(import.meta.dirname, "handshake-server.ts");
  const start = () => startServerProcess<ServerReady>(module, settings satisfies ServerSettings);
  const nodes = await Promise.all(Array.from({ length: NODES }, start));
  const crowd = await startServerProcess(join(import.meta.dirname, "storm-client.ts"), {});
  try {
    const [victim, ...survivors] = nodes;
    if (victim === undefined) throw new Error("there is no node");
    const others = survivors.map(({ ready }) => ready.port);
    await crowd.ask("arrive", { offers, port: victim.ready.port, others } satisfies StormOrder);
    for (const node of survivors) await node.meterStart();
    victim.kill();
    const storm = await crowd.ask<Storm>("storm");
    const usages = await Promise.all(survivors.map((node) => node.meterStop()));
    const counts = async () => await Promise.all(survivors.map((node) => node.ask<number>("connected")));
    const all = async () => (await counts()).reduce((sum, count) => sum + count, 0) === SOCKETS;
    await until("the survivors have them all", all, { withinMs: BACK_WITHIN_MS });
    return {
      ...storm,
      cpuUs: usages.reduce((sum, { cpuUs }) => sum + cpuUs, 0) / SOCKETS,
      loopMaxMs: Math.max(...usages.map(({ loopMaxMs }) => loopMaxMs)),
    };
  } finally {
    await crowd.stop();
    for (const node of nodes) await node.stop();
  }
}

function print(figures: StormFigures): void {
  console.log(`\n${figures.sockets} sockets, ${figures.storms.bare.length} storms each; medians\n`);
  const titles = ["half ms", "99 % ms", "last ms", "CPU µs each", "hold ms", "refusals"];
  console.log(`${"".padEnd(10)}${titles.map((title) => title.padStart(13)).join("")}`);
  for (const [door, samples] of Object.entries(figures.storms)) {
    const of = (pick: (sample: Sample) => number) => spreadOf(samples.map(pick)).median.toFixed(0).padStart(13);
    const times = [of((each) => each.halfMs), of((each) => each.most99Ms), of((each) => each.lastMs)];
    const rest = [of((each) => each.cpuUs), of((each) => each.loopMaxMs), of((each) => each.refusals)];
    console.log(`${door.padEnd(10)}${[...times, ...rest].join("")}`);
  }
  const [time, cpu] = [ratio(figures, ({ lastMs }) => lastMs), ratio(figures, ({ cpuUs }) => cpuUs)];
  console.log(`\nKeycard to bare: until the last is in ${spreadText(time)}, processor time ${spreadText(cpu)}`);
}

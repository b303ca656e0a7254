/**
 * How long a node that was away takes until it lets people in again: it has missed a hundred thousand revocations that can still hit somebody. They
 * are in the edge's feed (a page of a thousand has one signature); or in the feed and in Redis's stream, as when a node is restarted; or in the
 * stream alone, as of an issuer that has no feed, each with a signature of its own, of which fewer are made because that takes so long.
 *
 * The feed is served by the process that measures, on the same cores, without the edge's storage. What stands in the stream of events that the feed has
 * told is not verified again, so that there one signature is copied into all. Without its modules' loading, which is the same however much was missed.
 */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Redis } from "ioredis";
import { REVOCATION_EVENT, type RevocationEvent } from "#contract/revocation";
import { obtainRedisServer, type RedisProcess, startRedis } from "../../infra/redis.ts";
import type { Bench, Row } from "./bench.ts";
import type { CatchUpSettings, CaughtUp } from "./catchup-node.ts";
import { type Spread, spreadOf, spreadText } from "./distribution.ts";
import { inTurns } from "./in-turns.ts";
import { type BenchIssuer, startIssuer } from "./issuer.ts";
import { startServerProcess } from "./server-process.ts";

const MISSED = 100_000;
/** Each really signed, and really verified. */
const SIGNED = 10_000;
const TURNS = { rounds: 3, warmUpRounds: 0 };
const GOAL_MS = 1_000;
const LOG = "{keycard}:log";
const CHUNK = 1_000;
const MODULE = join(import.meta.dirname, "catchup-node.ts");

const CASES = ["nothing", "feed", "feed and stream", "stream alone"] as const;
type Case = (typeof CASES)[number];
const EVENTS: Readonly<Record<Case, number>> = {
  nothing: 0,
  feed: MISSED,
  "feed and stream": MISSED,
  "stream alone": SIGNED,
};

interface Figures {
  readonly from: Case;
  readonly events: number;
  readonly ready_ms: Spread;
  /** Of the node. */
  readonly cpu_ms: Spread;
}

export const CATCHUP: Bench = {
  about: "how long a node that missed 100,000 revocations takes until it is ready",
  async run(tell) {
    const figures = await measureAll(tell);
    return { result: { figures }, rows: rowsOf(figures), print: () => print(figures) };
  },
};

async function measureAll(tell: (text: string) => void): Promise<Figures[]> {
  const dir = await mkdtemp(join(tmpdir(), "keycard-bench-"));
  const redis = await startRedis({ binary: await obtainRedisServer(), dir });
  // One that has decided nothing, one that has decided it all, and one that has no feed.
  const [quiet, busy, feedless] = [await startIssuer(), await startIssuer(), await startIssuer()];
  try {
    decideMany(busy, MISSED);
    tell(`signing ${SIGNED} events`);
    decideMany(feedless, SIGNED);
    const signed = await signAll(feedless);
    const copied = await signOnce(busy);
    const samples = await inTurns(CASES, TURNS, async (from, round) => {
      tell(`${from}, round ${round}`);
      const sets = from === "stream alone" ? signed : from === "feed and stream" ? copied : [];
      const issuer = from === "nothing" ? quiet : from === "stream alone" ? feedless : busy;
      return await catchUp(redis, issuer, sets, from);
    });
    return CASES.map((from) => ({
      ...{ from, events: EVENTS[from] },
      ready_ms: spreadOf(samples[from].map(({ readyMs }) => readyMs)),
      cpu_ms: spreadOf(samples[from].map(({ cpuMs }) => cpuMs)),
    }));
  } finally {
    await Promise.all([quiet, busy, feedless].map((issuer) => issuer.stop()));
    await redis.stop();
    await rm(dir, { recursive: true, force: true });
  }
}

function decideMany(issuer: BenchIssuer, count: number): void {
  for (let i = 0; i < count; i++) {
    const sid = `u_${String(i).padStart(22, "k")}.${String(i).padStart(22, "s")}`;
    issuer.tell(issuer.prepare([{ kind: "session", sid }]));
  }
}

async function signAll(issuer: BenchIssuer): Promise<string[]> {
  const sets: string[] = [];
  for (let from = 0; from < issuer.told.length; from += CHUNK) {
    sets.push(...(await Promise.all(issuer.told.slice(from, from + CHUNK).map((event) => issuer.sign(event)))));
  }
  return sets;
}

/** All of its events with the signature of one. */
async function signOnce(issuer: BenchIssuer): Promise<string[]> {
  const [first] = issuer.told as [RevocationEvent];
  const [header, payload = "", signature] = (await issuer.sign(first)).split(".");
  const claims: object = JSON.parse(Buffer.from(payload, "base64url").toString());
  return issuer.told.map(({ id, ...body }) => {
    const own = { ...claims, jti: id, txn: id, events: { [REVOCATION_EVENT]: body } };
    return `${header}.${Buffer.from(JSON.stringify(own)).toString("base64url")}.${signature}`;
  });
}

async function catchUp(
  redis: RedisProcess,
  issuer: BenchIssuer,
  sets: readonly string[],
  from: Case,
): Promise<CaughtUp> {
  const commands = new Redis(redis.url);
  await commands.flushall();
  for (let at = 0; at < sets.length; at += CHUNK) {
    const pipeline = commands.pipeline();
    for (const set of sets.slice(at, at + CHUNK)) pipeline.xadd(LOG, "*", "set", set);
    await pipeline.exec();
  }
  commands.disconnect();
  const settings: CatchUpSettings = { redisUrl: redis.url, issuer: issuer.url, feed: from !== "stream alone" };
  const node = await startServerProcess<object>(MODULE, settings);
  try {
    const caughtUp = await node.ask<CaughtUp>("catchUp");
    if (caughtUp.revocations !== EVENTS[from]) throw new Error(`it knows ${caughtUp.revocations} of ${EVENTS[from]}`);
    return caughtUp;
  } finally {
    await node.stop();
  }
}

function rowsOf(figures: readonly Figures[]): Row[] {
  return figures
    .filter(({ events }) => events > 0)
    .map(({ from, events, ready_ms, cpu_ms }) => ({
      work: `a node that missed ${events} revocations, which are in the ${from}, until it is ready`,
      goal: from === "stream alone" ? "≤ 0.1 s (100,000: ≤ 1 s)" : "≤ 1 s",
      measured: `${spreadText(seconds(ready_ms))} s, of which the node's processor ${spreadText(seconds(cpu_ms))}`,
      ...verdict(ready_ms.median * (MISSED / events) <= GOAL_MS, BECAUSE[from]),
    }));
}

const FEED =
  "by the node's profile a fifth is for parsing pages, a fifth for the index, a quarter for remembering what was done about each event and what is still to be said of it, an eighth for collecting garbage; the process that serves the feed shares its two cores";
/** What stands in the way, by the node's profile. */
const BECAUSE: Partial<Record<Case, string>> = {
  feed: FEED,
  "feed and stream": FEED,
  "stream alone":
    "a signature for each: checking RS256 takes 22 µs by itself, 2.2 s for 100,000; where the edge has a feed nobody needs to",
};

function verdict(met: boolean, because: string | undefined): Pick<Row, "met" | "because"> {
  return met || because === undefined ? { met } : { met, because };
}

function seconds({ median, q1, q3 }: Spread): Spread {
  return { median: median / 1000, q1: q1 / 1000, q3: q3 / 1000 };
}

function print(figures: readonly Figures[]): void {
  console.log(`\nmilliseconds until it is ready, medians and quartiles\n`);
  console.log(`  ${"missed, and where it is".padEnd(32)}${"ready".padStart(26)}${"CPU of the node".padStart(26)}`);
  for (const { from, events, ready_ms, cpu_ms } of figures) {
    const cells = [ready_ms, cpu_ms].map((spread) => spreadText(spread, 0).padStart(26)).join("");
    console.log(`  ${`${events}, ${from}`.padEnd(32)}${cells}`);
  }
}

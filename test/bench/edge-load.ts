/**
 * Workers under load, side by side: each in workerd without a proxy, its storage on disk, all up at once, in slices that alternate. The client
 * shares the machine with them, so that a rate says nothing by itself; the ratio of two in the same run does.
 */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { startEdge } from "../../infra/edge.ts";
import { buildEdge } from "../../infra/edge-build.ts";
import type { Part } from "../../infra/part.ts";
import { reservePort } from "../../infra/ports.ts";
import { type Distribution, distributionOf, ratioOf, type Spread, spreadOf } from "./distribution.ts";
import { type Call, HttpCalls } from "./http-calls.ts";
import { inTurns } from "./in-turns.ts";
import { obtainPeers } from "./peers.ts";

export const ADMIN_TOKEN = "an-admin-token-of-a-benchmark-used-once";
const BARE = join(import.meta.dirname, "bare/wrangler.jsonc");
const SLICES = 6;
const SLICE_MS = 2_000;

/** One request after the other, for ever: what a caller does who waits for each answer. */
export type Caller = () => Promise<unknown>;

export interface Load<Name extends string> {
  readonly at_once: number;
  readonly slices: number;
  readonly slice_ms: number;
  readonly per_second: Readonly<Record<Name, Spread>>;
  /** Of each to the one that is called `bare`. */
  readonly ratio: Readonly<Record<Name, Spread>>;
  readonly latency_ms: Readonly<Record<Name, Distribution>>;
}

/** Libraries that do the same on Workers: `peers/NAME/worker.ts`. */
export const PEER_WORKERS = ["openauth", "workers-oauth-provider", "better-auth"] as const;
export type PeerWorker = (typeof PEER_WORKERS)[number];
type WorkerName = "keycard" | "bare" | PeerWorker;

export interface Workers<Name extends WorkerName = "keycard" | "bare"> {
  /** Where each is. */
  readonly url: Readonly<Record<Name, string>>;
  readonly call: Call;
}

/** Keycard, and whatever it is held against, for as long as `use` takes: by default the bare floor (`bare/worker.ts`). */
export async function withWorkers<T, Name extends WorkerName = "bare">(
  tell: (text: string) => void,
  use: (workers: Workers<Name | "keycard">) => Promise<T>,
  others: readonly Name[] = ["bare" as Name],
): Promise<T> {
  const dir = await mkdtemp(join(tmpdir(), "keycard-bench-"));
  const http = new HttpCalls();
  const parts: Part[] = [];
  try {
    if (others.some(isPeer)) await obtainPeers(tell);
    const url = {} as Record<Name | "keycard", string>;
    for (const name of ["keycard" as const, ...others]) {
      tell(`building the Worker of ${name}`);
      url[name] = await startWorker(dir, name, parts);
    }
    return await use({ url, call: http.call });
  } finally {
    http.close();
    for (const part of parts) await part.stop();
    await rm(dir, { recursive: true, force: true });
  }
}

function isPeer(name: WorkerName): name is PeerWorker {
  return PEER_WORKERS.some((peer) => peer === name);
}

async function startWorker(dir: string, name: WorkerName, parts: Part[]): Promise<string> {
  const bundleDir = join(dir, `${name}-bundle`);
  const config = isPeer(name) ? join(import.meta.dirname, "peers", name, "wrangler.jsonc") : BARE;
  await buildEdge(bundleDir, name === "keycard" ? undefined : config);
  const reserved = await reservePort();
  const { port } = reserved;
  await reserved.release();
  const url = `http://127.0.0.1:${port}`;
  const own = { ADMIN_TOKEN, KEYCARD_SECRET: "a secret of a benchmark, and of nothing else" };
  const settings = { ISSUER: url, ...(name === "keycard" ? own : {}) };
  parts.push(await startEdge({ bundleDir, stateDir: join(dir, name), port, settings }));
  return url;
}

/** @param callers of each Worker, as many as call at once */
export async function compareLoad<Name extends string>(
  callers: Readonly<Record<Name | "bare", readonly Caller[]>>,
  tell: (text: string) => void,
): Promise<Load<Name | "bare">> {
  const names = Object.keys(callers) as (Name | "bare")[];
  const samples = await inTurns(names, { rounds: SLICES, warmUpRounds: 1 }, async (name, round) => {
    tell(`${callers[name].length} at once, ${name}, slice ${round + 1} of ${SLICES}`);
    return await slice(callers[name]);
  });
  const each = <T>(pick: (name: Name | "bare") => T) =>
    Object.fromEntries(names.map((name) => [name, pick(name)])) as Record<Name | "bare", T>;
  const rates = each((name) => samples[name].map((took) => (took.length * 1000) / SLICE_MS));
  return {
    ...{ at_once: callers.bare.length, slices: SLICES, slice_ms: SLICE_MS },
    per_second: each((name) => spreadOf(rates[name])),
    ratio: each((name) => ratioOf(rates[name], rates.bare)),
    latency_ms: each((name) => distributionOf(samples[name].flat())),
  };
}

/** @returns how long each call took, milliseconds */
async function slice(callers: readonly Caller[]): Promise<number[]> {
  const took: number[] = [];
  const until = performance.now() + SLICE_MS;
  const run = async (caller: Caller) => {
    while (performance.now() < until) {
      const at = performance.now();
      await caller();
      took.push(performance.now() - at);
    }
  };
  await Promise.all(callers.map(run));
  return took;
}

export function printLoads<Name extends string>(title: string, loads: readonly Load<Name>[]): void {
  const [{ slices = 0, slice_ms = 0 } = {}] = loads;
  console.log(`\n${title}: ${slices} slices of ${slice_ms / 1000} s each, after one to warm up\n`);
  console.log(
    `  ${"at once".padEnd(9)}${"".padEnd(24)}${"per second".padStart(12)}${"of bare".padStart(22)}${"p50, p99, ms".padStart(20)}`,
  );
  for (const { at_once, per_second, ratio, latency_ms } of loads) {
    for (const name of Object.keys(per_second) as Name[]) {
      const { median, q1, q3 } = ratio[name];
      const { p50, p99 } = latency_ms[name];
      const cells = [per_second[name].median.toFixed(0).padStart(12), `${median} [${q1}..${q3}]`.padStart(22)];
      console.log(`  ${String(at_once).padEnd(9)}${name.padEnd(24)}${cells.join("")}${`${p50}, ${p99}`.padStart(20)}`);
    }
  }
}

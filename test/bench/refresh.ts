/**
 * Refreshes per second of the Worker beside the bare floor (`bare/worker.ts`), both in workerd without a proxy, both with
 * their storage on disk, both up at once. Slices alternate A B B A …; each worker of the load has a session of its own.
 */
import { mkdtemp, rm } from "node:fs/promises";
import { Agent, request } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { startEdge } from "../../infra/edge.ts";
import { buildEdge } from "../../infra/edge-build.ts";
import { EdgeClient } from "../../infra/edge-client.ts";
import type { Part } from "../../infra/part.ts";
import { reservePort } from "../../infra/ports.ts";
import type { Bench, Row } from "./bench.ts";
import { type Distribution, distributionOf, ratioOf, type Spread, spreadOf, spreadText } from "./distribution.ts";

const CONCURRENCY = [1, 16] as const;
const SLICES = 6;
const SLICE_MS = 3_000;
const WARM_UP_MS = 1_500;

type Peer = "keycard" | "bare";

interface RefreshFigures {
  readonly slices: number;
  readonly sliceMs: number;
  readonly rows: readonly {
    readonly concurrency: number;
    readonly perSecond: Readonly<Record<Peer, number>>;
    /** Of Keycard to bare: the median over the slices. */
    readonly ratio: Spread;
    readonly latencyMs: Readonly<Record<Peer, Distribution>>;
  }[];
}

/** One refresh of one session, for ever: each takes what the one before gave. */
type Chain = () => Promise<void>;

export const REFRESH: Bench = {
  about: "refreshes per second, beside a bare Worker with one write and one signature",
  async run(tell) {
    const result = await measureAll(tell);
    return { result, rows: rowsOf(result), print: () => print(result) };
  },
};

const LEAST_RATIO = 0.8;

function rowsOf({ rows }: RefreshFigures): Row[] {
  return rows.map(({ concurrency, ratio, perSecond }) => ({
    work: `refreshes a second, ${concurrency} at once, relative to a bare Worker with one write and one signature`,
    goal: `≥ ${LEAST_RATIO}`,
    measured: `${spreadText(ratio)} (${perSecond.keycard.toFixed(0)}/s)`,
    met: ratio.median >= LEAST_RATIO,
  }));
}

async function measureAll(onProgress: (text: string) => void): Promise<RefreshFigures> {
  const dir = await mkdtemp(join(tmpdir(), "keycard-bench-"));
  const agent = new Agent({ keepAlive: true, maxSockets: 64 });
  const parts: Part[] = [];
  try {
    onProgress("building both Workers");
    const keycard = await startPeer(dir, "keycard", parts);
    const bare = await startPeer(dir, "bare", parts);
    const most = Math.max(...CONCURRENCY);
    onProgress(`opening ${most} sessions`);
    const chains: Record<Peer, readonly Chain[]> = {
      keycard: await keycardChains(keycard, most, agent),
      bare: Array.from({ length: most }, (_, i) => () => post(agent, bare, { session: `s${i}` }).then(() => undefined)),
    };
    const rows: RefreshFigures["rows"][number][] = [];
    for (const concurrency of CONCURRENCY) rows.push(await compare(chains, concurrency, onProgress));
    return { slices: SLICES, sliceMs: SLICE_MS, rows };
  } finally {
    agent.destroy();
    for (const part of parts) await part.stop();
    await rm(dir, { recursive: true, force: true });
  }
}

const ADMIN_TOKEN = "an-admin-token-of-a-benchmark-used-once";

async function startPeer(dir: string, peer: Peer, parts: Part[]): Promise<string> {
  const bundleDir = join(dir, `${peer}-bundle`);
  await buildEdge(bundleDir, peer === "bare" ? join(import.meta.dirname, "bare/wrangler.jsonc") : undefined);
  const reserved = await reservePort();
  const { port } = reserved;
  await reserved.release();
  const url = `http://127.0.0.1:${port}`;
  const settings = { ISSUER: url, ADMIN_TOKEN, KEYCARD_SECRET: "a secret of a benchmark, and of nothing else" };
  parts.push(
    await startEdge({ bundleDir, stateDir: join(dir, peer), port, settings: peer === "bare" ? {} : settings }),
  );
  return url;
}

async function keycardChains(url: string, count: number, agent: Agent): Promise<readonly Chain[]> {
  const edge = new EdgeClient({ edgeUrl: url, adminToken: ADMIN_TOKEN });
  const chains: Chain[] = [];
  for (let i = 0; i < count; i++) {
    const person = { login: `bench-${i}@example.com`, password: "a password of a benchmark" };
    await edge.createAccount(person);
    let { refresh_token } = await edge.login(person.login, person.password);
    chains.push(async () => {
      ({ refresh_token } = (await post(agent, `${url}/refresh`, { refresh_token })) as { refresh_token: string });
    });
  }
  return chains;
}

async function compare(
  chains: Record<Peer, readonly Chain[]>,
  concurrency: number,
  onProgress: (text: string) => void,
): Promise<RefreshFigures["rows"][number]> {
  for (const peer of ["keycard", "bare"] as const) await slice(chains[peer], concurrency, WARM_UP_MS);
  const rates: Record<Peer, number[]> = { keycard: [], bare: [] };
  const latencies: Record<Peer, number[]> = { keycard: [], bare: [] };
  for (let i = 0; i < SLICES; i++) {
    onProgress(`concurrency ${concurrency}, slice ${i + 1} of ${SLICES}`);
    for (const peer of i % 2 === 0 ? (["keycard", "bare"] as const) : (["bare", "keycard"] as const)) {
      const took = await slice(chains[peer], concurrency, SLICE_MS);
      rates[peer].push((took.length * 1000) / SLICE_MS);
      latencies[peer].push(...took);
    }
  }
  return {
    concurrency,
    perSecond: { keycard: spreadOf(rates.keycard).median, bare: spreadOf(rates.bare).median },
    ratio: ratioOf(rates.keycard, rates.bare),
    latencyMs: { keycard: distributionOf(latencies.keycard), bare: distributionOf(latencies.bare) },
  };
}

/** @returns how long each refresh took, milliseconds */
async function slice(chains: readonly Chain[], concurrency: number, forMs: number): Promise<number[]> {
  const took: number[] = [];
  const until = performance.now() + forMs;
  await Promise.all(
    chains.slice(0, concurrency).map(async (chain) => {
      while (performance.now() < until) {
        const at = performance.now();
        await chain();
        took.push(performance.now() - at);
      }
    }),
  );
  return took;
}

/** Node's plain HTTP client: `fetch` costs as much again as what is measured. */
function post(agent: Agent, url: string, body: object): Promise<unknown> {
  return new Promise((resolve, reject) => {
    const call = request(
      url,
      { agent, method: "POST", headers: { "content-type": "application/json" } },
      (response) => {
        let text = "";
        response.setEncoding("utf8").on("data", (chunk: string) => {
          text += chunk;
        });
        response.once("end", () => {
          if (response.statusCode === 200) resolve(JSON.parse(text));
          else reject(new Error(`${url} answered ${response.statusCode}: ${text}`));
        });
      },
    );
    call.once("error", reject);
    call.end(JSON.stringify(body));
  });
}

function print({ slices, sliceMs, rows }: RefreshFigures): void {
  console.log(`\nRefreshes, ${slices} slices of ${sliceMs / 1000} s each, Keycard beside the bare floor\n`);
  console.log("  at once   keycard/s    bare/s                ratio   p50 keycard, bare    p99 keycard, bare (ms)");
  for (const { concurrency, perSecond, ratio, latencyMs } of rows) {
    const cells = [
      String(concurrency).padStart(9),
      perSecond.keycard.toFixed(0).padStart(11),
      perSecond.bare.toFixed(0).padStart(9),
      spreadText(ratio).padStart(20),
      `${latencyMs.keycard.p50}, ${latencyMs.bare.p50}`.padStart(19),
      `${latencyMs.keycard.p99}, ${latencyMs.bare.p99}`.padStart(20),
    ];
    console.log(cells.join(" "));
  }
  console.log();
}

/**
 * Whether the Worker could be deployed, and what it weighs: built with `wrangler deploy --dry-run` for each environment, its bundle compared with a
 * budget, its start-up profiled in workerd. Nothing leaves this machine. `node infra/check-edge.ts`; status 1 says that it failed.
 */
import { spawn } from "node:child_process";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { gzipSync } from "node:zlib";

/** Workers take 3 MiB (free) or 10 MiB (paid) gzipped; we want far less, because every cold start loads it. */
const MAX_GZIPPED_BYTES = 300 * 1024;
/** Workers allow 1 s of CPU (developers.cloudflare.com/workers/platform/limits). */
const STARTUP_LIMIT_MS = 1_000;
const TIMEOUT_MS = 120_000;

const CONFIG = join(import.meta.dirname, "../edge/wrangler.jsonc");
const ENVIRONMENTS = ["staging", "production"] as const;
const WRANGLER = join(createRequire(import.meta.url).resolve("wrangler/package.json"), "..", "bin", "wrangler.js");

const directory = await mkdtemp(join(tmpdir(), "keycard-check-"));
try {
  process.exitCode = (await check()) ? 0 : 1;
} finally {
  await rm(directory, { recursive: true, force: true });
}

async function check(): Promise<boolean> {
  await wrangler("deploy", "--dry-run", "--config", CONFIG, "--outdir", directory);
  // As it would be deployed, each with its own bindings and variables.
  await Promise.all(
    ENVIRONMENTS.map((name) =>
      wrangler("deploy", "--dry-run", "--config", CONFIG, "--env", name, "--outdir", join(directory, name)),
    ),
  );
  const bundle = await readFile(join(directory, "worker.js"));
  const gzipped = gzipSync(bundle).byteLength;
  await wrangler("deploy", "--dry-run", "--config", CONFIG, "--outfile", join(directory, "worker.bundle"));
  const profile = join(directory, "startup.cpuprofile");
  await wrangler(
    "check",
    "startup",
    "--config",
    CONFIG,
    "--worker",
    join(directory, "worker.bundle"),
    "--outfile",
    profile,
  );
  const startup = activeMs(JSON.parse(await readFile(profile, "utf8")));
  // Shown, not judged: a busy machine must not fail a change that has nothing to do with it.
  console.log(measure("start-up, CPU", startup, STARTUP_LIMIT_MS, "ms"));
  return within("bundle, gzipped", gzipped / 1024, MAX_GZIPPED_BYTES / 1024, "KiB");
}

function measure(what: string, measured: number, limit: number, unit: string): string {
  return `${what.padEnd(16)} ${measured.toFixed(1).padStart(8)} ${unit} of ${limit} ${unit}`;
}

function within(what: string, measured: number, budget: number, unit: string): boolean {
  const good = measured <= budget;
  const line = measure(what, measured, budget, unit);
  if (good) console.log(line);
  else console.error(`${line}: over budget`);
  return good;
}

/** The parts of a V8 CPU profile that this needs; times in microseconds. */
interface Profile {
  readonly nodes: readonly { readonly id: number; readonly callFrame: { readonly functionName: string } }[];
  readonly samples: readonly number[];
  readonly timeDeltas: readonly number[];
}

/** Time in which it was not idle. */
function activeMs({ nodes, samples, timeDeltas }: Profile): number {
  const idle = new Set(nodes.filter(({ callFrame }) => callFrame.functionName === "(idle)").map(({ id }) => id));
  const active = timeDeltas.filter((_, index) => !idle.has(samples[index] ?? -1));
  return active.reduce((sum, delta) => sum + delta, 0) / 1000;
}

/** Quiet unless it fails. */
async function wrangler(...args: string[]): Promise<void> {
  const env = {
    ...process.env,
    WRANGLER_SEND_METRICS: "false",
    WRANGLER_HIDE_BANNER: "true",
    NO_COLOR: "1",
    CI: "true",
  };
  // In the project: its build of the console is an npm script.
  const child = spawn(process.execPath, [WRANGLER, ...args], { cwd: join(CONFIG, ".."), env, timeout: TIMEOUT_MS });
  let said = "";
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding("utf8").on("data", (text: string) => {
      said += text;
    });
  }
  const code = await new Promise<number | null>((resolve, reject) => {
    child.once("error", reject);
    child.once("close", resolve);
  });
  if (code !== 0) throw new Error(`wrangler ${args.slice(0, 2).join(" ")} failed (${code}):\n${said}`);
}

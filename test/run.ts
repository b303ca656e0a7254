/**
 * `npm test`: everything, from nothing. Obtains what the suites need, runs them all, and closes with one line counted
 * from what vitest reports: `N passed, N failed`. A file that does not load, an error that nobody caught, a test that
 * was skipped and a run without a test are failures. Arguments go to vitest (`npm test -- --project realtime`).
 */
import { spawn } from "node:child_process";
import { globSync } from "node:fs";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { obtainChromium } from "../infra/browser.ts";
import { obtainOpenssl } from "../infra/certificates.ts";
import { obtainHaproxy } from "../infra/haproxy.ts";
import { obtainRedisServer } from "../infra/redis.ts";
import { type Count, countResults } from "./support/test-count.ts";

const VITEST = join(import.meta.dirname, "..", "node_modules", "vitest", "vitest.mjs");

const dir = await mkdtemp(join(tmpdir(), "keycard-test-"));
const count = await runEverything().finally(() => rm(dir, { recursive: true, force: true }));
console.log(`\n${count.passed} passed, ${count.failed} failed`);
process.exitCode = count.failed === 0 ? 0 : 1;

async function runEverything(): Promise<Count> {
  try {
    const env = await obtainPrograms();
    const report = join(dir, "report.json");
    const exitCode = await runVitest(report, env);
    const text = await readFile(report, "utf8").catch(() => undefined);
    return countResults(text, exitCode);
  } catch (error) {
    console.error(error instanceof Error ? error.message : error);
    return { passed: 0, failed: 1 };
  }
}

async function obtainPrograms(): Promise<Record<string, string>> {
  const progress = (text: string) => console.log(text);
  const env: Record<string, string> = {
    REDIS_SERVER: await obtainRedisServer(progress),
    // Hundreds of processes are started, from the same few files.
    NODE_COMPILE_CACHE: join(dir, "compiled"),
  };
  await obtainOpenssl(progress);
  await obtainHaproxy(progress);
  if (globSync("browser/*.test.ts", { cwd: import.meta.dirname }).length > 0) {
    env.CHROMIUM = await obtainChromium(progress);
  }
  return env;
}

function runVitest(report: string, env: Record<string, string>): Promise<number> {
  const reporters = ["--reporter=default", "--reporter=json", `--outputFile.json=${report}`];
  const config = ["--config", join(import.meta.dirname, "vitest.config.ts")];
  const vitest = spawn(process.execPath, [VITEST, "run", ...config, ...reporters, ...process.argv.slice(2)], {
    stdio: ["ignore", "inherit", "inherit"],
    env: { ...process.env, ...env },
  });
  // A terminal's Ctrl-C reaches vitest too: wait for it to clean up.
  for (const signal of ["SIGINT", "SIGTERM"] as const) process.on(signal, () => vitest.kill(signal));
  return new Promise((resolve, reject) => {
    vitest.once("error", reject);
    vitest.once("exit", (code) => resolve(code ?? 1));
  });
}

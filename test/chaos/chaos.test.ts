/** A short run with a seed that stays the same. Longer ones, with any seed: `npm run chaos`. */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import { runChaos, STAGE } from "./chaos.ts";
import { planOf } from "./plan.ts";
import { commandFor, printSummary, summarise } from "./report.ts";

const SEED = 7;
const SECONDS = 12;

test("everything is broken at random while people are revoked at random, and every promise is kept", async () => {
  const dir = await mkdtemp(join(tmpdir(), "keycard-chaos-"));
  const plan = planOf(SEED, SECONDS, STAGE);
  const report = await runChaos({ plan, dir, onDeed: (at, text) => console.log(Math.round(at), text) });
  const summary = summarise(report);
  printSummary(summary, report.beganAt);
  expect(
    summary.violations.map(({ promise, what }) => `${promise}: ${what}`),
    `${commandFor(summary)}, and ${dir}`,
  ).toEqual([]);
  expect(summary.stakes.revocations).toBeGreaterThan(5);
  expect(summary.stakes.coveredSockets).toBeGreaterThan(10);
  expect(summary.stakes.innocentSockets).toBeGreaterThan(10);
  expect(summary.stakes.refused).toBeGreaterThan(10);
  await rm(dir, { recursive: true, force: true });
});

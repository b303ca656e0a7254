/**
 * `npm run chaos -- [--seed N] [--minutes M] [--plan] [--json] [--keep DIR]`: breaks the whole of Keycard at random while people are
 * being revoked at random, and says whether every promise was kept. Status 1 says that one was not.
 *
 * A seed says what is done and when, not how it falls among what everybody else does at that moment: a violation that depends on
 * a millisecond may take several runs of its seed to come again. The histories of the run in which it came are kept.
 */
import { createWriteStream } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { runChaos, STAGE } from "./chaos.ts";
import { describeFault, describeRevoking, type Plan, placesOf, planOf } from "./plan.ts";
import { printSummary, seconds, summarise } from "./report.ts";

const USAGE = `Usage: npm run chaos -- [--seed N] [--minutes M] [--plan] [--json] [--keep DIR]

  --seed N     what is done, to whom and when; a random one unless given
  --minutes M  how long; 1 unless given
  --plan       only says what would be done
  --json       the result as one JSON document
  --keep DIR   keeps the histories and what the processes printed there`;

const settings = readArguments();
const plan = planOf(settings.seed, settings.minutes * 60, STAGE);
if (settings.plan) printPlan(plan);
else process.exit(await run(plan));

async function run(plan: Plan): Promise<number> {
  const dir = settings.keep ?? (await mkdtemp(join(tmpdir(), "keycard-chaos-")));
  const say = (text: string) => (settings.json ? console.error(text) : console.log(text));
  const logs = new Map<string, ReturnType<typeof createWriteStream>>();
  const logOf = (name: string) => {
    const log = logs.get(name) ?? createWriteStream(join(dir, `${name}.log`));
    logs.set(name, log);
    return log;
  };
  say(`seed ${plan.seed}, ${plan.seconds} s`);
  const report = await runChaos({
    plan,
    dir,
    onStep: (text) => say(`  … ${text}`),
    onDeed: (at, text) => say(`${seconds(at)}  ${text}`),
    onLine: (name, line) => logOf(name).write(`${line}\n`),
  });
  const summary = summarise(report);
  if (settings.json) console.log(JSON.stringify(summary, null, 2));
  else printSummary(summary, report.beganAt);
  if (settings.keep === undefined && summary.held) await rm(dir, { recursive: true, force: true });
  else say(`The histories are in ${dir}.`);
  return summary.held ? 0 : 1;
}

function printPlan({ deeds }: Plan): void {
  for (const deed of deeds) {
    const text =
      deed.does === "revoke"
        ? `${"revoke".padEnd(18)} ${describeRevoking(deed.revoking)}`
        : `${describeFault(deed.fault).padEnd(18)} ${placesOf(deed.fault).join(", ")} for ${deed.forMs} ms`;
    console.log(`${seconds(deed.at)}  ${text}`);
  }
}

function readArguments() {
  const { values } = parseArgs({
    options: {
      seed: { type: "string" },
      minutes: { type: "string", default: "1" },
      plan: { type: "boolean", default: false },
      json: { type: "boolean", default: false },
      keep: { type: "string" },
      help: { type: "boolean", default: false },
    },
  });
  const seed = Number(values.seed ?? Math.floor(Math.random() * 1_000_000));
  const minutes = Number(values.minutes);
  if (values.help || !Number.isSafeInteger(seed) || !(minutes > 0)) {
    console.error(USAGE);
    process.exit(2);
  }
  return { ...values, seed, minutes };
}

/**
 * `npm run story`: Keycard's whole path, step by step, against a real stack of its own. Exits 0 only if every step
 * held. `--json` prints one JSON document instead.
 */
import { parseArgs } from "node:util";
import { printEnd, printStep } from "./story/print.ts";
import { runStory, type StoryOptions } from "./story/run-story.ts";

const USAGE = "Usage: npm run story [-- --json]";

const { json } = readArguments();
const ending = new AbortController();
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) process.on(signal, () => ending.abort());

const forPeople: Pick<StoryOptions, "onStep" | "onProgress"> = {
  onStep: printStep,
  onProgress: (text) => process.stderr.isTTY && console.error(`     … ${text}`),
};
const report = await runStory({ signal: ending.signal, ...(json ? {} : forPeople) });
if (!json && ending.signal.aborted) console.log("\nStopped early; every process is ended and every file is gone.");
else if (json) console.log(JSON.stringify(report, null, 2));
else printEnd(report);
process.exit(ending.signal.aborted ? 130 : report.held ? 0 : 1);

function readArguments(): { json: boolean } {
  try {
    const { values } = parseArgs({ options: { json: { type: "boolean" }, help: { type: "boolean", short: "h" } } });
    if (values.help) {
      console.log(USAGE);
      process.exit(0);
    }
    return { json: values.json ?? false };
  } catch (error) {
    console.error(`${error instanceof Error ? error.message : error}\n\n${USAGE}`);
    process.exit(2);
  }
}

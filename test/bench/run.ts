/** `npm run bench -- NAME [--json]`: one measurement, for people or as one JSON document. */
import { parseArgs } from "node:util";
import { benchBounds, printBoundsBench } from "./bounds.ts";
import { benchRefresh, printRefreshBench } from "./refresh.ts";
import { benchRetention, printRetentionBench } from "./retention.ts";
import { benchIndex, printIndexBench } from "./revocation-index.ts";
import { benchRevoke, printRevokeBench } from "./revoke.ts";

interface Bench {
  readonly about: string;
  /** @returns how to print it for people, and what it measured */
  run(onProgress: (text: string) => void): Promise<{ readonly result: object; print(): void }>;
}

const BENCHES: Readonly<Record<string, Bench>> = {
  bounds: {
    about: "how soon a revocation is enforced in each situation that the README has a bound for",
    async run(onProgress) {
      const result = await benchBounds(onProgress);
      return { result, print: () => printBoundsBench(result) };
    },
  },
  index: {
    about: "what a node's index of revocations weighs and how long a check takes, up to a million",
    async run(onProgress) {
      const result = benchIndex(onProgress);
      return { result, print: () => printIndexBench(result) };
    },
  },
  refresh: {
    about: "refreshes per second, beside a bare Worker with one write and one signature",
    async run(onProgress) {
      const result = await benchRefresh(onProgress);
      return { result, print: () => printRefreshBench(result) };
    },
  },
  retention: {
    about: "what a thousand revocations a second weigh in Redis and in a node",
    async run(onProgress) {
      const result = await benchRetention(onProgress);
      return { result, print: () => printRetentionBench(result) };
    },
  },
  revoke: {
    about: "revocation to last closed socket, beside disconnectSockets",
    async run(onProgress) {
      const result = await benchRevoke(onProgress);
      return { result, print: () => printRevokeBench(result) };
    },
  },
};

const { positionals, values } = parseArgs({ allowPositionals: true, options: { json: { type: "boolean" } } });
const bench = BENCHES[positionals[0] ?? ""];
if (bench === undefined) {
  console.error("Usage: npm run bench -- NAME [--json]\n");
  for (const [name, { about }] of Object.entries(BENCHES)) console.error(`  ${name.padEnd(10)}${about}`);
  process.exit(2);
}
const { result, print } = await bench.run((text) => console.error(`  … ${text}`));
if (values.json) console.log(JSON.stringify(result, null, 2));
else print();
process.exit(0);

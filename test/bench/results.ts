/** What was measured last, bench by bench (`results.json`), and README's table of it. */
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { Outcome, Row } from "./bench.ts";
import type { Machine } from "./machine.ts";

export interface Saved {
  readonly machine: Machine;
  readonly rows: readonly Row[];
  readonly result: object;
}
export type Results = Readonly<Record<string, Saved>>;

const FILE = join(import.meta.dirname, "results.json");
const README = join(import.meta.dirname, "..", "..", "README.md");
const [BEGIN, END] = ["<!-- results: npm run bench -- --save -->", "<!-- /results -->"];

export function readResults(): Results {
  return existsSync(FILE) ? JSON.parse(readFileSync(FILE, "utf8")) : {};
}

/** Keeps them beside those of the other benches, and writes README's table anew. */
export function saveResults(outcomes: Readonly<Record<string, Outcome>>, machine: Machine): void {
  const saved = Object.entries(outcomes).map(([name, { rows, result }]) => [name, { machine, rows, result }] as const);
  const results: Results = { ...readResults(), ...Object.fromEntries(saved) };
  const inOrder = Object.fromEntries(Object.entries(results).sort(([a], [b]) => (a < b ? -1 : 1)));
  writeFileSync(FILE, `${JSON.stringify(inOrder, null, 2)}\n`);
  writeFileSync(README, withTable(readFileSync(README, "utf8"), results));
}

/** A text with the table in its place. @throws {Error} where it has no place for one */
export function withTable(text: string, results: Results): string {
  const [from, to] = [text.indexOf(BEGIN), text.indexOf(END)];
  if (from < 0 || to < from) throw new Error(`there is no ${BEGIN} … ${END}`);
  return `${text.slice(0, from + BEGIN.length)}\n${tableOf(results)}\n${text.slice(to)}`;
}

function tableOf(results: Results): string {
  const lines = Object.entries(results).flatMap(([name, { machine, rows }]) =>
    rows.map(({ work, goal, measured, met, because }) => {
      const verdict = met ? "✓" : `✗ ${because ?? "not looked into"}`;
      return `| \`${name}\` | ${work} | ${goal} | ${measured} | ${verdict} | ${machine.date} |`;
    }),
  );
  return ["| bench | what | goal | measured | | on |", "|---|---|---|---|---|---|", ...lines].join("\n");
}

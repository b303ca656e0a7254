/** What was measured last, bench by bench (`results.json`), and what documents say of it: README's table, and the tables of infra/scale.md. */
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { EVERY_SIZE, forecastTable, PEOPLE } from "../../infra/scale/forecast.ts";
import type { UnitCosts } from "../../infra/scale/model.ts";
import type { Outcome, Row } from "./bench.ts";
import type { Machine } from "./machine.ts";

interface Saved {
  readonly machine: Machine;
  readonly rows: readonly Row[];
  readonly result: object;
}
type Results = Readonly<Record<string, Saved>>;

const ROOT = join(import.meta.dirname, "..", "..");
const FILE = join(import.meta.dirname, "results.json");
const [BEGIN, END] = ["<!-- npm run bench -- --save writes from here -->", "<!-- to here -->"];
const TABLES: Readonly<Record<string, (results: Results) => string>> = {
  "README.md": resultsTable,
  "infra/scale.md": ({ scale }) =>
    scale === undefined ? "" : forecastTable((scale.result as { costs: UnitCosts }).costs, EVERY_SIZE, PEOPLE),
};
export const DOCUMENTS = Object.keys(TABLES);

/** Keeps them beside those of the other benches, and writes the documents' tables anew. */
export function saveResults(outcomes: Readonly<Record<string, Outcome>>, machine: Machine): void {
  const saved = Object.entries(outcomes).map(([name, { rows, result }]) => [name, { machine, rows, result }] as const);
  const results: Results = { ...readResults(), ...Object.fromEntries(saved) };
  const inOrder = Object.fromEntries(Object.entries(results).sort(([a], [b]) => (a < b ? -1 : 1)));
  writeFileSync(FILE, `${JSON.stringify(inOrder, null, 2)}\n`);
  for (const document of DOCUMENTS) writeFileSync(join(ROOT, document), asMeasured(document));
}

/** A document as it is to be, by what was measured last. @throws {Error} where it has no place for that */
export function asMeasured(document: string): string {
  const text = readFileSync(join(ROOT, document), "utf8");
  const [from, to] = [text.indexOf(BEGIN), text.indexOf(END)];
  if (from < 0 || to < from) throw new Error(`${document} has no ${BEGIN} … ${END}`);
  const table = TABLES[document]?.(readResults());
  return `${text.slice(0, from + BEGIN.length)}\n\n${table}\n\n${text.slice(to)}`;
}

function readResults(): Results {
  return existsSync(FILE) ? JSON.parse(readFileSync(FILE, "utf8")) : {};
}

function resultsTable(results: Results): string {
  const lines = Object.entries(results).flatMap(([name, { rows }]) =>
    rows.map(({ work, goal, measured, met, because }) => {
      const verdict = met ? "✓" : `✗ ${because ?? "not looked into"}`;
      return `| \`${name}\` | ${work} | ${goal} | ${measured} | ${verdict} |`;
    }),
  );
  return ["| bench | what | goal | measured | |", "|---|---|---|---|---|", ...lines, "", ...origins(results)].join(
    "\n",
  );
}

/** When and on what, said once for those that have it in common. */
function origins(results: Results): string[] {
  const origin = new Map<string, { names: string[]; loads: number[] }>();
  for (const [name, { machine }] of Object.entries(results)) {
    const { date, system, cpu, cores, load, versions } = machine;
    const used = Object.entries(versions).map(([each, version]) => `${each} ${version}`);
    const words = `on ${date}: ${system}, ${cores} cores (${cpu}), ${used.join(", ")}`;
    const { names, loads } = origin.get(words) ?? { names: [], loads: [] };
    origin.set(words, { names: [...names, name], loads: [...loads, load] });
  }
  return [...origin].map(([words, { names, loads }]) => {
    const load = `load before each ${Math.min(...loads)} to ${Math.max(...loads)}`;
    return `Measured ${words}; ${load} (${names.join(", ")}).`;
  });
}

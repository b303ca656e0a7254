/**
 * `npm run bench [-- NAME...] [--json] [--save]`: measurements, one after the other, all of them unless some are named; for people, or as one
 * JSON document. `--save` keeps them, and writes README's table of results anew.
 */
import { parseArgs } from "node:util";
import type { Bench, Outcome } from "./bench.ts";
import { BOUNDS } from "./bounds.ts";
import { CATCHUP } from "./catchup.ts";
import { CUT } from "./cut.ts";
import { HANDSHAKE } from "./handshake.ts";
import { JWKS } from "./jwks.ts";
import { LOGIN } from "./login.ts";
import { type Machine, thisMachine } from "./machine.ts";
import { MASS } from "./mass.ts";
import { MEMORY } from "./memory.ts";
import { RACE } from "./race.ts";
import { REFRESH } from "./refresh.ts";
import { saveResults } from "./results.ts";
import { RETENTION } from "./retention.ts";
import { INDEX } from "./revocation-index.ts";
import { REVOKE } from "./revoke.ts";
import { SCALE } from "./scale.ts";
import { STORM } from "./storm.ts";

const BENCHES: Readonly<Record<string, Bench>> = {
  bounds: BOUNDS,
  catchup: CATCHUP,
  cut: CUT,
  handshake: HANDSHAKE,
  index: INDEX,
  jwks: JWKS,
  login: LOGIN,
  mass: MASS,
  memory: MEMORY,
  race: RACE,
  refresh: REFRESH,
  retention: RETENTION,
  revoke: REVOKE,
  scale: SCALE,
  storm: STORM,
};

function usage(): never {
  console.error("Usage: npm run bench [-- NAME...] [--json] [--save]\n");
  for (const [name, { about }] of Object.entries(BENCHES)) console.error(`  ${name.padEnd(10)}${about}`);
  process.exit(2);
}

function printMachine({ date, system, cpu, cores, load, versions }: Machine): void {
  console.log(`${date}, ${system}, ${cores} cores (${cpu}), load ${load}`);
  console.log(
    `${Object.entries(versions)
      .map(([name, version]) => `${name} ${version}`)
      .join(", ")}`,
  );
}

const { positionals, values } = parseArgs({
  allowPositionals: true,
  options: { json: { type: "boolean" }, save: { type: "boolean" } },
});
const names = positionals.length > 0 ? positionals : Object.keys(BENCHES);
if (names.some((name) => BENCHES[name] === undefined)) usage();
const machine = thisMachine();
if (!values.json) printMachine(machine);
const outcomes: Record<string, Outcome> = {};
for (const name of names) {
  const outcome = await BENCHES[name]?.run((text) => console.error(`  … ${name}: ${text}`));
  if (outcome === undefined) continue;
  outcomes[name] = outcome;
  if (!values.json) outcome.print();
}
if (values.json) {
  const results = Object.entries(outcomes).map(([name, { result, rows }]) => [name, { result, rows }]);
  console.log(JSON.stringify({ machine, ...Object.fromEntries(results) }, null, 2));
}
if (values.save) saveResults(outcomes, machine);
process.exit(0);

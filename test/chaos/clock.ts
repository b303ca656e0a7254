/**
 * Loaded before anything else of a node (`--import`): lets the wall clock of that process be set, by a file. What measures with the
 * monotonic clock does not notice, as on a machine whose clock is set.
 */
import { mkdirSync, readFileSync, renameSync, watch, writeFileSync } from "node:fs";
import { basename, dirname } from "node:path";

const TrueDate = Date;
let offMs = 0;

/** Sets the clocks of the processes that follow this file. */
export function setClock(file: string, byMs: number): void {
  mkdirSync(dirname(file), { recursive: true });
  writeFileSync(`${file}.new`, String(byMs));
  renameSync(`${file}.new`, file);
}

function follow(file: string): void {
  const read = () => {
    offMs = Number(readFileSync(file, "utf8"));
  };
  read();
  watch(dirname(file), (_event, name) => {
    if (name === basename(file)) read();
  }).unref();
}

class SteppedDate extends TrueDate {
  constructor(...parts: [] | ConstructorParameters<DateConstructor>) {
    if (parts.length === 0) super(SteppedDate.now());
    else super(...parts);
  }

  static override now(): number {
    return TrueDate.now() + offMs;
  }
}

const { CHAOS_CLOCK: followed } = process.env;
if (followed !== undefined) {
  follow(followed);
  globalThis.Date = SteppedDate as DateConstructor;
}

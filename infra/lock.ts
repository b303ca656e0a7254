/** One at a time, as one stack per state directory: a lock file that names its holder, and that a dead holder does not keep. */
import { linkSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";

export interface Holder {
  readonly pid: number;
  /** The page. */
  readonly url?: string;
  readonly edgeUrl?: string;
}

export interface Lock {
  /** Tells others where we are to be found. */
  announce(where: Pick<Holder, "url" | "edgeUrl">): void;
  release(): void;
}

const FILE = "running.json";

/** Who runs in this directory, if anybody does. */
export function holderOf(dir: string): Holder | undefined {
  const holder = readHolder(join(dir, FILE));
  return holder && isAlive(holder.pid) ? holder : undefined;
}

/** The lock, or who holds it. */
export function takeLock(dir: string, file = FILE): { lock: Lock } | { holder: Holder } {
  const path = join(dir, file);
  for (;;) {
    if (create(path)) return { lock: lockOf(path) };
    const holder = readHolder(path);
    if (holder && isAlive(holder.pid)) return { holder };
    rmSync(path, { force: true });
  }
}

function lockOf(path: string): Lock {
  return {
    announce: (where) => writeFileSync(path, JSON.stringify({ pid: process.pid, ...where })),
    release: () => rmSync(path, { force: true }),
  };
}

/** Whole from its first moment: one that is there and still empty would look like nobody's. */
function create(path: string): boolean {
  const draft = `${path}.${process.pid}`;
  writeFileSync(draft, JSON.stringify({ pid: process.pid }), { mode: 0o600 });
  try {
    linkSync(draft, path);
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "EEXIST") return false;
    throw error;
  } finally {
    rmSync(draft, { force: true });
  }
}

function readHolder(path: string): Holder | undefined {
  try {
    return JSON.parse(readFileSync(path, "utf8")) as Holder;
  } catch {
    // Given back in this moment, or cut short by a crash: nobody holds it.
    return undefined;
  }
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === "EPERM";
  }
}

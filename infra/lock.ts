/** One stack per state directory: a lock file that names its holder, and that a dead holder does not keep. */
import { readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";

export interface Holder {
  readonly pid: number;
  readonly url?: string;
}

export interface Lock {
  /** Tells others where we are to be found. */
  announce(url: string): void;
  release(): void;
}

const FILE = "running.json";

/** The lock, or who holds it. */
export function takeLock(dir: string): { lock: Lock } | { holder: Holder } {
  const path = join(dir, FILE);
  for (;;) {
    if (create(path)) return { lock: lockOf(path) };
    const holder = readHolder(path);
    if (holder && isAlive(holder.pid)) return { holder };
    rmSync(path, { force: true });
  }
}

function lockOf(path: string): Lock {
  return {
    announce: (url) => writeFileSync(path, JSON.stringify({ pid: process.pid, url })),
    release: () => rmSync(path, { force: true }),
  };
}

function create(path: string): boolean {
  try {
    writeFileSync(path, JSON.stringify({ pid: process.pid }), { flag: "wx", mode: 0o600 });
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "EEXIST") return false;
    throw error;
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

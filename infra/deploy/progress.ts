/**
 * How far a deployment has come, so that one that broke off goes on where it was. What is remembered is good for exactly this state of the
 * checkout and these choices; with anything changed all is done again.
 */
import { createHash } from "node:crypto";
import { mkdir, readFile, rm, writeFile } from "node:fs/promises";
import { dirname } from "node:path";
import { z } from "zod";
import { ask } from "./program.ts";

const record = z.object({ state: z.string(), done: z.array(z.string()) });

export interface Progress {
  isDone(step: string): boolean;
  note(step: string): Promise<void>;
  /** All is done: the next deployment begins anew. */
  forget(): Promise<void>;
}

/** @param choices what else the deployment depends on */
export async function openProgress(path: string, choices: unknown): Promise<Progress> {
  const state = await stateOf(choices);
  const done = new Set(await doneAt(path, state));
  return {
    isDone: (step) => done.has(step),
    async note(step) {
      done.add(step);
      // Without git nobody can say whether anything has changed.
      if (state === undefined) return;
      await mkdir(dirname(path), { recursive: true, mode: 0o700 });
      await writeFile(path, JSON.stringify({ state, done: [...done] }));
    },
    async forget() {
      done.clear();
      await rm(path, { force: true });
    },
  };
}

async function stateOf(choices: unknown): Promise<string | undefined> {
  const hash = createHash("sha256").update(JSON.stringify(choices));
  for (const args of [
    ["rev-parse", "HEAD"],
    ["diff", "HEAD"],
    ["status", "--porcelain"],
  ]) {
    const answer = await ask({ command: "git", args }).catch(() => undefined);
    if (answer?.code !== 0) return undefined;
    hash.update(answer.stdout);
  }
  return hash.digest("hex");
}

async function doneAt(path: string, state: string | undefined): Promise<readonly string[]> {
  try {
    const kept = record.parse(JSON.parse(await readFile(path, "utf8")));
    return kept.state === state ? kept.done : [];
  } catch {
    // None, or not one of ours: all is done again.
    return [];
  }
}

/**
 * One stack of real processes for the tests of the command line, each of which has people of its own on it. What touches everybody
 * has a stack of its own.
 */
import { appendFileSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { TestProject } from "vitest/node";
import { startStack } from "../../infra/stack.ts";

export interface SharedStack {
  readonly edgeUrl: string;
  readonly adminToken: string;
  readonly nodes: readonly { readonly name: string; readonly url: string; readonly pid: number }[];
  /** What every process printed. */
  readonly log: string;
}

/** An origin whose pages may use it. */
export const APP_ORIGIN = "http://app.test";

declare module "vitest" {
  interface ProvidedContext {
    stack: SharedStack;
  }
}

const SHORT_LEASE_SECONDS = 5;
const HANDLERS = join(import.meta.dirname, "..", "..", "infra", "demo", "handlers.ts");

/** @param leaseSeconds 1.4 times as long nothing is enforced after the start, and a frozen node is awaited before it counts as gone */
export async function startOwnStack(leaseSeconds: number): Promise<SharedStack & { stop(): Promise<void> }> {
  const dir = await mkdtemp(join(tmpdir(), "keycard-cli-"));
  const log = join(dir, "everything.log");
  const stack = await startStack({
    dir: join(dir, "stack"),
    allowedOrigins: [APP_ORIGIN],
    nodeSettings: { HANDLERS, LOG_LEVEL: "debug", LEASE_SECONDS: String(leaseSeconds) },
    onLine: (process, line) => appendFileSync(log, `${process} ${line}\n`),
  });
  return {
    edgeUrl: stack.edgeUrl,
    adminToken: stack.adminToken,
    nodes: stack.nodes.map(({ name, url, pid }) => ({ name, url, pid })),
    log,
    async stop() {
      await stack.stop();
      await rm(dir, { recursive: true, force: true });
    },
  };
}

export default async function setup(project: TestProject): Promise<() => Promise<void>> {
  const { stop, ...stack } = await startOwnStack(SHORT_LEASE_SECONDS);
  project.provide("stack", stack);
  return stop;
}

/** One stack of real processes for every test of the command line. Each test has people of its own on it. */
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

const HANDLERS = join(import.meta.dirname, "..", "..", "infra", "demo", "handlers.ts");

export default async function setup(project: TestProject): Promise<() => Promise<void>> {
  const dir = await mkdtemp(join(tmpdir(), "keycard-cli-"));
  const log = join(dir, "everything.log");
  const stack = await startStack({
    dir: join(dir, "stack"),
    allowedOrigins: [APP_ORIGIN],
    nodeSettings: { HANDLERS, LOG_LEVEL: "debug", LEASE_SECONDS: "10" },
    onLine: (process, line) => appendFileSync(log, `${process} ${line}\n`),
  });
  const nodes = stack.nodes.map(({ name, url, pid }) => ({ name, url, pid }));
  project.provide("stack", { edgeUrl: stack.edgeUrl, adminToken: stack.adminToken, nodes, log });
  return async () => {
    await stack.stop();
    await rm(dir, { recursive: true, force: true });
  };
}

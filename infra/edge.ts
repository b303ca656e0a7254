/** The edge on this machine: the production bundle of the Worker in real workerd, with its storage on disk. */
import { mkdir, rm } from "node:fs/promises";
import { join } from "node:path";
import { type Child, type Exit, startChild } from "./child.ts";
import type { EdgeHostSettings } from "./edge-host.ts";
import { type Part, startPart } from "./part.ts";
import { LOOPBACK, PortTaken, saysPortTaken } from "./ports.ts";
import { untilOk } from "./readiness.ts";

const HOST = join(import.meta.dirname, "edge-host.ts");
const READY_WITHIN_MS = 30_000;

export interface EdgeOptions {
  /** What `buildEdge` made. */
  readonly bundleDir: string;
  /** Where the Durable Objects keep their storage. */
  readonly stateDir: string;
  readonly port: number;
  /** Settings and secrets of the Worker. */
  readonly settings: Readonly<Record<string, string>>;
  /** Default 30,000. */
  readonly readyWithinMs?: number;
  onLine?(line: string): void;
  /** It ended, and nobody here asked it to. */
  onExit?(exit: Exit): void;
}

/** Starts the Worker and waits until its /healthz is 200. */
export function startEdge(options: EdgeOptions): Promise<Part> {
  return startPart(() => launchEdge(options), options.onExit);
}

async function launchEdge(options: EdgeOptions): Promise<Child> {
  // Miniflare's temporary files: with a SIGKILL they would stay in the system's own directory for good.
  const temporary = `${options.stateDir}-tmp`;
  await rm(temporary, { recursive: true, force: true });
  await mkdir(temporary, { recursive: true, mode: 0o700 });
  const child = await startChild({
    command: process.execPath,
    args: ["--disable-warning=ExperimentalWarning", HOST],
    env: { TMPDIR: temporary },
    channel: true,
    onLine: (line) => options.onLine?.(line),
  });
  child.exited.then(() => rm(temporary, { recursive: true, force: true })).catch(() => {});
  const { bundleDir, stateDir, port, settings, readyWithinMs = READY_WITHIN_MS } = options;
  child.send({ bundleDir, stateDir, host: LOOPBACK, port, bindings: settings } satisfies EdgeHostSettings);
  const listening = await child.firstMessage;
  if (listening && (await untilOk(`http://${LOOPBACK}:${port}/healthz`, child, readyWithinMs))) return child;
  await child.stop();
  if (saysPortTaken(child.lastLines)) throw new PortTaken(`Port ${port} for the edge is taken.`);
  throw new Error(`The edge did not start:\n${child.lastLines.slice(-8).join("\n")}`);
}

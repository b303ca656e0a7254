/** One realtime node as a process of its own. */
import { join } from "node:path";
import { type Child, type Exit, startChild } from "./child.ts";
import { type Part, startPart } from "./part.ts";
import { LOOPBACK, PortTaken, saysPortTaken } from "./ports.ts";
import { untilOk } from "./readiness.ts";

const ROOT = join(import.meta.dirname, "..");
const MAIN = join(ROOT, "realtime", "main.ts");
const READY_WITHIN_MS = 30_000;

export interface NodeOptions {
  readonly name: string;
  readonly port: number;
  /** The environment that `realtime/config.ts` reads, apart from name and port. */
  readonly settings: Readonly<Record<string, string>>;
  /** Default 30,000. */
  readonly readyWithinMs?: number;
  onLine?(line: string): void;
  /** It ended, and nobody here asked it to. */
  onExit?(exit: Exit): void;
}

/** Starts a node and waits until its /readyz is 200. */
export function startNodeProcess(options: NodeOptions): Promise<Part> {
  return startPart(() => launchNode(options), options.onExit);
}

async function launchNode({
  name,
  port,
  settings,
  readyWithinMs = READY_WITHIN_MS,
  onLine,
}: NodeOptions): Promise<Child> {
  const child = await startChild({
    command: process.execPath,
    args: [MAIN],
    cwd: ROOT,
    env: { ...settings, NODE_NAME: name, HOST: LOOPBACK, PORT: String(port) },
    onLine: (line) => onLine?.(line),
  });
  if (await untilOk(`http://${LOOPBACK}:${port}/readyz`, child, readyWithinMs)) return child;
  await child.stop();
  if (saysPortTaken(child.lastLines)) throw new PortTaken(`Port ${port} for ${name} is taken.`);
  throw new Error(`${name} did not get ready:\n${child.lastLines.slice(-8).join("\n")}`);
}

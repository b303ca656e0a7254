/**
 * `npm start`: the whole of Keycard on this machine with one command, and a page to try it on. State is kept in
 * `.keycard/` between runs.
 */
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { parseArgs } from "node:util";
import type { Exit } from "./child.ts";
import { ADMINISTRATOR, createDemoAccounts, PEOPLE } from "./demo/people.ts";
import { type DemoServer, startDemoServer } from "./demo/server.ts";
import { takeLock } from "./lock.ts";
import { keepPassword } from "./secrets.ts";
import { type Stack, startStack } from "./stack.ts";
import { createTerminal, type Terminal } from "./terminal.ts";

const STATE = join(import.meta.dirname, "..", ".keycard");
const HANDLERS = join(import.meta.dirname, "demo", "handlers.ts");
const PORTS = { edge: 8787, nodes: [3001, 3002, 3003] };
const PAGE_PORT = 4000;
const NODE_MAJOR = 24;
/** Short, so that a visitor sees tokens run out and clients come back by themselves. */
const DEMO_TTL_SECONDS = "60";
const PARENT_CHECK_MS = 500;
const FIRST_BACKOFF_MS = 500;
const LONGEST_BACKOFF_MS = 10_000;

const USAGE = `Usage: npm start [-- --verbose]

Starts Redis, the edge, three realtime nodes and the demo page on this machine.
  --verbose   show every line that the processes print
  REDIS_URL   use this Redis instead of starting one`;

if (Number(process.versions.node.split(".")[0]) < NODE_MAJOR) {
  fail(
    `This is Node ${process.versions.node}; Keycard needs ${NODE_MAJOR}. \`npm ci\` brings it, and \`npm start\` uses it.`,
  );
}
const options = readArguments();
mkdirSync(STATE, { recursive: true, mode: 0o700 });
const taken = takeLock(STATE);
if ("holder" in taken) {
  const { pid, url } = taken.holder;
  fail(`Keycard is already running in this directory (process ${pid})${url ? `: ${url}` : ", and is just starting."}`);
}
const { lock } = taken;
const terminal = createTerminal(join(STATE, "logs"), options.verbose);
let stack: Stack | undefined;
let demo: DemoServer | undefined;
let stopping = false;

process.on("exit", () => lock.release());
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) process.on(signal, () => void stop());
stopWithParent();

try {
  await start(terminal);
} catch (error) {
  if (!stopping) {
    terminal.warn(error instanceof Error ? error.message : String(error));
    await shutDown();
    process.exit(1);
  }
}

async function start(to: Terminal): Promise<void> {
  to.say("Keycard on this machine\n");
  demo = await startDemoServer({ port: PAGE_PORT });
  const redisUrl = process.env.REDIS_URL;
  stack = await startStack({
    dir: STATE,
    ports: PORTS,
    ...(redisUrl ? { redisUrl } : {}),
    allowedOrigins: [demo.url],
    edgeSettings: { ACCESS_TOKEN_TTL_SECONDS: process.env.ACCESS_TOKEN_TTL_SECONDS || DEMO_TTL_SECONDS },
    nodeSettings: { HANDLERS, LOG_LEVEL: process.env.LOG_LEVEL || "info" },
    onStep: to.step,
    onLine: to.processLine,
    onExit: (part, exit) => void bringBack(part, exit),
  });
  if (stopping) return void (await shutDown());
  const password = await keepPassword(STATE);
  await createDemoAccounts(stack, password);
  to.step(`accounts ${PEOPLE.map(({ login, tid }) => `${login} (${tid})`).join(", ")}`);
  demo.open(stack);
  to.step(`page on ${demo.url}`);
  lock.announce({ url: demo.url, edgeUrl: stack.edgeUrl });
  greet(to, stack, demo.url, password);
}

function greet(to: Terminal, { edgeUrl, redisUrl, nodes }: Stack, page: string, password: string): void {
  to.say(`
  page    ${page}
  edge    ${edgeUrl}
  nodes   ${nodes.map(({ url }) => url).join("  ")}
  redis   ${withoutPassword(redisUrl)}
  console ${edgeUrl}/console as ${ADMINISTRATOR.login} / ${password}
  people  ${PEOPLE.map(({ login, password }) => `${login} / ${password}`).join("   ")}
  logs    .keycard/logs/

  Throw somebody out of every node from here, and see that they are out:
    npx keycard -p local revoke user ada --reason "from the terminal"

Ready in ${to.seconds} s: open ${page}   (Ctrl-C stops everything; kill any process and it comes back)`);
}

function withoutPassword(address: string): string {
  const url = new URL(address);
  url.password = "";
  return url.href;
}

const backoffs = new Map<string, { ms: number; diedAt: number }>();

/** Visitors are invited to kill processes: each comes back, sooner when it had lived long. */
async function bringBack(part: string, { code, signal }: Exit): Promise<void> {
  const before = backoffs.get(part);
  const ms =
    before && Date.now() - before.diedAt < 30_000 ? Math.min(before.ms * 2, LONGEST_BACKOFF_MS) : FIRST_BACKOFF_MS;
  backoffs.set(part, { ms, diedAt: Date.now() });
  if (stopping) return;
  terminal.warn(`${part} ended (${signal ?? `exit code ${code}`}); starting it again`);
  await new Promise((resolve) => setTimeout(resolve, ms));
  if (stopping) return;
  // It died while the others were still starting.
  if (stack === undefined) return bringBack(part, { code, signal });
  const began = performance.now();
  try {
    await stack.restart(part);
    terminal.say(`    ${part} is back (${Math.round(performance.now() - began)} ms to get ready)`);
  } catch (error) {
    if (stopping) return;
    terminal.warn(error instanceof Error ? error.message : String(error));
    await bringBack(part, { code: null, signal: null });
  }
}

/** A SIGTERM to npm ends its shell, which passes nothing on: that our parent is gone is all that we see of it. */
function stopWithParent(): void {
  if (process.env.npm_lifecycle_event === undefined) return;
  const parent = process.ppid;
  setInterval(() => {
    if (process.ppid !== parent && !stopping) void stop();
  }, PARENT_CHECK_MS).unref();
}

async function stop(): Promise<void> {
  // The second time without waiting: what still runs ends with us.
  if (stopping) process.exit(130);
  stopping = true;
  terminal.say("\nStopping…");
  await shutDown();
  terminal.say("Stopped. State is kept in .keycard/; delete it to begin anew.");
  process.exit(0);
}

async function shutDown(): Promise<void> {
  stopping = true;
  await demo?.close();
  await stack?.stop();
}

function readArguments(): { verbose: boolean } {
  try {
    const { values } = parseArgs({ options: { verbose: { type: "boolean" }, help: { type: "boolean", short: "h" } } });
    if (values.help) {
      console.log(USAGE);
      process.exit(0);
    }
    return { verbose: values.verbose ?? false };
  } catch (error) {
    fail(`${error instanceof Error ? error.message : error}\n\n${USAGE}`);
  }
}

function fail(text: string): never {
  console.error(text);
  process.exit(1);
}

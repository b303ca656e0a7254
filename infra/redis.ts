/**
 * A Redis server of our own: found, or obtained where that needs no questions asked, and run on the loopback.
 *
 * On Debian and Ubuntu the binary comes from the package of command line tools: there `redis-server` is only a link to
 * `redis-check-rdb`, which decides by its name what to be. So no service is installed, enabled or started.
 */
import { spawnSync } from "node:child_process";
import { mkdir, symlink } from "node:fs/promises";
import { connect } from "node:net";
import { join } from "node:path";
import { type Child, type Exit, startChild } from "./child.ts";
import { findExecutable, installPackage } from "./packages.ts";
import { type Part, startPart } from "./part.ts";
import { LOOPBACK, PortTaken, reservePort, saysPortTaken } from "./ports.ts";

const SERVER_NAMES = ["redis-server", "valkey-server"] as const;
/** What Debian's tools packages call the same program. */
const TWIN_NAMES = ["redis-check-rdb", "valkey-check-rdb"] as const;
const PACKAGES = {
  apt: ["redis-tools", "valkey-tools"],
  apk: ["redis", "valkey"],
  dnf: ["redis", "valkey"],
  brew: ["redis", "valkey"],
} as const;
const ADVICE =
  "No Redis was found and none could be installed unattended: install one (`brew install redis`, `apt install redis-server`), or set REDIS_URL to one that runs, or REDIS_SERVER to a binary.";
const OWN_BIN = join(import.meta.dirname, "..", ".keycard", "bin");
const READY_WITHIN_MS = 15_000;

export interface RedisOptions {
  readonly binary: string;
  /** Where it keeps its files; made if it does not exist. */
  readonly dir: string;
  readonly port?: number;
  /** Every write is on disk before it is answered, so that no kill loses one. */
  readonly persist?: boolean;
  onLine?(line: string): void;
  /** It ended, and nobody here asked it to. */
  onExit?(exit: Exit): void;
}

export interface RedisProcess extends Part {
  readonly url: string;
  readonly port: number;
}

/** The path of a Redis server: REDIS_SERVER, one on this machine, or one installed by the system's package manager. */
export async function obtainRedisServer(onStep: (text: string) => void = () => {}): Promise<string> {
  const named = process.env.REDIS_SERVER;
  if (named) return named;
  const [found] = await findRedisServers();
  if (found) return found;
  const [installed] = (await installPackage(PACKAGES, onStep)) ? await findRedisServers() : [];
  if (installed === undefined) throw new Error(ADVICE);
  return installed;
}

/** The paths of a Redis and of a Valkey, of those that are on this machine. */
export async function findRedisServers(): Promise<string[]> {
  const found: string[] = [];
  for (const [index, name] of SERVER_NAMES.entries()) {
    const path = await findExecutable(name, [OWN_BIN]);
    const twin = await findExecutable(TWIN_NAMES[index] as string);
    if (path && isServer(path)) found.push(path);
    else if (twin && isServer(twin, name)) found.push(await linkTo(twin, name));
  }
  return found;
}

/** Redis 7 says "Redis server v=7…", Valkey "Valkey server v=8…". */
function isServer(path: string, argv0 = path): boolean {
  const { stdout } = spawnSync(path, ["--version"], { argv0, encoding: "utf8", timeout: 5_000 });
  const version = /server v=(\d+)\.(\d+)/.exec(stdout ?? "");
  // XTRIM MINID came with 6.2.
  return version !== null && Number(version[1]) * 100 + Number(version[2]) >= 602;
}

async function linkTo(twin: string, name: string): Promise<string> {
  const link = join(OWN_BIN, name);
  await mkdir(OWN_BIN, { recursive: true, mode: 0o700 });
  await symlink(twin, link).catch((error: NodeJS.ErrnoException) => {
    // Two starts at once make the same link.
    if (error.code !== "EEXIST") throw error;
  });
  return link;
}

/** Starts a server and waits until it answers PING. */
export async function startRedis(options: RedisOptions): Promise<RedisProcess> {
  await mkdir(options.dir, { recursive: true, mode: 0o700 });
  const reserved = options.port === undefined ? await reservePort() : undefined;
  const port = options.port ?? reserved?.port ?? 0;
  await reserved?.release();
  const part = await startPart(() => launchRedis(options, port), options.onExit);
  return {
    url: `redis://${LOOPBACK}:${port}`,
    port,
    get pid() {
      return part.pid;
    },
    get running() {
      return part.running;
    },
    kill: part.kill,
    restart: part.restart,
    stop: part.stop,
  };
}

async function launchRedis(options: RedisOptions, port: number): Promise<Child> {
  const storage = options.persist ? ["--appendonly", "yes", "--appendfsync", "always"] : ["--appendonly", "no"];
  const child = await startChild({
    command: options.binary,
    argv0: "redis-server",
    args: ["--bind", LOOPBACK, "--port", String(port), "--dir", options.dir, "--save", "", ...storage],
    onLine: (line) => options.onLine?.(line),
  });
  const deadline = Date.now() + READY_WITHIN_MS;
  while (!(await answersPing(port))) {
    if (!child.running || Date.now() > deadline) {
      await child.stop();
      throw failure(child, port);
    }
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  return child;
}

function failure(child: Child, port: number): Error {
  if (saysPortTaken(child.lastLines)) return new PortTaken(`Port ${port} for Redis is taken.`);
  return new Error(`Redis did not start: ${child.lastLines.at(-1) ?? "it said nothing"}`);
}

/** While it loads its data Redis answers PING with an error, so that only PONG counts. */
function answersPing(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect({ port, host: LOOPBACK });
    const finish = (answer: boolean) => {
      socket.destroy();
      resolve(answer);
    };
    socket.setTimeout(1_000, () => finish(false));
    socket.once("error", () => finish(false));
    socket.once("close", () => resolve(false));
    socket.once("connect", () => socket.write("PING\r\n"));
    socket.once("data", (data) => finish(data.toString().startsWith("+PONG")));
  });
}

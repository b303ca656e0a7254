/**
 * A child process that does not outlive us, whatever happens to us: it leads a process group of its own, and a tiny
 * shell holds a pipe from us. When we die, even by SIGKILL, the pipe ends and the shell ends the whole group.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { createInterface } from "node:readline";
import type { Readable } from "node:stream";

export interface ChildOptions {
  readonly command: string;
  readonly args: readonly string[];
  readonly cwd?: string;
  /** Added to our own environment. */
  readonly env?: Readonly<Record<string, string>>;
  readonly argv0?: string;
  /** Opens a message channel, for what must not be seen in arguments or environment. */
  readonly channel?: boolean;
  onLine?(line: string): void;
}

export interface Exit {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
}

export interface Child {
  readonly pid: number;
  /** How it ended, once its whole process group is gone. */
  readonly exited: Promise<Exit>;
  readonly running: boolean;
  /** What it printed last. */
  readonly lastLines: readonly string[];
  /** The first message it sends, or undefined when it ends without one. */
  readonly firstMessage: Promise<unknown>;
  send(message: object): void;
  /** SIGKILL, SIGSTOP and SIGCONT go to the whole group; the rest to the leader. Resolves when it is gone, if it is to go. */
  kill(signal: NodeJS.Signals): Promise<void>;
  /** Asks it to stop, and ends it after the grace. */
  stop(graceMs?: number): Promise<void>;
}

const KEPT_LINES = 40;
const GROUP_SIGNALS: ReadonlySet<NodeJS.Signals> = new Set(["SIGKILL", "SIGSTOP", "SIGCONT"]);
const LASTING_SIGNALS: ReadonlySet<NodeJS.Signals> = new Set(["SIGSTOP", "SIGTSTP", "SIGCONT", "SIGUSR1", "SIGUSR2"]);

/** Resolves as soon as the process exists; rejects when it cannot be started at all. */
export async function startChild(options: ChildOptions): Promise<Child> {
  const process_ = spawn(options.command, options.args, {
    ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
    ...(options.argv0 === undefined ? {} : { argv0: options.argv0 }),
    env: { ...process.env, ...options.env },
    detached: true,
    stdio: ["ignore", "pipe", "pipe", ...(options.channel ? (["ipc"] as const) : [])],
  });
  const lastLines: string[] = [];
  const keep = (line: string) => {
    if (lastLines.push(line) > KEPT_LINES) lastLines.shift();
    options.onLine?.(line);
  };
  const gone = exitOf(process_);
  for (const stream of [process_.stdout, process_.stderr]) if (stream) readLines(stream, keep);
  await started(process_);
  const pid = process_.pid as number;
  const leash = holdLeash(pid);
  let running = true;
  const exited = gone.then((exit) => {
    running = false;
    // workerd outlives a host that was killed: sweep what is left of the group.
    signalGroup(pid, "SIGKILL");
    leash.kill("SIGKILL");
    return exit;
  });
  return {
    pid,
    exited,
    get running() {
      return running;
    },
    lastLines,
    firstMessage: firstMessageOf(process_, exited),
    send: (message) => {
      process_.send?.(message);
    },
    async kill(signal) {
      if (!running) return;
      if (GROUP_SIGNALS.has(signal)) signalGroup(pid, signal);
      else process_.kill(signal);
      if (!LASTING_SIGNALS.has(signal)) await exited;
    },
    async stop(graceMs = 5_000) {
      if (!running) return;
      process_.kill("SIGTERM");
      // A stopped process (SIGSTOP) would never hear the request.
      signalGroup(pid, "SIGCONT");
      const timer = setTimeout(() => signalGroup(pid, "SIGKILL"), graceMs);
      await exited;
      clearTimeout(timer);
    },
  };
}

function started(child: ChildProcess): Promise<void> {
  return new Promise((resolve, reject) => {
    child.once("spawn", resolve);
    child.once("error", reject);
  });
}

function exitOf(child: ChildProcess): Promise<Exit> {
  return new Promise((resolve) => {
    child.once("exit", (code, signal) => resolve({ code, signal }));
  });
}

function firstMessageOf(child: ChildProcess, exited: Promise<Exit>): Promise<unknown> {
  const message = new Promise<unknown>((resolve) => child.once("message", resolve));
  return Promise.race([message, exited.then(() => undefined)]);
}

function readLines(stream: Readable, onLine: (line: string) => void): void {
  createInterface({ input: stream, crlfDelay: Number.POSITIVE_INFINITY }).on("line", onLine);
}

function holdLeash(group: number): ChildProcess {
  const leash = spawn("/bin/sh", ["-c", 'read -r _; kill -s KILL -- "-$0"', String(group)], {
    detached: true,
    stdio: ["pipe", "ignore", "ignore"],
  });
  // Without a shell there is no leash, and everything else still works.
  leash.on("error", () => {});
  leash.unref();
  // A pipe from spawn is a socket, which would keep our event loop alive.
  (leash.stdin as unknown as { unref(): void } | null)?.unref();
  return leash;
}

function signalGroup(group: number, signal: NodeJS.Signals): void {
  try {
    process.kill(-group, signal);
  } catch {
    // ESRCH: nobody is left in it. EPERM: on macOS, only zombies are left in it.
  }
}

/** Somebody's machine: the real command as a process, with a home of its own, and at a real terminal where a test wants one. */
import { type ChildProcess, spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { onTestFinished } from "vitest";
import { until } from "../../infra/until.ts";
import { screenOf } from "./screen.ts";

const KEYCARD = join(import.meta.dirname, "..", "..", "infra", "cli", "keycard.js");
const COLUMNS = 100;
const ROWS = 30;

export interface RunOptions {
  /** Standard input; nothing and closed unless given. */
  readonly input?: string;
  readonly env?: Readonly<Record<string, string>>;
  /** Another `keycard.js` than that of this checkout. */
  readonly program?: string;
}

export interface Ran {
  /** Null when it was killed. */
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** A process that goes on. */
export interface Running {
  readonly pid: number;
  readonly stdout: string;
  readonly stderr: string;
  readonly exited: Promise<Ran>;
  type(text: string): void;
  kill(signal: NodeJS.Signals): void;
}

/** One that a person looks at. */
export interface AtTerminal extends Running {
  /** What stands on the screen now, line by line, without colours. */
  screen(): string[];
  /** Resolves when this stands on the screen. */
  shows(text: string | RegExp): Promise<void>;
}

export interface Machine {
  /** Where it keeps its profiles. */
  readonly profiles: string;
  run(args: readonly string[], options?: RunOptions): Promise<Ran>;
  start(args: readonly string[], options?: RunOptions): Running;
  atTerminal(args: readonly string[], options?: RunOptions): AtTerminal;
}

/** A machine for this test alone. @param env of everything that runs on it */
export function newMachine(env: Readonly<Record<string, string>> = {}): Machine {
  const home = mkdtempSync(join(tmpdir(), "keycard-home-"));
  const running: ChildProcess[] = [];
  onTestFinished(() => {
    for (const child of running) child.kill("SIGKILL");
    rmSync(home, { recursive: true, force: true });
  });
  const environment = (more: RunOptions["env"]) => {
    const inherited = {
      PATH: process.env.PATH ?? "",
      HOME: home,
      XDG_CONFIG_HOME: join(home, "config"),
      LANG: "C.UTF-8",
    };
    return { ...inherited, ...env, ...more };
  };
  const launch = (command: string, args: readonly string[], options: RunOptions): Watched => {
    const child = spawn(command, args, { env: environment(options.env), stdio: ["pipe", "pipe", "pipe"] });
    running.push(child);
    return watched(child);
  };
  const start: Machine["start"] = (args, options = {}) => {
    const started = launch(process.execPath, [options.program ?? KEYCARD, ...args], options);
    started.type(options.input ?? "");
    started.end();
    return started;
  };
  return {
    profiles: join(home, "config", "keycard", "profiles.json"),
    start,
    run: (args, options) => start(args, options).exited,
    atTerminal(args, options = {}) {
      const words = [process.execPath, KEYCARD, ...args].map((word) => `'${word.replaceAll("'", `'\\''`)}'`).join(" ");
      const line = `stty rows ${ROWS} cols ${COLUMNS}; exec ${words}`;
      // script(1) of util-linux and of the BSDs, which macOS has, take their command in different ways.
      const linux = ["-qefc", line, "/dev/null"];
      const bsd = ["-q", "/dev/null", "/bin/sh", "-c", line];
      const shown = launch("script", process.platform === "linux" ? linux : bsd, options);
      const screen = () => screenOf(shown.stdout);
      return Object.assign(shown, {
        screen,
        async shows(text: string | RegExp) {
          const isThere = () => {
            const whole = screen().join("\n");
            return typeof text === "string" ? whole.includes(text) : text.test(whole);
          };
          await until(`"${text}" is on the screen; there is:\n${screen().join("\n")}`, isThere, { withinMs: 30_000 });
        },
      });
    },
  };
}

interface Watched extends Running {
  end(): void;
}

function watched(child: ChildProcess & { readonly stdin: NodeJS.WritableStream | null }): Watched {
  let [stdout, stderr] = ["", ""];
  child.stdout?.setEncoding("utf8").on("data", (text: string) => {
    stdout += text;
  });
  child.stderr?.setEncoding("utf8").on("data", (text: string) => {
    stderr += text;
  });
  child.stdin?.on("error", () => {}); // it may end before it has read everything
  const exited = new Promise<Ran>((resolve, reject) => {
    child.once("error", reject);
    child.once("close", (code) => resolve({ code, stdout, stderr }));
  });
  return {
    pid: child.pid ?? 0,
    get stdout() {
      return stdout;
    },
    get stderr() {
      return stderr;
    },
    exited,
    type: (text) => void child.stdin?.write(text),
    end: () => void child.stdin?.end(),
    kill: (signal) => void child.kill(signal),
  };
}

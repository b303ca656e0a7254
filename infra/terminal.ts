/** What `npm start` says: steps with their times, warnings of the processes, and nothing twice. */
import { createWriteStream, mkdirSync, type WriteStream } from "node:fs";
import { join } from "node:path";
import { stripVTControlCharacters, styleText } from "node:util";

/** The same warning of the same process is shown once in this time. */
const QUIET_MS = 15_000;
const WARNINGS: readonly unknown[] = ["warn", "error", "fatal"];
const SHOWN = 200;

export interface Terminal {
  /** One step done; the time since the step before stands beside it. */
  step(text: string): void;
  say(text?: string): void;
  warn(text: string): void;
  /** A line that a process printed: into its log file, and here if it is a warning. */
  processLine(process: string, line: string): void;
  readonly seconds: string;
}

export function createTerminal(logDir: string, verbose: boolean): Terminal {
  mkdirSync(logDir, { recursive: true, mode: 0o700 });
  const began = performance.now();
  let last = began;
  const logs = new Map<string, WriteStream>();
  const shown = new Map<string, number>();

  const isNew = (text: string): boolean => {
    const now = performance.now();
    const before = shown.get(text);
    if (before !== undefined && now - before < QUIET_MS) return false;
    shown.set(text, now);
    return true;
  };
  const logOf = (name: string): WriteStream => {
    const log = logs.get(name) ?? createWriteStream(join(logDir, `${name}.log`), { mode: 0o600 });
    logs.set(name, log);
    return log;
  };
  return {
    step(text) {
      const now = performance.now();
      console.log(`  ${styleText("green", "✓")} ${text.padEnd(46)} ${styleText("dim", `${seconds(now - last)} s`)}`);
      last = now;
    },
    say: (text = "") => console.log(text),
    warn: (text) => console.log(`  ${styleText("yellow", "!")} ${text}`),
    processLine(name, line) {
      logOf(name).write(`${line}\n`);
      const plain = stripVTControlCharacters(line);
      const warning = warningIn(name, plain);
      if (verbose) console.log(styleText("dim", `${name.padEnd(7)} ${plain}`));
      else if (warning && isNew(`${name} ${warning}`)) console.log(styleText("dim", `    ${name}: ${warning}`));
    },
    get seconds() {
      return seconds(performance.now() - began);
    },
  };
}

function seconds(ms: number): string {
  return (ms / 1000).toFixed(1);
}

/** What of a line is worth the terminal; Redis warns of things that do not matter here. */
function warningIn(name: string, line: string): string | undefined {
  if (name === "redis") return undefined;
  return name === "edge" ? edgeWarning(line) : nodeWarning(line);
}

/** `warn: {"level":"warn","message":…}` from the Worker, `[mf:warn] …` from what it runs in. */
function edgeWarning(line: string): string | undefined {
  const text = /^(?:warn|error|\[mf:(?:warn|error)\]):? (.*)/.exec(line)?.[1];
  const fields = text?.startsWith("{") ? parse(text) : undefined;
  if (fields === undefined) return text?.slice(0, SHOWN);
  // A refusal is an answer, not a problem.
  return fields.message === "refused" && fields.code !== "internal"
    ? undefined
    : sentence(fields.message, fields.detail);
}

function nodeWarning(line: string): string | undefined {
  const { level, message, detail, err } = parse(line) ?? {};
  return WARNINGS.includes(level) ? sentence(message, detail ?? messageOf(err)) : undefined;
}

function parse(text: string): Record<string, unknown> | undefined {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === "object" && value !== null ? (value as Record<string, unknown>) : undefined;
  } catch {
    // Not one of the lines it was written for; it is in the log file.
    return undefined;
  }
}

function sentence(...parts: unknown[]): string {
  return parts
    .filter((part) => typeof part === "string" && part !== "")
    .join(": ")
    .slice(0, SHOWN);
}

function messageOf(error: unknown): string {
  return typeof error === "object" && error !== null && "message" in error ? String(error.message) : "";
}

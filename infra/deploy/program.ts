/** Running what a deployment is made of, other programs: shown first, with what they print, and with secrets on standard input only. */
import { spawn } from "node:child_process";

export interface Program {
  readonly command: string;
  readonly args: readonly string[];
  /** What it is told on standard input. Never shown. */
  readonly input?: string;
  /** Added to our own environment. Never shown. */
  readonly env?: Readonly<Record<string, string>>;
}

export interface Outcome {
  readonly code: number;
  readonly stdout: string;
}

/** A program that is not there, or that ended with something other than 0. */
export class ProgramFailed extends Error {
  override readonly name = "ProgramFailed";
}

/** As it would be typed. */
export function shown({ command, args }: Program): string {
  return [command, ...args]
    .map((word) => (/^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", `'\\''`)}'`))
    .join(" ");
}

/** Runs it in the terminal's sight. @throws {ProgramFailed} */
export async function run(program: Program): Promise<void> {
  console.log(`    $ ${shown(program)}`);
  const { code } = await start(program, "inherit");
  if (code !== 0) throw new ProgramFailed(`\`${shown(program)}\` ended with ${code}.`);
}

/** Runs it and gives what it printed. @throws {ProgramFailed} when it is not there */
export function ask(program: Program): Promise<Outcome> {
  return start(program, "pipe");
}

function start(program: Program, output: "inherit" | "pipe"): Promise<Outcome> {
  const { command, args, input, env } = program;
  const child = spawn(command, args, {
    stdio: [input === undefined ? "ignore" : "pipe", output, "inherit"],
    env: { ...process.env, WRANGLER_SEND_METRICS: "false", ...env },
  });
  let stdout = "";
  child.stdout?.setEncoding("utf8").on("data", (text: string) => {
    stdout += text;
  });
  // It may end without having read; its code says so.
  child.stdin?.on("error", () => {});
  child.stdin?.end(input);
  return new Promise((resolve, reject) => {
    child.once("error", (error: NodeJS.ErrnoException) =>
      reject(
        new ProgramFailed(error.code === "ENOENT" ? `There is no \`${command}\` on this machine.` : error.message),
      ),
    );
    child.once("close", (code) => resolve({ code: code ?? 1, stdout }));
  });
}

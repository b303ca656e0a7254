/**
 * Asking the person at the terminal, or reading what a script pipes in. A secret is never taken from an argument, where every user of
 * the machine could read it, and never shown while it is typed.
 */
import { createInterface } from "node:readline/promises";
import { Interrupted, UsageError } from "./failure.ts";
import { Text } from "./text.ts";

export interface Prompt {
  /** Whether there is somebody to ask. */
  readonly isInteractive: boolean;
  /** @throws {Interrupted} on Ctrl-C */
  ask(question: string): Promise<string>;
  /** Typed without being shown; or, where nobody is there, the first line of standard input. @param what as in "the password" */
  secret(question: string, what: string): Promise<string>;
  /** Every line of standard input that is not blank. */
  lines(): Promise<string[]>;
}

/** A password or a token: more is none. */
const MAX_SECRET = 64 * 1024;
/** 10,000 logins of the usual length. */
const MAX_LIST = 2 * 1024 * 1024;
const BACKSPACE = new Set(["\b", "\u007f"]);
const KILL_LINE = "\u0015";
const INTERRUPT = "\u0003";
const END_OF_INPUT = "\u0004";
const ESCAPE = "\u001b";
const ENTER = new Set(["\r", "\n"]);

/** @param signal ends the asking with its reason */
export function createPrompt(stdin: NodeJS.ReadStream, stderr: NodeJS.WriteStream, signal: AbortSignal): Prompt {
  const isInteractive = stdin.isTTY === true && stderr.isTTY === true;
  return {
    isInteractive,
    async ask(question) {
      const asking = createInterface({ input: stdin, output: stderr });
      try {
        return await new Promise<string>((resolve, reject) => {
          asking.once("SIGINT", () => reject(new Interrupted()));
          asking.once("close", () => reject(new Interrupted()));
          signal.addEventListener("abort", () => reject(signal.reason), { once: true });
          asking.question(Text.of(question).toString()).then((answer) => resolve(answer.trim()), reject);
        });
      } finally {
        asking.close();
      }
    },
    async secret(question, what) {
      const given = isInteractive ? await typed(stdin, stderr, question, signal) : await firstLine(stdin);
      if (given === "") {
        throw new UsageError(`There was no ${what}.`, `Pipe ${what} in on standard input, or run it in a terminal.`);
      }
      return given;
    },
    async lines() {
      if (stdin.isTTY) stderr.write("One a line; Ctrl-D ends the list.\n");
      const text = await untilEnough(stdin, MAX_LIST, () => false);
      return text.split(/\r?\n/).flatMap((line) => (line.trim() === "" ? [] : [line.trim()]));
    },
  };
}

/** Line by line in raw mode, because a terminal echoes otherwise. */
function typed(
  stdin: NodeJS.ReadStream,
  stderr: NodeJS.WriteStream,
  question: string,
  signal: AbortSignal,
): Promise<string> {
  stderr.write(Text.of(question).toString());
  stdin.setRawMode(true).setEncoding("utf8").resume();
  return new Promise((resolve, reject) => {
    let text = "";
    const settle = (act: () => void) => {
      stdin.off("data", take).off("end", cancel);
      signal.removeEventListener("abort", cancel);
      stdin.setRawMode(false).pause();
      stderr.write("\n");
      act();
    };
    const cancel = () => settle(() => reject(new Interrupted()));
    const take = (data: string) => {
      if (data.startsWith(ESCAPE)) return; // an arrow, or another key that is no character
      for (const character of data) {
        if (ENTER.has(character)) return settle(() => resolve(text));
        if (character === INTERRUPT || (character === END_OF_INPUT && text === "")) return cancel();
        if (BACKSPACE.has(character)) text = [...text].slice(0, -1).join("");
        else if (character === KILL_LINE) text = "";
        else if (character >= " " && text.length < MAX_SECRET) text += character;
      }
    };
    stdin.on("data", take).on("end", cancel);
    signal.addEventListener("abort", cancel);
  });
}

async function firstLine(stdin: NodeJS.ReadStream): Promise<string> {
  if (stdin.isTTY) throw new UsageError("There is no terminal to ask at.", "Pipe the secret in on standard input.");
  const text = await untilEnough(stdin, MAX_SECRET, (so) => so.includes("\n"));
  return text.split(/\r?\n/, 1)[0] ?? "";
}

async function untilEnough(
  stdin: NodeJS.ReadStream,
  limit: number,
  isEnough: (text: string) => boolean,
): Promise<string> {
  let text = "";
  for await (const chunk of stdin.setEncoding("utf8")) {
    text += chunk;
    if (text.length > limit) throw new UsageError("What comes on standard input is too long.");
    if (isEnough(text)) break;
  }
  return text;
}

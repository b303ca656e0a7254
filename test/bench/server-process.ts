/** A server that is measured, in a process of its own: what it used is counted there, and only there. */
import { fork } from "node:child_process";
import { once } from "node:events";
import type { Answer, Question, Usage } from "./measured-process.ts";

export interface ServerProcess<Ready> {
  readonly pid: number;
  /** What it said of itself when it was ready. */
  readonly ready: Ready;
  /** Calls one of its actions. @throws {Error} what the action threw, or that the process is gone */
  ask<Result>(action: string, argument?: unknown): Promise<Result>;
  /** Processor time, event loop and memory from here on. */
  meterStart(): Promise<void>;
  meterStop(): Promise<Usage>;
  /** Collects garbage. */
  collect(): Promise<void>;
  /** Bytes, after a garbage collection. */
  memory(): Promise<{ readonly heap: number; readonly rss: number }>;
  kill(signal?: NodeJS.Signals): void;
  stop(): Promise<void>;
}

/** @param module calls `serveMeasured` @param settings handed to what it starts */
export async function startServerProcess<Ready>(module: string, settings: object): Promise<ServerProcess<Ready>> {
  const child = fork(module, [], { execArgv: ["--expose-gc"], serialization: "advanced" });
  const waiting = new Map<number, (answer: Answer) => void>();
  let calls = 0;
  child.on("message", (answer: Answer) => {
    waiting.get(answer.call)?.(answer);
    waiting.delete(answer.call);
  });
  child.once("exit", () => {
    for (const [call, settle] of waiting) settle({ call, error: `${module} ended` });
  });
  const ask = async <Result>(action: string, argument?: unknown): Promise<Result> => {
    const call = calls++;
    const answered = new Promise<Answer>((resolve) => waiting.set(call, resolve));
    if (!child.connected) throw new Error(`${module} has ended`);
    child.send({ call, action, argument } satisfies Question);
    const answer = await answered;
    if (answer.error !== undefined) throw new Error(`${action}: ${answer.error}`);
    return answer.result as Result;
  };
  const ready = await ask<Ready>("start", settings);
  return {
    pid: child.pid ?? 0,
    ready,
    ask,
    meterStart: () => ask("meterStart"),
    meterStop: () => ask("meterStop"),
    collect: () => ask("collect"),
    memory: () => ask("memory"),
    kill: (signal = "SIGKILL") => void child.kill(signal),
    async stop() {
      if (child.exitCode !== null || child.signalCode !== null) return;
      const gone = once(child, "exit");
      child.kill("SIGKILL");
      await gone;
    },
  };
}

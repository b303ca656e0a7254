/** The other side of `server-process.ts`: runs in the process that is measured. */
import { monitorEventLoopDelay } from "node:perf_hooks";

export interface Question {
  readonly call: number;
  readonly action: string;
  readonly argument?: unknown;
}

export interface Answer {
  readonly call: number;
  readonly result?: unknown;
  readonly error?: string;
}

/** Of one process while it was metered. */
export interface Usage {
  /** Microseconds of all threads, by the system and the program together. */
  readonly cpuUs: number;
  readonly wallMs: number;
  /** How long the event loop was held, milliseconds. */
  readonly loopP99Ms: number;
  readonly loopMaxMs: number;
}

export type Actions = Readonly<Record<string, (argument: never) => unknown>>;

const LOOP_RESOLUTION_MS = 1;
/** Lets what was closed be let go of before it is counted. */
const COLLECTIONS = 3;

/** @param start begins to serve; what it resolves with is told to who started the process, besides the actions it offers */
export function serveMeasured<Settings>(
  start: (settings: Settings) => Promise<{ readonly ready: object; readonly actions?: Actions }>,
): void {
  let offered: Actions = {};
  const loop = monitorEventLoopDelay({ resolution: LOOP_RESOLUTION_MS });
  let [cpu, wall] = [process.cpuUsage(), performance.now()];
  const own: Actions = {
    async start(settings: Settings) {
      const { ready, actions = {} } = await start(settings);
      offered = actions;
      return ready;
    },
    meterStart() {
      loop.reset();
      loop.enable();
      [cpu, wall] = [process.cpuUsage(), performance.now()];
    },
    meterStop(): Usage {
      const { user, system } = process.cpuUsage(cpu);
      loop.disable();
      const milliseconds = (nanoseconds: number) => Math.max(0, nanoseconds / 1e6 - LOOP_RESOLUTION_MS);
      return {
        cpuUs: user + system,
        wallMs: performance.now() - wall,
        loopP99Ms: milliseconds(loop.percentile(99)),
        loopMaxMs: milliseconds(loop.max),
      };
    },
    /** So that nobody pays for what somebody else has left. */
    collect: () => globalThis.gc?.(),
    async memory() {
      for (let times = 0; times < COLLECTIONS; times++) {
        globalThis.gc?.();
        await new Promise((resolve) => setTimeout(resolve, 50));
      }
      const { heapUsed, rss } = process.memoryUsage();
      return { heap: heapUsed, rss };
    },
  };
  process.on("message", async ({ call, action, argument }: Question) => {
    const answer = await answerOf(own[action] ?? offered[action], argument);
    process.send?.({ call, ...answer } satisfies Answer);
  });
  // Whoever measures is gone.
  process.on("disconnect", () => process.exit(0));
}

async function answerOf(act: Actions[string] | undefined, argument: unknown): Promise<Omit<Answer, "call">> {
  if (act === undefined) return { error: "there is no such action" };
  try {
    return { result: await act(argument as never) };
  } catch (error) {
    return { error: String(error) };
  }
}

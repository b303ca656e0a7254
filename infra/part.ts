/** One part of the stack: a process that can be killed and started again, and whose unexpected end is told. */
import type { Child, Exit } from "./child.ts";

export interface Part {
  readonly pid: number;
  readonly running: boolean;
  /** Resolves when it is gone, if the signal is one that ends it. */
  kill(signal?: NodeJS.Signals): Promise<void>;
  /** The same process again, on the same port and state; ends it first if it runs. Resolves when it is ready. */
  restart(): Promise<void>;
  stop(): Promise<void>;
}

const PAUSES: ReadonlySet<NodeJS.Signals> = new Set(["SIGSTOP", "SIGCONT"]);

/**
 * @param launch starts the process and resolves when it is ready; a process that never gets ready is its to end
 * @param onExit called when it ends and nobody here asked it to
 */
export async function startPart(launch: () => Promise<Child>, onExit?: (exit: Exit) => void): Promise<Part> {
  const farewells = new WeakSet<Child>();
  let child = await watched();

  async function watched(): Promise<Child> {
    const started = await launch();
    started.exited.then((exit) => {
      if (!farewells.has(started)) onExit?.(exit);
    });
    return started;
  }

  async function stop(): Promise<void> {
    farewells.add(child);
    await child.stop();
  }

  return {
    get pid() {
      return child.pid;
    },
    get running() {
      return child.running;
    },
    async kill(signal = "SIGKILL") {
      if (!PAUSES.has(signal)) farewells.add(child);
      await child.kill(signal);
    },
    async restart() {
      await stop();
      child = await watched();
    },
    stop,
  };
}

/** Breaks what a plan says, and mends it again: each fault has its own way of both. */
import type { Link } from "../support/link.ts";
import { describeFault, type Fault, placesOf } from "./plan.ts";
import type { Replayer } from "./replayer.ts";
import type { World } from "./world.ts";

export interface Breaker {
  /** Breaks something for a time. Does not wait for it. */
  break(fault: Fault, forMs: number): void;
  /** Mends everything. Resolves when every process runs and is ready. */
  mendAll(): Promise<void>;
}

type Mend = () => void | Promise<void>;

interface Broken {
  readonly fault: Fault;
  readonly mend: Promise<Mend>;
  mended: Promise<void> | undefined;
}

/** A node that was started while it could reach nobody is started again when it can. */
const STARTS = 3;

/** @param replayers by cluster */
export function createBreaker(world: World, replayers: ReadonlyMap<string, Replayer>): Breaker {
  const broken = new Map<string, Broken>();
  let faults = 0;

  function mend(name: string): Promise<void> {
    const entry = broken.get(name);
    if (entry === undefined) return Promise.resolve();
    entry.mended ??= (async () => {
      await (await entry.mend)();
      for (const on of placesOf(entry.fault)) {
        world.write({ kind: "healed", fault: name, what: describeFault(entry.fault), on });
      }
      broken.delete(name);
    })();
    return entry.mended;
  }

  async function begin(fault: Fault): Promise<Mend> {
    switch (fault.kind) {
      case "kill":
        await world.kill(fault.part);
        return () => restart(fault.part);
      case "drain":
        await world.kill(fault.part, "SIGTERM");
        return () => restart(fault.part);
      case "freeze":
        await world.kill(fault.part, "SIGSTOP");
        return () => world.kill(fault.part, "SIGCONT");
      case "cut":
        return onLinks(fault.links, (link) => link.cut());
      case "stall":
        return onLinks(
          fault.links,
          (link) => link.stall(fault.direction),
          (link) => (fault.late ? link.release() : link.heal()),
        );
      case "delay":
        return onLinks(fault.links, (link) => link.delay(fault.ms, fault.direction));
      case "clock":
        await world.setClock(fault.node, fault.offMs);
        return () => world.setClock(fault.node, 0);
      case "failover":
        await world.snapshot(fault.cluster);
        return () => world.failOver(fault.cluster);
      case "ahead":
        await replayers.get(fault.cluster)?.runAhead();
        return () => undefined;
      case "flush":
        await flush(fault.cluster);
        return () => undefined;
      case "replay":
        await replayers.get(fault.cluster)?.replay(fault.how);
        return () => undefined;
    }
  }

  function onLinks(names: readonly string[], hurt: (link: Link) => void, cure = (link: Link) => link.heal()): Mend {
    for (const name of names) hurt(world.link(name));
    return () => {
      for (const name of names) cure(world.link(name));
    };
  }

  async function flush(cluster: string): Promise<void> {
    world.write({ kind: "forgot", cluster });
    // Nothing is lost where Redis is away: then there is nothing to flush.
    await replayers
      .get(cluster)
      ?.flush()
      .catch(() => undefined);
  }

  async function restart(part: string): Promise<void> {
    for (let start = 1; ; start++) {
      try {
        return await world.restart(part);
      } catch (error) {
        if (start === STARTS) throw error;
      }
    }
  }

  return {
    break(fault, forMs) {
      // Its last fault is not over: it is still starting.
      if ("part" in fault && !world.isRunning(fault.part)) return;
      faults += 1;
      const name = `fault ${faults}`;
      for (const on of placesOf(fault)) world.write({ kind: "fault", fault: name, what: describeFault(fault), on });
      broken.set(name, { fault, mend: begin(fault), mended: undefined });
      // What cannot be mended now is told by mendAll.
      setTimeout(() => mend(name).catch(() => undefined), forMs);
    },
    async mendAll() {
      // Links first: who starts has to reach somebody.
      const isProcess = ({ fault }: Broken) => fault.kind === "kill" || fault.kind === "drain";
      const names = [...broken]
        .sort(([, a], [, b]) => Number(isProcess(a)) - Number(isProcess(b)))
        .map(([name]) => name);
      await Promise.all(names.map(mend));
    },
  };
}

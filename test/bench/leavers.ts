/** Thousands of clients, in a process of their own. */
import { join } from "node:path";
import { until } from "../../infra/until.ts";
import type { Departures, LeaversOrder } from "./leavers-process.ts";
import { type ServerProcess, startServerProcess } from "./server-process.ts";

export interface Crowd {
  readonly process: ServerProcess<object>;
  /** Resolves when all of them are in. */
  open(group: string, clients: LeaversOrder["clients"]): Promise<void>;
  /** Resolves when so many of a group were told to go, or, with `closed`, when their connections are closed. */
  departed(group: string, count: number, until?: "told" | "closed"): Promise<Departures>;
  /** They go by themselves. */
  leave(group: string): Promise<void>;
  stop(): Promise<void>;
}

const AT_ONCE = 64;
const GONE_WITHIN_MS = 60_000;
/** Kept free for what a process has open besides its sockets. */
const OTHER_FILES = 500;

/** So many of these sockets as one process may have open here. */
export function atMost(sockets: number): number {
  const { userLimits } = process.report.getReport() as { readonly userLimits?: { open_files?: { hard?: unknown } } };
  const limit = Number(userLimits?.open_files?.hard);
  return Number.isFinite(limit) ? Math.min(sockets, limit - OTHER_FILES) : sockets;
}

export async function startCrowd(): Promise<Crowd> {
  const crowd = await startServerProcess<object>(join(import.meta.dirname, "leavers-process.ts"), {});
  return {
    process: crowd,
    open: (group, clients) => crowd.ask("open", { group, clients, atOnce: AT_ONCE } satisfies LeaversOrder),
    departed(group, count, when = "told") {
      const all = async () => {
        const departures = await crowd.ask<Departures>("departed", group);
        return (when === "told" ? departures.count : departures.closed) >= count && departures;
      };
      return until(`${count} of ${group} are ${when}`, all, { withinMs: GONE_WITHIN_MS });
    },
    leave: (group) => crowd.ask("leave", group),
    stop: () => crowd.stop(),
  };
}

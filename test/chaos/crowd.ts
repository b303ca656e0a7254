/** The people of a chaos run as the driver has them: started, told what to do, and asked how they are. */
import { join } from "node:path";
import { startChild } from "../../infra/child.ts";
import { until } from "../../infra/until.ts";
import type { Errand, Holding, PeopleReport, PeopleSettings } from "./people-process.ts";

const PROCESS = join(import.meta.dirname, "people-process.ts");
/** A login costs a fifth of a second of a processor. */
const LOGIN_WITHIN_MS = 180_000;
const TRIED_WITHIN_MS = 180_000;

export interface Crowd {
  /** The session and the token that a client has now. */
  holdingOf(client: string): Holding | undefined;
  /** Sockets that should be open and are not. */
  missing(): readonly string[];
  logOut(client: string): void;
  /** Every token that has not run out is tried at every node. */
  tryEverything(): Promise<void>;
  stop(): Promise<void>;
}

/** Resolves when everybody is connected. */
export async function startCrowd(settings: PeopleSettings, onLine: (line: string) => void): Promise<Crowd> {
  let standing: Extract<PeopleReport, { kind: "standing" }> | undefined;
  let trials = 0;
  const child = await startChild({
    command: process.execPath,
    args: [PROCESS],
    channel: true,
    onLine: (line) => {
      const report = reportOf(line);
      if (report === undefined) onLine(line);
      else if (report.kind === "standing") standing = report;
      else trials += 1;
    },
  });
  const send = (message: PeopleSettings | Errand) => child.send(message);
  const missing = () => standing?.missing ?? settings.clients.map(({ name }) => `${name} anywhere`);
  send(settings);
  await until("everybody is connected", () => !child.running || missing().length === 0, { withinMs: LOGIN_WITHIN_MS });
  if (!child.running) throw new Error(`The people did not come:\n${child.lastLines.join("\n")}`);
  return {
    holdingOf: (client) => standing?.signedIn[client],
    missing,
    logOut: (client) => send({ do: "log out", client }),
    async tryEverything() {
      const before = trials;
      send({ do: "try everything" });
      await until("every token was tried at every node", () => trials > before, { withinMs: TRIED_WITHIN_MS });
    },
    stop: () => child.stop(),
  };
}

function reportOf(line: string): PeopleReport | undefined {
  try {
    return JSON.parse(line) as PeopleReport;
  } catch {
    // A warning of Node's, or a stack.
    return undefined;
  }
}

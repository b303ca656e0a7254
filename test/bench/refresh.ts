/** Refreshes, beside a Worker that does nothing but read and write one row and sign one token. Each caller has a session of its own. */
import { EdgeClient } from "../../infra/edge-client.ts";
import type { Bench, Row } from "./bench.ts";
import { spreadText } from "./distribution.ts";
import {
  ADMIN_TOKEN,
  type Caller,
  compareLoad,
  type Load,
  printLoads,
  type Workers,
  withWorkers,
} from "./edge-load.ts";

const AT_ONCE = [1, 16];
const LEAST_RATIO = 0.8;

export const REFRESH: Bench = {
  about: "refreshes per second, beside a bare Worker with one write and one signature",
  async run(tell) {
    const loads = await withWorkers(tell, async (workers) => {
      const most = Math.max(...AT_ONCE);
      const keycard = await chains(workers, most);
      const bare = Array.from({ length: most }, (_, i) => {
        return () => workers.call("POST", `${workers.bare}/refresh`, { session: `s${i}` });
      });
      const loads = [];
      for (const count of AT_ONCE) {
        loads.push(await compareLoad({ keycard: keycard.slice(0, count), bare: bare.slice(0, count) }, tell));
      }
      return loads;
    });
    return { result: { loads }, rows: loads.map(rowOf), print: () => printLoads("Refreshes", loads) };
  },
};

/** Each takes what the one before gave. */
async function chains({ keycard, call }: Workers, count: number): Promise<readonly Caller[]> {
  const edge = new EdgeClient({ edgeUrl: keycard, adminToken: ADMIN_TOKEN });
  const callers: Caller[] = [];
  for (let i = 0; i < count; i++) {
    const person = { login: `bench-${i}@example.com`, password: "a password of a benchmark" };
    await edge.createAccount(person);
    let { refresh_token } = await edge.login(person.login, person.password);
    callers.push(async () => {
      const tokens = await call("POST", `${keycard}/refresh`, { refresh_token });
      ({ refresh_token } = tokens as { refresh_token: string });
    });
  }
  return callers;
}

function rowOf({ at_once, ratio, per_second }: Load<"keycard" | "bare">): Row {
  return {
    work: `refreshes a second, ${at_once} at once, relative to a bare Worker with one write and one signature`,
    goal: `≥ ${LEAST_RATIO}`,
    measured: `${spreadText(ratio.keycard)} (${per_second.keycard.median.toFixed(0)}/s)`,
    met: ratio.keycard.median >= LEAST_RATIO,
  };
}

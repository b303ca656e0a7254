/**
 * Logins, beside a Worker that does nothing but hash a password in the same way, write one row and sign one token: what is hashed is meant to
 * cost, and everything around it is to cost little. No more at once than the edge hashes for; who comes beyond them is sent away.
 */
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

const AT_ONCE = [1, 4];
const PEOPLE_EACH = 6;
const PASSWORD = "a password of a benchmark";
const LEAST_RATIO = 0.8;

export const LOGIN: Bench = {
  about: "logins per second, beside a bare Worker with the same hash, one write and one signature",
  async run(tell) {
    const loads = await withWorkers(tell, async (workers) => {
      const loads = [];
      for (const count of AT_ONCE) {
        const keycard = await visitors(workers, count);
        const bare = Array.from({ length: count }, (_, i) => {
          return () => workers.call("POST", `${workers.url.bare}/login`, { session: `s${i}`, password: PASSWORD });
        });
        loads.push(await compareLoad({ keycard, bare }, tell));
      }
      return loads;
    });
    return { result: { loads }, rows: loads.map(rowOf), print: () => printLoads("Logins", loads) };
  },
};

/** Each signs in as several people in turn: an account that has too many sessions would have to end some. */
async function visitors({ url: { keycard }, call }: Workers, count: number): Promise<readonly Caller[]> {
  const edge = new EdgeClient({ edgeUrl: keycard, adminToken: ADMIN_TOKEN });
  const logins = Array.from({ length: count * PEOPLE_EACH }, () => `${crypto.randomUUID()}@example.com`);
  for (const login of logins) await edge.createAccount({ login, password: PASSWORD });
  return Array.from({ length: count }, (_, caller) => {
    let turn = 0;
    return () => {
      const login = logins[caller * PEOPLE_EACH + (turn++ % PEOPLE_EACH)];
      return call("POST", `${keycard}/login`, { login, password: PASSWORD });
    };
  });
}

function rowOf({ at_once, ratio, per_second }: Load<"keycard" | "bare">): Row {
  return {
    work: `logins a second, ${at_once} at once, relative to a bare Worker with the same password hash`,
    goal: `≥ ${LEAST_RATIO}`,
    measured: `${spreadText(ratio.keycard)} (${per_second.keycard.median.toFixed(1)}/s)`,
    met: ratio.keycard.median >= LEAST_RATIO,
  };
}

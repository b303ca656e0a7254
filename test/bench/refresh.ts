/**
 * Refreshes, beside a Worker that does nothing but read and write one row and sign one token, and beside other libraries for Workers. Each caller
 * has a session of its own, and asks again with the same secret where a good one is refused; how often that was, is counted.
 *
 * Local KV and D1 are simulated inside workerd, and are part of what the others cost; so are the Durable Objects of Keycard and of the bare Worker.
 * better-auth does less than the others: it writes nothing and rotates nothing (`peers/better-auth/worker.ts`).
 */
import type { Bench, Row } from "./bench.ts";
import { spreadText } from "./distribution.ts";
import {
  type Caller,
  compareLoad,
  type Load,
  PEER_WORKERS,
  printLoads,
  type Workers,
  withWorkers,
} from "./edge-load.ts";
import { NotOk } from "./http-calls.ts";
import { CONTENDERS, type Contender, type Sessions, sessionsOf } from "./sessions.ts";

/** What the goal is about. */
const MOST = 16;
const LEAST_RATIO = 0.8;
/** By the profile. */
const WHY_NOT =
  "by its profile 44 % of it is the signature that the bare Worker makes as well; the account's judgement of reuse, lifetimes and cutoffs is 10 %, the keyed hashes of the token 5 %, reading and judging the body 5 %";
/** A client tries again; more refusals than this in a row are no accident. */
const TRIES = 5;

type Refused = Record<Contender, number>;
type Callers = Readonly<Record<Contender | "bare", readonly Caller[]>>;

export const REFRESH: Bench = {
  about: "refreshes per second, beside a bare Worker with one write and one signature, and beside other libraries",
  async run(tell) {
    const refused = Object.fromEntries(CONTENDERS.map((name) => [name, 0])) as Refused;
    const measure = async (workers: Workers<Contender | "bare">) => {
      const callers = await callersOf(workers, refused);
      const first = { keycard: callers.keycard.slice(0, 1), bare: callers.bare.slice(0, 1) };
      return { alone: await compareLoad(first, tell), together: await compareLoad(callers, tell) };
    };
    const { alone, together } = await withWorkers(tell, measure, ["bare", ...PEER_WORKERS]);
    return {
      result: { loads: [alone, together], refused },
      rows: [rowOf(alone), rowOf(together), peersRow(together)],
      print() {
        printLoads<"keycard" | "bare">("Refreshes", [alone, together]);
        console.log();
        for (const name of CONTENDERS) console.log(`  ${name} refused a good secret ${refused[name]} times`);
      },
    };
  },
};

async function callersOf({ url, call }: Workers<Contender | "bare">, refused: Refused): Promise<Callers> {
  const bare = Array.from({ length: MOST }, (_, i) => () => call("POST", `${url.bare}/refresh`, { session: `s${i}` }));
  const callers = {} as Record<Contender | "bare", readonly Caller[]>;
  for (const name of CONTENDERS) {
    const sessions = await sessionsOf(name, url[name], call);
    callers[name] = await chains(sessions, () => refused[name]++);
  }
  return { ...callers, bare };
}

/** Each takes what the one before gave. */
async function chains(sessions: Sessions, onRefused: () => void): Promise<readonly Caller[]> {
  const callers: Caller[] = [];
  for (let i = 0; i < MOST; i++) {
    let secret = await sessions.open();
    callers.push(async () => {
      secret = await tradeAtLast(sessions, secret, onRefused);
    });
  }
  return callers;
}

async function tradeAtLast(sessions: Sessions, secret: string, onRefused: () => void): Promise<string> {
  for (let tries = 1; ; tries++) {
    try {
      return await sessions.trade(secret);
    } catch (error) {
      if (!(error instanceof NotOk) || tries === TRIES) throw error;
      onRefused();
    }
  }
}

function rowOf({ at_once, ratio, per_second }: Load<"keycard" | "bare">): Row {
  return {
    work: `refreshes a second, ${at_once} at once, relative to a bare Worker with one write and one signature`,
    goal: `≥ ${LEAST_RATIO}`,
    measured: `${spreadText(ratio.keycard)} (${per_second.keycard.median.toFixed(0)}/s)`,
    ...(ratio.keycard.median >= LEAST_RATIO ? { met: true } : { met: false, because: WHY_NOT }),
  };
}

/** For comparison: better than each of them is what the goal above says, and more. */
function peersRow({ at_once, ratio }: Load<Contender | "bare">): Row {
  const best = Math.max(...PEER_WORKERS.map((name) => ratio[name].median));
  return {
    work: `the same, ${at_once} at once, of other libraries`,
    goal: "below Keycard",
    measured: PEER_WORKERS.map((name) => `${name} ${ratio[name].median.toFixed(2)}`).join(", "),
    met: best < ratio.keycard.median,
  };
}

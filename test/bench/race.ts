/**
 * One refresh token that is used more than once, counted for Keycard and for other libraries, everything at its defaults. Two ways:
 *
 * - ten at once, as ten tabs do that wake up together. Each of the ten then goes on with what it got, twice. Who is left out must sign in again;
 *   chains that stay apart cannot be told from a thief's.
 * - a copy that is used late: after every grace is over, by a thief, whose token the holder has traded before. Once when the holder has gone on
 *   since, once when not. That the thief is refused is one thing; that the session ends, so that nobody keeps what the thief may have, another.
 *
 * Counted, not timed; that a session's sockets close with it is what test/realtime is for. KV is consistent here, and Cloudflare's is only so in
 * the end: what races here does so more there. OpenAuth refuses some good tokens (`peers/openauth/worker.ts`), so that not all ten get an answer.
 */
import type { Bench, Row } from "./bench.ts";
import { PEER_WORKERS, type Workers, withWorkers } from "./edge-load.ts";
import { NotOk } from "./http-calls.ts";
import { CONTENDERS, type Contender, type Sessions, sessionsOf } from "./sessions.ts";

const RUNS = 20;
const AT_ONCE = 10;
/** A client tries again. Those at once do not: of them every answer is counted. */
const TRIES = 3;
/** OpenAuth's 60 s are the longest that anything here takes a traded secret; Keycard's are 30 s. */
const GRACE_MS = 61_000;

/** What one token fired at once led to, and the token. */
interface Raced {
  readonly first: string;
  /** How many of the ten got a 200. */
  readonly answered: number;
  /** Of those, who could still refresh twice. */
  readonly usable: number;
  /** Different secrets that they ended with. */
  readonly chains: readonly string[];
}

/** A session whose first secret was traded, and what the holder has. */
interface Copied {
  readonly first: string;
  readonly held: readonly string[];
}

/** What became of a thief, and of who held the session. */
interface Replayed {
  readonly thief: boolean;
  readonly holder: boolean;
}

interface Counts {
  readonly races: readonly { readonly answered: number; readonly usable: number; readonly chains: number }[];
  /** A copy of a token from two or more refreshes ago, and of the one before. */
  readonly replay: { readonly old: ReplayCounts; readonly previous: ReplayCounts };
}

/** In how many runs. */
interface ReplayCounts {
  /** Neither gets anything: whoever has a copy has nothing, and the holder learns of it. */
  readonly ended: number;
  /** The thief is refused, and nothing else happens. */
  readonly refused: number;
  /** Both go on. */
  readonly shared: number;
  /** The thief goes on, and the holder does not. */
  readonly lockedOut: number;
}

export const RACE: Bench = {
  about: "one refresh token fired ten times at once, and replayed after the grace, here and with other libraries",
  async run(tell) {
    const counts = await withWorkers(tell, (workers) => countAll(workers, tell), PEER_WORKERS);
    return { result: { at_once: AT_ONCE, counts }, rows: rowsOf(counts), print: () => print(counts) };
  },
};

async function countAll(
  { url, call }: Workers<Contender>,
  tell: (text: string) => void,
): Promise<Readonly<Record<Contender, Counts>>> {
  const begun: { name: Contender; sessions: Sessions; raced: Raced[]; copied: Copied[] }[] = [];
  for (const name of CONTENDERS) {
    tell(`${name}: ${RUNS} races`);
    const sessions = await sessionsOf(name, url[name], call);
    const each = { name, sessions, raced: [] as Raced[], copied: [] as Copied[] };
    for (let i = 0; i < RUNS; i++) {
      each.raced.push(await race(sessions));
      each.copied.push(await copy(sessions));
    }
    begun.push(each);
  }
  tell(`waiting ${GRACE_MS / 1000} s until no grace is left`);
  await new Promise((resolve) => setTimeout(resolve, GRACE_MS));
  const counts = {} as Record<Contender, Counts>;
  for (const { name, sessions, raced, copied } of begun) {
    tell(`${name}: the replays`);
    const old: Replayed[] = [];
    for (const { first, chains } of raced) old.push(await replay(sessions, { first, held: chains }));
    const previous: Replayed[] = [];
    for (const each of copied) previous.push(await replay(sessions, each));
    counts[name] = {
      races: raced.map(({ answered, usable, chains }) => ({ answered, usable, chains: chains.length })),
      replay: { old: countsOf(old), previous: countsOf(previous) },
    };
  }
  return counts;
}

async function race(sessions: Sessions): Promise<Raced> {
  const first = await sessions.open();
  const got = await tradeAll(sessions, Array<string>(AT_ONCE).fill(first), 1);
  const held = await tradeAll(sessions, await tradeAll(sessions, got));
  return { first, answered: got.length, usable: held.length, chains: [...new Set(held)] };
}

async function copy(sessions: Sessions): Promise<Copied> {
  const first = await sessions.open();
  return { first, held: await tradeAll(sessions, [first]) };
}

/** All at once. @returns what was given for those that were taken */
async function tradeAll(sessions: Sessions, secrets: readonly string[], tries = TRIES): Promise<string[]> {
  const given = await Promise.all(secrets.map((secret) => tradeIfTaken(sessions, secret, tries)));
  return given.filter((secret) => secret !== undefined);
}

async function tradeIfTaken(sessions: Sessions, secret: string, tries = TRIES): Promise<string | undefined> {
  try {
    return await sessions.trade(secret);
  } catch (error) {
    if (!(error instanceof NotOk) || error.status >= 500) throw error;
    return tries > 1 ? await tradeIfTaken(sessions, secret, tries - 1) : undefined;
  }
}

/** The thief first, then the holder, then the thief with what they were given. */
async function replay(sessions: Sessions, { first, held }: Copied): Promise<Replayed> {
  const stolen = await tradeIfTaken(sessions, first);
  const holder = (await tradeAll(sessions, held)).length > 0;
  const thief = stolen !== undefined && (await tradeIfTaken(sessions, stolen)) !== undefined;
  return { thief, holder };
}

function countsOf(replays: readonly Replayed[]): ReplayCounts {
  const count = (thief: boolean, holder: boolean) => {
    return replays.filter((each) => each.thief === thief && each.holder === holder).length;
  };
  return {
    ended: count(false, false),
    refused: count(false, true),
    shared: count(true, true),
    lockedOut: count(true, false),
  };
}

function rowsOf(counts: Readonly<Record<Contender, Counts>>): Row[] {
  const { keycard } = counts;
  const others = (say: (counts: Counts) => string) =>
    PEER_WORKERS.map((name) => `${name} ${say(counts[name])}`).join("; ");
  return [
    {
      work: `one refresh token fired ${AT_ONCE} times at once: every answer usable, and one chain`,
      goal: `${RUNS} of ${RUNS} runs`,
      measured: `${wholeIn(keycard)} (${others((each) => `${wholeIn(each)}`)})`,
      met: wholeIn(keycard) === RUNS,
    },
    {
      work: "a traded refresh token used again after the grace: the session ends",
      goal: `${2 * RUNS} of ${2 * RUNS} runs`,
      measured: `${inBoth(keycard, "ended")} (${others(endingText)})`,
      met: inBoth(keycard, "ended") === 2 * RUNS,
    },
  ];
}

/** In how many runs all who asked at once got something, could go on with it, and stayed together. */
function wholeIn({ races }: Counts): number {
  return races.filter((each) => each.answered === AT_ONCE && each.usable === AT_ONCE && each.chains === 1).length;
}

function inBoth({ replay }: Counts, outcome: keyof ReplayCounts): number {
  return replay.old[outcome] + replay.previous[outcome];
}

function endingText(counts: Counts): string {
  const [shared, lockedOut] = [inBoth(counts, "shared"), inBoth(counts, "lockedOut")];
  const shares = shared > 0 ? `, the thief goes on in ${shared}` : "";
  const locks = lockedOut > 0 ? `, the thief goes on and the holder is out in ${lockedOut}` : "";
  return `${inBoth(counts, "ended")}${shares}${locks}`;
}

function rangeText(values: readonly number[]): string {
  const [least, most] = [Math.min(...values), Math.max(...values)];
  return least === most ? `${least}` : `${least}–${most}`;
}

function print(counts: Readonly<Record<Contender, Counts>>): void {
  console.log(`\nOne refresh token used more than once: ${RUNS} runs each, everything at its defaults`);
  for (const name of CONTENDERS) {
    const { races, replay } = counts[name];
    const range = (figure: keyof Counts["races"][number]) => rangeText(races.map((each) => each[figure]));
    console.log(`\n  ${name}`);
    console.log(
      `    ${AT_ONCE} at once: ${range("answered")} answered, ${range("usable")} usable two refreshes later, chains: ${range("chains")}`,
    );
    for (const [which, outcomes] of Object.entries(replay)) {
      const { ended, refused, shared, lockedOut } = outcomes;
      console.log(
        `    the ${which} token replayed: session ended ${ended}, only refused ${refused}, both go on ${shared}, holder locked out ${lockedOut}`,
      );
    }
  }
}

/**
 * The index that every node decides by: how long a check takes however much is revoked, what an entry weighs, and that an hour of a
 * thousand revocations a second leaves no more than those that can still hit somebody. Times are of the processor, so that a busy
 * machine does not show in them.
 */
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import type { RevocableClaims, RevocationEvent } from "#contract/revocation";
import { RevocationIndex } from "#contract/revocation-index";
import type { Bench, Row } from "./bench.ts";
import { distributionOf, round } from "./distribution.ts";

const SIZES = [10, 10_000, 1_000_000];
const ROUNDS = 9;
const CHECKS = 200_000;
const CHUNK = 10_000;
/** Fewer than these do not show in the heap. */
const FEW = 1_000;
const PER_SECOND = 1_000;
const HOUR_SECONDS = 3_600;
/** From the decision until no token that it hits can be alive: five minutes, and a minute for clocks. */
const LIFE_SECONDS = 360;
/** As nodes do. */
const FORGET_EVERY_SECONDS = 5;
const NOW = 1_790_000_000;

interface SizeFigures {
  readonly entries: number;
  /** Of the heap, its name included; null where there are too few to tell. */
  readonly bytes_per_entry: number | null;
  readonly check_ns: number;
  readonly merge_ns: number;
}

interface IndexFigures {
  readonly sizes: readonly SizeFigures[];
  readonly hour: {
    readonly merged: number;
    readonly most_entries: number;
    readonly left: number;
    /** The longest time that forgetting held the thread, milliseconds. */
    readonly longest_forgetting_ms: number;
  };
}

setFlagsFromString("--expose-gc");
const collectGarbage: () => void = runInNewContext("gc");

export const INDEX: Bench = {
  about: "what a node's index of revocations weighs and how long a check takes, up to a million",
  async run(tell) {
    const result = measureAll(tell);
    return { result, rows: rowsOf(result), print: () => print(result) };
  },
};

const MOST_MB = 100;
const MOST_CHECK_NS = 300;
const WHY_NOT = "a name as long as the edge's own is 64 bytes of an entry, its place in a map 40";

function rowsOf({ sizes }: IndexFigures): Row[] {
  const { entries = 0, bytes_per_entry, check_ns = 0 } = sizes.at(-1) ?? {};
  const megabytes = Math.round(((bytes_per_entry ?? Number.NaN) * entries) / 1e6);
  return [
    {
      work: "a node's index of a million live revocations",
      goal: `≤ ${MOST_MB} MB, a check ≤ ${MOST_CHECK_NS} ns`,
      measured: `${megabytes} MB, ${check_ns} ns of processor time`,
      ...(megabytes <= MOST_MB && check_ns <= MOST_CHECK_NS ? { met: true } : { met: false, because: WHY_NOT }),
    },
  ];
}

function measureAll(onProgress: (text: string) => void): IndexFigures {
  // Not into the first figures: the compiler has to see it all once.
  measureSize(10_000);
  const sizes = SIZES.map((entries) => {
    onProgress(`${entries} entries`);
    return measureSize(entries);
  });
  onProgress("an hour of a thousand a second");
  return { sizes, hour: anHour() };
}

function measureSize(entries: number): SizeFigures {
  const before = heapUsed();
  const index = new RevocationIndex();
  const mergeNs = mergeAll(index, entries) / entries;
  const bytes = (heapUsed() - before) / entries;
  const claims = strangers(entries);
  const rounds = Array.from({ length: ROUNDS }, () => cpuNs(() => checkAll(index, claims)) / CHECKS);
  if (index.size !== entries) throw new Error(`the index has ${index.size} entries, not ${entries}`);
  return {
    entries,
    bytes_per_entry: entries < FEW ? null : Math.round(bytes),
    check_ns: Math.round(distributionOf(rounds).p50),
    merge_ns: Math.round(mergeNs),
  };
}

/** @returns what merging took, without what making the events took */
function mergeAll(index: RevocationIndex, entries: number): number {
  let ns = 0;
  for (let from = 0; from < entries; from += CHUNK) {
    const events = eventsOf(from, Math.min(CHUNK, entries - from));
    ns += cpuNs(() => events.forEach((event) => void index.merge(event)));
  }
  return ns;
}

function anHour(): IndexFigures["hour"] {
  const index = new RevocationIndex();
  let most = 0;
  let longest = 0;
  for (let second = 0; second < HOUR_SECONDS; second++) {
    for (let i = 0; i < PER_SECOND; i++) index.merge(eventOf(second * PER_SECOND + i, NOW + second + LIFE_SECONDS));
    most = Math.max(most, index.size);
    if (second % FORGET_EVERY_SECONDS === 0)
      longest = Math.max(
        longest,
        cpuNs(() => index.expire(NOW + second)),
      );
  }
  index.expire(NOW + HOUR_SECONDS);
  const left = index.size;
  return {
    merged: HOUR_SECONDS * PER_SECOND,
    most_entries: most,
    left,
    longest_forgetting_ms: round(longest / 1e6),
  };
}

function checkAll(index: RevocationIndex, claims: readonly RevocableClaims[]): void {
  for (let i = 0; i < CHECKS; i++) {
    const dead = index.check(claims[i % claims.length] as RevocableClaims);
    if (dead !== undefined) throw new Error("somebody is hit whom nobody revoked");
  }
}

function eventsOf(from: number, count: number): RevocationEvent[] {
  return Array.from({ length: count }, (_, i) => eventOf(from + i, NOW + Math.floor((from + i) / PER_SECOND)));
}

function eventOf(index: number, expiresAt: number): RevocationEvent {
  const targets = [{ kind: "session", sid: sidOf(index) }] as const;
  return { id: "rev", seq: index, targets, code: "session_revoked", decided_at: 0, expires_at: expiresAt };
}

/** As long as the edge's own, and flat: a name that was put together by + is two strings. */
function sidOf(index: number): string {
  return Buffer.from(`u_${String(index % 100_000).padStart(22, "k")}.${String(index).padStart(22, "s")}`).toString(
    "latin1",
  );
}

/** Claims that nothing hits, so that every kind of target is looked up. */
function strangers(from: number): RevocableClaims[] {
  return Array.from({ length: 1_000 }, (_, i) => ({
    jti: `t${String(i).padStart(22, "j")}`,
    sid: sidOf(from + i),
    sub: `u_${String(i).padStart(22, "x")}`,
    gen: 1,
    auth_time: NOW,
    tid: "acme",
    kid: "k1",
  }));
}

function heapUsed(): number {
  collectGarbage();
  return process.memoryUsage().heapUsed;
}

function cpuNs(work: () => void): number {
  const before = process.cpuUsage();
  work();
  const { user, system } = process.cpuUsage(before);
  return (user + system) * 1_000;
}

function print({ sizes, hour }: IndexFigures): void {
  console.log(`\n${["entries", "bytes each", "check, ns", "merge, ns"].map((title) => title.padStart(12)).join("")}`);
  for (const { entries, bytes_per_entry, check_ns, merge_ns } of sizes) {
    console.log(
      [entries, bytes_per_entry ?? "", check_ns, merge_ns].map((figure) => String(figure).padStart(12)).join(""),
    );
  }
  console.log(
    `\n  an hour of ${PER_SECOND} a second: ${hour.merged} merged, ${hour.most_entries} at most at a time,` +
      ` ${hour.left} left; forgetting took ${hour.longest_forgetting_ms} ms at most`,
  );
}

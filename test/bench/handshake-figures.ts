/** What `handshake` says of what it measured: figures, and the goals that they are held to. */
import type { SignatureAlgorithm } from "#contract/access-token";
import type { Row } from "./bench.ts";
import { spreadOf, spreadText } from "./distribution.ts";
import type { Beside } from "./in-turns.ts";
import type { VerifyFigures } from "./verify-alone.ts";

export type Variant =
  | "tutorial"
  | "tutorial + blacklist"
  | "thream"
  | "auth0"
  | `keycard ${SignatureAlgorithm}`
  | `keycard ${SignatureAlgorithm} returning`
  | "keycard RS256, polling";

/** One slice. */
export interface Sample {
  /** Of the server, for each handshake. */
  readonly cpuUs: number;
  readonly perSecond: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
  /** The longest time that the server's loop was held. */
  readonly loopMaxMs: number;
  /** For each handshake, without what goes on when nobody connects. */
  readonly redisCommands: number;
  readonly edgeCalls: number;
}

export interface HandshakeFigures {
  readonly perSlice: number;
  /** Each beside the bare server, over the same transport. */
  readonly handshakes: Readonly<Record<Variant, readonly Beside<Sample>[]>>;
  readonly verify: VerifyFigures;
}

/** Of processor time, to bare Socket.IO. */
const GOALS: Partial<Record<Variant, number>> = {
  "keycard RS256": 1.2,
  "keycard ES256": 1.45,
  "keycard EdDSA": 1.45,
  "keycard RS256 returning": 1.1,
  "keycard ES256 returning": 1.1,
  "keycard EdDSA returning": 1.1,
};
/** Microseconds above the bare check of the signature. */
const VERIFY_ABOVE_FLOOR_US = 15;

const WHY_NOT_RETURNING =
  "no signature is checked; a profile of an earlier run, beside the bare server's, accounts for 86 µs (half of what a returning token costs in this one): hashing the token takes 15 µs, reading it 14, admission and indexes 17, limits and letting go of the request 9, the turns of promises 11, and larger packets 20 of the system's and the collector's";
const WHY_NOT_VERIFYING =
  "all of it is hashing the whole token, decoding and judging it, which is the same for each algorithm; the check of the signature itself varies by more than that from round to round";

export function rowsOf({ handshakes, verify }: HandshakeFigures): Row[] {
  const peers = (["tutorial", "tutorial + blacklist", "thream", "auth0"] as const).map(
    (peer) => `${peer} ${ratio(handshakes, peer).median.toFixed(2)}`,
  );
  const handshakeRows = Object.entries(GOALS).map(([variant, goal], index) => {
    const measured = ratio(handshakes, variant as Variant);
    const beside = index === 0 ? ` (${peers.join(", ")})` : "";
    return {
      work: `processor time of a handshake relative to bare Socket.IO, ${variant}${beside}`,
      goal: `≤ ${goal.toFixed(2)}`,
      measured: spreadText(measured),
      ...(measured.median <= goal ? { met: true } : { met: false, because: whyNot(variant, handshakes, verify) }),
    };
  });
  const verifyRows = Object.entries(verify).map(([alg, { floorUs, keycardUs, aboveUs }]) => ({
    work: `verifying alone, ${alg}, above the signature check of Node`,
    goal: `≤ ${VERIFY_ABOVE_FLOOR_US} µs`,
    measured: `${spreadText(aboveUs, 1)} µs (${keycardUs.median.toFixed(0)}, ${floorUs.median.toFixed(0)})`,
    ...(aboveUs.median <= VERIFY_ABOVE_FLOOR_US ? { met: true } : { met: false, because: WHY_NOT_VERIFYING }),
  }));
  const commands = commandsOf(handshakes);
  const calls = callsOf(handshakes);
  return [
    ...handshakeRows,
    ...verifyRows,
    {
      work: "Redis commands and calls to the edge for a handshake",
      goal: "0 and 0",
      measured: `${commands} and ${calls}`,
      met: commands === 0 && calls === 0,
    },
  ];
}

/** By profiles of the server and of its bare twin. */
function whyNot(
  variant: string,
  handshakes: HandshakeFigures["handshakes"],
  verify: HandshakeFigures["verify"],
): string {
  const [, alg = "", isReturning] = variant.split(" ");
  if (isReturning) return WHY_NOT_RETURNING;
  const bareUs = spreadOf(handshakes[variant as Variant].map(({ base }) => base.cpuUs)).median;
  const { floorUs, afterWaiting } = verify[alg as SignatureAlgorithm];
  const share = Math.round((floorUs.median / bareUs) * 100);
  return `Node's own signature check is ${share} % of a bare handshake when many run in a row, and takes ${afterWaiting.median.toFixed(1)} times that where the thread has waited before, as here; the rest is what a returning token costs`;
}

function ofKeycard(handshakes: HandshakeFigures["handshakes"]): Sample[] {
  const own = Object.entries(handshakes).filter(([variant]) => variant.startsWith("keycard"));
  return own.flatMap(([, pairs]) => pairs.map(({ sample }) => sample));
}

/** In tenths: the heartbeat goes on meanwhile, and does not stop at the ends of a slice. */
function commandsOf(handshakes: HandshakeFigures["handshakes"]): number {
  const { median } = spreadOf(ofKeycard(handshakes).map((each) => each.redisCommands));
  return Math.abs(Math.round(median * 10) / 10);
}

/** By all of them together. */
function callsOf(handshakes: HandshakeFigures["handshakes"]): number {
  return ofKeycard(handshakes).reduce((sum, each) => sum + each.edgeCalls, 0);
}

function ratio(handshakes: HandshakeFigures["handshakes"], variant: Variant) {
  return spreadOf(handshakes[variant].map(({ sample, base }) => sample.cpuUs / base.cpuUs));
}

export function printHandshakes({ perSlice, handshakes, verify }: HandshakeFigures): void {
  const all = Object.entries(handshakes);
  console.log(`\n${perSlice} handshakes a slice, ${all[0]?.[1].length} slices each, a bare one beside each; medians\n`);
  const titles = ["CPU µs", "p50 ms", "p99 ms", "a second", "hold ms", "Redis"];
  console.log(`${"".padEnd(28)}${"to bare".padEnd(22)}${titles.map((title) => title.padStart(10)).join("")}`);
  const ofBare = (polling: boolean) =>
    all
      .filter(([variant]) => variant.endsWith("polling") === polling)
      .flatMap(([, pairs]) => pairs.map(({ base }) => base));
  const lines: (readonly [string, readonly Sample[]])[] = [
    ["bare", ofBare(false)],
    ["bare, polling", ofBare(true)],
    ...all.map(([variant, pairs]) => [variant, pairs.map(({ sample }) => sample)] as const),
  ];
  for (const [variant, samples] of lines) {
    const of = (pick: (sample: Sample) => number) => spreadOf(samples.map(pick)).median;
    const { cpuUs, p50Ms, p99Ms, perSecond, loopMaxMs, redisCommands } = {
      cpuUs: of((each) => each.cpuUs).toFixed(0),
      p50Ms: of((each) => each.p50Ms).toFixed(1),
      p99Ms: of((each) => each.p99Ms).toFixed(1),
      perSecond: of((each) => each.perSecond).toFixed(0),
      loopMaxMs: of((each) => each.loopMaxMs).toFixed(1),
      redisCommands: of((each) => each.redisCommands).toFixed(2),
    };
    const figures = [cpuUs, p50Ms, p99Ms, perSecond, loopMaxMs, redisCommands]
      .map((text) => text.padStart(10))
      .join("");
    const toBare = variant.startsWith("bare") ? "" : spreadText(ratio(handshakes, variant as Variant));
    console.log(`${variant.padEnd(28)}${toBare.padEnd(22)}${figures}`);
  }
  console.log(`\ncalls to the edge by all of Keycard's: ${callsOf(handshakes)}\n`);
  for (const [alg, { floorUs, keycardUs, aboveUs, afterWaiting }] of Object.entries(verify)) {
    console.log(
      `verifying alone, ${alg}: ${keycardUs.median.toFixed(1)} µs, Node's signature check ${floorUs.median.toFixed(1)} µs, above it ${spreadText(aboveUs, 1)}; that check where the thread has waited, to in a row: ${spreadText(afterWaiting)}`,
    );
  }
}

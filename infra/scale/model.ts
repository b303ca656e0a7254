/**
 * What so many sockets need, played second by second from what one of each thing costs: a node's handshakes, renewals, heartbeats and revocations in
 * the order in which they arrive at its one thread, and the log's one writer. Poisson arrivals from a seed, so that the same question has the same
 * answer. What it leaves out is the app: its messages, its handlers, its memory.
 */

/** Measured, of one of each. Microseconds of processor time, bytes, or commands. */
export interface UnitCosts {
  readonly node: {
    /** A second of a node that has nothing to do. */
    readonly idle_us: number;
    /** A second of a socket that has nothing to say. */
    readonly socket_us: number;
    readonly handshake_us: number;
    /** A fresh token on a socket that goes on. */
    readonly renewal_us: number;
    /** A revocation that hits nobody here. */
    readonly event_us: number;
    /** A socket that a revocation closes, beside the event. */
    readonly close_us: number;
    readonly base_bytes: number;
    readonly socket_bytes: number;
    /** Of the index, for as long as a token could be hit. */
    readonly entry_bytes: number;
  };
  readonly redis: {
    /** Commands a second of a node that has nothing to do. */
    readonly idle_commands: number;
    /** Commands of a revocation, however many nodes there are, and of each node besides. */
    readonly event_commands: number;
    readonly word_commands: number;
  };
  readonly edge: {
    readonly refresh_us: number;
    readonly login_us: number;
    readonly revocation_us: number;
    /** How long the log is busy with one revocation, when it has nothing else to do. */
    readonly log_us: number;
  };
}

/** What people do. Each a second, of one person with one socket. */
export interface Habits {
  readonly handshakes: number;
  readonly renewals: number;
  readonly logins: number;
  /** Logouts are revocations too. */
  readonly revocations: number;
}

export interface Plan {
  readonly sockets: number;
  readonly nodes: number;
  readonly habits: Habits;
  readonly seconds: number;
  readonly seed: number;
}

/** Of one thread. */
export interface Occupation {
  /** Of its time. */
  readonly busy: number;
  /** How long what arrived waited for its turn, milliseconds. */
  readonly wait_p99_ms: number;
}

export interface Forecast {
  readonly node: Occupation & { readonly sockets: number; readonly megabytes: number };
  readonly log: Occupation & { readonly revocations_per_second: number };
  /** Of all nodes together. */
  readonly redis_commands_per_second: number;
}

/** How long an event stays in a node's index: the life of a token, and a minute for clocks. */
const ENTRY_SECONDS = 360;

/** Plays the plan on one of its nodes, since they are alike, and on the log. */
export function simulate(costs: UnitCosts, { sockets, nodes, habits, seconds, seed }: Plan): Forecast {
  const random = randomFrom(seed);
  const here = sockets / nodes;
  const { node, redis, edge } = costs;
  const revocations = sockets * habits.revocations;
  const work = [
    ...arrivals(here * habits.handshakes, node.handshake_us, seconds, random),
    ...arrivals(here * habits.renewals, node.renewal_us, seconds, random),
    ...arrivals(revocations, node.event_us, seconds, random),
    ...arrivals(here * habits.revocations, node.close_us, seconds, random),
    // Heartbeats, pings and pongs: what goes on all the time, in small pieces.
    ...pieces(node.idle_us + here * node.socket_us, seconds),
  ];
  const entries = revocations * ENTRY_SECONDS;
  return {
    node: {
      ...occupationOf(work, seconds),
      sockets: Math.round(here),
      megabytes: Math.round((node.base_bytes + here * node.socket_bytes + entries * node.entry_bytes) / 1e6),
    },
    log: {
      ...occupationOf(arrivals(revocations, edge.log_us, seconds, random), seconds),
      revocations_per_second: revocations,
    },
    redis_commands_per_second: Math.round(
      nodes * redis.idle_commands + revocations * (redis.event_commands + nodes * redis.word_commands),
    ),
  };
}

interface Work {
  /** Microseconds. */
  readonly at: number;
  readonly takes: number;
}

const SECOND_US = 1e6;
const PIECES_PER_SECOND = 100;

function arrivals(perSecond: number, takes: number, seconds: number, random: () => number): Work[] {
  const found: Work[] = [];
  if (perSecond <= 0) return found;
  for (let at = 0; ; ) {
    at += (-Math.log(1 - random()) / perSecond) * SECOND_US;
    if (at >= seconds * SECOND_US) return found;
    found.push({ at, takes });
  }
}

function pieces(usPerSecond: number, seconds: number): Work[] {
  const takes = usPerSecond / PIECES_PER_SECOND;
  return Array.from({ length: seconds * PIECES_PER_SECOND }, (_, i) => ({
    at: (i * SECOND_US) / PIECES_PER_SECOND,
    takes,
  }));
}

/** One after the other, in the order in which it arrived. */
function occupationOf(work: readonly Work[], seconds: number): Occupation {
  let free = 0;
  let spent = 0;
  const waits: number[] = [];
  for (const { at, takes } of [...work].sort((a, b) => a.at - b.at)) {
    const begins = Math.max(at, free);
    waits.push(begins - at);
    free = begins + takes;
    spent += takes;
  }
  waits.sort((a, b) => a - b);
  const p99 = waits[Math.floor(waits.length * 0.99)] ?? 0;
  return { busy: spent / (seconds * SECOND_US), wait_p99_ms: p99 / 1_000 };
}

/** Mulberry32: the same numbers for the same seed. */
function randomFrom(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 4_294_967_296;
  };
}

/**
 * What happened, as those saw it who took part: the driver (what the API answered, what was broken), the people (what
 * their stock clients saw) and the apps on the nodes (what Socket.IO told them). Nothing in it is what the door believes.
 *
 * Every process writes by one clock: this machine's monotonic one, which nobody can step and which all of its processes
 * share, shifted once so that it reads like the wall clock. So histories can be merged and ordered.
 */
import { appendFileSync, globSync, mkdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { decodeJwt, decodeProtectedHeader } from "jose";

/** The first process of a run decides what reads as which time; those it starts inherit that. */
process.env.CHAOS_ORIGIN ??= String(Date.now() - monotonicMs());
const ORIGIN = Number(process.env.CHAOS_ORIGIN);

/** Milliseconds since the epoch, with fractions; the same in every process, whatever is done to its wall clock. */
export function now(): number {
  return Math.round((ORIGIN + monotonicMs()) * 1000) / 1000;
}

function monotonicMs(): number {
  return Number(process.hrtime.bigint()) / 1e6;
}

/** Whom a revocation is meant to hit, in words that need no knowledge of how Keycard tells them apart. */
export type Scope =
  | { readonly kind: "token"; readonly jti: string }
  | { readonly kind: "session"; readonly sid: string }
  /** Every token that a key signed, whenever that was. */
  | { readonly kind: "key"; readonly kid: string }
  | ({ readonly kind: "users"; readonly subs: readonly string[]; readonly except?: string | undefined } & BegunBy)
  | ({ readonly kind: "tenant"; readonly tid: string } & BegunBy)
  | ({ readonly kind: "everyone" } & BegunBy);

/** Only sessions that had begun by then, in seconds since the epoch; whenever they began unless it is said. */
interface BegunBy {
  readonly begunBy?: number | undefined;
}

/** What the driver saw and did. */
type DriverEntry =
  /** A revocation is asked for, or asked for again because no answer came. */
  | { readonly kind: "asked"; readonly revocation: string; readonly scope: Scope; readonly about: string }
  /** It was answered 2xx. */
  | { readonly kind: "decided"; readonly revocation: string; readonly id: string }
  /** It was answered that it cannot be. */
  | { readonly kind: "declined"; readonly revocation: string; readonly code: string }
  /** No answer came, and nobody asks any more. */
  | { readonly kind: "abandoned"; readonly revocation: string }
  | {
      readonly kind: "receipt";
      readonly revocation: string;
      readonly state: string;
      readonly enforced: boolean;
      /** When it became so, as the receipt has it. */
      readonly enforcedAt?: number;
    }
  | { readonly kind: "fault"; readonly fault: string; readonly what: string; readonly on: string }
  | { readonly kind: "healed"; readonly fault: string; readonly what: string; readonly on: string }
  /** A process is gone: a node's name, "edge", or a cluster's Redis. */
  | { readonly kind: "down"; readonly part: string; readonly expected: boolean }
  /** What a cluster's Redis held is gone, or a part of it. */
  | { readonly kind: "forgot"; readonly cluster: string }
  /** The wall clock of a node, or of the edge, is this far from the true time. */
  | { readonly kind: "clock"; readonly node: string; readonly offMs: number }
  /** Nothing is broken any more. */
  | { readonly kind: "calm" }
  /** Every receipt says enforced: what is accepted from here on is accepted for good. */
  | { readonly kind: "settled" }
  /** It was waited for, long enough: what is not as it should be by now never will be. */
  | { readonly kind: "overdue" }
  /** Somebody who should be connected by then is not. */
  | { readonly kind: "missing"; readonly what: string };

/** What the app on a node saw. */
type NodeEntry =
  | { readonly kind: "started"; readonly node: string; readonly cluster: string; readonly boot: string }
  /** The process was running all that time. */
  | {
      readonly kind: "awake";
      readonly node: string;
      readonly boot: string;
      readonly from: number;
      readonly until: number;
    }
  /** A socket is the app's. `jti` is of the token that the client showed, read without judging it. */
  | {
      readonly kind: "connected";
      readonly node: string;
      readonly boot: string;
      readonly socket: string;
      readonly jti: string;
    }
  /** A packet of the socket reached the app. */
  | { readonly kind: "handled"; readonly node: string; readonly socket: string }
  | { readonly kind: "disconnected"; readonly node: string; readonly socket: string; readonly reason: string };

/** What somebody's client saw. `askedAt` is when the request went out of which the entry is the answer. */
type PersonEntry =
  | {
      readonly kind: "session";
      readonly client: string;
      readonly sid: string;
      readonly sub: string;
      readonly tid?: string | undefined;
      readonly askedAt: number;
    }
  | {
      readonly kind: "token";
      readonly client: string;
      readonly sid: string;
      readonly jti: string;
      readonly kid: string;
      /** Seconds since the epoch. */
      readonly exp: number;
      readonly askedAt: number;
    }
  /** The edge would not go on with a session. */
  | { readonly kind: "ended"; readonly client: string; readonly sid: string; readonly code: string }
  /** A handshake succeeded. */
  | {
      readonly kind: "opened";
      readonly client: string;
      readonly socket: string;
      readonly jti: string;
      readonly askedAt: number;
    }
  /** A fresh token is shown on an open socket. */
  | { readonly kind: "renewing"; readonly client: string; readonly socket: string; readonly jti: string }
  | {
      readonly kind: "renewed";
      readonly client: string;
      readonly socket: string;
      readonly jti: string;
      readonly askedAt: number;
    }
  /** Why it is not let in, or about to be closed. `jti` is of the token that was shown; of a socket that was open, its first. */
  | {
      readonly kind: "told";
      readonly client: string;
      readonly socket?: string | undefined;
      readonly node: string;
      readonly jti: string;
      readonly code: string;
    }
  /** The app spoke to it: `sentAt` is when. */
  | { readonly kind: "heard"; readonly client: string; readonly socket: string; readonly sentAt: number }
  | { readonly kind: "lost"; readonly client: string; readonly socket: string; readonly reason: string };

type Observation = DriverEntry | NodeEntry | PersonEntry;
export type Entry = Observation & { readonly at: number };
export type EntryOf<K extends Entry["kind"]> = Extract<Entry, { readonly kind: K }>;

export function ofKind<K extends Entry["kind"]>(entries: readonly Entry[], kind: K): EntryOf<K>[] {
  return entries.filter((entry): entry is EntryOf<K> => entry.kind === kind);
}

export type Write = (observation: Observation) => void;

/** Writes into a file, each entry before the next statement runs: what a process saw before a SIGKILL is there. */
export function historyFile(dir: string, name: string): Write {
  mkdirSync(dir, { recursive: true });
  const path = join(dir, `${name}.jsonl`);
  return (observation) => appendFileSync(path, `${JSON.stringify({ at: now(), ...observation })}\n`);
}

/** Everything that was written into a directory, in order; a line whose end is not there yet, or will never be, was not. */
export function readHistories(dir: string): Entry[] {
  const files = globSync("*.jsonl", { cwd: dir }).map((name) => readFileSync(join(dir, name), "utf8"));
  const entries = files.flatMap((text) => text.split("\n").slice(0, -1)).map((line): Entry => JSON.parse(line));
  return entries.sort((a, b) => a.at - b.at);
}

/** What a token says of itself; nobody has judged it. */
export interface SeenToken {
  readonly jti: string;
  readonly kid: string;
  readonly sid: string;
  readonly sub: string;
  readonly tid?: string | undefined;
  readonly exp: number;
}

export function readToken(token: unknown): SeenToken {
  const { jti = "", sid, sub = "", tid, exp = 0 } = decodeJwt(String(token));
  const { kid = "" } = decodeProtectedHeader(String(token));
  return { jti, kid, sid: String(sid), sub, exp, ...(typeof tid === "string" ? { tid } : {}) };
}

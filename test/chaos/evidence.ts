/**
 * Histories, put in order by what they are about: which revocations were decided and when each was proved enforced, which
 * tokens they cover, and the life of every socket that an app had.
 *
 * Whom a revocation covers follows from nothing but the order of requests and answers. A session that was there before the
 * revocation was asked for is covered; one that was asked for after the answer is not; between the two either may be.
 */
import { type Entry, type EntryOf, ofKind, type Scope } from "./history.ts";

/** How far a time in milliseconds that a receipt names may lie before what it speaks of: rounding, and reading two clocks. */
const ROUNDING_MS = 5;
/** A request whose answer nobody waits for any more may still be carried out, for this long. */
const LATE_REQUEST_MS = 15_000;
/** How far the second in which a session began, as the edge has it, may lie from the true one. */
const BEGINNING_OFF_MS = 6_000;
/** How long a node takes to notice that its clock was set. */
const CLOCK_NOTICED_MS = 1_000;

export interface Decision {
  readonly revocation: string;
  readonly scope: Scope;
  readonly about: string;
  /** When it was first asked for. */
  readonly askedAt: number;
  /** When it was answered 2xx; absent when nobody knows whether it was decided. */
  readonly decidedAt: number | undefined;
  readonly id: string | undefined;
  /** It was decided by then, if ever. */
  readonly settledBy: number;
  /** From here on it must hold everywhere, as the API itself says; absent while it never said so. */
  readonly enforcedFrom: number | undefined;
  /** What its receipt said last. */
  readonly lastState: string | undefined;
}

export interface Session {
  readonly sid: string;
  readonly sub: string;
  readonly tid: string | undefined;
  readonly askedAt: number;
  readonly openedAt: number;
}

/** A token that a socket ran on, or may have. */
interface Showing {
  readonly jti: string;
  readonly askedAt: number;
  /** When the client knew that it counts; absent when it never heard. */
  readonly acceptedAt: number | undefined;
}

/** A socket, from the app's `connection` to its `disconnect`. */
export interface SocketLife {
  readonly id: string;
  readonly node: string;
  readonly boot: string;
  readonly openedAt: number;
  /** When it closed, or its process was gone; infinite while neither was seen. */
  readonly closedAt: number;
  /** In the order in which they were shown: first the one of the handshake. */
  readonly showings: readonly Showing[];
  /** When the app was given packets of it. */
  readonly handled: readonly number[];
  /** When the app said what its client heard. */
  readonly spoken: readonly number[];
}

interface Span {
  readonly from: number;
  readonly to: number;
}

/** One run of a node's process. */
interface Boot {
  readonly node: string;
  readonly cluster: string;
  readonly startedAt: number;
  readonly goneAt: number;
  /** When it was certainly running, in order, none touching the next. */
  readonly awake: readonly Span[];
}

export type Coverage = "yes" | "maybe" | "no";

export class Evidence {
  readonly entries: readonly Entry[];
  readonly decisions: readonly Decision[];
  readonly sockets: readonly SocketLife[];
  readonly sessions: ReadonlyMap<string, Session>;
  readonly tokens: ReadonlyMap<string, EntryOf<"token">>;
  readonly boots: ReadonlyMap<string, Boot>;

  /** @param entries of all histories, in order */
  constructor(entries: readonly Entry[]) {
    this.entries = entries;
    this.tokens = new Map(ofKind(entries, "token").map((token) => [token.jti, token]));
    this.sessions = new Map(
      ofKind(entries, "session").map(({ sid, sub, tid, askedAt, at }) => [
        sid,
        { sid, sub, tid, askedAt, openedAt: at },
      ]),
    );
    this.boots = bootsOf(entries);
    this.decisions = decisionsOf(entries);
    this.sockets = socketsOf(entries, this.boots);
  }

  /** Whether a decision covers a token. */
  covers(decision: Decision, jti: string): Coverage {
    const { scope } = decision;
    if (scope.kind === "token") return scope.jti === jti ? certainly(decision) : "no";
    const token = this.tokens.get(jti);
    if (token === undefined) return "maybe";
    if (scope.kind === "key") return scope.kid === token.kid ? certainly(decision) : "no";
    return this.coversSession(decision, token.sid);
  }

  /** Whether a decision covers whatever token of a session. */
  coversSession(decision: Decision, sid: string): Coverage {
    const { scope } = decision;
    if (scope.kind === "token" || scope.kind === "key") return "no";
    if (scope.kind === "session") return scope.sid === sid ? certainly(decision) : "no";
    const session = this.sessions.get(sid);
    if (session === undefined) return "maybe";
    if (!isMeant(scope, session) || session.askedAt > decision.settledBy) return "no";
    const begunByMs = (scope.begunBy ?? Number.POSITIVE_INFINITY) * 1000;
    if (session.askedAt - BEGINNING_OFF_MS > begunByMs) return "no";
    const isBefore = session.openedAt < decision.askedAt && session.openedAt + BEGINNING_OFF_MS < begunByMs;
    return isBefore ? certainly(decision) : "maybe";
  }

  /** Whether it covers every token that a socket may be running on. */
  coversSocket(decision: Decision, socket: SocketLife, at: number): boolean {
    return tokensAt(socket, at).every((jti) => this.covers(decision, jti) === "yes");
  }

  /** When the last token that a socket may be running on ends, milliseconds since the epoch. */
  endOf(socket: SocketLife, at: number): number {
    const ends = tokensAt(socket, at).map((jti) => this.tokens.get(jti)?.exp ?? Number.POSITIVE_INFINITY);
    return Math.max(...ends) * 1000;
  }

  /**
   * By when a process must have acted on something that is due at a time: then, if it was running; if it was stopped then, or until just
   * before, this long after it ran again. Infinite when it never did.
   */
  actsBy(boot: string, dueAt: number, wakingMs: number): number {
    const { awake = [] } = this.boots.get(boot) ?? {};
    const index = awake.findIndex(({ to }) => to >= dueAt);
    const span = awake[index];
    if (span === undefined) return Number.POSITIVE_INFINITY;
    // With its first span it began, and had nothing to act on.
    return index === 0 && span.from <= dueAt ? dueAt : Math.max(dueAt, span.from + wakingMs);
  }
}

/**
 * The tokens that a socket may be running on: the last that counts for certain, and those shown since. Before it opened, the one that
 * opened it: a word to all sockets of a person may be older than the socket that hears it.
 */
export function tokensAt({ showings, openedAt }: SocketLife, time: number): string[] {
  const at = Math.max(time, openedAt);
  const last = showings.findLastIndex(({ acceptedAt }) => acceptedAt !== undefined && acceptedAt <= at);
  return showings
    .filter(({ askedAt }, index) => index === last || (index > last && askedAt <= at))
    .map(({ jti }) => jti);
}

function certainly({ decidedAt }: Decision): Coverage {
  return decidedAt === undefined ? "maybe" : "yes";
}

function isMeant(
  scope: Extract<Scope, { kind: "users" | "tenant" | "everyone" }>,
  { sid, sub, tid }: Session,
): boolean {
  if (scope.kind === "users") return scope.subs.includes(sub) && scope.except !== sid;
  return scope.kind === "everyone" || scope.tid === tid;
}

function decisionsOf(entries: readonly Entry[]): Decision[] {
  const asked = grouped(ofKind(entries, "asked"), ({ revocation }) => revocation);
  const decided = byRevocation(ofKind(entries, "decided"));
  const declined = byRevocation(ofKind(entries, "declined"));
  const abandoned = byRevocation(ofKind(entries, "abandoned"));
  const receipts = grouped(ofKind(entries, "receipt"), ({ revocation }) => revocation);
  const settledAt = ofKind(entries, "settled")[0]?.at;
  return [...asked].flatMap(([revocation, [first, ...again]]) => {
    const answer = decided.get(revocation);
    // Declined when asked again says nothing of the first time, whose answer was lost.
    if (first === undefined || (declined.has(revocation) && again.length === 0)) return [];
    const given = abandoned.get(revocation) ?? declined.get(revocation);
    const said = receipts.get(revocation) ?? [];
    const answered = answer?.id.startsWith("blk_") ? lastOfAll(said) : answer?.at;
    return {
      ...{ revocation, scope: first.scope, about: first.about, askedAt: first.at },
      ...{ decidedAt: answer?.at, id: answer?.id },
      settledBy: answered ?? (given === undefined ? Number.POSITIVE_INFINITY : given.at + LATE_REQUEST_MS),
      enforcedFrom: hasReceipt(answer?.id) ? enforcedFrom(said, first.at, entries) : answer && settledAt,
      lastState: said.at(-1)?.state,
    };
  });
}

/** When the last user of a bulk revocation had been revoked: each is when it is their turn. */
function lastOfAll(said: readonly EntryOf<"receipt">[]): number {
  return said.find(({ state }) => state !== "pending")?.at ?? Number.POSITIVE_INFINITY;
}

/** Whether it can be asked when each node has closed its sockets. Of the others it is known that they hold when all is settled. */
function hasReceipt(id: string | undefined): boolean {
  return /^(rev|blk)_/.test(id ?? "");
}

/** When a receipt said so, or the time that it named if that is earlier: an operator may act on either. */
function enforcedFrom(
  said: readonly EntryOf<"receipt">[],
  askedAt: number,
  entries: readonly Entry[],
): number | undefined {
  const first = said.find(({ enforced }) => enforced);
  if (first === undefined) return undefined;
  if (first.enforcedAt === undefined) return first.at;
  // A node whose clock is off says when it closed its sockets by that clock.
  const off = largestOffset(entries, askedAt, first.at);
  return Math.max(askedAt, Math.min(first.at, first.enforcedAt + ROUNDING_MS + off));
}

function largestOffset(entries: readonly Entry[], from: number, to: number): number {
  let largest = 0;
  for (const clocks of grouped(ofKind(entries, "clock"), ({ node }) => node).values()) {
    clocks.forEach(({ at, offMs }, index) => {
      const until = (clocks[index + 1]?.at ?? Number.POSITIVE_INFINITY) + CLOCK_NOTICED_MS;
      if (at <= to && until >= from) largest = Math.max(largest, Math.abs(offMs));
    });
  }
  return largest;
}

function bootsOf(entries: readonly Entry[]): Map<string, Boot> {
  const downs = ofKind(entries, "down");
  const awake = grouped(ofKind(entries, "awake"), ({ boot }) => boot);
  return new Map(
    ofKind(entries, "started").map(({ node, cluster, boot, at: startedAt }) => {
      const gone = downs.find(({ part, at }) => part === node && at > startedAt);
      const spans = (awake.get(boot) ?? []).map(({ from, until }) => ({ from, to: until }));
      return [boot, { node, cluster, startedAt, goneAt: gone?.at ?? Number.POSITIVE_INFINITY, awake: joined(spans) }];
    }),
  );
}

function joined(spans: readonly Span[]): Span[] {
  const whole: Span[] = [];
  for (const span of spans) {
    const last = whole.at(-1);
    if (last?.to === span.from) whole.splice(-1, 1, { from: last.from, to: span.to });
    else whole.push(span);
  }
  return whole;
}

function socketsOf(entries: readonly Entry[], boots: ReadonlyMap<string, Boot>): SocketLife[] {
  const closed = new Map(ofKind(entries, "disconnected").map(({ socket, at }) => [socket, at]));
  const handled = timesBySocket(ofKind(entries, "handled"), ({ at }) => at);
  const spoken = timesBySocket(ofKind(entries, "heard"), ({ sentAt }) => sentAt);
  const shown = grouped(ofKind(entries, "renewing"), ({ socket }) => socket);
  const renewed = new Map(ofKind(entries, "renewed").map((entry) => [`${entry.socket} ${entry.jti}`, entry.at]));
  return ofKind(entries, "connected").map(({ socket, node, boot, jti, at }) => ({
    ...{ id: socket, node, boot, openedAt: at },
    closedAt: closed.get(socket) ?? boots.get(boot)?.goneAt ?? Number.POSITIVE_INFINITY,
    showings: [
      { jti, askedAt: at, acceptedAt: at },
      ...(shown.get(socket) ?? []).map((showing) => ({
        jti: showing.jti,
        askedAt: showing.at,
        acceptedAt: renewed.get(`${socket} ${showing.jti}`),
      })),
    ],
    handled: handled.get(socket) ?? [],
    spoken: spoken.get(socket) ?? [],
  }));
}

function timesBySocket<T extends { readonly socket: string }>(
  entries: readonly T[],
  timeOf: (entry: T) => number,
): Map<string, number[]> {
  return new Map([...grouped(entries, ({ socket }) => socket)].map(([socket, all]) => [socket, all.map(timeOf)]));
}

function grouped<T>(items: readonly T[], keyOf: (item: T) => string): Map<string, T[]> {
  const groups = new Map<string, T[]>();
  for (const item of items) {
    const group = groups.get(keyOf(item));
    if (group === undefined) groups.set(keyOf(item), [item]);
    else group.push(item);
  }
  return groups;
}

function byRevocation<T extends { readonly revocation: string }>(entries: readonly T[]): Map<string, T> {
  return new Map(entries.map((entry) => [entry.revocation, entry]));
}

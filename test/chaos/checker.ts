/**
 * Reads histories afterwards and says where a promise of design.md was broken. It is a pure function, and it knows nothing of how
 * Keycard works: only who asked what when, what was answered, and what the app and the clients saw of their sockets.
 *
 * What a promise means for a process that was stopped for a while: such a process can neither take a packet nor say a word, so
 * its sockets count as open only from when it runs again. From then on no packet of a covered socket may reach the app and no
 * word of the app may go to it, not one; and it must be closed within WAKING_MS, because the timers of a process that wakes
 * run in the order in which they were due. A process that was running has no such grace.
 */
import { type Decision, Evidence, type SocketLife, tokensAt } from "./evidence.ts";
import { type Entry, type EntryOf, ofKind } from "./history.ts";

/** Which promise, as design.md numbers them; "recovery" is what must be true of the end of any run. */
export type Promised = 1 | 2 | 3 | 4 | "recovery";

export interface Violation {
  readonly promise: Promised;
  readonly at: number;
  /** One sentence. */
  readonly what: string;
  /** What led to it, in order. */
  readonly timeline: readonly Entry[];
}

/** How often each promise could have been broken: a run in which nothing was at stake proves nothing. */
export interface Stakes {
  /** Revocations that were answered 2xx. */
  readonly revocations: number;
  /** Sockets that were open on a covered token while it was being enforced. */
  readonly coveredSockets: number;
  /** All others. */
  readonly innocentSockets: number;
  /** Sockets that were closed when their token ended. */
  readonly expiredSockets: number;
  /** Handshakes refused with the code of a revocation. */
  readonly refused: number;
}

export interface Verdict {
  /** The first of them, in order. */
  readonly violations: readonly Violation[];
  /** How many there are of each promise. */
  readonly broken: Readonly<Partial<Record<Promised, number>>>;
  readonly stakes: Stakes;
}

export interface Terms {
  /** How far the clocks of nodes may be off, as the nodes are told. */
  readonly skewSeconds: number;
}

/** What a process that was stopped needs to look at the time, and at what is overdue. */
const WAKING_MS = 1_000;
/** Ends are looked for once a second, and a connection is given a second to hear of its end before it is cut. */
const CLOSING_MS = 2_500;
const REVOCATION_CODES: readonly string[] = ["token_revoked", "session_revoked", "refresh_reused"];
/** A socket that closes this near to its token's end is one that was closed for it. */
const AROUND_EXPIRY_MS = 2_000;
/** The reason that Socket.IO gives a client which the server sent away. */
const SENT_AWAY = "io server disconnect";

/** Violations that are told with all that led to them; one is mended at a time. */
const MAX_TOLD = 20;

/** @param entries of all histories of one run */
export function check(entries: readonly Entry[], terms: Terms): Verdict {
  const evidence = new Evidence(entries.toSorted((a, b) => a.at - b.at));
  const findings = [
    ...evidence.decisions.flatMap((decision) => [...keptEnforced(evidence, decision), ...lost(evidence, decision)]),
    ...harmedInnocents(evidence),
    ...evidence.sockets.flatMap((socket) => outlived(evidence, socket, terms)),
    ...unrecovered(evidence),
  ].sort((a, b) => a.at - b.at);
  const told = findings.slice(0, MAX_TOLD).map(({ promise, at, what, ...concerned }) => {
    return { promise, at, what, timeline: timelineOf(evidence, at, concerned) };
  });
  return { violations: told, broken: countedByPromise(findings), stakes: stakesOf(evidence) };
}

function countedByPromise(findings: readonly Finding[]): Verdict["broken"] {
  const counts: Partial<Record<Promised, number>> = {};
  for (const { promise } of findings) counts[promise] = (counts[promise] ?? 0) + 1;
  return counts;
}

/** A violation, and what it is about. */
interface Finding {
  readonly promise: Promised;
  readonly at: number;
  readonly what: string;
  readonly decision?: Decision | undefined;
  readonly socket?: SocketLife | undefined;
}

/** Promise 1, and of promise 2 that what was enforced stays so. */
function keptEnforced(evidence: Evidence, decision: Decision): Finding[] {
  const { enforcedFrom } = decision;
  if (enforcedFrom === undefined) return [];
  const covered = evidence.sockets.filter(({ showings }) =>
    showings.some(({ jti }) => evidence.covers(decision, jti) === "yes"),
  );
  const found = covered.flatMap((socket) => [
    ...accepted(evidence, decision, socket, enforcedFrom),
    ...stillOpen(evidence, decision, socket, enforcedFrom),
    ...stillSpeaking(evidence, decision, socket, enforcedFrom),
  ]);
  return [...found, ...acceptedByItsClient(evidence, decision, enforcedFrom)];
}

/** A covered token let somebody in. */
function accepted(evidence: Evidence, decision: Decision, socket: SocketLife, from: number): Finding[] {
  const { id, node, openedAt, showings } = socket;
  const jti = showings[0]?.jti ?? "";
  if (openedAt <= from || evidence.covers(decision, jti) !== "yes") return [];
  const what = `${node} let socket ${id} in with token ${jti}, ${ms(openedAt - from)} after ${decision.about} was enforced`;
  const loss = lossSince(evidence, socket, from);
  if (loss === undefined) return [{ promise: 1, at: openedAt, what, decision, socket }];
  return [{ promise: 2, at: openedAt, what: `${what}: it was forgotten, for ${loss}`, decision, socket }];
}

/** Why a node may have lost a revocation that had been enforced there. */
function lossSince(evidence: Evidence, { boot, node, openedAt }: SocketLife, from: number): string | undefined {
  const { startedAt = 0, cluster = "" } = evidence.boots.get(boot) ?? {};
  if (startedAt > from) return `${node} has been started again since`;
  const isLoss = (each: { cluster: string; at: number }) =>
    each.cluster === cluster && each.at > from && each.at < openedAt;
  return ofKind(evidence.entries, "forgot").some(isLoss) ? `the Redis of ${cluster} has lost data since` : undefined;
}

function stillOpen(evidence: Evidence, decision: Decision, socket: SocketLife, from: number): Finding[] {
  const { id, node, openedAt, closedAt } = socket;
  if (openedAt > from || closedAt <= from) return [];
  const deadline = evidence.actsBy(socket.boot, from, WAKING_MS);
  if (closedAt <= deadline || !evidence.coversSocket(decision, socket, deadline)) return [];
  const howLong = Number.isFinite(closedAt) ? `was open for another ${ms(closedAt - from)}` : "was never closed";
  const what = `socket ${id} on ${node} ${howLong} when ${decision.about} was said to be enforced`;
  return [{ promise: 1, at: deadline, what, decision, socket }];
}

function stillSpeaking(evidence: Evidence, decision: Decision, socket: SocketLife, from: number): Finding[] {
  const { id, node, openedAt, handled, spoken } = socket;
  // Of a socket that should never have been let in that is told already.
  if (openedAt > from) return [];
  const isLate = (at: number) => at > from && evidence.coversSocket(decision, socket, at);
  const found = (at: number | undefined, what: string): Finding[] => {
    if (at === undefined) return [];
    return [
      { promise: 1, at, what: `${what} ${ms(at - from)} after ${decision.about} was enforced`, decision, socket },
    ];
  };
  return [
    ...found(handled.find(isLate), `the app on ${node} was given a packet of ${id}`),
    ...found(spoken.find(isLate), `${id} was told something by the app on ${node}`),
  ];
}

/** What the clients themselves say of being let in and of renewing, should a node's own history lack it. */
function acceptedByItsClient(evidence: Evidence, decision: Decision, from: number): Finding[] {
  const known = new Map(evidence.sockets.map((socket) => [socket.id, socket]));
  const opened = ofKind(evidence.entries, "opened").filter(({ socket }) => !known.has(socket));
  return [...opened, ...ofKind(evidence.entries, "renewed")]
    .filter(({ askedAt, jti }) => askedAt > from && evidence.covers(decision, jti) === "yes")
    .map(({ at, jti, socket, kind }) => {
      const what = `socket ${socket} was ${kind} with token ${jti} after ${decision.about} was enforced`;
      return { promise: 1, at, what, decision, socket: known.get(socket) };
    });
}

/** Promise 2: a run that ends with everything mended ends with everything enforced. */
function lost({ entries }: Evidence, decision: Decision): Finding[] {
  const { about, id = "", enforcedFrom, lastState = "was never read" } = decision;
  const end = entries.find(({ kind }) => kind === "settled" || kind === "overdue");
  const isLost = /^(rev|blk)_/.test(id) && enforcedFrom === undefined;
  if (end === undefined || !isLost) return [];
  const what = `${about} was answered 2xx and is not enforced although all is mended: its receipt says ${lastState}`;
  return [{ promise: 2, at: end.at, what, decision }];
}

/** Promise 3. */
function harmedInnocents(evidence: Evidence): Finding[] {
  const { entries } = evidence;
  return [
    ...ofKind(entries, "told").flatMap((entry) => toldWrongly(evidence, entry)),
    ...ofKind(entries, "ended").flatMap((entry) => endedWrongly(evidence, entry)),
    ...sentAwayInSilence(evidence),
  ];
}

function toldWrongly(evidence: Evidence, { at, client, node, code, jti, ...entry }: EntryOf<"told">): Finding[] {
  if (!REVOCATION_CODES.includes(code)) return [];
  const socket = evidence.sockets.find(({ id }) => id === entry.socket);
  const jtis = [jti, ...(socket?.showings ?? []).map((showing) => showing.jti)];
  const isRevoked = evidence.decisions.some(
    (each) => each.askedAt <= at && jtis.some((shown) => evidence.covers(each, shown) !== "no"),
  );
  if (isRevoked) return [];
  return [{ promise: 3, at, what: `${client} was told ${code} by ${node}, and nobody had revoked it`, socket }];
}

function endedWrongly(evidence: Evidence, { at, client, sid, code }: EntryOf<"ended">): Finding[] {
  const isOver = evidence.decisions.some((each) => each.askedAt <= at && evidence.coversSession(each, sid) !== "no");
  if (!REVOCATION_CODES.includes(code) || isOver) return [];
  return [{ promise: 3, at, what: `the edge told ${client} ${code}, and nobody had revoked session ${sid}` }];
}

function sentAwayInSilence(evidence: Evidence): Finding[] {
  const told = new Set(ofKind(evidence.entries, "told").map(({ socket }) => socket));
  return ofKind(evidence.entries, "lost")
    .filter(({ reason, socket }) => reason === SENT_AWAY && !told.has(socket))
    .map(({ at, client, socket: id }) => {
      const socket = evidence.sockets.find((each) => each.id === id);
      return { promise: 3, at, what: `${client} was sent away from ${socket?.node} without a word`, socket };
    });
}

/** Promise 4. */
function outlived(evidence: Evidence, socket: SocketLife, { skewSeconds }: Terms): Finding[] {
  const { id, node, openedAt, closedAt, handled, spoken } = socket;
  const isOver = (at: number) => at > evidence.endOf(socket, at) + skewSeconds * 1000;
  const found = (at: number, what: string): Finding[] => {
    const late = ms(at - evidence.endOf(socket, at));
    return [{ promise: 4, at, what: `${what} ${late} after the end of its token`, socket }];
  };
  if (isOver(openedAt)) return found(openedAt, `${node} let socket ${id} in`);
  const given = handled.find(isOver);
  if (given !== undefined) return found(given, `the app on ${node} was given a packet of ${id}`);
  const said = spoken.find(isOver);
  if (said !== undefined) return found(said, `${id} was told something by the app on ${node}`);
  const due = evidence.endOf(socket, closedAt) + skewSeconds * 1000;
  const deadline = evidence.actsBy(socket.boot, due, WAKING_MS) + CLOSING_MS;
  const seenUntil = Math.min(closedAt, evidence.boots.get(socket.boot)?.awake.at(-1)?.to ?? 0);
  return seenUntil > deadline ? found(seenUntil, `socket ${id} on ${node} was open`) : [];
}

/** What must be true of the end of any run: everybody is there again who may be, and nothing died that nobody killed. */
function unrecovered({ entries }: Evidence): Finding[] {
  const deaths = ofKind(entries, "down").filter(({ expected }) => !expected);
  return [
    ...deaths.map(({ at, part }) => ({ at, what: `${part} died, and nobody had killed it` })),
    ...ofKind(entries, "missing").map(({ at, what }) => ({ at, what: `all is mended, and still missing: ${what}` })),
  ].map((found) => ({ promise: "recovery", ...found }));
}

function stakesOf(evidence: Evidence): Stakes {
  const { decisions, sockets, entries } = evidence;
  const isCovered = (socket: SocketLife) =>
    decisions.some(
      (decision) =>
        socket.openedAt < (decision.enforcedFrom ?? Number.POSITIVE_INFINITY) &&
        socket.closedAt > decision.askedAt &&
        evidence.coversSocket(decision, socket, Math.max(decision.askedAt, socket.openedAt)),
    );
  const covered = sockets.filter(isCovered).length;
  const isExpired = (socket: SocketLife) =>
    Math.abs(socket.closedAt - evidence.endOf(socket, socket.closedAt)) < AROUND_EXPIRY_MS;
  const refusals = ofKind(entries, "told").filter(({ socket }) => socket === undefined);
  return {
    revocations: decisions.filter(({ decidedAt }) => decidedAt !== undefined).length,
    coveredSockets: covered,
    innocentSockets: sockets.length - covered,
    expiredSockets: sockets.filter(isExpired).length,
    refused: refusals.filter(({ code }) => REVOCATION_CODES.includes(code)).length,
  };
}

/** Milliseconds before a socket opened or a revocation was asked for from which on faults are told. */
const PRELUDE_MS = 3_000;

/** What concerns the revocation and the socket, and what was broken around it at the time. */
function timelineOf(
  evidence: Evidence,
  at: number,
  { decision, socket }: Pick<Finding, "decision" | "socket">,
): Entry[] {
  const boot = socket && evidence.boots.get(socket.boot);
  const begins = Math.min(socket?.openedAt ?? at, decision?.askedAt ?? at) - PRELUDE_MS;
  const places = boot === undefined ? undefined : [boot.node, boot.cluster, "edge"];
  const isNear = (place: string) =>
    places === undefined || places.some((each) => place === each || place.startsWith(`${each}:`));
  const lastHandled = socket?.handled.findLast((each) => each <= at);
  return evidence.entries.filter((entry) => {
    if ("revocation" in entry) return entry.revocation === decision?.revocation && isTelling(entry, evidence);
    if ("on" in entry) return entry.at >= begins && entry.at <= at && isNear(entry.on);
    if ("part" in entry) return entry.at >= begins && entry.at <= at && isNear(entry.part);
    if (entry.kind === "started") return entry.at >= begins && entry.at <= at && isNear(entry.node);
    if (entry.kind === "handled") return entry.socket === socket?.id && entry.at === lastHandled;
    if (entry.kind === "heard" || socket === undefined) return false;
    if (entry.kind === "token") return tokensAt(socket, at).includes(entry.jti);
    return "socket" in entry && entry.socket === socket.id;
  });
}

/** Of the many receipts that were read the first, and each that says something else than the one before. */
function isTelling(entry: Entry, { entries }: Evidence): boolean {
  if (entry.kind !== "receipt") return true;
  const before = ofKind(entries, "receipt").findLast(
    ({ revocation, at }) => revocation === entry.revocation && at < entry.at,
  );
  return before?.state !== entry.state;
}

function ms(duration: number): string {
  return duration < 10_000 ? `${Math.round(duration)} ms` : `${(duration / 1000).toFixed(1)} s`;
}

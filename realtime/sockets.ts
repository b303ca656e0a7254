/**
 * Sockets that were let in, which transport carries whom, and how they are silenced and closed: by the node that
 * holds them, never through the Socket.IO adapter, which does not reach its own sockets while Redis is away.
 */
import { setImmediate as nextTurn } from "node:timers/promises";
import type { DefaultEventsMap, Socket } from "socket.io";
import type { VerifiedClaims } from "#contract/access-token";
import { type RefusalCode, unauthorizedErrorData } from "#contract/refusal";

/** What claims must have, all of it. */
export interface Demand {
  /** Scopes, every one of them. */
  readonly scope?: string | readonly string[] | undefined;
  /** Tenants, one of them. */
  readonly tenant?: string | readonly string[] | undefined;
}

/** What `protect` puts on `socket.data`. */
export interface SessionData {
  /** The verified claims of the token that let the socket in. */
  session: VerifiedClaims;
  /** Rooms that its scope or tenant let it into, and what they demand. */
  rooms?: Record<string, Demand>;
}

export type ProtectedSocket = Socket<DefaultEventsMap, DefaultEventsMap, DefaultEventsMap, SessionData>;

/** A socket that was let in, and whether it still may speak. */
export interface Admission {
  readonly socket: ProtectedSocket;
  /** Of the token that let it in, or of the one that renewed it since. */
  claims: VerifiedClaims;
  /** How long it may stay when the node is fenced, milliseconds. */
  readonly keepMs: number;
  /** When it is told that its token ends, or is to be closed because it has: seconds since the epoch. */
  dueAt: number;
  /** Set the moment it is revoked or expired: from then on no packet of it passes, whether or not it is closed yet. */
  ended: RefusalCode | undefined;
}

/** The loop is given back after this long, so that closing thousands does not stall those that stay. */
const CLOSE_SLICE_MS = 5;
/** Connections whose answer is heard in one turn. */
const HEARD_AT_ONCE = 50;
/** Sockets that one node sends away and that may come back in one second. */
const RETURNS_PER_SECOND = 100;
const LONGEST_DELAY_SECONDS = 120;
/** A transport that does not drain is cut off after this long. */
const DRAIN_LIMIT_MS = 1_000;
/** The same when nobody's rights are at stake: whoever polls over a slow line is to hear what was said until the end, and why it is the end. */
const FAREWELL_LIMIT_MS = 3_000;

/**
 * Ends sockets for good: each is told why and disconnected, so that a stock client does not come back by itself.
 *
 * @returns how many were closed
 */
export function disconnectAll(admissions: ReadonlySet<Admission>, code: RefusalCode): Promise<number> {
  return endAll(admissions, code, disconnect);
}

/** Ends one socket for good. Another namespace on the same transport may belong to somebody else, who stays. */
export function disconnect(socket: ProtectedSocket, code: RefusalCode, retryAfterSeconds?: number): void {
  atOnce(socket, () => {
    try {
      inOneFlush(socket, () => {
        tell(socket, code, retryAfterSeconds);
        withLastWord(socket, () => socket.disconnect());
      });
    } finally {
      // Whatever the app's own listeners do.
      if (admittedOn(socket.conn).length === 0) closeTransport(socket);
    }
  });
}

/** Ends sockets by closing their transport, so that a stock client comes back by itself, with a fresh token. */
export function closeForRefresh(admissions: ReadonlySet<Admission>, code: RefusalCode): Promise<number> {
  return endAll(admissions, code, (socket, _code, retryAfterSeconds) => {
    tell(socket, code, retryAfterSeconds);
    closeTransport(socket);
  });
}

/**
 * Sends sockets elsewhere because the node stops; until its turn comes each goes on. Resolves when they have heard all that was said to them, or
 * do not listen.
 */
export async function sayFarewell(admissions: ReadonlySet<Admission>): Promise<void> {
  const heard = [...admissions].filter(({ socket }) => socket.connected).map(gone);
  const open = [...admissions].filter(({ ended }) => ended === undefined);
  await inSlices(open, (admission) => {
    admission.ended = "unavailable";
    tell(admission.socket, "unavailable", jitteredDelay(open.length));
    closeTransport(admission.socket, FAREWELL_LIMIT_MS);
  });
  await Promise.all(heard);
}

/** Closes a transport on which nobody is let in, so that a stock client tries again, elsewhere. */
export function sendAway(conn: ProtectedSocket["conn"]): void {
  closeTransport({ conn });
}

/** All are silenced at once; closing them yields to the loop. Resolves when none of them is open, whoever closed it. */
async function endAll(
  admissions: ReadonlySet<Admission>,
  code: RefusalCode,
  end: (socket: ProtectedSocket, code: RefusalCode, retryAfterSeconds?: number) => void,
): Promise<number> {
  const open = [...admissions].filter((admission) => admission.ended === undefined);
  // Somebody else is at it, and may not be done yet.
  const ending = [...admissions].filter(({ ended, socket }) => ended !== undefined && socket.connected).map(gone);
  for (const admission of open) admission.ended = code;
  await inSlices(open, ({ socket }) => end(socket, code, jitteredDelay(open.length)));
  await Promise.all(ending);
  return open.length;
}

/**
 * Gives the loop back between slices, so that those who stay are not stalled. What those answer who were told is heard when all are told: to take
 * down a connection costs as much as to tell the next one, who is in until then.
 */
async function inSlices(admissions: readonly Admission[], end: (admission: Admission) => void): Promise<void> {
  const told: Line[] = [];
  let paused = 0;
  let sliceStart = performance.now();
  for (const admission of admissions) {
    const line = lineOf(admission.socket.conn);
    try {
      end(admission);
    } catch (error) {
      // A listener of the app's threw; everybody else has to go all the same.
      process.emitWarning(error instanceof Error ? error : String(error));
    }
    if (line !== undefined) told.push(line);
    if (performance.now() - sliceStart > CLOSE_SLICE_MS) {
      for (; paused < told.length; paused++) told[paused]?.pause?.();
      await nextTurn();
      sliceStart = performance.now();
    }
  }
  void hear(told.slice(0, paused));
}

async function hear(paused: readonly Line[]): Promise<void> {
  for (let from = 0; from < paused.length; from += HEARD_AT_ONCE) {
    await nextTurn();
    for (const line of paused.slice(from, from + HEARD_AT_ONCE)) line.resume?.();
  }
}

function gone({ socket }: Admission): Promise<void> {
  return new Promise((resolve) => void socket.once("disconnect", () => resolve()));
}

/** When to come back, for each of many who were sent away together: so that they do not come back together. Seconds. */
function jitteredDelay(many: number): number | undefined {
  const spread = many / RETURNS_PER_SECOND;
  return spread < 1 ? undefined : Math.ceil(Math.random() * Math.min(spread, LONGEST_DELAY_SECONDS));
}

function tell(socket: ProtectedSocket, code: RefusalCode, retryAfterSeconds?: number): void {
  const data = unauthorizedErrorData({ code, retryAfterSeconds });
  withLastWord(socket, () => socket.emit("unauthorized", { message: data.message, data }));
}

/** Transports that may be written to although they are silenced. */
const lastWords = new WeakSet<ProtectedSocket["conn"]>();

/** Says something to a socket that may not stay: why. */
export function withLastWord({ conn }: ProtectedSocket, speak: () => unknown): void {
  lastWords.add(conn);
  try {
    speak();
  } finally {
    lastWords.delete(conn);
  }
}

const silenceable = new WeakSet<ProtectedSocket["conn"]>();

/**
 * Lets nothing out to the sockets of a transport that may not stay, from that very moment on. A process that was asleep runs the app's timers
 * before it comes to closing anybody.
 *
 * @returns does so for a transport; all of them share one function
 */
export function silencer(mayNotStay: (socket: ProtectedSocket) => boolean): (conn: ProtectedSocket["conn"]) => void {
  /** Those whose last packet was not let out, nor are attachments that belong to it. */
  const held = new WeakSet<ProtectedSocket["conn"]>();
  /** What somebody had put in the place of Engine.IO's own. */
  const before = new WeakMap<ProtectedSocket["conn"], ProtectedSocket["conn"]["write"]>();
  function write(this: ProtectedSocket["conn"], ...args: Parameters<ProtectedSocket["conn"]["write"]>) {
    const silenced = lastWords.has(this) ? undefined : namesOf(this, mayNotStay);
    if (silenced === undefined) held.delete(this);
    // Another namespace on the same transport may belong to somebody else, who is still told everything.
    else if (typeof args[0] === "string" && !silenced.has(namespaceOf(args[0]))) held.delete(this);
    else if (typeof args[0] === "string") held.add(this);
    if (held.has(this)) return this;
    return (before.get(this) ?? Object.getPrototypeOf(this).write).apply(this, args);
  }
  return (conn) => {
    if (silenceable.has(conn)) return;
    silenceable.add(conn);
    if (Object.hasOwn(conn, "write")) before.set(conn, conn.write);
    conn.write = write;
  };
}

/** The namespaces of such sockets of a transport; undefined when there is none, as for nearly every packet. */
function namesOf(
  conn: ProtectedSocket["conn"],
  which: (socket: ProtectedSocket) => boolean,
): ReadonlySet<string> | undefined {
  let names: Set<string> | undefined;
  for (const socket of admittedOn(conn)) if (which(socket)) names = (names ?? new Set()).add(socket.nsp.name);
  return names;
}

/** Of an encoded packet: `<type><attachments>-<namespace>,…`, where the main one is left out. */
function namespaceOf(packet: string): string {
  return /^\d(?:\d+-)?(\/[^,]*),/.exec(packet)?.[1] ?? "/";
}

/** What is said is handed to the transport together, and not one after the other, each when the one before is out. */
function inOneFlush({ conn }: ProtectedSocket, speak: () => void): void {
  const { transport } = conn;
  if (!transport.writable) {
    speak();
    return;
  }
  transport.writable = false;
  try {
    speak();
  } finally {
    transport.writable = true;
    (conn as unknown as { flush(): void }).flush();
  }
}

/** Everything that goes out over a WebSocket goes by one call of the system: that is most of what it costs to close one. */
function atOnce({ conn }: ProtectedSocket, act: () => void): void {
  const stream = lineOf(conn)?._socket;
  stream?.cork?.();
  try {
    act();
  } finally {
    stream?.uncork?.();
  }
}

/** What a WebSocket transport writes to: it waits for the client's word before it closes the connection. */
function lineOf(conn: ProtectedSocket["conn"]): Line | undefined {
  return (conn.transport as unknown as { socket?: Line }).socket;
}

function closeTransport({ conn }: Pick<ProtectedSocket, "conn">, limitMs = DRAIN_LIMIT_MS): void {
  const line = lineOf(conn);
  conn.close();
  const cut = setTimeout(() => {
    conn.close(true);
    line?.terminate?.();
  }, limitMs);
  (line ?? conn).once("close", () => clearTimeout(cut));
}

interface Line {
  readonly _socket?: { cork?(): void; uncork?(): void } | null;
  terminate?(): void;
  pause?(): void;
  resume?(): void;
  once(event: "close", listener: () => void): void;
}

/** Admitted, still connected sockets of each transport: several namespaces share one. */
const openOn = new WeakMap<ProtectedSocket["conn"], readonly ProtectedSocket[]>();

/** Sockets that were let in over one transport and are still open. */
export function admittedOn(conn: ProtectedSocket["conn"]): readonly ProtectedSocket[] {
  return openOn.get(conn) ?? NONE;
}
const NONE: readonly ProtectedSocket[] = [];

export function trackTransport(socket: ProtectedSocket): void {
  openOn.set(socket.conn, [...admittedOn(socket.conn), socket]);
}

export function untrackTransport(socket: ProtectedSocket): void {
  const left = admittedOn(socket.conn).filter((each) => each !== socket);
  if (left.length > 0) openOn.set(socket.conn, left);
  else openOn.delete(socket.conn);
}

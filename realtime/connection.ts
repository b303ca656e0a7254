/** A connection to Redis that is kept open, and whose outages are told once and not at every attempt. */
import type { Cluster, Redis } from "ioredis";
import { Trouble, type TroubleListener } from "./trouble.ts";

/** As ioredis says it, also when it was told to part with a connection that it was about to make. */
export const CLOSED = "Connection is closed.";

export interface HeldConnection {
  connect(): void;
  /** Greets once more, where it is connected. */
  greet(): void;
  disconnect(): void;
}

interface HoldOptions {
  readonly retryMs: number;
  readonly outage: Outage;
  /** It was made and counts, or it ended or could not be made: each time. */
  onAttempt?(outcome: "made" | "lost"): void;
  /** What to do on each new connection before it counts. */
  greet(): Promise<void>;
}

/** Keeps a connection open for as long as it is wanted. */
export function holdConnection(redis: Redis, { retryMs, outage, onAttempt, greet }: HoldOptions): HeldConnection {
  const giveUp = keepTrying(redis, retryMs);
  async function meet(): Promise<void> {
    try {
      await greet();
      onAttempt?.("made");
      outage.end(redis);
    } catch (error) {
      if (redis.status !== "ready") return; // told by "close"
      outage.begin(redis, error);
      redis.disconnect(true);
    }
  }
  redis.on("ready", () => void meet());
  surviveErrors(redis);
  redis.on("error", (error) => outage.begin(redis, error));
  redis.on("close", () => {
    onAttempt?.("lost");
    outage.begin(redis);
  });
  return {
    greet: () => void meet(),
    connect() {
      outage.expect(redis);
      redis.connect().catch(() => undefined); // told by "error", retried
    },
    disconnect() {
      outage.forget();
      giveUp();
    },
  };
}

/**
 * ioredis listens for the first error of a stream and no more; TLS may have a second one to tell, which nobody listens for then and which
 * ends the process.
 */
export function surviveErrors(redis: Redis | Cluster): void {
  redis.on("error", () => {
    const { stream } = redis as unknown as { readonly stream?: NodeJS.EventEmitter | undefined };
    stream?.on("error", () => undefined); // it is the same failure
  });
}

/**
 * ioredis ends a connection for good when it is told to part with one in the moment of looking for the master, which is
 * what it tells itself when sentinels announce another.
 *
 * @returns disconnects, for good
 */
export function keepTrying(redis: Redis, retryMs: number): () => void {
  let timer: NodeJS.Timeout | undefined;
  const again = () => {
    timer = setTimeout(() => redis.connect().catch(() => undefined), retryMs); // told by "error", retried
  };
  redis.on("end", again);
  return () => {
    clearTimeout(timer);
    redis.off("end", again);
    redis.disconnect();
  };
}

export interface Outage {
  /** It is about to be connected: until then nothing is back. */
  expect(connection: Redis): void;
  begin(connection: Redis, error?: unknown): void;
  end(connection: Redis): void;
  /** Nobody wants to hear more of it. */
  forget(): void;
}

/** How long a connection that ended without a word is given to say why, by its next attempt. */
const REASON_WITHIN_MS = 1_000;

/**
 * One outage, whichever of the connections it breaks and however often they try.
 *
 * @param why finds a better reason than the one that a connection gives; undefined when there is none at all
 */
export function createOutage(listener: TroubleListener, why: (error: unknown) => Promise<unknown>): Outage {
  const words = { begun: "the link to Redis is broken", over: "the link to Redis is back" };
  const trouble = new Trouble(words, listener, why);
  const broken = new Set<Redis>();
  let unexplained: NodeJS.Timeout | undefined;
  let forgotten = false;

  function fail(error: unknown): void {
    clearTimeout(unexplained);
    unexplained = undefined;
    if (!forgotten) trouble.failed(error);
  }

  return {
    expect: (connection) => void broken.add(connection),
    begin(connection, error) {
      broken.add(connection);
      const isBare = error === undefined || (error instanceof Error && error.message === CLOSED);
      if (!isBare) fail(error);
      // That a connection ended is no news once it is said why.
      else if (!trouble.isTold) unexplained ??= setTimeout(() => fail(new Error(CLOSED)), REASON_WITHIN_MS).unref();
    },
    end(connection) {
      broken.delete(connection);
      if (broken.size > 0) return;
      if (unexplained !== undefined) fail(new Error(CLOSED));
      trouble.over();
    },
    forget() {
      forgotten = true;
      clearTimeout(unexplained);
    },
  };
}

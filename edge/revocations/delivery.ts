/**
 * Brings the log to one receiver, a cluster or an event stream: at least once, many at a time, and with patience. Order does not matter, because what a node
 * makes of events commutes. It never sleeps: when nothing can be done now it says when it wants to be woken, and the
 * log's alarm does that, so that a cluster that is away costs nothing and an eviction loses nothing.
 */
import type { RevocationEvent } from "#contract/revocation";
import type { AuditActor } from "../audit/audit.ts";
import type { Push } from "./cluster.ts";

export const MAX_IN_FLIGHT = 16;
/** When more than these are refused it is not about the events, but about the cluster. */
const MAX_REFUSED = 64;
const FIRST_RETRY_MS = 250;
const LAST_RETRY_MS = 30_000;
/** When pushes are under way, look after them again after this long, should the object have died meanwhile. */
const WATCH_MS = 10_000;

/** Who takes an event to where it belongs. */
export interface Courier {
  /** Of the receiver, in the log's books. */
  readonly id: string;
  /** May throw when the event cannot be signed. */
  deliver(event: LoggedEvent): Promise<Push>;
}

/** An event as the log keeps it. */
export interface LoggedEvent extends RevocationEvent {
  /** The tenant of whoever it is about, where it is about one. */
  readonly tid?: string;
  readonly actor?: AuditActor;
  /** It repeats what was true before: nobody is hit who was not hit already. */
  readonly hitsNobody?: boolean;
}

/** What the pump needs of the log. It is all synchronous: it is SQL. */
export interface DeliveryLog {
  /** Events after `seq` that this receiver has not taken, oldest first. */
  undelivered(receiver: string, seq: number, limit: number): readonly LoggedEvent[];
  delivered(receiver: string, event: LoggedEvent): void;
  failed(receiver: string, event: LoggedEvent, error: string): void;
  /** Everything is delivered: remembers that, so that nobody has to look there again, and says how far it goes. */
  caughtUp(receiver: string): number;
  /** Something changed that the alarm may depend on. */
  changed(): void;
}

export class Delivery {
  readonly #courier: Courier;
  readonly #log: DeliveryLog;
  readonly #inFlight = new Set<number>();
  /** Events that the cluster refused, and when to offer them again, milliseconds. They hold nobody up. */
  readonly #refused = new Map<number, { readonly times: number; readonly retryAt: number }>();
  /** Everything up to here is delivered. */
  #cursor: number;
  /** Pushes in a row that found nobody. */
  #failures = 0;
  #pausedUntil = 0;

  constructor(courier: Courier, log: DeliveryLog, cursor: number) {
    this.#courier = courier;
    this.#log = log;
    this.#cursor = cursor;
  }

  /** Starts what can be started now. */
  kick(): void {
    const now = Date.now();
    if (now < this.#pausedUntil) return;
    // A cluster that was away is asked with one event whether it is back.
    const limit = this.#failures > 0 ? 1 : MAX_IN_FLIGHT;
    for (const event of this.#due(now)) {
      if (this.#inFlight.size >= limit) return;
      this.#inFlight.add(event.seq);
      void this.#push(event);
    }
  }

  /** The receiver has lost what it had taken, this event and perhaps later ones: the log says so. */
  again(seq: number): void {
    this.#cursor = Math.min(this.#cursor, seq - 1);
    this.kick();
  }

  /** Everything up to here is delivered; what comes next is not. */
  get through(): number {
    this.#backlog();
    return this.#cursor;
  }

  /** When to kick again, milliseconds since the epoch; undefined when everything is delivered. */
  wakeAt(): number | undefined {
    const now = Date.now();
    if (this.#inFlight.size > 0) return now + WATCH_MS;
    if (this.#backlog().length === 0) return undefined;
    const retries = [...this.#refused.values()].map(({ retryAt }) => retryAt);
    const due = this.#due(now).length > 0 ? now : Math.min(...retries);
    return Math.max(due, this.#pausedUntil);
  }

  #due(now: number): LoggedEvent[] {
    return this.#backlog().filter(({ seq }) => {
      const refused = this.#refused.get(seq);
      return !this.#inFlight.has(seq) && (refused === undefined || refused.retryAt <= now);
    });
  }

  #backlog(): readonly LoggedEvent[] {
    const limit = MAX_IN_FLIGHT + this.#inFlight.size + this.#refused.size;
    const events = this.#log.undelivered(this.#courier.id, this.#cursor, limit);
    const [first] = events;
    if (first !== undefined) this.#cursor = first.seq - 1;
    return events;
  }

  /** Never rejects: nobody waits for it. */
  async #push(event: LoggedEvent): Promise<void> {
    const error = await this.#attempt(event);
    this.#inFlight.delete(event.seq);
    if (error === undefined) this.#taken(event);
    else this.#log.failed(this.#courier.id, event, error);
    this.kick();
    this.#log.changed();
  }

  /** @returns what went wrong, if anything did */
  async #attempt(event: LoggedEvent): Promise<string | undefined> {
    try {
      const push = await this.#courier.deliver(event);
      if (push.taken) return undefined;
      if (push.reason === "refused" && this.#refused.size < MAX_REFUSED) this.#postpone(event.seq);
      else this.#pause();
      return push.error;
    } catch (error) {
      // The key ring could not be reached, for one. It is no fault of the receiver, but waiting is the cure as well.
      this.#pause();
      return error instanceof Error ? error.message : "the event could not be signed";
    }
  }

  #taken(event: LoggedEvent): void {
    this.#failures = 0;
    this.#pausedUntil = 0;
    this.#refused.delete(event.seq);
    this.#log.delivered(this.#courier.id, event);
    const drained = this.#inFlight.size === 0 && this.#backlog().length === 0;
    if (drained) this.#cursor = this.#log.caughtUp(this.#courier.id);
  }

  #postpone(seq: number): void {
    const times = (this.#refused.get(seq)?.times ?? 0) + 1;
    this.#failures = 0;
    this.#refused.set(seq, { times, retryAt: Date.now() + backoffMs(times) });
  }

  #pause(): void {
    // Sixteen pushes that fail together are one failure.
    if (Date.now() < this.#pausedUntil) return;
    this.#failures++;
    this.#pausedUntil = Date.now() + backoffMs(this.#failures);
  }
}

/** Exponential from 250 ms to 30 s, of which a random half is jitter. */
function backoffMs(failures: number): number {
  const full = Math.min(LAST_RETRY_MS, FIRST_RETRY_MS * 2 ** (failures - 1));
  return full / 2 + (Math.random() * full) / 2;
}

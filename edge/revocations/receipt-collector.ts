/**
 * Collects from one cluster what its nodes did about the events that it has taken: many at a time, one question after the other, and
 * with patience. Like a delivery it never sleeps: it says when it wants to be woken, and the log's alarm does that, so that a cluster
 * that is away costs nothing, delays no other, and an eviction loses nothing.
 */
import { type ClusterReceipt, MAX_RECEIPTS } from "#contract/cluster";
import { logFailure } from "../log.ts";
import type { ReceiptsAnswer } from "./cluster.ts";

/** How long a cluster is asked to wait for its nodes; meanwhile it is asked about nothing else. */
const WAIT_MS = 500;
const FIRST_RETRY_MS = 1_000;
const LAST_RETRY_MS = 30_000;
/** While a question is under way, look after it again after this long, should the object have died meanwhile. */
const WATCH_MS = 10_000;

/** Who asks. */
export interface ReceiptCourier {
  /** Of the cluster. */
  readonly id: string;
  /** May throw when the question cannot be signed. */
  ask(ids: readonly string[], waitMs: number): Promise<ReceiptsAnswer>;
}

/** An event that a cluster is to be asked about. */
export interface AskedEvent {
  readonly seq: number;
  readonly id: string;
  /** The cluster has said nothing about it so far. */
  readonly fresh: boolean;
}

/** What the pump needs of the log. It is all synchronous: it is SQL. */
export interface ReceiptBooks {
  /** What a cluster is to be asked about by `now`, in milliseconds. */
  due(cluster: string, now: number, limit: number): readonly AskedEvent[];
  /** When there is next something to ask it about, milliseconds. */
  nextDue(cluster: string): number | undefined;
  heard(cluster: string, asked: readonly AskedEvent[], receipts: readonly ClusterReceipt[]): void;
  unheard(cluster: string, asked: readonly AskedEvent[], error: string): void;
  /** Something changed that the alarm may depend on, or somebody waits for. */
  changed(): void;
}

export class ReceiptCollector {
  readonly #courier: ReceiptCourier;
  readonly #books: ReceiptBooks;
  #isAsking = false;
  /** Questions in a row that got no answer. */
  #failures = 0;
  #failedAt = 0;
  #pausedUntil = 0;
  /** Until when somebody waits for an answer, milliseconds. */
  #awaitedUntil = 0;
  /** Events in one question: fewer, when an answer was too large. */
  #limit = MAX_RECEIPTS;

  constructor(courier: ReceiptCourier, books: ReceiptBooks) {
    this.#courier = courier;
    this.#books = books;
  }

  /** Asks what can be asked now. */
  kick(): void {
    const now = Date.now();
    if (this.#isAsking || now < this.#pausedUntil) return;
    const due = this.#books.due(this.#courier.id, now, this.#limit);
    if (due.length === 0) return;
    this.#isAsking = true;
    void this.#ask(due, now);
  }

  /** Somebody waits until then, milliseconds: the cluster is given the time to answer, and a pause is a short one. */
  hurry(until: number): void {
    this.#awaitedUntil = Math.max(this.#awaitedUntil, until);
    this.#pausedUntil = Math.min(this.#pausedUntil, this.#failedAt + FIRST_RETRY_MS);
    this.kick();
  }

  /** When to kick again, milliseconds since the epoch; undefined when there is nothing to ask. */
  wakeAt(): number | undefined {
    if (this.#isAsking) return Date.now() + WATCH_MS;
    const due = this.#books.nextDue(this.#courier.id);
    return due === undefined ? undefined : Math.max(due, this.#pausedUntil);
  }

  /** Never rejects: nobody waits for it. */
  async #ask(asked: readonly AskedEvent[], now: number): Promise<void> {
    const isAwaited = now < this.#awaitedUntil || asked.some(({ fresh }) => fresh);
    const answer = await this.#attempt(asked, isAwaited ? WAIT_MS : 0);
    this.#isAsking = false;
    try {
      this.#take(asked, answer);
    } catch (error) {
      this.#pause();
      logFailure("receipts could not be stored", { cluster: this.#courier.id }, error);
    }
    this.kick();
    this.#books.changed();
  }

  async #attempt(asked: readonly AskedEvent[], waitMs: number): Promise<ReceiptsAnswer> {
    try {
      return await this.#courier.ask(
        asked.map(({ id }) => id),
        waitMs,
      );
    } catch (error) {
      return { reason: "later", error: error instanceof Error ? error.message : "the question could not be signed" };
    }
  }

  #take(asked: readonly AskedEvent[], answer: ReceiptsAnswer): void {
    const { id } = this.#courier;
    if ("receipts" in answer) {
      this.#failures = 0;
      this.#limit = Math.min(MAX_RECEIPTS, this.#limit * 2);
      this.#books.heard(id, asked, answer.receipts);
      return;
    }
    const { reason, error } = answer;
    const mayHelp = reason === "too_large" && asked.length > 1;
    if (mayHelp) this.#limit = Math.ceil(asked.length / 2);
    else this.#pause();
    logFailure("a cluster gave no receipts", { cluster: id, asked: asked.length, error });
    this.#books.unheard(id, asked, error);
  }

  #pause(): void {
    this.#failedAt = Date.now();
    this.#pausedUntil = this.#failedAt + Math.min(LAST_RETRY_MS, FIRST_RETRY_MS * 2 ** this.#failures++);
  }
}

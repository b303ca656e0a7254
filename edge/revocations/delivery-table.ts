/** Which receiver, cluster or event stream, has taken which event: the books that the pumps go by. */

import { logFailure } from "../log.ts";
import type { DeliveryLog, LoggedEvent } from "./delivery.ts";
import type { EventTable } from "./event-table.ts";

export class DeliveryTable {
  readonly #sql: SqlStorage;
  readonly #events: EventTable;

  constructor(sql: SqlStorage, events: EventTable) {
    this.#sql = sql;
    this.#events = events;
  }

  /** The books as a pump goes by them. @param changed called when something changed that the alarm may depend on */
  log(changed: () => void): DeliveryLog {
    return {
      undelivered: (receiver, seq, limit) => this.#events.undelivered(receiver, seq, limit),
      delivered: (receiver, { seq }) => this.delivered(receiver, seq),
      failed: (receiver, event, error) => this.#failed(receiver, event, error),
      caughtUp: (receiver) => this.#caughtUp(receiver),
      changed,
    };
  }

  delivered(receiver: string, seq: number): void {
    this.#sql.exec(
      `INSERT INTO deliveries (cluster, seq, delivered_at, attempts) VALUES (?1, ?2, ?3, 1)
       ON CONFLICT DO UPDATE SET delivered_at = ?3, attempts = attempts + 1`,
      receiver,
      seq,
      Date.now(),
    );
  }

  /** Where a cluster stands. A new one is told only what a living token may still meet. */
  cursor(cluster: string): number {
    const [row] = this.#sql.exec<{ seq: number }>("SELECT seq FROM cursors WHERE cluster = ?", cluster).toArray();
    if (row !== undefined) return row.seq;
    const first = this.#events.firstLiving(Date.now());
    const seq = first === undefined ? this.#events.head() : first - 1;
    this.#sql.exec("INSERT INTO cursors (cluster, seq) VALUES (?, ?)", cluster, seq);
    return seq;
  }

  /** How many events of a bulk revocation a cluster has taken. */
  deliveredOf(batch: string, cluster: string): number {
    const query = `SELECT COUNT(*) AS delivered FROM events e JOIN deliveries d ON d.seq = e.seq
      WHERE e.batch = ? AND d.cluster = ? AND d.delivered_at IS NOT NULL`;
    return this.#sql.exec<{ delivered: number }>(query, batch, cluster).toArray()[0]?.delivered ?? 0;
  }

  /** Everything up to here was taken by all of these; undefined when there are none. */
  takenByAll(clusters: readonly string[]): number | undefined {
    const query = "SELECT MIN(seq) AS seq FROM cursors WHERE cluster IN (SELECT value FROM json_each(?))";
    const [row] = this.#sql.exec<{ seq: number | null }>(query, JSON.stringify(clusters)).toArray();
    return row?.seq ?? undefined;
  }

  /** Forgets what is about events that were let go of. `upTo` is the place of the last one, when none is left. */
  forget(upTo: number): void {
    this.#sql.exec("DELETE FROM deliveries WHERE seq < (SELECT COALESCE(MIN(seq), ?) FROM events)", upTo + 1);
  }

  #failed(receiver: string, { id, seq, request }: LoggedEvent, error: string): void {
    logFailure("a receiver did not take an event", { revocation: id, seq, request, receiver, error });
    this.#sql.exec(
      `INSERT INTO deliveries (cluster, seq, attempts, last_error) VALUES (?1, ?2, 1, ?3)
       ON CONFLICT DO UPDATE SET last_error = ?3, attempts = attempts + 1`,
      receiver,
      seq,
      error,
    );
  }

  #caughtUp(receiver: string): number {
    const seq = this.#events.head();
    this.#sql.exec("UPDATE cursors SET seq = ? WHERE cluster = ?", seq, receiver);
    return seq;
  }
}

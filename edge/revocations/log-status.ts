/**
 * How the log stands at this moment, for operators and for a scrape. Every look is along an index and bounded: who asks every few seconds
 * must not hold up the one object that decides for the whole edge. What is counted stops at a bound; ages do not.
 */
import type { EventTable } from "./event-table.ts";

/** Where the log stands with one cluster. Times in milliseconds since the epoch. */
export interface ClusterStanding {
  readonly cluster: string;
  /** Events that it has not taken. */
  readonly undelivered: number;
  /** When the first of them was decided. */
  readonly oldest_undelivered_at?: number;
  readonly last_delivered_at?: number;
  /** Why the first of them was not taken. */
  readonly last_error?: string;
  /** Events whose receipt still waits for this cluster. */
  readonly open_receipts: number;
  /** Nodes that live by the feed. */
  readonly by_feed: readonly string[];
}

export interface LogStatus {
  /** The last number that was given. */
  readonly head: number;
  /** Receipts that are not enforced. */
  readonly open: number;
  /** When the oldest of them was decided. */
  readonly oldest_open_at?: number;
  readonly clusters: readonly ClusterStanding[];
}

/** Events or receipts that one count looks at. */
export const MAX_COUNTED = 10_000;
/** The deliveries of a cluster among which the last one is looked for. */
const RECENT = 100;

export class LogStanding {
  readonly #sql: SqlStorage;
  readonly #events: EventTable;

  constructor(sql: SqlStorage, events: EventTable) {
    this.#sql = sql;
    this.#events = events;
  }

  /** @param through of each cluster, up to where everything is delivered; `now` in milliseconds */
  read(through: ReadonlyMap<string, number>, now: number): LogStatus {
    const oldest = "SELECT decided_at FROM open_receipts WHERE enforced_at IS NULL ORDER BY decided_at LIMIT 1";
    const [open] = this.#rows<{ decided_at: number }>(oldest);
    return {
      head: this.#events.head(),
      open: this.#count(`SELECT 1 FROM open_receipts WHERE enforced_at IS NULL LIMIT ${MAX_COUNTED}`),
      ...(open === undefined ? {} : { oldest_open_at: open.decided_at }),
      clusters: [...through].map(([cluster, seq]) => this.#of(cluster, seq, now)),
    };
  }

  #of(cluster: string, through: number, now: number): ClusterStanding {
    const last = this.#lastDelivery(cluster);
    return {
      cluster,
      ...this.#undelivered(cluster, through),
      ...(last === undefined ? {} : { last_delivered_at: last }),
      open_receipts: this.#count(
        `SELECT d.enforced_at FROM open_receipts o LEFT JOIN deliveries d ON d.cluster = ? AND d.seq = o.seq
         WHERE o.enforced_at IS NULL LIMIT ${MAX_COUNTED}`,
        "enforced_at IS NULL",
        cluster,
      ),
      by_feed: this.#rows<{ node: string }>(
        "SELECT DISTINCT node FROM feed_leases WHERE cluster = ? AND until > ? ORDER BY node",
        ...[cluster, now],
      ).map(({ node }) => node),
    };
  }

  #undelivered(cluster: string, through: number) {
    const query = `SELECT e.seq, e.decided_at, d.delivered_at, d.last_error
      FROM events e LEFT JOIN deliveries d ON d.cluster = ? AND d.seq = e.seq WHERE e.seq > ? ORDER BY e.seq`;
    const [first] = this.#rows<{ decided_at: number; last_error: string | null }>(
      `SELECT * FROM (${query} LIMIT ${MAX_COUNTED}) WHERE delivered_at IS NULL ORDER BY seq LIMIT 1`,
      ...[cluster, through],
    );
    return {
      undelivered: this.#count(`${query} LIMIT ${MAX_COUNTED}`, "delivered_at IS NULL", cluster, through),
      ...(first === undefined ? {} : { oldest_undelivered_at: first.decided_at }),
      ...(first?.last_error == null ? {} : { last_error: first.last_error }),
    };
  }

  #lastDelivery(cluster: string): number | undefined {
    const query = `SELECT MAX(delivered_at) AS at FROM (
      SELECT delivered_at FROM deliveries WHERE cluster = ? ORDER BY seq DESC LIMIT ${RECENT})`;
    return this.#rows<{ at: number | null }>(query, cluster)[0]?.at ?? undefined;
  }

  /** @param looked a query with a bound of its own */
  #count(looked: string, which = "TRUE", ...values: SqlStorageValue[]): number {
    const query = `SELECT COUNT(*) AS count FROM (${looked}) WHERE ${which}`;
    return this.#rows<{ count: number }>(query, ...values)[0]?.count ?? 0;
  }

  #rows<T extends Record<string, SqlStorageValue>>(query: string, ...values: SqlStorageValue[]): T[] {
    return this.#sql.exec<T>(query, ...values).toArray();
  }
}

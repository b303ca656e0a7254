/** How the log stands with each cluster, for operators. Counted to a bound: the log has better things to do than to count a backlog. */
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
  /** Receipts that are not over. */
  readonly open: number;
  readonly clusters: readonly ClusterStanding[];
}

/** No further is counted. */
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

  /** @param now milliseconds since the epoch */
  read(clusters: readonly string[], now: number): LogStatus {
    return {
      head: this.#events.head(),
      open: this.#count("SELECT 1 FROM open_receipts WHERE enforced_at IS NULL"),
      clusters: clusters.map((cluster) => this.#of(cluster, now)),
    };
  }

  #of(cluster: string, now: number): ClusterStanding {
    const undelivered = `FROM events e LEFT JOIN deliveries d ON d.cluster = ?1 AND d.seq = e.seq
      WHERE e.seq > COALESCE((SELECT seq FROM cursors WHERE cluster = ?1), 0) AND d.delivered_at IS NULL`;
    const query = `SELECT e.decided_at, d.last_error ${undelivered} ORDER BY e.seq LIMIT 1`;
    const [oldest] = this.#rows<{ decided_at: number; last_error: string | null }>(query, cluster);
    const last = this.#lastDelivery(cluster);
    return {
      cluster,
      undelivered: this.#count(`SELECT 1 ${undelivered}`, cluster),
      ...(oldest === undefined ? {} : { oldest_undelivered_at: oldest.decided_at }),
      ...(last === undefined ? {} : { last_delivered_at: last }),
      ...(oldest?.last_error == null ? {} : { last_error: oldest.last_error }),
      open_receipts: this.#count(
        `SELECT 1 FROM open_receipts o LEFT JOIN deliveries d ON d.cluster = ?1 AND d.seq = o.seq
         WHERE o.enforced_at IS NULL AND d.enforced_at IS NULL`,
        cluster,
      ),
      by_feed: this.#rows<{ node: string }>(
        "SELECT DISTINCT node FROM feed_leases WHERE cluster = ? AND until > ?",
        ...[cluster, now],
      ).map(({ node }) => node),
    };
  }

  #lastDelivery(cluster: string): number | undefined {
    const query = `SELECT MAX(delivered_at) AS at FROM (
      SELECT delivered_at FROM deliveries WHERE cluster = ? ORDER BY seq DESC LIMIT ${RECENT})`;
    return this.#rows<{ at: number | null }>(query, cluster)[0]?.at ?? undefined;
  }

  #count(query: string, ...values: SqlStorageValue[]): number {
    const counted = `SELECT COUNT(*) AS count FROM (${query} LIMIT ${MAX_COUNTED})`;
    return this.#rows<{ count: number }>(counted, ...values)[0]?.count ?? 0;
  }

  #rows<T extends Record<string, SqlStorageValue>>(query: string, ...values: SqlStorageValue[]): T[] {
    return this.#sql.exec<T>(query, ...values).toArray();
  }
}

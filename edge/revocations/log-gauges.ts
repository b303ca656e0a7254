/**
 * How the log stands at this moment, for a scrape. Every look is along an index and bounded: who asks every few seconds must not hold up
 * the one object that decides for the whole edge. What is counted stops at a bound; ages do not.
 */
import type { MetricFamily, Sample } from "../exposition.ts";
import type { EventTable } from "./event-table.ts";

/** Events or receipts that one count looks at. */
const MAX_COUNTED = 10_000;

export class LogGauges {
  readonly #sql: SqlStorage;
  readonly #events: EventTable;

  constructor(sql: SqlStorage, events: EventTable) {
    this.#sql = sql;
    this.#events = events;
  }

  /** @param through of each cluster, up to where everything is delivered; `now` in milliseconds */
  families(through: ReadonlyMap<string, number>, now: number): readonly MetricFamily[] {
    const backlogs = [...through].map(([cluster, seq]) => ({ cluster, ...this.#undelivered(cluster, seq) }));
    const perCluster = (value: (backlog: (typeof backlogs)[number]) => number): Sample[] =>
      backlogs.map((backlog) => ({ labels: { cluster: backlog.cluster }, value: value(backlog) }));
    const openSince = this.#openSince();
    return [
      gauge("keycard_edge_log_head", "The number of the last event.", this.#events.head()),
      gauge("keycard_edge_open_receipts", `Receipts that are not enforced yet; at most ${MAX_COUNTED}.`, this.#open()),
      gauge(
        "keycard_edge_oldest_open_receipt_seconds",
        "Time since the oldest of them was decided; 0 without one.",
        age(openSince, now),
      ),
      {
        ...{ name: "keycard_edge_undelivered", type: "gauge" },
        help: `Events that a cluster has not taken; at most ${MAX_COUNTED}.`,
        samples: perCluster(({ count }) => count),
      },
      {
        ...{ name: "keycard_edge_oldest_undelivered_seconds", type: "gauge" },
        help: "Time since the oldest of them was decided; 0 without one.",
        samples: perCluster(({ since }) => age(since, now)),
      },
      {
        ...{ name: "keycard_edge_feed_nodes", type: "gauge" },
        help: "Nodes that live by the feed, without their Redis.",
        samples: this.#feedNodes([...through.keys()], now),
      },
      gauge("keycard_edge_audit_unsent", "Entries that the log owes to the audit trail.", this.#unsent()),
    ];
  }

  #undelivered(cluster: string, through: number): { readonly count: number; readonly since: number | undefined } {
    const query = `SELECT COUNT(*) AS count, MIN(decided_at) AS since FROM (
        SELECT e.decided_at, d.delivered_at FROM events e LEFT JOIN deliveries d ON d.cluster = ? AND d.seq = e.seq
        WHERE e.seq > ? ORDER BY e.seq LIMIT ${MAX_COUNTED}
      ) WHERE delivered_at IS NULL`;
    const [row] = this.#rows<{ count: number; since: number | null }>(query, cluster, through);
    return { count: row?.count ?? 0, since: row?.since ?? undefined };
  }

  #open(): number {
    const query = `SELECT COUNT(*) AS count FROM (
        SELECT 1 FROM open_receipts WHERE enforced_at IS NULL LIMIT ${MAX_COUNTED}
      )`;
    return this.#rows<{ count: number }>(query)[0]?.count ?? 0;
  }

  #openSince(): number | undefined {
    const query = "SELECT decided_at FROM open_receipts WHERE enforced_at IS NULL ORDER BY decided_at LIMIT 1";
    return this.#rows<{ decided_at: number }>(query)[0]?.decided_at;
  }

  #feedNodes(clusters: readonly string[], now: number): Sample[] {
    const query = "SELECT COUNT(DISTINCT node) AS count FROM feed_leases WHERE cluster = ? AND until > ?";
    return clusters.map((cluster) => {
      return { labels: { cluster }, value: this.#rows<{ count: number }>(query, cluster, now)[0]?.count ?? 0 };
    });
  }

  #unsent(): number {
    return this.#rows<{ count: number }>("SELECT COUNT(*) AS count FROM audit_outbox")[0]?.count ?? 0;
  }

  #rows<T extends Record<string, SqlStorageValue>>(query: string, ...values: SqlStorageValue[]): T[] {
    return this.#sql.exec<T>(query, ...values).toArray();
  }
}

/** One figure. */
export function gauge(name: string, help: string, value: number): MetricFamily {
  return { name, type: "gauge", help, samples: [{ labels: {}, value }] };
}

/** Seconds; a clock that was set back makes it 0. */
function age(since: number | undefined, now: number): number {
  return since === undefined ? 0 : Math.max(0, now - since) / 1000;
}

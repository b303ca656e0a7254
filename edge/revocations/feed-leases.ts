/**
 * Nodes that live by the feed: until when each may believe itself alive, how far it has come, and what it did about events whose receipts
 * are still open. A row for each run of a node's process: one that is started anew has to catch up by itself.
 */
import { type FeedQuery, MAX_NODES } from "#contract/cluster";
import { Refusal } from "#contract/refusal";
import type { FeedNode } from "./receipt.ts";

/** A part of a schema step of the log: it never changes. */
export const FEED_LEASES_SCHEMA = `CREATE TABLE feed_leases (
    cluster TEXT NOT NULL,
    node TEXT NOT NULL,
    boot TEXT NOT NULL,
    until INTEGER NOT NULL,
    done INTEGER NOT NULL,
    PRIMARY KEY (cluster, node, boot)
  ) WITHOUT ROWID;
  CREATE TABLE feed_words (
    cluster TEXT NOT NULL,
    seq INTEGER NOT NULL,
    node TEXT NOT NULL,
    boot TEXT NOT NULL,
    applied_at INTEGER NOT NULL,
    closed INTEGER NOT NULL,
    PRIMARY KEY (seq, cluster, node, boot)
  ) WITHOUT ROWID;`;

/** What a page is on its way for, at most, and the clocks run apart meanwhile. */
const MARGIN_MS = 2_000;
/** How long a lease that is over is remembered. */
const KEEP_MS = 86_400_000;

type Lease = NonNullable<FeedQuery["lease"]>;

export class FeedLeases {
  readonly #sql: SqlStorage;

  constructor(sql: SqlStorage) {
    this.#sql = sql;
  }

  /**
   * Takes down what a node says, about events whose receipts are open.
   *
   * @param head a node that claims to be further than this speaks of another log
   * @returns the places of the events that it has news of
   * @throws {Refusal} `unavailable` for one more than a cluster may have: without a page it does not go on
   */
  report(query: FeedQuery, { done, words }: Lease, head: number, now: number): number[] {
    const { cluster, node, boot } = query;
    const before = this.#done(query) ?? this.#admit(query, now);
    const told = words.flatMap(({ id, applied_at, closed }) => {
      return this.#rows<{ seq: number }>(
        `INSERT INTO feed_words (cluster, seq, node, boot, applied_at, closed)
         SELECT ?1, e.seq, ?2, ?3, ?4, ?5 FROM events e JOIN open_receipts USING (seq) WHERE e.id = ?6
         ON CONFLICT DO UPDATE SET applied_at = ?4, closed = ?5 RETURNING seq`,
        ...[cluster, node, boot, applied_at, closed, id],
      );
    });
    if (done <= before || done > head) return told.map(({ seq }) => seq);
    const passed = this.#rows<{ seq: number }>(
      `INSERT OR IGNORE INTO feed_words (cluster, seq, node, boot, applied_at, closed)
       SELECT ?1, seq, ?2, ?3, ?4, 0 FROM open_receipts WHERE seq > ?5 AND seq <= ?6 RETURNING seq`,
      ...[cluster, node, boot, now, before, done],
    );
    const move = "UPDATE feed_leases SET done = ? WHERE cluster = ? AND node = ? AND boot = ?";
    this.#sql.exec(move, done, cluster, node, boot);
    return [...told, ...passed].map(({ seq }) => seq);
  }

  /** From when the page is made: a node that gets it late believes itself alive for less, or for as long. */
  renew({ cluster, node, boot }: FeedQuery, ms: number, now: number): void {
    this.#sql.exec(
      `INSERT INTO feed_leases (cluster, node, boot, until, done) VALUES (?1, ?2, ?3, ?4, 0)
       ON CONFLICT DO UPDATE SET until = MAX(until, ?4)`,
      ...[cluster, node, boot, now + ms + MARGIN_MS],
    );
  }

  /** Every run of a node that lived by the feed at or after `since`, or has spoken of the event. `since` in milliseconds. */
  about(cluster: string, seq: number, since: number): FeedNode[] {
    type Row = { node: string; until: number; applied_at: number | null; closed: number | null };
    const rows = this.#rows<Row>(
      `SELECT l.node, l.until, w.applied_at, w.closed FROM feed_leases l
       LEFT JOIN feed_words w ON w.cluster = l.cluster AND w.seq = ? AND w.node = l.node AND w.boot = l.boot
       WHERE l.cluster = ? AND (l.until > ? OR w.seq IS NOT NULL)`,
      ...[seq, cluster, since],
    );
    return rows.map(({ node, until, applied_at, closed }) => ({
      ...{ node, until },
      ...(applied_at === null ? {} : { word: { applied_at, closed: closed ?? 0 } }),
    }));
  }

  /** The receipt of an event is closed. */
  forgetWords(seq: number): void {
    this.#sql.exec("DELETE FROM feed_words WHERE seq = ?", seq);
  }

  /** Forgets leases that have been over for a day. */
  forget(now: number): void {
    this.#sql.exec("DELETE FROM feed_leases WHERE until < ?", now - KEEP_MS);
  }

  /** When the first of them can be forgotten, milliseconds. */
  firstForgotten(): number | undefined {
    const [row] = this.#rows<{ until: number | null }>("SELECT MIN(until) AS until FROM feed_leases");
    return row?.until == null ? undefined : row.until + KEEP_MS;
  }

  #done({ cluster, node, boot }: FeedQuery): number | undefined {
    const query = "SELECT done FROM feed_leases WHERE cluster = ? AND node = ? AND boot = ?";
    return this.#rows<{ done: number }>(query, cluster, node, boot)[0]?.done;
  }

  #admit({ cluster, node, boot }: FeedQuery, now: number): number {
    const query = "SELECT COUNT(*) AS living FROM feed_leases WHERE cluster = ? AND until > ?";
    const [count] = this.#rows<{ living: number }>(query, cluster, now);
    if ((count?.living ?? 0) >= MAX_NODES) throw new Refusal("unavailable", { detail: "too many nodes in a cluster" });
    // It lives from its first page on.
    const insert = "INSERT INTO feed_leases (cluster, node, boot, until, done) VALUES (?, ?, ?, 0, 0)";
    this.#sql.exec(insert, cluster, node, boot);
    return 0;
  }

  #rows<T extends Record<string, SqlStorageValue>>(query: string, ...values: SqlStorageValue[]): T[] {
    return this.#sql.exec<T>(query, ...values).toArray();
  }
}

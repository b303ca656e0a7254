/**
 * The receipts as the log keeps them. A receipt is open from the decision until every cluster has enforced it; then it is proven, and
 * does not change any more. While it is open its lines are judged again whenever somebody had something to say.
 */
import type { ClusterReceipt } from "#contract/cluster";
import type { RevocationEvent } from "#contract/revocation";
import type { Chronicle, Told } from "./chronicle.ts";
import type { EventTable, StoredDecision } from "./event-table.ts";
import type { FeedLeases } from "./feed-leases.ts";
import {
  type ClusterLine,
  type DeliveryState,
  type Enforcement,
  expiredAt,
  judge,
  type Receipt,
  receiptOf,
  type Testimony,
} from "./receipt.ts";
import type { AskedEvent } from "./receipt-collector.ts";
import { type ProvableReceipt, provenReceipt } from "./receipt-proof.ts";

/** A part of a schema step of the log: it never changes. What was over before it is not gone through again. */
export const RECEIPTS_SCHEMA = `ALTER TABLE deliveries ADD COLUMN ask_at INTEGER;
  ALTER TABLE deliveries ADD COLUMN losses INTEGER NOT NULL DEFAULT 0;
  ALTER TABLE deliveries ADD COLUMN enforced_at INTEGER;
  CREATE INDEX deliveries_to_ask ON deliveries (cluster, ask_at) WHERE ask_at IS NOT NULL;
  CREATE TABLE open_receipts (seq INTEGER PRIMARY KEY, expires_at INTEGER NOT NULL, enforced_at INTEGER);
  CREATE INDEX open_receipts_by_expiry ON open_receipts (expires_at) WHERE enforced_at IS NULL;
  CREATE INDEX open_receipts_to_prove ON open_receipts (enforced_at) WHERE enforced_at IS NOT NULL;
  CREATE TABLE proofs (seq INTEGER PRIMARY KEY, proof TEXT NOT NULL);
  UPDATE deliveries SET receipt = json_set(receipt, '$.fenced', json('[]')) WHERE receipt IS NOT NULL;
  INSERT INTO open_receipts (seq, expires_at) SELECT seq, expires_at FROM events WHERE expires_at + 60 > unixepoch();
  UPDATE deliveries SET ask_at = 0 WHERE delivered_at IS NOT NULL AND cluster NOT LIKE 'stream %'
    AND seq IN (SELECT seq FROM open_receipts);`;

const FIRST_WAIT_MS = 1_000;
const LAST_WAIT_MS = 30_000;
/** Of the time that a cluster has taken so far: by no more than this a receipt is later than what it says. */
const WAIT_SHARE = 0.25;
/** Receipts that one call lets expire. */
const MAX_EXPIRED = 500;
/** What is said of a cluster that had taken an event. */
const LOST = "the cluster does not know the event any more";

type DeliveryRow = {
  delivered_at: number | null;
  attempts: number;
  last_error: string | null;
  receipt: string | null;
  enforced_at: number | null;
};

/** An event as far as a line depends on it. */
type JudgedEvent = Pick<RevocationEvent, "seq" | "decided_at" | "expires_at">;
type OpenEvent = JudgedEvent & Told;

export class Receipts {
  readonly #sql: SqlStorage;
  readonly #events: EventTable;
  readonly #leases: FeedLeases;
  readonly #chronicle: Chronicle;
  readonly #clusters: () => readonly string[];

  /** @param clusters ids of those that are configured */
  constructor(
    sql: SqlStorage,
    events: EventTable,
    leases: FeedLeases,
    chronicle: Chronicle,
    clusters: () => readonly string[],
  ) {
    this.#sql = sql;
    this.#events = events;
    this.#leases = leases;
    this.#chronicle = chronicle;
    this.#clusters = clusters;
  }

  /** Opens the receipt of an event that was stored just now. */
  open({ seq, decided_at, expires_at }: JudgedEvent): void {
    const insert = "INSERT INTO open_receipts (seq, decided_at, expires_at) VALUES (?, ?, ?)";
    this.#sql.exec(insert, seq, decided_at, expires_at);
  }

  /** A cluster has taken an event, and can be asked. One that loses events is asked later each time. */
  taken(cluster: string, seq: number): void {
    this.#sql.exec(
      `UPDATE deliveries SET ask_at = ?1 + CASE losses WHEN 0 THEN 0 ELSE MIN(?2, ?3 << MIN(losses, 16)) END
       WHERE cluster = ?4 AND seq = ?5 AND enforced_at IS NULL AND seq IN (SELECT seq FROM open_receipts)`,
      ...[Date.now(), LAST_WAIT_MS, FIRST_WAIT_MS / 2, cluster, seq],
    );
  }

  /** What a cluster is to be asked about by now. */
  due(cluster: string, now: number, limit: number): readonly AskedEvent[] {
    const query = `SELECT d.seq, e.id, d.receipt IS NULL AS fresh FROM deliveries d JOIN events e USING (seq)
      WHERE d.cluster = ? AND d.ask_at <= ? ORDER BY d.ask_at LIMIT ?`;
    const rows = this.#rows<{ seq: number; id: string; fresh: number }>(query, cluster, now, limit);
    return rows.map(({ fresh, ...event }) => ({ ...event, fresh: fresh === 1 }));
  }

  /** When it is next to be asked about something, milliseconds. */
  nextDue(cluster: string): number | undefined {
    const query = `SELECT d.ask_at AS at FROM deliveries d JOIN events e USING (seq)
      WHERE d.cluster = ? AND d.ask_at IS NOT NULL ORDER BY d.ask_at LIMIT 1`;
    return this.#rows<{ at: number }>(query, cluster)[0]?.at;
  }

  /** Somebody waits: what can be asked about is asked about now. */
  hurry(cluster: string, seq: number): void {
    const hurry = "UPDATE deliveries SET ask_at = ?1 WHERE cluster = ?2 AND seq = ?3 AND ask_at > ?1";
    this.#sql.exec(hurry, Date.now(), cluster, seq);
  }

  /**
   * Takes a cluster's answer.
   *
   * @returns the first place of what it knows nothing of although it had taken it, and is to be given again
   */
  heard(cluster: string, asked: readonly AskedEvent[], receipts: readonly ClusterReceipt[]): number | undefined {
    const answers = new Map(receipts.map(({ id, ...receipt }) => [id, receipt]));
    for (const { id, seq } of asked) {
      const receipt = answers.get(id);
      if (receipt === undefined) continue;
      const keep = "UPDATE deliveries SET receipt = ?1 WHERE cluster = ?2 AND seq = ?3 AND receipt IS NOT ?1";
      this.#sql.exec(keep, JSON.stringify(receipt), cluster, seq);
      this.#settle(cluster, seq, true);
    }
    const lost = asked.filter(({ id }) => !answers.has(id)).map(({ seq }) => seq);
    for (const seq of lost) this.#lose(cluster, seq);
    return lost.length === 0 ? undefined : Math.min(...lost);
  }

  /** It gave no answer, or one that nobody can trust; but leases may have ended meanwhile. */
  unheard(cluster: string, asked: readonly AskedEvent[], error: string): void {
    for (const { seq } of asked) {
      const keep = "UPDATE deliveries SET last_error = ?1 WHERE cluster = ?2 AND seq = ?3 AND last_error IS NOT ?1";
      this.#sql.exec(keep, error, cluster, seq);
      this.#settle(cluster, seq, false);
    }
  }

  /** A node of the cluster has said something of these by the feed. */
  reported(cluster: string, seqs: readonly number[]): void {
    for (const seq of seqs) this.#settle(cluster, seq, false);
  }

  /** Closes what can hit nobody any more, whoever is pending. */
  expire(now: number): void {
    const query = `SELECT seq FROM open_receipts
      WHERE enforced_at IS NULL AND expires_at <= ? ORDER BY expires_at LIMIT ${MAX_EXPIRED}`;
    const latest = Math.floor((now - expiredAt(0)) / 1000);
    for (const { seq } of this.#rows<{ seq: number }>(query, latest)) {
      // Nobody was told, and there is nothing to prove.
      if (this.#clusters().length === 0) this.#close(seq);
      for (const cluster of this.#clusters()) this.#settle(cluster, seq, false);
    }
  }

  /** When the first open one expires, milliseconds. */
  nextExpiry(): number | undefined {
    const query = "SELECT MIN(expires_at) AS at FROM open_receipts WHERE enforced_at IS NULL";
    const at = this.#rows<{ at: number | null }>(query)[0]?.at;
    return at == null ? undefined : expiredAt(at);
  }

  /** Those that only lack a proof. */
  provable(limit: number): readonly ProvableReceipt[] {
    const query = `SELECT seq, enforced_at FROM open_receipts
      WHERE enforced_at IS NOT NULL ORDER BY enforced_at LIMIT ?`;
    return this.#rows<{ seq: number; enforced_at: number }>(query, limit).flatMap(({ seq, enforced_at }) => {
      const event = this.#events.at(seq);
      const lines = event === undefined ? [] : this.#lines(event);
      // A cluster may have been added meanwhile.
      if (lines.some((line) => line.enforced_at === undefined)) this.#reopen(seq);
      else if (event !== undefined) return [{ event, receipt: receiptOf(event, lines, { enforced_at }) }];
      return [];
    });
  }

  /** @returns false when it was proven before */
  prove(seq: number, proof: string): boolean {
    const isOpen = this.#isOpen(seq);
    if (isOpen) this.#sql.exec("INSERT INTO proofs (seq, proof) VALUES (?, ?)", seq, proof);
    this.#close(seq);
    return isOpen;
  }

  read(event: StoredDecision): Receipt {
    const [row] = this.#rows<{ proof: string }>("SELECT proof FROM proofs WHERE seq = ?", event.seq);
    if (row !== undefined) return provenReceipt(row.proof);
    return receiptOf(event, this.#lines(event), this.#isOpen(event.seq) ? undefined : {});
  }

  /** How many events of a bulk revocation there are, and of how many there is nothing more to learn. */
  countOf(batch: string): { readonly events: number; readonly enforced: number } {
    const query = `SELECT COUNT(*) AS events, COUNT(*) - COUNT(o.seq) AS enforced
      FROM events e LEFT JOIN open_receipts o USING (seq) WHERE e.batch = ?`;
    const [count] = this.#rows<{ events: number; enforced: number }>(query, batch);
    return count ?? { events: 0, enforced: 0 };
  }

  /** Forgets what is about events that were let go of. `upTo` is the place of the last one, when none is left. */
  forget(upTo: number): void {
    for (const table of ["proofs", "open_receipts", "feed_words"]) {
      this.#sql.exec(`DELETE FROM ${table} WHERE seq < (SELECT COALESCE(MIN(seq), ?) FROM events)`, upTo + 1);
    }
  }

  /** @param asked whether it was asked about just now, and has to be again when that was not the end of it */
  #settle(cluster: string, seq: number, asked: boolean): void {
    const event = this.#openEvent(seq);
    if (event === undefined) {
      // The receipt was closed without this cluster, which was not configured just then.
      this.#stopAsking(cluster, seq);
      return;
    }
    const now = Date.now();
    const { row, testimony } = this.#stored(cluster, event);
    if (row?.enforced_at != null) return;
    const taken = row?.delivered_at != null;
    const { enforcement, complete } = judge(testimony, { ...event, taken }, now);
    if (complete) this.#finish(cluster, event, enforcement, now);
    else if (asked) this.#askAgain(cluster, seq, row?.delivered_at ?? now, testimony, now);
  }

  /** The line is as it will be, and with the last one the receipt. */
  #finish(cluster: string, event: OpenEvent, enforcement: Enforcement, now: number): void {
    const { seq } = event;
    this.#sql.exec(
      `INSERT INTO deliveries (cluster, seq, attempts, receipt, enforced_at) VALUES (?1, ?2, 0, ?3, ?4)
       ON CONFLICT DO UPDATE SET receipt = ?3, enforced_at = ?4, ask_at = NULL`,
      ...[cluster, seq, JSON.stringify(enforcement), now],
    );
    this.#chronicle.enforcedBy(cluster, event, enforcement, now);
    const query = `SELECT receipt ->> '$.expired' AS expired FROM deliveries
      WHERE seq = ? AND enforced_at IS NOT NULL AND cluster = ?`;
    const lines = this.#clusters().map((each) => this.#rows<{ expired: number | null }>(query, seq, each)[0]);
    if (lines.includes(undefined)) return;
    this.#sql.exec("UPDATE open_receipts SET enforced_at = ? WHERE seq = ?", now, seq);
    const expired = lines.some((line) => line?.expired === 1);
    this.#chronicle.enforced(event, now, expired);
  }

  /** Later each time, by a share of how late it is by then; but as soon as a lease ends that it waits for. */
  #askAgain(cluster: string, seq: number, since: number, { feed }: Testimony, now: number): void {
    const patience = Math.min(LAST_WAIT_MS, Math.max(FIRST_WAIT_MS, (now - since) * WAIT_SHARE));
    const ends = feed.filter(({ word, until }) => word === undefined && until > now).map(({ until }) => until);
    const ask = "UPDATE deliveries SET ask_at = ? WHERE cluster = ? AND seq = ?";
    this.#sql.exec(ask, Math.min(now + patience, ...ends), cluster, seq);
  }

  #stopAsking(cluster: string, seq: number): void {
    this.#sql.exec("UPDATE deliveries SET ask_at = NULL WHERE cluster = ? AND seq = ?", cluster, seq);
  }

  #lose(cluster: string, seq: number): void {
    this.#sql.exec(
      `UPDATE deliveries SET delivered_at = NULL, ask_at = NULL, receipt = NULL, losses = losses + 1, last_error = ?
       WHERE cluster = ? AND seq = ? AND enforced_at IS NULL`,
      ...[LOST, cluster, seq],
    );
    this.#sql.exec("UPDATE cursors SET seq = MIN(seq, ?) WHERE cluster = ?", seq - 1, cluster);
    const event = this.#openEvent(seq);
    if (event !== undefined) this.#chronicle.lost(cluster, event);
  }

  #reopen(seq: number): void {
    this.#sql.exec("UPDATE open_receipts SET enforced_at = NULL WHERE seq = ?", seq);
  }

  #close(seq: number): void {
    this.#sql.exec("DELETE FROM open_receipts WHERE seq = ?", seq);
    this.#leases.forgetWords(seq);
  }

  #isOpen(seq: number): boolean {
    return this.#rows("SELECT 1 FROM open_receipts WHERE seq = ?", seq).length > 0;
  }

  #openEvent(seq: number): OpenEvent | undefined {
    const query = `SELECT e.id, e.seq, e.decided_at, e.expires_at, e.request FROM events e JOIN open_receipts o USING (seq)
      WHERE e.seq = ? AND o.enforced_at IS NULL`;
    type Row = { id: string; seq: number; decided_at: number; expires_at: number; request: string | null };
    const [row] = this.#rows<Row>(query, seq);
    if (row === undefined) return undefined;
    const { request, ...event } = row;
    return request === null ? event : { ...event, request };
  }

  #lines(event: JudgedEvent): ClusterLine[] {
    return this.#clusters().map((cluster) => this.#line(cluster, event, Date.now()));
  }

  #line(cluster: string, event: JudgedEvent, now: number): ClusterLine {
    const { row, testimony } = this.#stored(cluster, event);
    const state: DeliveryState = {
      cluster,
      ...(row?.delivered_at == null ? {} : { delivered_at: row.delivered_at }),
      attempts: row?.attempts ?? 0,
      ...(row?.last_error == null ? {} : { last_error: row.last_error }),
    };
    if (row?.enforced_at != null) {
      const enforcement: Enforcement = JSON.parse(row.receipt ?? "{}");
      return { ...state, ...enforcement, enforced_at: row.enforced_at };
    }
    const taken = row?.delivered_at != null;
    return { ...state, ...judge(testimony, { ...event, taken }, now).enforcement };
  }

  #stored(
    cluster: string,
    event: JudgedEvent,
  ): { readonly row: DeliveryRow | undefined; readonly testimony: Testimony } {
    const query = `SELECT delivered_at, attempts, last_error, receipt, enforced_at FROM deliveries
      WHERE cluster = ? AND seq = ?`;
    const [row] = this.#rows<DeliveryRow>(query, cluster, event.seq);
    const feed = this.#leases.about(cluster, event.seq, event.decided_at);
    return { row, testimony: { ...(row?.receipt == null ? {} : { receipt: JSON.parse(row.receipt) }), feed } };
  }

  #rows<T extends Record<string, SqlStorageValue>>(query: string, ...values: SqlStorageValue[]): T[] {
    return this.#sql.exec<T>(query, ...values).toArray();
  }
}

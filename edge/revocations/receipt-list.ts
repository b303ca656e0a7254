/**
 * The receipts as a list, newest decision first. Every list is read along an index and in short pages: the log decides for the whole
 * edge, and must not be held up by somebody who looks back. Where what is asked for is rare, a page may be empty and have a next one.
 */
import { type EventTable, LISTED } from "./event-table.ts";
import { isFinal, type Receipt } from "./receipt.ts";
import type { Receipts } from "./receipts.ts";

/** A schema step of the log: it never changes. */
export const RECEIPT_LIST_SCHEMA = `ALTER TABLE events ADD COLUMN request TEXT;
  ALTER TABLE events ADD COLUMN sub TEXT;
  ALTER TABLE events ADD COLUMN listed INTEGER NOT NULL DEFAULT 2;
  ALTER TABLE open_receipts ADD COLUMN decided_at INTEGER NOT NULL DEFAULT 0;
  UPDATE events SET sub = COALESCE(
    json_extract(targets, '$[0].sub'),
    substr(json_extract(targets, '$[0].sid'), 1, length(json_extract(targets, '$[0].sid')) - 23));
  UPDATE events SET listed = 0 WHERE batch IS NOT NULL;
  UPDATE events SET listed = 1 WHERE seq IN (SELECT MIN(seq) FROM events WHERE batch IS NOT NULL GROUP BY batch, tid);
  UPDATE events SET listed = 2 WHERE seq IN (SELECT MIN(seq) FROM events WHERE batch IS NOT NULL GROUP BY batch);
  UPDATE open_receipts SET decided_at = COALESCE((SELECT decided_at FROM events WHERE events.seq = open_receipts.seq), 0);
  DROP INDEX events_of_batch;
  CREATE INDEX events_of_batch_and_tenant ON events (batch, tid) WHERE batch IS NOT NULL;
  CREATE INDEX events_by_decision ON events (decided_at) WHERE listed = 2;
  CREATE INDEX events_of_tenant ON events (tid, decided_at) WHERE tid IS NOT NULL AND listed > 0;
  CREATE INDEX events_of_subject ON events (sub, decided_at) WHERE sub IS NOT NULL;
  CREATE INDEX open_receipts_by_decision ON open_receipts (decided_at);`;

/** What is asked for. Times in milliseconds since the epoch, both included. */
export interface ReceiptQuery {
  readonly limit: number;
  /** The `next` of the page before. */
  readonly after?: Place | undefined;
  readonly state?: Receipt["state"] | undefined;
  readonly sub?: string | undefined;
  readonly tid?: string | undefined;
  /** A bulk revocation, whose receipts are each listed by themselves. */
  readonly batch?: string | undefined;
  readonly since?: number | undefined;
  readonly until?: number | undefined;
}

/** Where a page ends: by when it was decided, and by its number among those of the same moment. */
export interface Place {
  readonly decided_at: number;
  readonly seq: number;
}

export interface ReceiptPage {
  /** Of a bulk revocation the first one stands for all, unless `state` is an open one, or `sub` or `batch` is given. */
  readonly receipts: readonly Receipt[];
  readonly next?: Place;
}

/** Events that one page looks at. */
const MAX_LOOKED_AT = 1_000;
/** Characters of a page, unless a single receipt has more: thousands of nodes make long ones. */
const MAX_PAGE_LENGTH = 1024 * 1024;

export class ReceiptList {
  readonly #sql: SqlStorage;
  readonly #events: EventTable;
  readonly #receipts: Receipts;

  constructor(sql: SqlStorage, events: EventTable, receipts: Receipts) {
    this.#sql = sql;
    this.#events = events;
    this.#receipts = receipts;
  }

  page(query: ReceiptQuery): ReceiptPage {
    const receipts: Receipt[] = [];
    let last = query.after;
    let length = 0;
    const places = this.#places(query);
    for (const { decided_at, seq } of places) {
      if (receipts.length === query.limit) return { receipts, ...(last && { next: last }) };
      const receipt = this.#receipt(seq, query);
      length += receipt === undefined ? 0 : JSON.stringify(receipt).length;
      if (length > MAX_PAGE_LENGTH && receipts.length > 0) return { receipts, ...(last && { next: last }) };
      if (receipt !== undefined) receipts.push(receipt);
      last = { decided_at, seq };
    }
    return { receipts, ...(places.length === MAX_LOOKED_AT && last && { next: last }) };
  }

  /** A receipt without its proof, unless it is not asked for. */
  #receipt(seq: number, query: ReceiptQuery): Receipt | undefined {
    const event = this.#events.at(seq);
    if (event === undefined || (query.tid !== undefined && event.tid !== query.tid)) return undefined;
    const { proof: _, ...receipt } = this.#receipts.read(event);
    return query.state === undefined || receipt.state === query.state ? receipt : undefined;
  }

  #places(query: ReceiptQuery): Place[] {
    const { source, values } = sourceOf(query);
    const { after, since = 0, until = Number.MAX_SAFE_INTEGER } = query;
    const latest = Math.min(until, after?.decided_at ?? until);
    // One more than is shown tells whether there is a next page.
    const lookAt = isToldApart(query) ? query.limit + 1 : MAX_LOOKED_AT;
    return this.#sql
      .exec<{ decided_at: number; seq: number }>(
        `SELECT decided_at, seq FROM ${source} AND decided_at BETWEEN ? AND ? AND (decided_at < ? OR seq < ?)
         ORDER BY decided_at DESC, seq DESC LIMIT ?`,
        ...[...values, since, latest, after?.decided_at ?? Number.MAX_SAFE_INTEGER, after?.seq ?? 0, lookAt],
      )
      .toArray();
  }
}

/** The narrowest index that has what is asked for. What it does not tell apart is looked at. */
function sourceOf({ batch, sub, state, tid }: ReceiptQuery): { source: string; values: SqlStorageValue[] } {
  const ofSubject = "events INDEXED BY events_of_subject WHERE sub = ?";
  if (sub !== undefined && batch !== undefined) return { source: `${ofSubject} AND batch = ?`, values: [sub, batch] };
  if (batch !== undefined) return { source: "events WHERE batch = ?", values: [batch] };
  if (sub !== undefined) return { source: ofSubject, values: [sub] };
  if (state !== undefined && !isFinal({ state })) {
    return { source: "open_receipts INDEXED BY open_receipts_by_decision WHERE TRUE", values: [] };
  }
  if (tid === undefined) {
    return { source: `events INDEXED BY events_by_decision WHERE listed = ${LISTED.everywhere}`, values: [] };
  }
  return { source: "events INDEXED BY events_of_tenant WHERE listed > 0 AND tid = ?", values: [tid] };
}

/** Whether the index alone says which receipts are asked for. */
function isToldApart({ batch, sub, state, tid }: ReceiptQuery): boolean {
  return state === undefined && (tid === undefined || (batch === undefined && sub === undefined));
}

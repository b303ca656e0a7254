/**
 * The audit trail: append-only, in one order, each record chained to the one before it, so that a record that was removed,
 * altered or slipped in shows. One object for the whole edge: a single chain leaves nothing outside of it that could go unseen,
 * and what is written is rare (sign-ins, decisions; never refreshes). An object takes some hundred appends a second; beyond that
 * `audit` loses entries and says so in the log, and the outboxes are late.
 *
 * The chain shows tampering to whoever knows one of its hashes: `verify` gives the head, to be kept elsewhere from time to time.
 * It needs no key, so that an export can be checked by anybody with SHA-256.
 *
 * What is older than the retention goes, from the front, and so do the oldest where there is no room for more; the hash before the first record that stays is kept, so that the rest
 * still verifies, and the going is itself a record.
 */
import { DurableObject } from "cloudflare:workers";
import { createHash } from "node:crypto";
import { readConfig } from "../config.ts";
import { logFailure } from "../log.ts";
import { migrate } from "../migrations.ts";
import { answer, type Outcome } from "../outcome.ts";
import { isFull, storageUse } from "../storage-bound.ts";
import { type AuditEntry, type AuditRecord, type AuditType, entryOf, SYSTEM } from "./audit.ts";

const SCHEMA = [
  // What is searched for is read out of the record itself: a column of its own could be altered without breaking the chain.
  `CREATE TABLE records (
    position INTEGER PRIMARY KEY,
    record TEXT NOT NULL,
    hash TEXT NOT NULL,
    id TEXT NOT NULL AS (record ->> '$.id') VIRTUAL,
    sub TEXT AS (record ->> '$.sub') VIRTUAL,
    tid TEXT AS (record ->> '$.tid') VIRTUAL,
    recorded_at INTEGER NOT NULL AS (record ->> '$.recorded_at') VIRTUAL
  );
  CREATE UNIQUE INDEX records_by_id ON records (id);
  CREATE INDEX records_by_sub ON records (sub) WHERE sub IS NOT NULL;
  CREATE INDEX records_by_tid ON records (tid) WHERE tid IS NOT NULL;
  CREATE TABLE ends (
    which TEXT PRIMARY KEY,
    position INTEGER NOT NULL,
    hash TEXT NOT NULL,
    recorded_at INTEGER NOT NULL
  ) WITHOUT ROWID;`,
];

/** Records that one call looks through; where more are to be looked at it says where to go on. */
const MAX_SCAN = 20_000;
/** Characters of the records in one page, unless a single record has more. */
const MAX_PAGE_LENGTH = 8 * 1024 * 1024;
const MAX_TRUNCATED = 5_000;
const DAY_MS = 86_400_000;
/** Much less than it takes to fill the room that is left beyond the bound. */
const TRUNCATE_MS = DAY_MS / 24;
const AFTER_FAILURE_MS = 60_000;
/** The hash before the first record that ever was. */
const GENESIS = "";

export interface AuditQuery {
  /** The newest first, or, by default, the oldest. */
  readonly order?: "asc" | "desc" | undefined;
  /** Position to begin behind, in that order; absent for its beginning. */
  readonly after?: number | undefined;
  readonly limit: number;
  readonly type?: AuditType | undefined;
  readonly sub?: string | undefined;
  readonly tid?: string | undefined;
  /** Milliseconds since the epoch, both included. */
  readonly since?: number | undefined;
  readonly until?: number | undefined;
}

export interface AuditPage {
  readonly records: readonly AuditRecord[];
  /** `after` of the next page; absent once the end was reached. A page may be empty and not be the last. */
  readonly next?: number;
}

/** A place in the chain. */
export interface ChainLink {
  readonly position: number;
  readonly hash: string;
}

export interface Verification {
  /** Whether all that was looked at is as it was written. */
  readonly intact: boolean;
  readonly checked: number;
  /** What was removed by the retention ends here. */
  readonly anchor: ChainLink;
  readonly head: ChainLink;
  /** `after` of the next stretch; absent once the head was reached. */
  readonly next?: number;
  /** The first place where the chain breaks. */
  readonly broken?: { readonly position: number; readonly problem: "missing" | "altered" | "surplus" };
}

interface End extends ChainLink {
  readonly recorded_at: number;
}
type EndRow = { position: number; hash: string; recorded_at: number };
type RecordRow = { position: number; record: string; hash: string };

export class AuditTrail extends DurableObject<Env> {
  constructor(ctx: DurableObjectState, env: Env) {
    super(ctx, env);
    migrate(ctx.storage, SCHEMA);
  }

  /** Takes entries, in this order, all or none. One that is there already is not taken again. @returns how many were new */
  append(entries: readonly AuditEntry[]): Promise<Outcome<number>> {
    return answer(() => this.ctx.storage.transactionSync(() => this.#append(entries, Date.now())));
  }

  /** Records in order. */
  read(query: AuditQuery): Promise<Outcome<AuditPage>> {
    return answer(() => this.#read(query));
  }

  /** Computes the chain again, from a position that is held to be good, and says where it breaks. */
  verify(after: number): Promise<Outcome<Verification>> {
    return answer(() => this.#verify(after));
  }

  /** The positions of the last record, and of the last one that the retention has removed; and what all of it weighs. */
  ends(): Promise<Outcome<{ readonly anchor: number; readonly head: number; readonly bytes: number }>> {
    return answer(() => {
      const { bytes } = storageUse(this.ctx.storage, this.env);
      return { anchor: this.#end("anchor").position, head: this.#end("head").position, bytes };
    });
  }

  /** Lets go of what is older than the retention. Never throws: the platform gives up after six retries. */
  override async alarm(): Promise<void> {
    try {
      const now = Date.now();
      const more = this.ctx.storage.transactionSync(() => this.#truncate(now));
      await this.ctx.storage.setAlarm(now + (more ? 0 : TRUNCATE_MS));
    } catch (error) {
      logFailure("the alarm of the audit trail failed", {}, error);
      await this.ctx.storage.setAlarm(Date.now() + AFTER_FAILURE_MS);
    }
  }

  /** By subject or by tenant there is an index; what else is asked for is looked for among those, so many a call. */
  #read(query: AuditQuery): AuditPage {
    const { sub, tid } = query;
    const [by, value] = sub !== undefined ? ["sub", sub] : tid !== undefined ? ["tid", tid] : ["1", 1];
    const { behind, order, start, end } = this.#direction(query);
    const after = query.after ?? start;
    const candidates = `SELECT position, record, hash FROM records WHERE position ${behind} ? AND ${by} = ?
      ORDER BY position ${order} LIMIT ?`;
    const records: AuditRecord[] = [];
    let scanned = 0;
    let length = 0;
    let last = after;
    for (const row of this.ctx.storage.sql.exec<RecordRow>(candidates, after, value, MAX_SCAN)) {
      const record: AuditRecord = { ...JSON.parse(row.record), hash: row.hash };
      scanned++;
      last = row.position;
      if (fits(record, query)) {
        records.push(record);
        length += row.record.length;
      }
      if (records.length === query.limit || length > MAX_PAGE_LENGTH) break;
    }
    const isFull = records.length === query.limit || length > MAX_PAGE_LENGTH || scanned === MAX_SCAN;
    const more = isFull && last !== end;
    return { records, ...(more ? { next: last } : {}) };
  }

  /** Where a reading begins, and at which position it has come to the end. */
  #direction({ order }: AuditQuery) {
    if (order !== "desc") return { behind: ">", order: "ASC", start: 0, end: this.#end("head").position };
    return { behind: "<", order: "DESC", start: Number.MAX_SAFE_INTEGER, end: this.#end("anchor").position + 1 };
  }

  #append(entries: readonly AuditEntry[], now: number): number {
    let head = this.#end("head");
    const first = head.position === 0;
    let taken = 0;
    for (const entry of entries) {
      if (this.#sql("SELECT 1 FROM records WHERE id = ?", entry.id).length > 0) continue;
      const recorded_at = Math.max(now, head.recorded_at);
      const position = head.position + 1;
      const record = canonicalJson({ ...entry, position, recorded_at });
      const hash = chained(head.hash, record);
      this.#sql("INSERT INTO records (position, record, hash) VALUES (?, ?, ?)", position, record, hash);
      head = { position, hash, recorded_at };
      taken++;
    }
    if (taken > 0) this.#setEnd("head", head);
    if (first && taken > 0) void this.ctx.storage.setAlarm(now + TRUNCATE_MS);
    return taken;
  }

  /** @returns whether there is more to let go of */
  #truncate(now: number): boolean {
    const before = now - readConfig(this.env).auditRetentionDays * DAY_MS;
    const full = isFull(this.ctx.storage, this.env);
    const anchor = this.#end("anchor");
    // Where there is no room little by little, so that no more goes than must.
    const hundredth = Math.ceil((this.#end("head").position - anchor.position) / 100);
    const rows = this.#sql<EndRow>(
      "SELECT position, hash, recorded_at FROM records WHERE position > ? ORDER BY position LIMIT ?",
      anchor.position,
      full ? Math.min(hundredth, MAX_TRUNCATED) : MAX_TRUNCATED,
    );
    const young = full ? -1 : rows.findIndex(({ recorded_at }) => recorded_at >= before);
    const old = young < 0 ? rows : rows.slice(0, young);
    const last = old.at(-1);
    if (last === undefined) return false;
    this.#sql("DELETE FROM records WHERE position <= ?", last.position);
    this.#setEnd("anchor", last);
    const early = full ? ", before their time: there is no room for more" : "";
    const reason = `${old.length} records up to position ${last.position}${early}`;
    if (full) logFailure("the audit trail is full: its oldest records go before their time", { seq: last.position });
    this.#append([entryOf({ type: "audit_truncated", actor: SYSTEM, reason }, now)], now);
    return full || old.length === MAX_TRUNCATED;
  }

  #verify(after: number): Verification {
    const anchor = this.#end("anchor");
    const head = this.#end("head");
    const start = this.#linkAt(Math.min(Math.max(after, anchor.position), head.position));
    const links = { anchor: linkOf(anchor), head: linkOf(head) };
    if (start === undefined) {
      return { intact: false, checked: 0, ...links, broken: { position: after, problem: "missing" } };
    }
    const query = "SELECT position, record, hash FROM records WHERE position > ? ORDER BY position LIMIT ?";
    let last: ChainLink = start;
    let checked = 0;
    const broken = (position: number, problem: "missing" | "altered" | "surplus"): Verification => {
      return { intact: false, checked, ...links, broken: { position, problem } };
    };
    for (const row of this.ctx.storage.sql.exec<RecordRow>(query, start.position, MAX_SCAN)) {
      if (row.position > head.position) return broken(row.position, "surplus");
      if (row.position !== last.position + 1) return broken(last.position + 1, "missing");
      const hash = chained(last.hash, row.record);
      if (hash !== row.hash || !speaksOf(row.record, row.position)) return broken(row.position, "altered");
      last = { position: row.position, hash };
      checked++;
    }
    if (last.position < head.position && checked < MAX_SCAN) return broken(last.position + 1, "missing");
    if (last.position === head.position && last.hash !== head.hash) return broken(head.position, "altered");
    return { intact: true, checked, ...links, ...(last.position < head.position ? { next: last.position } : {}) };
  }

  #linkAt(position: number): ChainLink | undefined {
    const anchor = this.#end("anchor");
    if (position === anchor.position) return anchor;
    return this.#sql<EndRow>("SELECT position, hash, recorded_at FROM records WHERE position = ?", position)[0];
  }

  /** Kept beside the records: the removal of the last ones would not show otherwise. */
  #end(which: "head" | "anchor"): End {
    const [row] = this.#sql<EndRow>("SELECT position, hash, recorded_at FROM ends WHERE which = ?", which);
    return row ?? { position: 0, hash: GENESIS, recorded_at: 0 };
  }

  #setEnd(which: "head" | "anchor", { position, hash, recorded_at }: End): void {
    const put = "INSERT OR REPLACE INTO ends (which, position, hash, recorded_at) VALUES (?, ?, ?, ?)";
    this.#sql(put, which, position, hash, recorded_at);
  }

  #sql<T extends Record<string, SqlStorageValue>>(query: string, ...values: SqlStorageValue[]): T[] {
    return this.ctx.storage.sql.exec<T>(query, ...values).toArray();
  }
}

function fits({ type, sub, tid, at }: AuditRecord, asked: AuditQuery): boolean {
  return (
    (asked.type === undefined || type === asked.type) &&
    (asked.sub === undefined || sub === asked.sub) &&
    (asked.tid === undefined || tid === asked.tid) &&
    (asked.since === undefined || at >= asked.since) &&
    (asked.until === undefined || at <= asked.until)
  );
}

function linkOf({ position, hash }: ChainLink): ChainLink {
  return { position, hash };
}

function chained(before: string, record: string): string {
  return createHash("sha256").update(before).update(record).digest("base64url");
}

/** Whether a record says of itself that it stands where it was found. */
function speaksOf(record: string, position: number): boolean {
  try {
    return JSON.parse(record).position === position;
  } catch {
    return false;
  }
}

/** RFC 8785: members sorted, no white space; so that a reader who has only the parsed record gets the very same bytes. */
export function canonicalJson(value: unknown): string {
  if (Array.isArray(value)) return `[${value.map(canonicalJson).join(",")}]`;
  if (typeof value !== "object" || value === null) return JSON.stringify(value);
  const members = Object.entries(value).filter(([, member]) => member !== undefined);
  members.sort(([a], [b]) => (a < b ? -1 : 1));
  return `{${members.map(([name, member]) => `${JSON.stringify(name)}:${canonicalJson(member)}`).join(",")}}`;
}

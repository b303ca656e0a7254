/**
 * The events of the log as rows: numbered without a gap, and kept for as long as somebody may ask. Synchronous, so that deciding and
 * storing are one step.
 */
import type { RevocationEvent } from "#contract/revocation";
import type { Act, AuditActor } from "../audit/audit.ts";
import { subjectOf } from "../identifiers.ts";
import type { LoggedEvent } from "./delivery.ts";
import { expiredAt } from "./receipt.ts";

/** A decision that was made elsewhere and is to be told. */
export interface RevocationDraft extends Omit<RevocationEvent, "seq"> {
  /** For the operator. */
  readonly reason: string;
  /** Whose it was, where not the account's own. */
  readonly actor?: AuditActor;
  /** The tenant of whoever it is about, where it is about one. */
  readonly tid?: string;
  /** Whose token it is, where the targets do not say so. */
  readonly sub?: string;
  /** `X-Request-Id` of the call that it was decided in. */
  readonly request?: string;
  /** The bulk revocation that it is a part of. */
  readonly batch?: string;
  /** It repeats what was true before: nobody is hit who was not hit already. */
  readonly hitsNobody?: boolean;
}

/** What came of a decision: its place in the log, once it has one. */
export interface Decision extends RevocationDraft {
  readonly seq?: number;
}

/** A decision with its place in the log. */
export type StoredDecision = RevocationDraft & { readonly seq: number };

/** Finds what is alive without going through everything that is not. */
export const LIVING_EVENTS_SCHEMA = "CREATE INDEX events_by_expiry ON events (expires_at);";

type EventRow = {
  seq: number;
  id: string;
  targets: string;
  code: RevocationEvent["code"];
  reason: string;
  decided_at: number;
  expires_at: number;
  tid: string | null;
  actor: string | null;
  mode: "reauthenticate" | null;
  margin: number | null;
  batch: string | null;
  hits_nobody: number;
  request: string | null;
  sub: string | null;
  listed: number;
};

/**
 * Where an event is listed: of a bulk revocation the first one stands for all, and the first one of each tenant for those who see that
 * tenant alone; the others are listed only where they are asked for.
 */
export const LISTED = { byName: 0, inTenant: 1, everywhere: 2 } as const;

/** Events to go through one by one; what is further away is looked up by when it expires, and sorted. */
const NEAR = 10_000;

export class EventTable {
  readonly #sql: SqlStorage;

  constructor(sql: SqlStorage) {
    this.#sql = sql;
  }

  find(id: string): StoredDecision | undefined {
    const [row] = this.#rows("SELECT * FROM events WHERE id = ?", id);
    return row && decisionOf(row);
  }

  at(seq: number): StoredDecision | undefined {
    const [row] = this.#rows("SELECT * FROM events WHERE seq = ?", seq);
    return row && decisionOf(row);
  }

  /** @returns its place */
  insert(draft: RevocationDraft): number {
    const [stored] = this.#sql
      .exec<{ seq: number }>(
        `INSERT INTO events
           (id, targets, code, reason, decided_at, expires_at, tid, actor, mode, margin, batch, hits_nobody, request, sub, listed)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) RETURNING seq`,
        draft.id,
        JSON.stringify(draft.targets),
        draft.code,
        draft.reason,
        draft.decided_at,
        draft.expires_at,
        draft.tid ?? null,
        draft.actor === undefined ? null : JSON.stringify(draft.actor),
        draft.mode ?? null,
        draft.margin ?? null,
        draft.batch ?? null,
        draft.hitsNobody === true ? 1 : 0,
        draft.request ?? null,
        subjectIn(draft) ?? null,
        this.#listing(draft),
      )
      .toArray();
    for (const target of draft.targets) if (target.kind === "token") this.#insertToken(target.jti, draft.expires_at);
    return stored?.seq ?? 0;
  }

  isTokenRevoked(jti: string): boolean {
    return this.#sql.exec("SELECT 1 FROM tokens WHERE jti = ?", jti).toArray().length > 0;
  }

  /** The last number that was given, whether or not its event is still kept; 0 before the first. */
  head(): number {
    const query = "SELECT seq FROM sqlite_sequence WHERE name = 'events'";
    return this.#sql.exec<{ seq: number }>(query).toArray()[0]?.seq ?? 0;
  }

  /** The first event that is still there to be told at `now`, in milliseconds; undefined when none is. */
  firstLiving(now: number): number | undefined {
    // By itself SQLite would look for it from the beginning of the table.
    const query = "SELECT MIN(seq) AS seq FROM events INDEXED BY events_by_expiry WHERE expires_at > ?";
    return this.#sql.exec<{ seq: number | null }>(query, leastLiving(now)).toArray()[0]?.seq ?? undefined;
  }

  /** The events after `seq` that are still there to be told at `now`, in milliseconds, oldest first. */
  *living(seq: number, now: number, limit: number): Generator<RevocationEvent> {
    const by = this.head() - seq > NEAR ? "INDEXED BY events_by_expiry" : "NOT INDEXED";
    const query = `SELECT * FROM events ${by} WHERE seq > ? AND expires_at > ? ORDER BY seq LIMIT ?`;
    const rows = this.#sql.exec<EventRow>(query, seq, leastLiving(now), limit);
    for (const row of rows) yield revocationIn(loggedEvent(row));
  }

  /** Events after `seq` that a receiver has not taken, oldest first. */
  undelivered(receiver: string, seq: number, limit: number): LoggedEvent[] {
    const rows = this.#rows(
      `SELECT e.* FROM events e LEFT JOIN deliveries d ON d.cluster = ? AND d.seq = e.seq
       WHERE e.seq > ? AND d.delivered_at IS NULL ORDER BY e.seq LIMIT ?`,
      receiver,
      seq,
      limit,
    );
    return rows.map(loggedEvent);
  }

  /** Forgets what comes no later than `upTo`, was decided before `decidedBefore` (milliseconds) and can hit nothing at `now`. */
  forget(upTo: number, decidedBefore: number, now: number): void {
    const seconds = Math.floor(now / 1000);
    const remove = "DELETE FROM events WHERE seq <= ? AND decided_at < ? AND expires_at < ?";
    this.#sql.exec(remove, upTo, decidedBefore, seconds);
    this.#sql.exec("DELETE FROM tokens WHERE expires_at < ?", seconds);
  }

  /** The number of the last event of the oldest hundredth. */
  oldestHundredth(): number {
    const { first } = this.#sql.exec<{ first: number | null }>("SELECT MIN(seq) AS first FROM events").one();
    const before = (first ?? 1) - 1;
    return before + Math.ceil((this.head() - before) / 100);
  }

  /** When the first event was decided, and when the first token that is revoked by itself expires; milliseconds. */
  oldest(): { readonly decidedAt: number | undefined; readonly tokenExpiresAt: number | undefined } {
    const [row] = this.#sql
      .exec<{ decided: number | null; expires: number | null }>(
        `SELECT (SELECT MIN(decided_at) FROM events) AS decided,
                (SELECT MIN(expires_at) * 1000 FROM tokens) AS expires`,
      )
      .toArray();
    return { decidedAt: row?.decided ?? undefined, tokenExpiresAt: row?.expires ?? undefined };
  }

  /** In which lists it stands for itself. */
  #listing({ batch, tid }: RevocationDraft): number {
    if (batch === undefined) return LISTED.everywhere;
    const isKnown = (and: string, ...values: SqlStorageValue[]) =>
      this.#sql.exec(`SELECT 1 FROM events WHERE batch = ? ${and} LIMIT 1`, batch, ...values).toArray().length > 0;
    if (!isKnown("")) return LISTED.everywhere;
    return isKnown("AND tid IS ?", tid ?? null) ? LISTED.byName : LISTED.inTenant;
  }

  #insertToken(jti: string, expiresAt: number): void {
    this.#sql.exec("INSERT OR REPLACE INTO tokens (jti, expires_at) VALUES (?, ?)", jti, expiresAt);
  }

  #rows(query: string, ...values: SqlStorageValue[]): EventRow[] {
    return this.#sql.exec<EventRow>(query, ...values).toArray();
  }
}

/** Whom it is about, where that is one. */
function subjectIn({ targets: [target], sub }: RevocationDraft): string | undefined {
  if (target === undefined) return sub;
  if ("sub" in target) return target.sub;
  return target.kind === "session" ? subjectOf(target.sid) : sub;
}

/** Who decided, and in which call. */
export function decidedBy({ actor, request }: Act): Pick<RevocationDraft, "actor" | "request"> {
  return { actor, ...(request === undefined ? {} : { request }) };
}

/** What nodes are told of it. */
export function revocationIn({ tid: _, actor: __, hitsNobody: ___, ...event }: LoggedEvent): RevocationEvent {
  return event;
}

/** `expires_at` of what is not over at `now`, margins considered, lies beyond this. */
function leastLiving(now: number): number {
  return Math.floor((now - expiredAt(0)) / 1000);
}

function loggedEvent(row: EventRow): LoggedEvent {
  const { reason: _, batch: __, ...event } = decisionOf(row);
  return event;
}

function decisionOf(row: EventRow): StoredDecision {
  const { targets, tid, actor, mode, margin, batch, hits_nobody, request, sub: _, listed: __, ...rest } = row;
  return {
    ...rest,
    targets: JSON.parse(targets),
    ...(tid === null ? {} : { tid }),
    ...(actor === null ? {} : { actor: JSON.parse(actor) }),
    ...(mode === null ? {} : { mode }),
    ...(margin === null ? {} : { margin }),
    ...(batch === null ? {} : { batch }),
    ...(request === null ? {} : { request }),
    ...(hits_nobody === 0 ? {} : { hitsNobody: true }),
  };
}

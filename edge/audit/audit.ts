/**
 * What is written into the audit trail, and the two ways of writing it.
 *
 * `audit` is for what merely happened (a sign-in, a failed one, an admin who was turned away): it is sent after the answer, and a
 * trail that cannot be reached loses the entry, with a line in the log. It never delays or fails anybody.
 * `AuditOutbox` is for what was decided (a revocation, a key, an account): the entry is stored in one step with the decision, in
 * the object that decides, and told until the trail has taken it. Such an entry cannot be lost; it can arrive late.
 *
 * An entry never holds a secret, and nothing that a caller typed where a secret could stand: not even the login name that failed.
 */
import { waitUntil } from "cloudflare:workers";
import { randomName } from "../identifiers.ts";
import { logFailure } from "../log.ts";
import type { Origin } from "../origin.ts";
import { ask, type Outcome } from "../outcome.ts";

/** What can be in the trail. A new kind of act gets a name of its own here. */
export const AUDIT_TYPES = [
  "sign_in",
  "sign_in_failed",
  "session_ended",
  "refresh_reused",
  "password_changed",
  "password_change_failed",
  "account_created",
  "account_changed",
  "account_disabled",
  "account_enabled",
  "account_deleted",
  "account_linked",
  "revocation",
  "revocation_enforced",
  "key_created",
  "key_rotated",
  "key_retired",
  "client_created",
  "client_changed",
  "client_deleted",
  "stream_created",
  "stream_deleted",
  "event_received",
  "event_refused",
  "admin_refused",
  "audit_truncated",
] as const;
export type AuditType = (typeof AUDIT_TYPES)[number];

/**
 * Who acted: somebody for themselves (`user`), or as an administrator: the holder of ADMIN_TOKEN (`admin`), a `client`, or a person
 * (`account`). `id` is a subject, a client's id, or which part of the edge. At most 256 characters.
 */
export interface AuditActor {
  readonly kind: "user" | "admin" | "client" | "account" | "system";
  readonly id: string;
}

export interface AuditEntry {
  /** `aud_` and 128 bits: the trail takes an entry once however often it is told. */
  readonly id: string;
  /** When it happened, milliseconds since the epoch. */
  readonly at: number;
  readonly type: AuditType;
  readonly actor: AuditActor;
  /** Whom it is about. */
  readonly sub?: string | undefined;
  readonly sid?: string | undefined;
  readonly tid?: string | undefined;
  /** Id of the revocation: the way to the receipt. */
  readonly revocation?: string | undefined;
  readonly client?: string | undefined;
  readonly kid?: string | undefined;
  /** How many there were, or of which kind; for those who read it. At most 500 characters. */
  readonly reason?: string | undefined;
  /** Of a revocation that was enforced: its receipt, signed. Some hundred characters for each node. */
  readonly receipt?: string | undefined;
  readonly from?: Origin | undefined;
  /** `X-Request-Id` of the answer. */
  readonly request?: string | undefined;
}

/** An entry as its writer gives it. */
export type AuditDraft = Omit<AuditEntry, "id" | "at">;

/** Who did something, for the audit trail. */
export type Act = Pick<AuditDraft, "actor" | "from" | "request">;

/** An entry as the trail keeps it. */
export interface AuditRecord extends AuditEntry {
  /** 1, 2, 3, … without a gap. */
  readonly position: number;
  /** When the trail took it, milliseconds since the epoch; never before the one in front of it. */
  readonly recorded_at: number;
  /** `base64url(SHA-256(hash before || canonical JSON of this record without its hash))`; audit-trail.ts. */
  readonly hash: string;
}

/** There is one. */
export const AUDIT_TRAIL_NAME = "trail";

/** A part of schema steps of several objects: it never changes. A later form is a step of its own. */
export const AUDIT_OUTBOX_SCHEMA =
  "CREATE TABLE audit_outbox (id TEXT PRIMARY KEY, entry TEXT NOT NULL) WITHOUT ROWID;";

const FIRST_RETRY_MS = 1_000;
const LAST_RETRY_MS = 60_000;
const MAX_REASON = 500;
/** Entries in one call, and about how many characters: a receipt can be long. */
const BATCH = 100;
const BATCH_LENGTH = 4 * 1024 * 1024;

/** The acts of nobody in particular. */
export const SYSTEM: AuditActor = { kind: "system", id: "edge" };

/** Sends what happened to the trail, after the answer. Never throws, never delays. Not for decisions: see above. */
export function audit(env: Env, draft: AuditDraft): void {
  const entry = entryOf(draft);
  waitUntil(
    ask(trail(env).append([entry])).catch((error: unknown) => {
      logFailure("an audit entry was lost", { id: entry.id, type: entry.type, request: entry.request }, error);
    }),
  );
}

export function entryOf(draft: AuditDraft, at: number = Date.now()): AuditEntry {
  const reason = draft.reason === undefined ? {} : { reason: draft.reason.slice(0, MAX_REASON) };
  return { id: `aud_${randomName(128)}`, at, ...draft, ...reason };
}

/** Entries that an object owes to the trail. Its table, AUDIT_OUTBOX_SCHEMA, is a step of the object's own schema. */
export class AuditOutbox {
  readonly #sql: SqlStorage;
  readonly #append: (entries: readonly AuditEntry[]) => PromiseLike<Outcome<number>>;
  #failures = 0;
  #telling: Promise<void> | undefined;

  constructor(sql: SqlStorage, env: Env) {
    this.#sql = sql;
    this.#append = (entries) => trail(env).append(entries);
  }

  /** Synchronous, so that it goes with the decision. Whoever adds sets an alarm for `retryAt`. */
  add(draft: AuditDraft, at?: number): void {
    const entry = entryOf(draft, at);
    this.#sql.exec("INSERT INTO audit_outbox (id, entry) VALUES (?, ?)", entry.id, JSON.stringify(entry));
  }

  /** Brings everything to the trail. What it does not take stays. Never throws; nobody need wait for it. */
  tell(): Promise<void> {
    this.#telling ??= this.#tell().finally(() => {
      this.#telling = undefined;
    });
    return this.#telling;
  }

  /** When to tell again, milliseconds since the epoch; undefined when there is nothing to tell. */
  retryAt(): number | undefined {
    const owing = this.#sql.exec("SELECT 1 FROM audit_outbox LIMIT 1").toArray().length > 0;
    return owing ? Date.now() + Math.min(LAST_RETRY_MS, FIRST_RETRY_MS * 2 ** this.#failures) : undefined;
  }

  /** How many there are to tell. */
  owed(): number {
    return this.#sql.exec<{ owed: number }>("SELECT COUNT(*) AS owed FROM audit_outbox").one().owed;
  }

  async #tell(): Promise<void> {
    try {
      for (;;) {
        const rows = this.#batch();
        if (rows.length === 0) break;
        await ask(this.#append(rows.map(({ entry }) => JSON.parse(entry))));
        for (const { id } of rows) this.#sql.exec("DELETE FROM audit_outbox WHERE id = ?", id);
      }
      this.#failures = 0;
    } catch (error) {
      this.#failures++;
      logFailure("the audit trail did not take what it is owed", {}, error);
    }
  }

  #batch(): { id: string; entry: string }[] {
    const rows: { id: string; entry: string }[] = [];
    let length = 0;
    for (const row of this.#sql.exec<{ id: string; entry: string }>(
      "SELECT id, entry FROM audit_outbox LIMIT ?",
      BATCH,
    )) {
      length += row.entry.length;
      if (rows.length > 0 && length > BATCH_LENGTH) break;
      rows.push(row);
    }
    return rows;
  }
}

export function trail(env: Env) {
  return env.AUDIT_TRAIL.getByName(AUDIT_TRAIL_NAME);
}

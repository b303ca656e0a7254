/**
 * Every revocation in one order, one object for the whole edge: numbered without a gap, stored before anybody is told, pushed to
 * every cluster until it has taken it, and asked about afterwards.
 *
 * It is also the one clock for cutoffs: it decides a cutoff and it stamps the beginning of every session, so that "began
 * before" is exact whatever the clocks of the other machines say.
 */
import { DurableObject } from "cloudflare:workers";
import { signTyped } from "#contract/access-token";
import { Refusal } from "#contract/refusal";
import { RECEIPT_QUERY_TYPE, type RevocationEvent, type RevocationTarget, signRevocation } from "#contract/revocation";
import { Cluster } from "./cluster.ts";
import { readConfig } from "./config.ts";
import { Delivery, type DeliveryLog } from "./delivery.ts";
import { randomName } from "./identifiers.ts";
import { signingKey } from "./issuer.ts";
import { logFailure } from "./log.ts";
import { migrate } from "./migrations.ts";
import { answer, type Outcome } from "./outcome.ts";
import { type ClusterState, type Receipt, receiptOf } from "./receipt.ts";

/** A decision that was made elsewhere and is to be told. */
export interface RevocationDraft extends Omit<RevocationEvent, "seq"> {
  /** For the operator. */
  readonly reason: string;
}

/** What came of a decision: its place in the log, once it has one. */
export interface Decision extends RevocationDraft {
  readonly seq?: number;
}

const SCHEMA = [
  `CREATE TABLE events (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    targets TEXT NOT NULL,
    code TEXT NOT NULL,
    reason TEXT NOT NULL,
    decided_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL
  );
  CREATE TABLE deliveries (
    cluster TEXT NOT NULL,
    seq INTEGER NOT NULL,
    delivered_at INTEGER,
    attempts INTEGER NOT NULL,
    last_error TEXT,
    receipt TEXT,
    PRIMARY KEY (cluster, seq)
  ) WITHOUT ROWID;
  CREATE TABLE cursors (cluster TEXT PRIMARY KEY, seq INTEGER NOT NULL) WITHOUT ROWID;
  CREATE TABLE cutoffs (tid TEXT PRIMARY KEY, cutoff INTEGER NOT NULL) WITHOUT ROWID;
  CREATE TABLE tokens (jti TEXT PRIMARY KEY, expires_at INTEGER NOT NULL) WITHOUT ROWID;`,
];

/** There is one. */
export const REVOCATION_LOG_NAME = "log";

/** How long events stay readable after they were decided. */
const RECEIPT_DAYS = 7;
const DAY_MS = 86_400_000;
/** Cutoffs for everyone; no tenant has an empty name. */
const EVERYONE = "";
/** A session may be stamped this far ahead of the clock; nodes take it for the difference between two clocks. */
const MAX_STAMP_AHEAD_SECONDS = 2;
/** The alarm that guards pushes which were started at once. */
const GUARD_MS = 5_000;
const RECEIPT_POLL_MS = 250;
/** PROTOCOL: a cluster waits no longer. */
const MAX_CLUSTER_WAIT_MS = 5_000;

type EventRow = {
  seq: number;
  id: string;
  targets: string;
  code: RevocationEvent["code"];
  reason: string;
  decided_at: number;
  expires_at: number;
};

export class RevocationLog extends DurableObject<Env> {
  /** One pump per cluster: a slow one must not delay another. */
  #pumps: readonly Delivery[] | undefined;
  /** The alarm as it is stored, milliseconds; undefined when it is not known. */
  #alarmAt: number | undefined;
  /** Called at the next change; for those who wait for a receipt. */
  readonly #watchers = new Set<() => void>();

  constructor(ctx: DurableObjectState, env: Env) {
    super(ctx, env);
    migrate(ctx.storage, SCHEMA);
  }

  /** Takes a decision into the log. Doing it again changes nothing. */
  append(draft: RevocationDraft): Promise<Outcome<Decision>> {
    return answer(() => {
      const decision = this.ctx.storage.transactionSync(() => this.#append(draft));
      this.#announce();
      return decision;
    });
  }

  /**
   * Revokes every session of a tenant, or of everyone, that has begun by now: the cutoff and its event in one step.
   *
   * @param tid undefined for everyone
   */
  revokeBefore(id: string, tid: string | undefined, reason: string): Promise<Outcome<Decision>> {
    return answer(() => {
      const decision = this.ctx.storage.transactionSync(() => {
        const now = Date.now();
        const cutoff = this.#nextCutoff(tid, Math.floor(now / 1000));
        this.#sql("INSERT OR REPLACE INTO cutoffs (tid, cutoff) VALUES (?, ?)", tid ?? EVERYONE, cutoff);
        const target: RevocationTarget =
          tid === undefined ? { kind: "everyone", cutoff } : { kind: "tenant", tid, cutoff };
        const expires_at = cutoff + readConfig(this.env).accessTokenTtlSeconds + 60;
        return this.#append({ id, targets: [target], code: "session_revoked", reason, decided_at: now, expires_at });
      });
      this.#announce();
      return decision;
    });
  }

  /**
   * The second in which a session that opens now begins: after every cutoff that there is.
   *
   * @throws {Refusal} `unavailable` when cutoffs came so fast that it would lie too far ahead
   */
  beginning(tid: string | null): Promise<Outcome<number>> {
    return answer(() => {
      const now = Math.floor(Date.now() / 1000);
      const earliest = this.#cutoff(tid ?? undefined) + 1;
      if (earliest > now + MAX_STAMP_AHEAD_SECONDS) {
        throw new Refusal("unavailable", { detail: "the cutoff is ahead", retryAfterSeconds: earliest - now });
      }
      return Math.max(now, earliest);
    });
  }

  /** The cutoff for a tenant's sessions, 0 when there is none, and whether one token is revoked by itself. */
  standing(tid: string | null, jti?: string): Promise<Outcome<{ cutoff: number; tokenRevoked: boolean }>> {
    return answer(() => {
      const tokenRevoked = jti !== undefined && this.#sql("SELECT 1 FROM tokens WHERE jti = ?", jti).length > 0;
      return { cutoff: this.#cutoff(tid ?? undefined), tokenRevoked };
    });
  }

  /**
   * What is known of a revocation, once all is well or `waitMs` are over.
   *
   * @throws {Refusal} `not_found`
   */
  receipt(id: string, waitMs: number): Promise<Outcome<Receipt>> {
    return answer(async () => {
      const deadline = Date.now() + waitMs;
      for (;;) {
        const receipt = await this.#inspect(id, deadline);
        const left = deadline - Date.now();
        if (receipt.state === "applied" || left <= 0) return receipt;
        await this.#nextChange(Math.min(RECEIPT_POLL_MS, left));
      }
    });
  }

  /** The guarantee behind the pushes that are started at once. Never throws: the platform gives up after six retries. */
  override async alarm(): Promise<void> {
    this.#alarmAt = undefined;
    try {
      for (const pump of this.#deliveries()) pump.kick();
      this.#purge(Date.now());
    } catch (error) {
      logFailure("the alarm of the revocation log failed", {}, error);
      await this.ctx.storage.setAlarm(Date.now() + GUARD_MS);
      return;
    }
    this.#schedule();
  }

  #append(draft: RevocationDraft): Decision {
    const [known] = this.#sql<EventRow>("SELECT * FROM events WHERE id = ?", draft.id);
    if (known !== undefined) return { ...draft, seq: known.seq };
    const [stored] = this.#sql<{ seq: number }>(
      `INSERT INTO events (id, targets, code, reason, decided_at, expires_at) VALUES (?, ?, ?, ?, ?, ?) RETURNING seq`,
      draft.id,
      JSON.stringify(draft.targets),
      draft.code,
      draft.reason,
      draft.decided_at,
      draft.expires_at,
    );
    for (const target of draft.targets) {
      if (target.kind !== "token") continue;
      this.#sql("INSERT OR REPLACE INTO tokens (jti, expires_at) VALUES (?, ?)", target.jti, draft.expires_at);
    }
    return stored === undefined ? draft : { ...draft, seq: stored.seq };
  }

  /** Starts the pushes, and sets the alarm that guards them: without an await since the event, so in one step with it. */
  #announce(): void {
    // One that is due soon anyway will do as well.
    this.#alarmBy(Date.now() + GUARD_MS);
    for (const pump of this.#deliveries()) pump.kick();
  }

  /**
   * Now; but where a cutoff lies at or after now, sessions may have been stamped past it that it is to hit as well.
   */
  #nextCutoff(tid: string | undefined, now: number): number {
    const [latest] = this.#sql<{ cutoff: number }>("SELECT COALESCE(MAX(cutoff), 0) AS cutoff FROM cutoffs");
    const last = tid === undefined ? (latest?.cutoff ?? 0) : this.#cutoff(tid);
    return last >= now ? last + 1 : now;
  }

  /** The stricter one of everyone's and the tenant's. */
  #cutoff(tid: string | undefined): number {
    const query = "SELECT COALESCE(MAX(cutoff), 0) AS cutoff FROM cutoffs WHERE tid IN (?, ?)";
    return this.#sql<{ cutoff: number }>(query, EVERYONE, tid ?? EVERYONE)[0]?.cutoff ?? 0;
  }

  #deliveries(): readonly Delivery[] {
    this.#pumps ??= readConfig(this.env).clusters.map((cluster) => {
      return new Delivery(new Cluster(cluster), this.#deliveryLog(), this.#cursor(cluster.id));
    });
    return this.#pumps;
  }

  /** Where a cluster stands. A new one is told only what a living token may still meet. */
  #cursor(cluster: string): number {
    const [row] = this.#sql<{ seq: number }>("SELECT seq FROM cursors WHERE cluster = ?", cluster);
    if (row !== undefined) return row.seq;
    const now = Math.floor(Date.now() / 1000);
    const [first] = this.#sql<{ seq: number | null }>("SELECT MIN(seq) AS seq FROM events WHERE expires_at > ?", now);
    const seq = first?.seq == null ? this.#lastSeq() : first.seq - 1;
    this.#sql("INSERT INTO cursors (cluster, seq) VALUES (?, ?)", cluster, seq);
    return seq;
  }

  #lastSeq(): number {
    return this.#sql<{ seq: number }>("SELECT COALESCE(MAX(seq), 0) AS seq FROM events")[0]?.seq ?? 0;
  }

  #deliveryLog(): DeliveryLog {
    return {
      undelivered: (cluster, after, limit) => this.#undelivered(cluster, after, limit),
      sign: (event, cluster) => this.#sign(event, cluster),
      delivered: (cluster, seq) => {
        this.#sql(
          `INSERT INTO deliveries (cluster, seq, delivered_at, attempts) VALUES (?1, ?2, ?3, 1)
           ON CONFLICT DO UPDATE SET delivered_at = ?3, attempts = attempts + 1`,
          cluster,
          seq,
          Date.now(),
        );
      },
      failed: (cluster, seq, error) => {
        logFailure("a cluster did not take an event", { cluster, seq, error });
        this.#sql(
          `INSERT INTO deliveries (cluster, seq, attempts, last_error) VALUES (?1, ?2, 1, ?3)
           ON CONFLICT DO UPDATE SET last_error = ?3, attempts = attempts + 1`,
          cluster,
          seq,
          error,
        );
      },
      caughtUp: (cluster) => {
        const seq = this.#lastSeq();
        this.#sql("UPDATE cursors SET seq = ? WHERE cluster = ?", seq, cluster);
        return seq;
      },
      changed: () => {
        for (const wake of this.#watchers) wake();
        this.#watchers.clear();
        this.#schedule();
      },
    };
  }

  #undelivered(cluster: string, after: number, limit: number): RevocationEvent[] {
    const rows = this.#sql<EventRow>(
      `SELECT e.* FROM events e LEFT JOIN deliveries d ON d.cluster = ? AND d.seq = e.seq
       WHERE e.seq > ? AND d.delivered_at IS NULL ORDER BY e.seq LIMIT ?`,
      cluster,
      after,
      limit,
    );
    return rows.map(({ reason: _, targets, ...event }) => ({ ...event, targets: JSON.parse(targets) }));
  }

  async #sign(event: RevocationEvent, cluster: string): Promise<string> {
    const envelope = {
      issuer: readConfig(this.env).issuer,
      audience: cluster,
      issuedAt: Math.floor(Date.now() / 1000),
    };
    return await signRevocation(event, envelope, await signingKey(this.env));
  }

  async #inspect(id: string, deadline: number): Promise<Receipt> {
    const [event] = this.#sql<EventRow>("SELECT * FROM events WHERE id = ?", id);
    if (event === undefined) throw new Refusal("not_found", { detail: "no such revocation" });
    const clusters = await Promise.all(
      this.#deliveries().map(({ cluster }) => this.#stateOf(cluster, event, deadline)),
    );
    return receiptOf({ ...event, targets: JSON.parse(event.targets) }, clusters);
  }

  async #stateOf(cluster: Cluster, event: EventRow, deadline: number): Promise<ClusterState> {
    const query = "SELECT delivered_at, attempts, last_error, receipt FROM deliveries WHERE cluster = ? AND seq = ?";
    type Row = { delivered_at: number | null; attempts: number; last_error: string | null; receipt: string | null };
    const [row] = this.#sql<Row>(query, cluster.id, event.seq);
    const state: ClusterState = {
      cluster: cluster.id,
      ...(row?.delivered_at == null ? {} : { delivered_at: row.delivered_at }),
      attempts: row?.attempts ?? 0,
      ...(row?.last_error == null ? {} : { last_error: row.last_error }),
    };
    if (row?.delivered_at == null) return state;
    if (row.receipt !== null) return { ...state, receipt: JSON.parse(row.receipt) };
    const receipt = await this.#ask(cluster, event.id, deadline);
    if ("error" in receipt) return { ...state, last_error: receipt.error };
    if (receipt.pending.length === 0) {
      // The last word: nobody needs to ask again.
      const keep = "UPDATE deliveries SET receipt = ? WHERE cluster = ? AND seq = ?";
      this.#sql(keep, JSON.stringify(receipt), cluster.id, event.seq);
    }
    return { ...state, receipt };
  }

  async #ask(cluster: Cluster, id: string, deadline: number) {
    const iat = Math.floor(Date.now() / 1000);
    const claims = { iss: readConfig(this.env).issuer, aud: cluster.id, iat, exp: iat + 60, jti: randomName(128) };
    const bearer = await signTyped(RECEIPT_QUERY_TYPE, claims, await signingKey(this.env));
    const waitMs = Math.min(MAX_CLUSTER_WAIT_MS, Math.max(0, deadline - Date.now()));
    return await cluster.receipt(id, bearer, waitMs);
  }

  async #nextChange(atMostMs: number): Promise<void> {
    await new Promise<void>((resolve) => {
      this.#watchers.add(resolve);
      setTimeout(() => {
        this.#watchers.delete(resolve);
        resolve();
      }, atMostMs);
    });
  }

  /** Sets the alarm to when something is next to be done, or takes it away. */
  #schedule(): void {
    const wakeAts = this.#deliveries().map((pump) => pump.wakeAt());
    const due = wakeAts.filter((at) => at !== undefined);
    const next = due.length > 0 ? Math.min(...due) : this.#nextPurge();
    if (next === undefined) {
      this.#alarmAt = undefined;
      void this.ctx.storage.deleteAlarm();
    } else if (next !== this.#alarmAt) {
      this.#alarmAt = next;
      void this.ctx.storage.setAlarm(next);
    }
  }

  #alarmBy(at: number): void {
    if (this.#alarmAt !== undefined && this.#alarmAt <= at) return;
    this.#alarmAt = at;
    void this.ctx.storage.setAlarm(at);
  }

  #nextPurge(): number | undefined {
    const [row] = this.#sql<{ at: number | null }>(
      `SELECT MIN(at) AS at FROM (
         SELECT MIN(decided_at) + ${RECEIPT_DAYS * DAY_MS} AS at FROM events
         UNION ALL SELECT (MIN(cutoff) + ?1) * 1000 FROM cutoffs
         UNION ALL SELECT MIN(expires_at) * 1000 FROM tokens)`,
      readConfig(this.env).sessionMaxSeconds,
    );
    // Never at once again: what is kept for another reason must not keep the alarm busy.
    return row?.at == null ? undefined : Math.max(row.at, Date.now() + DAY_MS / 24);
  }

  /** Forgets what was taken by every cluster and can hit nothing any more. */
  #purge(nowMs: number): void {
    const now = Math.floor(nowMs / 1000);
    const ids = readConfig(this.env).clusters.map(({ id }) => id);
    const [taken] = this.#sql<{ seq: number | null }>(
      `SELECT MIN(seq) AS seq FROM cursors WHERE cluster IN (SELECT value FROM json_each(?))`,
      JSON.stringify(ids),
    );
    const upTo = taken?.seq ?? this.#lastSeq();
    const before = nowMs - RECEIPT_DAYS * DAY_MS;
    this.#sql("DELETE FROM events WHERE seq <= ? AND decided_at < ? AND expires_at < ?", upTo, before, now);
    this.#sql("DELETE FROM deliveries WHERE seq < (SELECT COALESCE(MIN(seq), ?) FROM events)", upTo + 1);
    this.#sql("DELETE FROM cutoffs WHERE cutoff < ?", now - readConfig(this.env).sessionMaxSeconds);
    this.#sql("DELETE FROM tokens WHERE expires_at < ?", now);
  }

  #sql<T extends Record<string, SqlStorageValue>>(query: string, ...values: SqlStorageValue[]): T[] {
    return this.ctx.storage.sql.exec<T>(query, ...values).toArray();
  }
}

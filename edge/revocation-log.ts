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
import {
  RECEIPT_QUERY_TYPE,
  type RevocationEvent,
  type RevocationManner,
  type RevocationTarget,
  signRevocation,
} from "#contract/revocation";
import { type Act, AUDIT_OUTBOX_SCHEMA, type AuditActor, AuditOutbox } from "./audit.ts";
import { Cluster } from "./cluster.ts";
import { readConfig } from "./config.ts";
import { Delivery, type DeliveryLog, type LoggedEvent } from "./delivery.ts";
import {
  EVENT_STREAMS_SCHEMA,
  type EventStream,
  EventStreams,
  type NewStream,
  type PollAnswer,
  type PollRequest,
} from "./event-streams.ts";
import { type Claim, IDEMPOTENCY_SCHEMA, IdempotencyKeys } from "./idempotency-keys.ts";
import { randomName } from "./identifiers.ts";
import { forgetKeys, signingKey } from "./issuer.ts";
import { logFailure } from "./log.ts";
import { migrate } from "./migrations.ts";
import { answer, type Outcome } from "./outcome.ts";
import { type ClusterState, type Receipt, receiptOf } from "./receipt.ts";

/** A decision that was made elsewhere and is to be told. */
export interface RevocationDraft extends Omit<RevocationEvent, "seq"> {
  /** For the operator. */
  readonly reason: string;
  /** Whose it was, where not the account's own. */
  readonly actor?: AuditActor;
  /** The tenant of whoever it is about, where it is about one. */
  readonly tid?: string;
  /** The bulk revocation that it is a part of. */
  readonly batch?: string;
  /** It repeats what was true before: nobody is hit who was not hit already. */
  readonly hitsNobody?: boolean;
}

/** A revocation as an administrator asks for it. */
export interface Order {
  readonly id: string;
  readonly reason: string;
  readonly by?: Act | undefined;
  /** An account of another tenant is none to the orderer. */
  readonly tenant?: string | undefined;
  /** What nodes do with the sockets, when it is not to close them at once. */
  readonly manner?: RevocationManner | undefined;
  /** The order was given before and its answer was lost: it must not be carried out twice. */
  readonly again?: boolean | undefined;
  /** The bulk revocation that it is a part of. */
  readonly batch?: string | undefined;
}

/** A cutoff as an administrator asks for it. */
export interface CutoffOrder extends Order {
  /** Absent: for everyone. */
  readonly tid?: string | undefined;
  /** A second that is past; absent: now. */
  readonly issuedBefore?: number | undefined;
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
  `ALTER TABLE events ADD COLUMN tid TEXT;
  ALTER TABLE events ADD COLUMN actor TEXT;
  ALTER TABLE events ADD COLUMN mode TEXT;
  ALTER TABLE events ADD COLUMN margin INTEGER;
  ALTER TABLE events ADD COLUMN batch TEXT;
  CREATE INDEX events_of_batch ON events (batch) WHERE batch IS NOT NULL;
  ${IDEMPOTENCY_SCHEMA}
  ${AUDIT_OUTBOX_SCHEMA}`,
  `ALTER TABLE events ADD COLUMN hits_nobody INTEGER NOT NULL DEFAULT 0;
  ${EVENT_STREAMS_SCHEMA}`,
];

/** What has become of a bulk revocation. */
export interface BatchState {
  /** Events that are in the log. */
  readonly events: number;
  readonly clusters: readonly { readonly cluster: string; readonly delivered: number }[];
}

interface Pump {
  readonly cluster: Cluster;
  readonly delivery: Delivery;
}

/** There is one. */
export const REVOCATION_LOG_NAME = "log";

/** How long events stay readable after they were decided. */
const RECEIPT_DAYS = 7;
const DAY_MS = 86_400_000;
/** Clock differences, and a token that was being signed meanwhile. */
const MARGIN_SECONDS = 60;
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
  tid: string | null;
  actor: string | null;
  mode: "reauthenticate" | null;
  margin: number | null;
  batch: string | null;
  hits_nobody: number;
};

export class RevocationLog extends DurableObject<Env> {
  readonly #audit: AuditOutbox;
  readonly #idempotency: IdempotencyKeys;
  readonly #streams: EventStreams;
  /** One pump per cluster: a slow one must not delay another. */
  #pumps: readonly Pump[] | undefined;
  /** The alarm as it is stored, milliseconds; undefined when it is not known. */
  #alarmAt: number | undefined;
  /** Called at the next change; for those who wait for a receipt. */
  readonly #watchers = new Set<() => void>();

  constructor(ctx: DurableObjectState, env: Env) {
    super(ctx, env);
    migrate(ctx.storage, SCHEMA);
    this.#audit = new AuditOutbox(ctx.storage.sql, env);
    this.#idempotency = new IdempotencyKeys(ctx.storage.sql);
    this.#streams = new EventStreams(ctx.storage.sql, env, this.#deliveryLog());
  }

  /**
   * Takes a decision into the log. Doing it again changes nothing.
   *
   * @param by who decided, where it was decided by no object that keeps a record of its own
   */
  append(draft: RevocationDraft, by?: Act): Promise<Outcome<Decision>> {
    return answer(() => {
      const decision = this.ctx.storage.transactionSync(() => {
        if (by !== undefined && this.#decision(draft.id) === undefined) this.#record(draft, by);
        return this.#append(draft);
      });
      this.#announce();
      return decision;
    });
  }

  /** What was decided under this id, or null. */
  decision(id: string): Promise<Outcome<Decision | null>> {
    return answer(() => this.#decision(id) ?? null);
  }

  /**
   * Revokes every session of a tenant, or of everyone, that has begun by now, or by a second before: the cutoff and its event in
   * one step. A cutoff never goes back: one that lies before another changes nothing for those whom that one hits.
   *
   * @throws {Refusal} `request_malformed` for a second that is yet to come
   */
  revokeBefore(order: CutoffOrder): Promise<Outcome<Decision>> {
    return answer(() => {
      const earlier = this.#decision(order.id);
      if (earlier !== undefined) return earlier;
      const decision = this.ctx.storage.transactionSync(() => {
        const draft = this.#cutOff(order, Date.now());
        if (order.by !== undefined) this.#record(draft, order.by);
        return this.#append(draft);
      });
      this.#announce();
      return decision;
    });
  }

  /**
   * Reserves an id for an order that comes with an Idempotency-Key.
   *
   * @param fingerprint of the request: the same key must not come with another one
   * @throws {Refusal} `idempotency_mismatch`; `conflict` while the first request is being carried out
   */
  claim(key: string, fingerprint: string, freshId: string): Promise<Outcome<Claim>> {
    return answer(() => this.#idempotency.claim(key, fingerprint, freshId));
  }

  /** Keeps what was answered; or forgets the key of an order that was refused, since nothing was done. */
  settle(key: string, given: string | null): Promise<Outcome<null>> {
    return answer(() => {
      this.#idempotency.settle(key, given);
      return null;
    });
  }

  /** Makes an event stream, which begins with what is decided from now on. @throws {Refusal} `conflict` */
  createStream(stream: NewStream): Promise<Outcome<EventStream>> {
    return answer(() => this.ctx.storage.transactionSync(() => this.#streams.create(stream)));
  }

  /** @param owner whose streams alone the asker may see; undefined for all */
  streams(owner: string | undefined): Promise<Outcome<readonly EventStream[]>> {
    return answer(() => this.#streams.list(owner));
  }

  /** @throws {Refusal} `not_found` */
  stream(streamId: string, owner: string | undefined): Promise<Outcome<EventStream>> {
    return answer(() => this.#streams.find(streamId, owner));
  }

  /** @throws {Refusal} `not_found` */
  removeStream(streamId: string, owner: string | undefined): Promise<Outcome<null>> {
    return answer(() => {
      this.ctx.storage.transactionSync(() => this.#streams.remove(streamId, owner));
      return null;
    });
  }

  /** RFC 8936. @throws {Refusal} `not_found` */
  pollStream(streamId: string, owner: string | undefined, request: PollRequest): Promise<Outcome<PollAnswer>> {
    return answer(() => this.#streams.poll(streamId, owner, request));
  }

  /** SSF 1.0 section 8.1.4. @throws {Refusal} `not_found` */
  verifyStream(streamId: string, owner: string | undefined, state: string | undefined): Promise<Outcome<null>> {
    return answer(async () => {
      await this.#streams.verify(streamId, owner, state);
      return null;
    });
  }

  /** How many events of a bulk revocation there are, and how many of them each cluster has taken. */
  batch(batch: string): Promise<Outcome<BatchState>> {
    return answer(() => {
      const [all] = this.#sql<{ events: number }>("SELECT COUNT(*) AS events FROM events WHERE batch = ?", batch);
      const clusters = readConfig(this.env).clusters.map(({ id }) => {
        const [taken] = this.#sql<{ delivered: number }>(
          `SELECT COUNT(*) AS delivered FROM events e JOIN deliveries d ON d.seq = e.seq
           WHERE e.batch = ? AND d.cluster = ? AND d.delivered_at IS NOT NULL`,
          batch,
          id,
        );
        return { cluster: id, delivered: taken?.delivered ?? 0 };
      });
      return { events: all?.events ?? 0, clusters };
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
   * @param tenant whose revocations alone the asker may see
   * @throws {Refusal} `not_found`
   */
  receipt(id: string, waitMs: number, tenant?: string): Promise<Outcome<Receipt>> {
    return answer(async () => {
      const known = this.#decision(id);
      if (known === undefined || (tenant !== undefined && known.tid !== tenant)) {
        throw new Refusal("not_found", { detail: "no such revocation, or of another tenant" });
      }
      const deadline = Date.now() + waitMs;
      for (;;) {
        const receipt = await this.#inspect(id, deadline);
        const left = deadline - Date.now();
        if (receipt.state === "applied" || receipt.state === "no_clusters" || left <= 0) return receipt;
        await this.#nextChange(Math.min(RECEIPT_POLL_MS, left));
      }
    });
  }

  /** The guarantee behind the pushes that are started at once. Never throws: the platform gives up after six retries. */
  override async alarm(): Promise<void> {
    this.#alarmAt = undefined;
    try {
      for (const delivery of this.#pushes()) delivery.kick();
      await this.#audit.tell();
      this.#purge(Date.now());
    } catch (error) {
      logFailure("the alarm of the revocation log failed", {}, error);
      await this.ctx.storage.setAlarm(Date.now() + GUARD_MS);
      return;
    }
    this.#schedule();
  }

  #append(draft: RevocationDraft): Decision {
    const known = this.#decision(draft.id);
    if (known !== undefined) return known;
    const [stored] = this.#sql<{ seq: number }>(
      `INSERT INTO events
         (id, targets, code, reason, decided_at, expires_at, tid, actor, mode, margin, batch, hits_nobody)
       VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) RETURNING seq`,
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
    );
    // What follows must not be signed with a key that was retired just now.
    if (draft.targets.some(({ kind }) => kind === "key")) forgetKeys(this.env);
    for (const target of draft.targets) {
      if (target.kind !== "token") continue;
      this.#sql("INSERT OR REPLACE INTO tokens (jti, expires_at) VALUES (?, ?)", target.jti, draft.expires_at);
    }
    return stored === undefined ? draft : { ...draft, seq: stored.seq };
  }

  #decision(id: string): (RevocationDraft & { readonly seq: number }) | undefined {
    const [row] = this.#sql<EventRow>("SELECT * FROM events WHERE id = ?", id);
    return row && decisionOf(row);
  }

  #cutOff({ id, tid, reason, issuedBefore, manner, by }: CutoffOrder, nowMs: number): RevocationDraft {
    const now = Math.floor(nowMs / 1000);
    if (issuedBefore !== undefined && issuedBefore > now) {
      throw new Refusal("request_malformed", { detail: "issued_before lies in the future" });
    }
    const cutoff = issuedBefore ?? this.#nextCutoff(tid, now);
    this.#sql(
      `INSERT INTO cutoffs (tid, cutoff) VALUES (?1, ?2) ON CONFLICT DO UPDATE SET cutoff = MAX(cutoff, ?2)`,
      tid ?? EVERYONE,
      cutoff,
    );
    const target: RevocationTarget = tid === undefined ? { kind: "everyone", cutoff } : { kind: "tenant", tid, cutoff };
    // A session that began long ago may have been refreshed just now.
    const margin = manner?.margin ?? 0;
    const expires_at = Math.max(now, cutoff) + readConfig(this.env).accessTokenTtlSeconds + MARGIN_SECONDS + margin;
    return {
      ...{ id, targets: [target], code: "session_revoked", reason, decided_at: nowMs, expires_at },
      ...manner,
      ...(tid === undefined ? {} : { tid }),
      ...(by === undefined ? {} : { actor: by.actor }),
    };
  }

  /** For the audit trail, in one step with the decision. */
  #record({ id, reason, tid }: RevocationDraft, by: Act): void {
    this.#audit.add({ type: "revocation", ...by, revocation: id, reason, tid });
  }

  /** Starts the pushes, and sets the alarm that guards them: without an await since the event, so in one step with it. */
  #announce(): void {
    // One that is due soon anyway will do as well.
    this.#alarmBy(Date.now() + GUARD_MS);
    for (const delivery of this.#pushes()) delivery.kick();
    if (this.#audit.retryAt() !== undefined) this.ctx.waitUntil(this.#audit.tell());
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

  #deliveries(): readonly Pump[] {
    this.#pumps ??= readConfig(this.env).clusters.map((config) => {
      const cluster = new Cluster(config);
      const deliver = async (event: LoggedEvent) => await cluster.push(await this.#sign(event, cluster.id));
      const courier = { id: cluster.id, deliver };
      return { cluster, delivery: new Delivery(courier, this.#deliveryLog(), this.#cursor(cluster.id)) };
    });
    return this.#pumps;
  }

  #pushes(): readonly Delivery[] {
    return [...this.#deliveries().map(({ delivery }) => delivery), ...this.#streams.deliveries()];
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
        logFailure("a receiver did not take an event", { receiver: cluster, seq, error });
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

  #undelivered(cluster: string, after: number, limit: number): LoggedEvent[] {
    const rows = this.#sql<EventRow>(
      `SELECT e.* FROM events e LEFT JOIN deliveries d ON d.cluster = ? AND d.seq = e.seq
       WHERE e.seq > ? AND d.delivered_at IS NULL ORDER BY e.seq LIMIT ?`,
      cluster,
      after,
      limit,
    );
    return rows.map(loggedEvent);
  }

  async #sign({ tid: _, actor: __, hitsNobody: ___, ...event }: LoggedEvent, cluster: string): Promise<string> {
    const envelope = {
      issuer: readConfig(this.env).issuer,
      audience: cluster,
      issuedAt: Math.floor(Date.now() / 1000),
    };
    return await signRevocation(event, envelope, await signingKey(this.env));
  }

  async #inspect(id: string, deadline: number): Promise<Receipt> {
    const event = this.#decision(id);
    if (event === undefined) throw new Refusal("not_found", { detail: "no such revocation" });
    const clusters = await Promise.all(
      this.#deliveries().map(({ cluster }) => this.#stateOf(cluster, event, deadline)),
    );
    return receiptOf(event, clusters);
  }

  async #stateOf(cluster: Cluster, event: { id: string; seq: number }, deadline: number): Promise<ClusterState> {
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
    const wakeAts = this.#pushes().map((delivery) => delivery.wakeAt());
    const due = [...wakeAts, this.#audit.retryAt()].filter((at) => at !== undefined);
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

function loggedEvent(row: EventRow): LoggedEvent {
  const { reason: _, batch: __, ...event } = decisionOf(row);
  return event;
}

function decisionOf(row: EventRow): RevocationDraft & { readonly seq: number } {
  const { targets, tid, actor, mode, margin, batch, hits_nobody, ...rest } = row;
  return {
    ...rest,
    targets: JSON.parse(targets),
    ...(tid === null ? {} : { tid }),
    ...(actor === null ? {} : { actor: JSON.parse(actor) }),
    ...(mode === null ? {} : { mode }),
    ...(margin === null ? {} : { margin }),
    ...(batch === null ? {} : { batch }),
    ...(hits_nobody === 0 ? {} : { hitsNobody: true }),
  };
}

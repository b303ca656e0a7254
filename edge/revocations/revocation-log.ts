/**
 * Every revocation in one order, one object for the whole edge: numbered without a gap, stored before anybody is told, pushed to
 * every cluster until it has taken it, read by nodes that do without their Redis, and asked about until no node is left that could
 * hold a socket which it hits.
 *
 * It is also the one clock for cutoffs: it decides a cutoff and it stamps the beginning of every session, so that "began
 * before" is exact whatever the clocks of the other machines say.
 */
import { DurableObject } from "cloudflare:workers";
import type { FeedPage, FeedQuery } from "#contract/cluster";
import { Refusal } from "#contract/refusal";
import type { RevocationManner, RevocationTarget } from "#contract/revocation";
import { type Act, AuditOutbox, SYSTEM } from "../audit/audit.ts";
import { readConfig } from "../config.ts";
import type { MetricFamily } from "../exposition.ts";
import { eventSigningKey, forgetKeys } from "../keys/issuer.ts";
import { logFailure } from "../log.ts";
import { migrate } from "../migrations.ts";
import { answer, type Outcome } from "../outcome.ts";
import { isFull, storageUse } from "../storage-bound.ts";
import { Chronicle } from "./chronicle.ts";
import { ClusterPumps } from "./cluster-pumps.ts";
import { CutoffTable } from "./cutoff-table.ts";
import type { Delivery } from "./delivery.ts";
import { DeliveryTable } from "./delivery-table.ts";
import { type EventStream, EventStreams, type NewStream, type PollAnswer, type PollRequest } from "./event-streams.ts";
import { type Decision, decidedBy, EventTable, type RevocationDraft } from "./event-table.ts";
import { Feed } from "./feed.ts";
import { FeedLeases } from "./feed-leases.ts";
import { type Claim, IdempotencyKeys } from "./idempotency-keys.ts";
import type { LatencyBucket, LatencyQuery } from "./latencies.ts";
import { logGauges } from "./log-gauges.ts";
import { REVOCATION_LOG_SCHEMA } from "./log-schema.ts";
import { LogStanding, type LogStatus } from "./log-status.ts";
import { isFinal, type Receipt, summaryOf } from "./receipt.ts";
import { ReceiptList, type ReceiptPage, type ReceiptQuery } from "./receipt-list.ts";
import { type ProofBooks, Proofs, type ProvableReceipt, signProof } from "./receipt-proof.ts";
import { Receipts } from "./receipts.ts";

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

/** What has become of a bulk revocation. */
export interface BatchState {
  /** Events that are in the log. */
  readonly events: number;
  /** Events of which there is nothing more to learn. */
  readonly enforced: number;
  readonly clusters: readonly { readonly cluster: string; readonly delivered: number }[];
}

/** There is one. */
export const REVOCATION_LOG_NAME = "log";

/** How long events stay readable after they were decided. */
const RECEIPT_DAYS = 7;
const DAY_MS = 86_400_000;
/** Clock differences, and a token that was being signed meanwhile. */
const MARGIN_SECONDS = 60;
/** A session may be stamped this far ahead of the clock; nodes take it for the difference between two clocks. */
const MAX_STAMP_AHEAD_SECONDS = 2;
/** The alarm that guards pushes which were started at once. */
const GUARD_MS = 5_000;
/** While somebody waits for a receipt, clusters are asked this often for what is still pending. */
const RECEIPT_POLL_MS = 250;
/** What can be forgotten is forgotten this often, at most. */
const PURGE_MS = DAY_MS / 24;
/** The same while there is no room: little by little, so that no more goes than must. */
const FULL_PURGE_MS = 60_000;

export class RevocationLog extends DurableObject<Env> {
  readonly #events: EventTable;
  readonly #deliveries: DeliveryTable;
  readonly #cutoffs: CutoffTable;
  readonly #leases: FeedLeases;
  readonly #receipts: Receipts;
  readonly #chronicle: Chronicle;
  readonly #list: ReceiptList;
  readonly #standing: LogStanding;
  readonly #feed: Feed;
  readonly #proofs: Proofs;
  readonly #clusters: ClusterPumps;
  readonly #audit: AuditOutbox;
  readonly #idempotency: IdempotencyKeys;
  readonly #streams: EventStreams;
  /** The alarm as it is stored, milliseconds; undefined when it is not known. */
  #alarmAt: number | undefined;
  /** When what can be forgotten was forgotten last, milliseconds. */
  #purgedAt = 0;
  /** Called at the next change; for those who wait for a receipt. */
  readonly #watchers = new Set<() => void>();

  constructor(ctx: DurableObjectState, env: Env) {
    super(ctx, env);
    const { sql } = ctx.storage;
    const hasChanged = migrate(ctx.storage, REVOCATION_LOG_SCHEMA);
    this.#events = new EventTable(sql);
    this.#deliveries = new DeliveryTable(sql, this.#events);
    this.#cutoffs = new CutoffTable(sql);
    this.#leases = new FeedLeases(sql);
    this.#chronicle = new Chronicle(sql);
    this.#receipts = new Receipts(sql, this.#events, this.#leases, this.#chronicle, () => this.#clusterIds());
    this.#list = new ReceiptList(sql, this.#events, this.#receipts);
    this.#standing = new LogStanding(sql, this.#events);
    this.#feed = new Feed(this.#events);
    this.#proofs = new Proofs(this.#proofBooks());
    this.#clusters = new ClusterPumps(env, this.#deliveries, this.#receipts, this.#chronicle, () => this.#changed());
    this.#audit = new AuditOutbox(sql, env);
    this.#idempotency = new IdempotencyKeys(sql);
    this.#streams = new EventStreams(
      sql,
      env,
      this.#deliveries.log(() => this.#changed()),
    );
    // What is new may have something to do that the code of before did not know of.
    if (hasChanged) this.#alarmBy(Date.now());
  }

  /**
   * Takes a decision into the log. Doing it again changes nothing.
   *
   * @param by who decided, where it was decided by no object that keeps a record of its own
   */
  append(draft: RevocationDraft, by?: Act): Promise<Outcome<Decision>> {
    return answer(() => {
      const decision = this.ctx.storage.transactionSync(() => {
        if (by !== undefined && this.#events.find(draft.id) === undefined) this.#record(draft, by);
        return this.#append(draft);
      });
      this.#announce();
      return decision;
    });
  }

  /** What was decided under this id, or null. */
  decision(id: string): Promise<Outcome<Decision | null>> {
    return answer(() => this.#events.find(id) ?? null);
  }

  /**
   * Revokes every session of a tenant, or of everyone, that has begun by now, or by a second before: the cutoff and its event in
   * one step. A cutoff never goes back: one that lies before another changes nothing for those whom that one hits.
   *
   * @throws {Refusal} `request_malformed` for a second that is yet to come
   */
  revokeBefore(order: CutoffOrder): Promise<Outcome<Decision>> {
    return answer(() => {
      const earlier = this.#events.find(order.id);
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
      const clusters = this.#clusterIds().map((id) => {
        return { cluster: id, delivered: this.#deliveries.deliveredOf(batch, id) };
      });
      return { ...this.#receipts.countOf(batch), clusters };
    });
  }

  /**
   * The second in which a session that opens now begins: after every cutoff that there is.
   *
   * @throws {Refusal} `unavailable` when cutoffs came so fast, or the clock was set back so far, that it would lie too far ahead
   */
  beginning(tid: string | null): Promise<Outcome<number>> {
    return answer(() => {
      const now = Math.floor(Date.now() / 1000);
      const second = this.#cutoffs.stamp(tid ?? undefined, now);
      if (second > now + MAX_STAMP_AHEAD_SECONDS) {
        throw new Refusal("unavailable", { detail: "the cutoff is ahead", retryAfterSeconds: second - now });
      }
      return second;
    });
  }

  /** The cutoff for a tenant's sessions, 0 when there is none, and whether one token is revoked by itself. */
  standing(tid: string | null, jti?: string): Promise<Outcome<{ cutoff: number; tokenRevoked: boolean }>> {
    return answer(() => {
      const tokenRevoked = jti !== undefined && this.#events.isTokenRevoked(jti);
      return { cutoff: this.#cutoffs.of(tid ?? undefined), tokenRevoked };
    });
  }

  /**
   * What is known of a revocation: once nothing is left to wait for, once it is something else than `known`, or after `waitMs`.
   *
   * @param tenant whose revocations alone the asker may see
   * @param known the receipt that the asker has, as JSON
   * @throws {Refusal} `not_found`
   */
  receipt(id: string, waitMs: number, tenant?: string, known?: string): Promise<Outcome<Receipt>> {
    return answer(async () => {
      const event = this.#events.find(id);
      if (event === undefined || (tenant !== undefined && event.tid !== tenant)) {
        throw new Refusal("not_found", { detail: "no such revocation, or of another tenant" });
      }
      const deadline = Date.now() + waitMs;
      for (;;) {
        const receipt = this.#receipts.read(event);
        const left = deadline - Date.now();
        const isNews = known !== undefined && JSON.stringify(receipt) !== known;
        if (isFinal(receipt) || isNews || left <= 0) return receipt;
        this.#clusters.hurry(event.seq, deadline);
        await this.#nextChange(Math.min(RECEIPT_POLL_MS, left));
      }
    });
  }

  /** How matters stand with every cluster. */
  status(): Promise<Outcome<LogStatus>> {
    return answer(() => this.#standing.read(this.#clusters.through(), Date.now()));
  }

  /** How soon revocations were enforced. */
  latency(query: LatencyQuery): Promise<Outcome<readonly LatencyBucket[]>> {
    return answer(() => this.#chronicle.latencies.read(query));
  }

  /** Receipts, the newest decision first. */
  receiptPage(query: ReceiptQuery): Promise<Outcome<ReceiptPage>> {
    return answer(() => this.#list.page(query));
  }

  /**
   * What comes after `after`, for a node that reads the log itself, and what that node has to tell.
   *
   * @param waitMs how long it waits where nothing does
   * @throws {Refusal} `unavailable` for a node too many of a cluster
   */
  feed(query: FeedQuery, after: number, waitMs: number): Promise<Outcome<FeedPage>> {
    return answer(async () => {
      const { lease } = query;
      if (lease !== undefined) this.#report(query, lease);
      const page = await this.#feed.page(after, waitMs);
      // Without an await since the page was made: what comes in from here on finds the lease.
      if (lease !== undefined) this.#leases.renew(query, lease.ms, Date.now());
      return page;
    });
  }

  /** How the log stands, and what was counted since there is one. */
  metrics(): Promise<Outcome<readonly MetricFamily[]>> {
    return answer(() => {
      const now = Date.now();
      const use = storageUse(this.ctx.storage, this.env);
      const gauges = logGauges(this.#standing.read(this.#clusters.through(), now), this.#audit.owed(), use, now);
      return [...gauges, ...this.#chronicle.families(this.#clusterIds())];
    });
  }

  /** The guarantee behind the pushes that are started at once. Never throws: the platform gives up after six retries. */
  override async alarm(): Promise<void> {
    this.#alarmAt = undefined;
    try {
      this.#receipts.expire(Date.now());
      for (const delivery of this.#pushes()) delivery.kick();
      for (const collector of this.#clusters.collectors()) collector.kick();
      this.#proofs.kick();
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
    const known = this.#events.find(draft.id);
    if (known !== undefined) return known;
    const seq = this.#events.insert(draft);
    this.#receipts.open({ ...draft, seq });
    // What follows must not be signed with a key that was retired just now.
    if (draft.targets.some(({ kind }) => kind === "key")) forgetKeys(this.env);
    this.#chronicle.decided({ ...draft, seq });
    return { ...draft, seq };
  }

  #cutOff({ id, tid, reason, issuedBefore, manner, by }: CutoffOrder, nowMs: number): RevocationDraft {
    const now = Math.floor(nowMs / 1000);
    if (issuedBefore !== undefined && issuedBefore > now) {
      throw new Refusal("request_malformed", { detail: "issued_before lies in the future" });
    }
    const cutoff = issuedBefore ?? this.#cutoffs.next(tid, now);
    this.#cutoffs.raise(tid, cutoff);
    const target: RevocationTarget = tid === undefined ? { kind: "everyone", cutoff } : { kind: "tenant", tid, cutoff };
    // A session that began long ago may have been refreshed just now.
    const margin = manner?.margin ?? 0;
    const expires_at = Math.max(now, cutoff) + readConfig(this.env).accessTokenTtlSeconds + MARGIN_SECONDS + margin;
    return {
      ...{ id, targets: [target], code: "session_revoked", reason, decided_at: nowMs, expires_at },
      ...manner,
      ...(tid === undefined ? {} : { tid }),
      ...(by === undefined ? {} : decidedBy(by)),
    };
  }

  /** For the audit trail, in one step with the decision. */
  #record({ id, reason, tid }: RevocationDraft, by: Act): void {
    this.#audit.add({ type: "revocation", ...by, revocation: id, reason, tid });
  }

  /** Starts the pushes, and sets the alarm that guards them: without an await since the event, so in one step with it. */
  #announce(): void {
    this.#feed.wake();
    // One that is due soon anyway will do as well.
    this.#alarmBy(Date.now() + GUARD_MS);
    for (const delivery of this.#pushes()) delivery.kick();
    if (this.#audit.retryAt() !== undefined) this.ctx.waitUntil(this.#audit.tell());
  }

  /** In one step: what a node says, and what follows from it. */
  #report(query: FeedQuery, lease: NonNullable<FeedQuery["lease"]>): void {
    const hasNews = this.ctx.storage.transactionSync(() => {
      const seqs = this.#leases.report(query, lease, this.#events.head(), Date.now());
      this.#receipts.reported(query.cluster, seqs);
      return seqs.length > 0;
    });
    if (hasNews) this.#changed();
  }

  #clusterIds(): readonly string[] {
    return readConfig(this.env).clusters.map(({ id }) => id);
  }

  #pushes(): readonly Delivery[] {
    return [...this.#clusters.deliveries(), ...this.#streams.deliveries()];
  }

  #proofBooks(): ProofBooks {
    return {
      provable: (limit) => this.#receipts.provable(limit),
      sign: async (receipt) => {
        const issuedAt = Math.floor(Date.now() / 1000);
        return await signProof(receipt, readConfig(this.env).issuer, issuedAt, await eventSigningKey(this.env));
      },
      prove: (provable, proof) => this.ctx.storage.transactionSync(() => this.#prove(provable, proof)),
      changed: () => this.#changed(),
    };
  }

  /** The proof, and that there is one for the audit trail. */
  #prove({ event, receipt }: ProvableReceipt, proof: string): void {
    if (!this.#receipts.prove(event.seq, proof)) return;
    const entry = { type: "revocation_enforced", actor: SYSTEM, revocation: event.id, tid: event.tid } as const;
    this.#audit.add({ ...entry, reason: summaryOf(receipt), receipt: proof }, receipt.enforced_at);
  }

  /** For those who wait for a receipt, and for the alarm. */
  #changed(): void {
    for (const collector of this.#clusters.collectors()) collector.kick();
    this.#proofs.kick();
    for (const wake of this.#watchers) wake();
    this.#watchers.clear();
    if (this.#audit.retryAt() !== undefined) this.ctx.waitUntil(this.#audit.tell());
    this.#schedule();
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
    const pumps = [...this.#pushes(), ...this.#clusters.collectors(), this.#proofs];
    const wakeAts = pumps.map((pump) => pump.wakeAt());
    const due = [...wakeAts, this.#receipts.nextExpiry(), this.#audit.retryAt()].filter((at) => at !== undefined);
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
    if (isFull(this.ctx.storage, this.env)) return Date.now() + FULL_PURGE_MS;
    const { decidedAt, tokenExpiresAt } = this.#events.oldest();
    const cutoff = this.#cutoffs.first();
    const due = [
      decidedAt === undefined ? undefined : decidedAt + RECEIPT_DAYS * DAY_MS,
      cutoff === undefined ? undefined : (cutoff + readConfig(this.env).sessionMaxSeconds) * 1000,
      tokenExpiresAt,
      this.#leases.firstForgotten(),
    ].filter((at) => at !== undefined);
    // Never at once again: what is kept for another reason must not keep the alarm busy.
    return due.length === 0 ? undefined : Math.max(Math.min(...due), Date.now() + PURGE_MS);
  }

  /** Forgets what was taken by every cluster and can hit nothing any more. */
  #purge(nowMs: number): void {
    const full = isFull(this.ctx.storage, this.env);
    if (Math.abs(nowMs - this.#purgedAt) < (full ? FULL_PURGE_MS : PURGE_MS)) return;
    this.#purgedAt = nowMs;
    const upTo = this.#deliveries.takenByAll(this.#clusterIds()) ?? this.#events.head();
    this.#events.forget(upTo, nowMs - RECEIPT_DAYS * DAY_MS, nowMs);
    if (full) this.#forgetEarly(Math.min(upTo, this.#events.oldestHundredth()), nowMs);
    this.#deliveries.forget(upTo);
    this.#receipts.forget(upTo);
    this.#leases.forget(nowMs);
    this.#chronicle.latencies.forget(nowMs - RECEIPT_DAYS * DAY_MS);
    this.#cutoffs.forget(Math.floor(nowMs / 1000) - readConfig(this.env).sessionMaxSeconds);
  }

  /** Receipts that are wanted no more than room is; what can still hit a token stays in any case. */
  #forgetEarly(upTo: number, nowMs: number): void {
    this.#events.forget(upTo, nowMs, nowMs);
    logFailure("the revocation log is full: its oldest receipts go before their time", { seq: upTo });
  }
}

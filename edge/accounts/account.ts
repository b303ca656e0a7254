/**
 * One subject: its standing, its generation and its sessions, and the outboxes of what was decided about them. The object is the
 * only writer of them all, and every change is one synchronous step, so that fifty refreshes at once are fifty refreshes one
 * after another.
 *
 * What ends a session is stored together with the event that tells the world. Telling is tried at once; the alarm makes sure.
 * A deleted account leaves its row behind, so that nobody else ever gets its subject.
 */
import { DurableObject } from "cloudflare:workers";
import { Refusal } from "#contract/refusal";
import type { RevocationCode, RevocationTarget } from "#contract/revocation";
import { type Act, type AuditDraft, AuditOutbox, SYSTEM } from "../audit/audit.ts";
import { readConfig } from "../config.ts";
import { linkName, newRevocationId } from "../identifiers.ts";
import type { Grant } from "../keys/issuer.ts";
import { logFailure } from "../log.ts";
import { hasSchema, migrate, migrateExisting } from "../migrations.ts";
import { answer, ask, type Outcome } from "../outcome.ts";
import { type Decision, decidedBy, type RevocationDraft } from "../revocations/event-table.ts";
import { Outbox } from "../revocations/outbox.ts";
import { type Order, REVOCATION_LOG_NAME } from "../revocations/revocation-log.ts";
import {
  ACCOUNT_SCHEMA,
  type AccountRow,
  AccountTable,
  demandAdministrable,
  demandOpenable,
  type Identity,
  isDisabled,
  isOfTenant,
  type Opening,
  type Owner,
} from "./account-table.ts";
import { DirectoryNotice } from "./directory-notice.ts";
import {
  beginSession,
  effectiveScope,
  isLive,
  type RefreshToken,
  rotate,
  type Session,
  type SessionSummary,
  summarise,
  writeRefreshToken,
} from "./session.ts";
import { SessionTable } from "./session-table.ts";

/** A session to sign an access token for, and the refresh token that carries it on. */
export interface OpenedSession {
  readonly grant: Grant;
  readonly refreshToken: string;
}

export interface AccountSummary extends Owner {
  readonly generation: number;
  readonly disabled: boolean;
  /** When it comes back by itself, seconds since the epoch. */
  readonly disabled_until: number | null;
  readonly links: readonly Identity[];
  readonly sessions: readonly SessionSummary[];
}

/** Who acts: the holder of a refresh token, or of an access token that was verified. */
export type Actor = { readonly refresh: RefreshToken } | { readonly access: { readonly sid: string } };

/** What the log says of a tenant: sessions that began at or before `cutoff` are dead. */
export interface Standing {
  readonly tid: string | null;
  readonly cutoff: number;
}

export interface WrongTenant {
  readonly tenant: string | null;
}

/** Which sessions of a user an order is about. Nothing said: all of them, and every token of theirs. */
export interface Selection {
  /** Those that began at or before this second. */
  readonly issuedBefore?: number | undefined;
  /** All but this one. */
  readonly except?: string | undefined;
}

/** What introspection may know of a session. Seconds since the epoch. */
export interface InspectedSession extends Owner {
  readonly gen: number;
  readonly auth_time: number;
  readonly expires_at: number;
}

/** What is to be different. What is not named stays. */
export interface AccountChange {
  readonly disabled?: boolean | undefined;
  /** With `disabled`: when it comes back by itself, seconds since the epoch. */
  readonly until?: number | undefined;
  readonly scope?: string | null | undefined;
}

export type LogoutScope = "local" | "others" | "global";

/** When the alarm itself failed. */
const AFTER_FAILURE_MS = 60_000;
/** Clock differences, and a token that was being signed while its session ended. */
const MARGIN_SECONDS = 60;

export class Account extends DurableObject<Env> {
  readonly #table: AccountTable;
  readonly #sessions: SessionTable;
  readonly #audit: AuditOutbox;
  readonly #notice: DirectoryNotice;
  readonly #outbox: Outbox;

  constructor(ctx: DurableObjectState, env: Env) {
    super(ctx, env);
    migrateExisting(ctx.storage, ACCOUNT_SCHEMA);
    this.#table = new AccountTable(ctx.storage.sql);
    this.#sessions = new SessionTable(ctx.storage.sql);
    this.#audit = new AuditOutbox(ctx.storage.sql, env);
    this.#notice = new DirectoryNotice(this.#table, env);
    this.#outbox = new Outbox(ctx.storage.sql, (draft) => ask(this.#log().append(draft)));
  }

  /**
   * Makes the account. Doing it again for the same login name, or the same link, is the same account.
   *
   * @param link the identity that opens it, where it is not a login name
   * @throws {Refusal} `conflict` when the subject is somebody else's, or was
   */
  create(owner: Owner, link?: Identity, by?: Act): Promise<Outcome<null>> {
    return answer(() => {
      const known = this.#row();
      if (known !== undefined && !this.#isOf(known, owner.login, link)) {
        throw new Refusal("conflict", { detail: "the subject is taken" });
      }
      this.#create(owner, link, known === undefined ? by : undefined);
      return null;
    });
  }

  /**
   * Makes the account unless there is one. That one stays as it is.
   *
   * @throws {Refusal} `conflict` when the subject was somebody's that is deleted
   */
  ensure(owner: Owner, by?: Act): Promise<Outcome<null>> {
    return answer(() => {
      const known = this.#row();
      if (known !== undefined && known.deleted_at !== null) {
        throw new Refusal("conflict", { detail: "the subject is not given out again" });
      }
      if (known === undefined) this.#create(owner, undefined, by);
      return null;
    });
  }

  /**
   * Opens a session for somebody who proved who they are. Past the limit the one unused for longest ends.
   *
   * @throws {Refusal} `not_found` (`credentials_wrong` after a password) where there is no such account, `account_disabled`,
   *   `scope_invalid` when more is asked for than the account has, `scope_insufficient` when it could not administrate
   */
  open(opening: Opening): Promise<Outcome<OpenedSession>> {
    return answer(async () => {
      const { tid } = demandOpenable(this.#row(), opening, Date.now());
      const authTime = await ask(this.#log().beginning(tid));
      const opened = this.#open(authTime, opening, Date.now());
      await this.#tell();
      return opened;
    });
  }

  /**
   * Trades a refresh token. All that could fail for want of somebody else comes before the trade: a holder who gets no
   * answer, and comes back after the grace, would look like a thief.
   *
   * @param standing the cutoff of the tenant that the caller takes the account for
   * @param administration whether the access token is to be for administration
   * @returns the traded session; or, when the tenant is another one, its name, and nothing is traded
   * @throws {Refusal} `refresh_invalid`, `session_revoked`, `refresh_reused`: PROTOCOL, "Refresh token"; `scope_insufficient`
   */
  refresh(
    presented: RefreshToken,
    standing: Standing,
    administration = false,
  ): Promise<Outcome<OpenedSession | WrongTenant>> {
    return answer(async () => {
      this.#demandAccount();
      const account = this.#table.find();
      const tid = account?.tid ?? null;
      if (tid !== standing.tid) return { tenant: tid };
      const { secret, ...rules } = readConfig(this.env);
      const now = Date.now();
      this.#sessions.endBegunBy(standing.cutoff, now);
      const rotation = rotate(this.#sessions.find(presented.sid), presented, now, rules, secret);
      if (rotation.step === "refuse") throw new Refusal(rotation.code, { detail: rotation.detail });
      if (rotation.step === "theft") return await this.#theft(presented.sid, now);
      if (administration) this.#demandAdministrable(rotation.session);
      if (rotation.step === "advance") this.#sessions.advance(rotation.session);
      this.#tellDirectory(account);
      return this.#opened(rotation.session, rotation.token, account);
    });
  }

  /** Ends sessions at their holder's wish. Ending this one again is no mistake. */
  logout(actor: Actor, scope: LogoutScope, by?: Act): Promise<Outcome<null>> {
    return answer(async () => {
      this.#demandAccount();
      const now = Date.now();
      const sid = "access" in actor ? actor.access.sid : actor.refresh.sid;
      const session = this.#session(sid);
      if (scope === "local") this.#endSessions([session].filter(notEnded), "logout", now, by);
      else await this.#logoutElsewhere(session, actor, scope, now, by);
      await this.#tell();
      return null;
    });
  }

  /** The living sessions. @throws {Refusal} `session_revoked` when the asking one is over */
  sessions(sid: string, cutoff: number): Promise<Outcome<readonly SessionSummary[]>> {
    return answer(() => {
      this.#demandLive(sid, cutoff);
      return this.#summaries();
    });
  }

  /** Ends one session at the wish of another one of the same account. @throws {Refusal} `not_found` */
  endSession(actor: string, sid: string, cutoff: number, by?: Act): Promise<Outcome<null>> {
    return answer(async () => {
      this.#demandLive(actor, cutoff);
      const session = this.#live().find((live) => live.sid === sid);
      if (session === undefined) throw new Refusal("not_found", { detail: "no such living session" });
      this.#endSessions([session], "ended by the user", Date.now(), by);
      await this.#tell();
      return null;
    });
  }

  /**
   * The login name with whose password a living session may change the password.
   *
   * @throws {Refusal} `session_revoked` when the session is over, `not_found` when the account has no password
   */
  login(sid: string, cutoff: number): Promise<Outcome<string>> {
    return answer(() => {
      this.#demandLive(sid, cutoff);
      const { login } = this.#account();
      if (login === null) throw new Refusal("not_found", { detail: "the account has no password" });
      return login;
    });
  }

  /**
   * The password was changed by the holder of a session: the others end. Once for each generation, however often it is told.
   *
   * @param generation how often the password has been changed by now
   */
  passwordChanged(generation: number, keep: string, by?: Act): Promise<Outcome<null>> {
    return answer(async () => {
      const known = this.#row();
      if (known === undefined || known.password_generation >= generation) return null;
      const now = Date.now();
      this.ctx.storage.transactionSync(() => {
        this.#table.update({ password_generation: generation });
        this.#record({ type: "password_changed", sid: keep }, by, now);
        const others = this.#live().filter(({ sid }) => sid !== keep);
        this.#endSessions(others, "the password was changed", now, by);
      });
      await this.#tell();
      return null;
    });
  }

  /** @throws {Refusal} `not_found` */
  summary(tenant?: string): Promise<Outcome<AccountSummary>> {
    return answer(() => this.#summary(this.#account(tenant)));
  }

  /**
   * Disables, enables or changes the account. Disabling ends every session.
   *
   * @returns the account as it is now, and the revocation where one was made
   * @throws {Refusal} `not_found`
   */
  change(
    change: AccountChange,
    order: Order,
  ): Promise<Outcome<{ readonly account: AccountSummary; readonly decision?: Decision }>> {
    return answer(async () => {
      const draft = this.#change(this.#account(order.tenant), change, order, Date.now());
      const decision = draft && (await this.#told(draft));
      if (draft === undefined) await this.#tell();
      return { account: this.#summary(this.#account(order.tenant)), ...(decision && { decision }) };
    });
  }

  /**
   * Deletes the account for good: every session ends, the login name becomes free, the subject never does.
   *
   * @throws {Refusal} `not_found`
   */
  delete(order: Order): Promise<Outcome<Decision>> {
    return answer(async () => {
      this.#account(order.tenant);
      const now = Date.now();
      const draft = this.ctx.storage.transactionSync(() => {
        this.#table.update({ deleted_at: Math.floor(now / 1000), scope: null });
        this.#record({ type: "account_deleted", revocation: order.id, reason: order.reason }, order.by, now);
        return this.#revokeUser(order, now);
      });
      const decision = await this.#told(draft);
      await this.#release();
      return decision;
    });
  }

  /** @throws {Refusal} `not_found` when there is no such session; one that is over already is announced once more */
  revokeSession(sid: string, order: Order): Promise<Outcome<Decision>> {
    return answer(async () => {
      const earlier = order.again === true ? await this.#earlier(order.id) : undefined;
      if (earlier !== undefined) return earlier;
      const session = this.#session(sid);
      if (session === undefined) throw new Refusal("not_found", { detail: "no such session" });
      this.#account(order.tenant);
      const now = Date.now();
      const draft = this.#draft([{ kind: "session", sid }], "session_revoked", order, now);
      this.ctx.storage.transactionSync(() => {
        this.#record({ type: "revocation", sid, revocation: order.id, reason: order.reason }, order.by, now);
        this.#commit(draft, [session].filter(notEnded), now);
      });
      return await this.#told(draft);
    });
  }

  /**
   * Ends every session, and every token of a lower generation with them; or the sessions that are selected.
   *
   * @throws {Refusal} `not_found`, for a session to be excepted that does not live as well
   */
  revokeUser(order: Order, selection: Selection = {}): Promise<Outcome<Decision>> {
    return answer(async () => {
      this.#demandRow();
      const earlier = order.again === true ? await this.#earlier(order.id) : undefined;
      if (earlier !== undefined) return earlier;
      this.#account(order.tenant);
      const selected = isWhole(selection) ? undefined : this.#selected(selection);
      const now = Date.now();
      const draft = this.ctx.storage.transactionSync(() => {
        this.#record({ type: "revocation", revocation: order.id, reason: order.reason }, order.by, now);
        return selected === undefined ? this.#revokeUser(order, now) : this.#revokeSome(selected, order, now);
      });
      return await this.#told(draft);
    });
  }

  /** The sessions that an order would end. @throws {Refusal} as `revokeUser` */
  selected(selection: Selection, tenant?: string): Promise<Outcome<readonly string[]>> {
    return answer(() => {
      this.#account(tenant);
      return this.#selected(selection).map(({ sid }) => sid);
    });
  }

  /** The session that a token is of, or null when it is over or the token cannot be used any more. Changes nothing. */
  inspect(actor: Actor): Promise<Outcome<InspectedSession | null>> {
    return answer(() => {
      const account = this.#row();
      const session = this.#session("access" in actor ? actor.access.sid : actor.refresh.sid);
      if (account === undefined || account.deleted_at !== null || session === undefined) return null;
      const { secret, ...rules } = readConfig(this.env);
      const now = Date.now();
      if (!isLive(session, now) || isDisabled(account, now)) return null;
      if ("refresh" in actor) {
        const { step } = rotate(session, actor.refresh, now, rules, secret);
        if (step === "refuse" || step === "theft") return null;
      }
      const { sub, login, tid } = account;
      const scope = effectiveScope(account.scope, session.scope);
      return { sub, login, tid, scope, gen: session.gen, auth_time: session.auth_time, expires_at: session.expires_at };
    });
  }

  /** The guarantee that what was decided is told, and the broom. Never throws: the platform gives up after six retries. */
  override async alarm(): Promise<void> {
    try {
      const deadSince = Math.floor(Date.now() / 1000) - this.#afterlifeSeconds();
      this.#sessions.forget(deadSince);
      await this.#tell();
      await this.#audit.tell();
      await this.#notice.tell();
      await this.#release();
      this.#schedule();
    } catch (error) {
      logFailure("the alarm of an account failed", {}, error);
      await this.ctx.storage.setAlarm(Date.now() + AFTER_FAILURE_MS);
    }
  }

  #create(owner: Owner, link: Identity | undefined, by: Act | undefined): void {
    migrate(this.ctx.storage, ACCOUNT_SCHEMA);
    this.ctx.storage.transactionSync(() => {
      this.#table.create(owner, link);
      if (by !== undefined) this.#record({ type: "account_created" }, by, Date.now());
    });
    this.#schedule();
    this.#tellAudit();
    this.#tellDirectory();
  }

  #isOf(known: AccountRow, login: string | null, link: Identity | undefined): boolean {
    if (known.deleted_at !== null || known.login !== login) return false;
    if (link === undefined) return login !== null;
    return this.#table.links().some(({ issuer, subject }) => issuer === link.issuer && subject === link.subject);
  }

  #open(authTime: number, opening: Opening, now: number): OpenedSession {
    // Judged again: it may have been disabled while the log was asked.
    const { generation, sub } = demandOpenable(this.#row(), opening, now);
    const { device, scope, method, origin } = opening;
    const rules = readConfig(this.env);
    const { session, token } = beginSession(
      sub,
      {
        auth_time: authTime,
        gen: generation,
        device: device ?? null,
        method,
        scope: scope ?? null,
        origin: origin === undefined ? null : JSON.stringify(origin),
        nowMs: now,
      },
      rules,
    );
    this.ctx.storage.transactionSync(() => {
      const live = this.#live().sort((a, b) => b.rotated_at - a.rotated_at);
      const limit = rules.sessionsPerAccount;
      this.#endSessions(live.slice(limit - 1), `more than ${limit} sessions`, now, { actor: SYSTEM });
      this.#sessions.insert(session);
    });
    this.#schedule();
    return this.#opened(session, token);
  }

  #change(account: AccountRow, change: AccountChange, order: Order, now: number): RevocationDraft | undefined {
    const { disabled, until, scope } = change;
    return this.ctx.storage.transactionSync(() => {
      if (scope !== undefined) {
        this.#table.update({ scope });
        this.#record({ type: "account_changed", reason: order.reason }, order.by, now);
      }
      if (disabled === false) {
        this.#table.update({ disabled_at: null, disabled_until: null });
        this.#record({ type: "account_enabled", reason: order.reason }, order.by, now);
      }
      if (disabled !== true) return undefined;
      const was = isDisabled(account, now);
      this.#table.update({ disabled_at: Math.floor(now / 1000), disabled_until: until ?? null });
      const revocation = was ? {} : { revocation: order.id };
      this.#record({ type: "account_disabled", reason: order.reason, ...revocation }, order.by, now);
      return was ? undefined : this.#revokeUser(order, now);
    });
  }

  async #theft(sid: string, now: number): Promise<never> {
    const order = { id: newRevocationId(), reason: "a refresh token was used again" };
    const draft = this.#draft([{ kind: "session", sid }], "refresh_reused", order, now);
    this.ctx.storage.transactionSync(() => {
      this.#record({ type: "refresh_reused", sid, revocation: order.id }, undefined, now);
      this.#commit(draft, [this.#session(sid)].filter(notEnded), now);
    });
    await this.#tell();
    throw new Refusal("refresh_reused", { detail: "a refresh token was used again" });
  }

  /** Ending other sessions needs a proof that this one is still its holder's. */
  async #logoutElsewhere(
    session: Session | undefined,
    actor: Actor,
    scope: "others" | "global",
    now: number,
    by: Act | undefined,
  ): Promise<void> {
    const others = this.#live().filter((live) => live.sid !== session?.sid);
    const live = session !== undefined && isLive(session, now);
    // A repeated `global` finds nobody left, and has what it wanted.
    if (scope === "global" && !live && others.length === 0) return;
    if (!live) throw new Refusal("session_revoked", { detail: "the session is over" });
    if ("refresh" in actor) {
      const { secret, ...rules } = readConfig(this.env);
      const rotation = rotate(session, actor.refresh, now, rules, secret);
      if (rotation.step === "refuse") throw new Refusal(rotation.code, { detail: rotation.detail });
      if (rotation.step === "theft") await this.#theft(session.sid, now);
    }
    if (scope === "others") return this.#endSessions(others, "logout of the others", now, by);
    const order = { id: newRevocationId(), reason: "logout everywhere" };
    this.ctx.storage.transactionSync(() => {
      this.#record({ type: "session_ended", revocation: order.id, reason: order.reason }, by, now);
      this.#revokeUser(order, now);
    });
  }

  /** Ends them and says so in one event, in one step. */
  #endSessions(sessions: readonly Session[], reason: string, now: number, by: Act | undefined): void {
    if (sessions.length === 0) return;
    const targets = sessions.map(({ sid }): RevocationTarget => ({ kind: "session", sid }));
    const order = { id: newRevocationId(), reason };
    const draft = {
      ...this.#draft(targets, "session_revoked", order, now),
      ...(by?.request && { request: by.request }),
    };
    const [only, ...more] = sessions;
    const sid = more.length === 0 ? only?.sid : undefined;
    this.ctx.storage.transactionSync(() => {
      this.#record({ type: "session_ended", sid, revocation: draft.id, reason }, by, now);
      this.#commit(draft, sessions, now);
    });
  }

  #revokeUser(order: Order, now: number): RevocationDraft {
    const { sub, generation } = this.#demandRow();
    const target: RevocationTarget = { kind: "user", sub, generation: generation + 1 };
    const draft = this.#draft([target], "session_revoked", order, now);
    this.ctx.storage.transactionSync(() => {
      this.#table.update({ generation: generation + 1 });
      this.#commit(draft, this.#live(), now);
    });
    return draft;
  }

  /** Ends sessions one by one, so that what is not named lives on, tokens and all. */
  #revokeSome(sessions: readonly Session[], order: Order, now: number): RevocationDraft {
    const { sub, generation } = this.#demandRow();
    const targets = sessions.map(({ sid }): RevocationTarget => ({ kind: "session", sid }));
    // An event names somebody: where no session is left to end it repeats what is true already, and hits nobody anew.
    const said: RevocationTarget[] = targets.length > 0 ? targets : [{ kind: "user", sub, generation }];
    const nobody = targets.length === 0 ? { hitsNobody: true } : {};
    const draft = { ...this.#draft(said, "session_revoked", order, now), ...nobody };
    this.#commit(draft, sessions, now);
    return draft;
  }

  #selected({ issuedBefore, except }: Selection): Session[] {
    const live = this.#live();
    if (except !== undefined && !live.some(({ sid }) => sid === except)) {
      throw new Refusal("not_found", { detail: "the session to be excepted does not live" });
    }
    return live.filter(
      ({ sid, auth_time }) => sid !== except && (issuedBefore === undefined || auth_time <= issuedBefore),
    );
  }

  /** What came of an order that was given before. It goes from the outbox to the log, and is looked for in that order. */
  async #earlier(id: string): Promise<Decision | undefined> {
    const draft = hasSchema(this.ctx.storage) ? this.#outbox.find(id) : undefined;
    if (draft !== undefined) return await this.#told(draft);
    return (await ask(this.#log().decision(id))) ?? undefined;
  }

  #draft(targets: readonly RevocationTarget[], code: RevocationCode, order: Order, now: number): RevocationDraft {
    const { id, reason, manner, batch } = order;
    const { tid } = this.#demandRow();
    const expires_at = Math.floor(now / 1000) + this.#afterlifeSeconds() + (manner?.margin ?? 0);
    return {
      ...{ id, reason, targets, code, decided_at: now, expires_at },
      ...manner,
      ...(tid === null ? {} : { tid }),
      ...(batch === undefined ? {} : { batch }),
      ...(order.by === undefined ? {} : decidedBy(order.by)),
    };
  }

  /** The one place where sessions end: their rows, the event and the alarm that guards it become durable together. */
  #commit(draft: RevocationDraft, sessions: readonly Session[], now: number): void {
    this.ctx.storage.transactionSync(() => {
      for (const { sid } of sessions) this.#sessions.end(sid, draft.code, now);
      this.#outbox.add(draft);
    });
    this.#schedule();
  }

  /** What was decided, for the audit trail, in one step with it. Without anybody named, the holder of the account acted. */
  #record(what: Omit<AuditDraft, "actor" | "sub" | "tid">, by: Act | undefined, now: number): void {
    const { sub, tid } = this.#demandRow();
    const actor = what.type === "refresh_reused" ? SYSTEM : ({ kind: "user", id: sub } as const);
    this.#audit.add({ actor, ...by, ...what, sub, tid: tid ?? undefined }, now);
  }

  #tellAudit(): void {
    this.ctx.waitUntil(this.#audit.tell().then(() => this.#schedule()));
  }

  /** @param account as it stands, where it was just read */
  #tellDirectory(account?: AccountRow): void {
    if (this.#notice.retryAt(account) === undefined) return;
    this.ctx.waitUntil(this.#notice.tell().then(() => this.#schedule()));
  }

  /** Frees the names of a deleted account. What cannot be freed now is freed by the alarm. */
  async #release(): Promise<void> {
    const account = this.#row();
    if (account === undefined || account.deleted_at === null) return;
    const { sub, login } = account;
    try {
      if (login !== null) {
        await ask(this.env.CREDENTIAL.getByName(login).release(sub));
        this.#table.update({ login: null });
      }
      for (const link of this.#table.links()) {
        await ask(this.env.LINK.getByName(linkName(link)).release(sub));
        this.#table.forgetLink(link);
      }
    } catch (error) {
      logFailure("the names of a deleted account are not free yet", { sub }, error);
    }
    this.#schedule();
  }

  #releaseAt(): number | undefined {
    const account = this.#row();
    const due = account?.deleted_at != null && (account.login !== null || this.#table.links().length > 0);
    return due ? Date.now() + AFTER_FAILURE_MS : undefined;
  }

  async #told(draft: RevocationDraft): Promise<Decision> {
    const told = await this.#tell();
    return told.get(draft.id) ?? draft;
  }

  /** Tells the log what it does not know yet. Never throws on its account: what was decided will be told. */
  async #tell(): Promise<ReadonlyMap<string, Decision>> {
    if (this.#audit.retryAt() !== undefined) this.#tellAudit();
    this.#tellDirectory();
    if (this.#outbox.retryAt() === undefined) return new Map();
    const told = await this.#outbox.tell();
    this.#schedule();
    return told;
  }

  /** Sets the alarm to when something is next to be told or to be thrown away. Synchronous, so that it goes with the write. */
  #schedule(): void {
    const outboxes = [this.#outbox, this.#audit, this.#notice].map((outbox) => outbox.retryAt());
    const owed = [...outboxes, this.#releaseAt()].filter((at) => at !== undefined);
    const firstOver = this.#sessions.firstOver();
    const sweepAt = firstOver === undefined ? undefined : (firstOver + this.#afterlifeSeconds() + 1) * 1000;
    const next = owed.length > 0 ? Math.min(...owed) : sweepAt;
    if (next === undefined) void this.ctx.storage.deleteAlarm();
    else void this.ctx.storage.setAlarm(next);
  }

  /** How long after the end of a session one of its access tokens may still be alive somewhere. */
  #afterlifeSeconds(): number {
    return readConfig(this.env).accessTokenTtlSeconds + MARGIN_SECONDS;
  }

  #row(): AccountRow | undefined {
    return hasSchema(this.ctx.storage) ? this.#table.find() : undefined;
  }

  #demandRow(): AccountRow {
    const row = this.#row();
    if (row === undefined) throw new Refusal("not_found", { detail: "no such account" });
    return row;
  }

  /** The account, unless it is deleted or of another tenant than the asker's. */
  #account(tenant?: string): AccountRow {
    const row = this.#demandRow();
    if (row.deleted_at !== null) throw new Refusal("not_found", { detail: "the account is deleted" });
    if (!isOfTenant(row, tenant)) throw new Refusal("not_found", { detail: "the account is of another tenant" });
    return row;
  }

  /** A token of ours whose account is gone: the storage was started anew under the same secret. */
  #demandAccount(): void {
    if (!hasSchema(this.ctx.storage)) throw new Refusal("refresh_invalid", { detail: "the account is unknown" });
  }

  #session(sid: string): Session | undefined {
    return hasSchema(this.ctx.storage) ? this.#sessions.find(sid) : undefined;
  }

  #live(): Session[] {
    return this.#sessions.live(Date.now());
  }

  #summaries(): SessionSummary[] {
    const rules = readConfig(this.env);
    return this.#live().map((session) => summarise(session, rules));
  }

  #summary({ sub, login, tid, scope, generation, disabled_until, ...row }: AccountRow): AccountSummary {
    const disabled = isDisabled({ ...row, disabled_until }, Date.now());
    const until = disabled ? disabled_until : null;
    const links = this.#table.links();
    return { sub, login, tid, scope, generation, disabled, disabled_until: until, links, sessions: this.#summaries() };
  }

  /** The log has announced the cutoff itself. */
  #demandLive(sid: string, cutoff: number): void {
    if (hasSchema(this.ctx.storage)) this.#sessions.endBegunBy(cutoff, Date.now());
    const session = this.#session(sid);
    if (session === undefined || !isLive(session, Date.now())) {
      throw new Refusal("session_revoked", { detail: "the session is over" });
    }
  }

  #demandAdministrable({ method, scope }: Session): void {
    demandAdministrable(method, effectiveScope(this.#demandRow().scope, scope));
  }

  #opened(session: Session, token: RefreshToken, account = this.#demandRow()): OpenedSession {
    const { sub, tid, scope } = account;
    const { sid, auth_time, gen, expires_at, method } = session;
    return {
      grant: { sub, sid, tid, scope: effectiveScope(scope, session.scope), auth_time, gen, expires_at, method },
      refreshToken: writeRefreshToken(token, readConfig(this.env).secret),
    };
  }

  #log() {
    return this.env.REVOCATION_LOG.getByName(REVOCATION_LOG_NAME);
  }
}

function isWhole({ issuedBefore, except }: Selection): boolean {
  return issuedBefore === undefined && except === undefined;
}

function notEnded(session: Session | undefined): session is Session {
  return session !== undefined && session.ended_at === null;
}

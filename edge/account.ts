/**
 * One subject: its generation and its sessions, and the outbox of what was decided about them. The object is the only writer of
 * all three, and every change is one synchronous step, so that fifty refreshes at once are fifty refreshes one after another.
 *
 * What ends a session is stored together with the event that tells the world. Telling is tried at once; the alarm makes sure.
 */
import { DurableObject } from "cloudflare:workers";
import { Refusal } from "#contract/refusal";
import type { RevocationCode, RevocationTarget } from "#contract/revocation";
import { readConfig } from "./config.ts";
import { newRevocationId } from "./identifiers.ts";
import type { Grant } from "./issuer.ts";
import { logFailure } from "./log.ts";
import { hasSchema, migrate, migrateExisting } from "./migrations.ts";
import { OUTBOX_SCHEMA, Outbox } from "./outbox.ts";
import { answer, ask, type Outcome } from "./outcome.ts";
import { type Decision, REVOCATION_LOG_NAME, type RevocationDraft } from "./revocation-log.ts";
import { beginSession, isLive, type RefreshToken, rotate, type Session, writeRefreshToken } from "./session.ts";

/** Who the account is of. */
export interface Owner {
  readonly sub: string;
  readonly login: string;
  readonly tid: string | null;
  readonly scope: string | null;
}

/** A session to sign an access token for, and the refresh token that carries it on. */
export interface OpenedSession {
  readonly grant: Grant;
  readonly refreshToken: string;
}

export interface SessionSummary {
  readonly sid: string;
  readonly device: string | null;
  readonly created_at: number;
  readonly last_used_at: number;
  readonly expires_at: number;
}

export interface AccountSummary extends Owner {
  readonly generation: number;
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

/** A revocation as an administrator asks for it. */
export interface Order {
  readonly id: string;
  readonly reason: string;
}

export type LogoutScope = "local" | "others" | "global";

const SCHEMA = [
  `CREATE TABLE account (
    sub TEXT PRIMARY KEY,
    login TEXT NOT NULL,
    tid TEXT,
    scope TEXT,
    generation INTEGER NOT NULL
  ) WITHOUT ROWID;
  CREATE TABLE sessions (
    sid TEXT PRIMARY KEY,
    position INTEGER NOT NULL,
    secret_hash TEXT NOT NULL,
    rotated_at INTEGER NOT NULL,
    auth_time INTEGER NOT NULL,
    gen INTEGER NOT NULL,
    device TEXT,
    expires_at INTEGER NOT NULL,
    ended_at INTEGER,
    ended_code TEXT
  ) WITHOUT ROWID;
  ${OUTBOX_SCHEMA}`,
];

const MAX_SESSIONS = 20;
/** When the alarm itself failed. */
const AFTER_FAILURE_MS = 60_000;
/** Clock differences, and a token that was being signed while its session ended. */
const MARGIN_SECONDS = 60;

type SessionRow = { [K in keyof Session]: Session[K] };
type AccountRow = { [K in keyof Owner]: Owner[K] } & { generation: number };

export class Account extends DurableObject<Env> {
  readonly #outbox: Outbox;

  constructor(ctx: DurableObjectState, env: Env) {
    super(ctx, env);
    migrateExisting(ctx.storage, SCHEMA);
    this.#outbox = new Outbox(ctx.storage.sql, (draft) => ask(this.#log().append(draft)));
  }

  /**
   * Makes the account. Doing it again for the same login name is the same account.
   *
   * @throws {Refusal} `conflict` when the subject has another login name
   */
  create(owner: Owner): Promise<Outcome<null>> {
    return answer(() => {
      if (hasSchema(this.ctx.storage) && this.#account().login !== owner.login) {
        throw new Refusal("conflict", { detail: "the subject is taken" });
      }
      migrate(this.ctx.storage, SCHEMA);
      this.#sql(
        `INSERT INTO account (sub, login, tid, scope, generation) VALUES (?1, ?2, ?3, ?4, 0)
         ON CONFLICT DO UPDATE SET tid = ?3, scope = ?4`,
        owner.sub,
        owner.login,
        owner.tid,
        owner.scope,
      );
      return null;
    });
  }

  /** Opens a session for somebody whose password was right. Past 20 sessions the one unused for longest ends. */
  open(device: string | undefined): Promise<Outcome<OpenedSession>> {
    return answer(async () => {
      const authTime = await ask(this.#log().beginning(this.#account().tid));
      const opened = this.#open(authTime, device, Date.now());
      await this.#tell();
      return opened;
    });
  }

  /**
   * Trades a refresh token. All that could fail for want of somebody else comes before the trade: a holder who gets no
   * answer, and comes back after the grace, would look like a thief.
   *
   * @param standing the cutoff of the tenant that the caller takes the account for
   * @returns the traded session; or, when the tenant is another one, its name, and nothing is traded
   * @throws {Refusal} `refresh_invalid`, `session_revoked`, `refresh_reused`: PROTOCOL, "Refresh token"
   */
  refresh(presented: RefreshToken, standing: Standing): Promise<Outcome<OpenedSession | WrongTenant>> {
    return answer(async () => {
      this.#demandAccount();
      const { tid } = this.#account();
      if (tid !== standing.tid) return { tenant: tid };
      this.#applyCutoff(standing.cutoff);
      const { secret, ...rules } = readConfig(this.env);
      const now = Date.now();
      const rotation = rotate(this.#session(presented.sid), presented, now, rules, secret);
      if (rotation.step === "refuse") throw new Refusal(rotation.code, { detail: rotation.detail });
      if (rotation.step === "theft") return await this.#theft(presented.sid, now);
      if (rotation.step === "advance") this.#advance(rotation.session);
      return this.#opened(rotation.session, rotation.token);
    });
  }

  /** Ends sessions at their holder's wish. Ending this one again is no mistake. */
  logout(actor: Actor, scope: LogoutScope): Promise<Outcome<null>> {
    return answer(async () => {
      this.#demandAccount();
      const now = Date.now();
      const sid = "access" in actor ? actor.access.sid : actor.refresh.sid;
      const session = this.#session(sid);
      if (scope === "local") this.#endSessions([session].filter(notEnded), "logout", now);
      else await this.#logoutElsewhere(session, actor, scope, now);
      await this.#tell();
      return null;
    });
  }

  /** The living sessions. @throws {Refusal} `session_revoked` when the asking one is over */
  sessions(sid: string, cutoff: number): Promise<Outcome<readonly SessionSummary[]>> {
    return answer(() => {
      this.#demandLive(sid, cutoff);
      return this.#live().map(summary);
    });
  }

  /** Ends one session at the wish of another one of the same account. @throws {Refusal} `not_found` */
  endSession(actor: string, sid: string, cutoff: number): Promise<Outcome<null>> {
    return answer(async () => {
      this.#demandLive(actor, cutoff);
      const session = this.#live().find((live) => live.sid === sid);
      if (session === undefined) throw new Refusal("not_found", { detail: "no such living session" });
      this.#endSessions([session], "ended by the user", Date.now());
      await this.#tell();
      return null;
    });
  }

  /** @throws {Refusal} `not_found` */
  summary(): Promise<Outcome<AccountSummary>> {
    return answer(() => ({ ...this.#account(), sessions: this.#live().map(summary) }));
  }

  /** @throws {Refusal} `not_found` when there is no such session; one that is over already is announced once more */
  revokeSession(sid: string, order: Order): Promise<Outcome<Decision>> {
    return answer(async () => {
      const session = this.#session(sid);
      if (session === undefined) throw new Refusal("not_found", { detail: "no such session" });
      const now = Date.now();
      const draft = this.#draft([{ kind: "session", sid }], "session_revoked", order, now);
      this.#commit(draft, [session].filter(notEnded), now);
      return await this.#told(draft);
    });
  }

  /** Ends every session, and every token of a lower generation with them. @throws {Refusal} `not_found` */
  revokeUser(order: Order): Promise<Outcome<Decision>> {
    return answer(async () => await this.#told(this.#revokeUser(order, Date.now())));
  }

  /** The guarantee that what was decided is told, and the broom. Never throws: the platform gives up after six retries. */
  override async alarm(): Promise<void> {
    try {
      const deadSince = Math.floor(Date.now() / 1000) - this.#afterlifeSeconds();
      this.#sql("DELETE FROM sessions WHERE COALESCE(ended_at, expires_at) < ?", deadSince);
      await this.#tell();
      this.#schedule();
    } catch (error) {
      logFailure("the alarm of an account failed", {}, error);
      await this.ctx.storage.setAlarm(Date.now() + AFTER_FAILURE_MS);
    }
  }

  #open(authTime: number, device: string | undefined, now: number): OpenedSession {
    const { generation, sub } = this.#account();
    const { session, token } = beginSession(
      sub,
      { authTime, gen: generation, device, nowMs: now },
      readConfig(this.env),
    );
    this.ctx.storage.transactionSync(() => {
      const live = this.#live().sort((a, b) => b.rotated_at - a.rotated_at);
      this.#endSessions(live.slice(MAX_SESSIONS - 1), `more than ${MAX_SESSIONS} sessions`, now);
      this.#insert(session);
    });
    this.#schedule();
    return this.#opened(session, token);
  }

  async #theft(sid: string, now: number): Promise<never> {
    const order = { id: newRevocationId(), reason: "a refresh token was used again" };
    const draft = this.#draft([{ kind: "session", sid }], "refresh_reused", order, now);
    this.#commit(draft, [this.#session(sid)].filter(notEnded), now);
    await this.#tell();
    throw new Refusal("refresh_reused", { detail: "a refresh token was used again" });
  }

  /** Ending other sessions needs a proof that this one is still its holder's. */
  async #logoutElsewhere(
    session: Session | undefined,
    actor: Actor,
    scope: "others" | "global",
    now: number,
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
    if (scope === "others") this.#endSessions(others, "logout of the others", now);
    else this.#revokeUser({ id: newRevocationId(), reason: "logout everywhere" }, now);
  }

  /** Ends them and says so in one event, in one step. */
  #endSessions(sessions: readonly Session[], reason: string, now: number): void {
    if (sessions.length === 0) return;
    const targets = sessions.map(({ sid }): RevocationTarget => ({ kind: "session", sid }));
    this.#commit(this.#draft(targets, "session_revoked", { id: newRevocationId(), reason }, now), sessions, now);
  }

  #revokeUser(order: Order, now: number): RevocationDraft {
    const { sub, generation } = this.#account();
    const target: RevocationTarget = { kind: "user", sub, generation: generation + 1 };
    const draft = this.#draft([target], "session_revoked", order, now);
    this.ctx.storage.transactionSync(() => {
      this.#sql("UPDATE account SET generation = generation + 1");
      this.#commit(draft, this.#live(), now);
    });
    return draft;
  }

  #draft(targets: readonly RevocationTarget[], code: RevocationCode, order: Order, now: number): RevocationDraft {
    const expires_at = Math.floor(now / 1000) + this.#afterlifeSeconds();
    return { ...order, targets, code, decided_at: now, expires_at };
  }

  /** The one place where sessions end: their rows, the event and the alarm that guards it become durable together. */
  #commit(draft: RevocationDraft, sessions: readonly Session[], now: number): void {
    this.ctx.storage.transactionSync(() => {
      for (const { sid } of sessions) {
        const end = "UPDATE sessions SET ended_at = ?, ended_code = ? WHERE sid = ?";
        this.#sql(end, Math.floor(now / 1000), draft.code, sid);
      }
      this.#outbox.add(draft);
    });
    this.#schedule();
  }

  async #told(draft: RevocationDraft): Promise<Decision> {
    const told = await this.#tell();
    return told.get(draft.id) ?? draft;
  }

  /** Tells the log what it does not know yet. Never throws on its account: what was decided will be told. */
  async #tell(): Promise<ReadonlyMap<string, Decision>> {
    if (this.#outbox.retryAt() === undefined) return new Map();
    const told = await this.#outbox.tell();
    this.#schedule();
    return told;
  }

  /** Sets the alarm to when something is next to be told or to be thrown away. Synchronous, so that it goes with the write. */
  #schedule(): void {
    const [oldest] = this.#sql<{ at: number | null }>("SELECT MIN(COALESCE(ended_at, expires_at)) AS at FROM sessions");
    const sweepAt = oldest?.at == null ? undefined : (oldest.at + this.#afterlifeSeconds() + 1) * 1000;
    const next = this.#outbox.retryAt() ?? sweepAt;
    if (next === undefined) void this.ctx.storage.deleteAlarm();
    else void this.ctx.storage.setAlarm(next);
  }

  /** How long after the end of a session one of its access tokens may still be alive somewhere. */
  #afterlifeSeconds(): number {
    return readConfig(this.env).accessTokenTtlSeconds + MARGIN_SECONDS;
  }

  #account(): AccountRow {
    const [row] = hasSchema(this.ctx.storage) ? this.#sql<AccountRow>("SELECT * FROM account") : [];
    if (row === undefined) throw new Refusal("not_found", { detail: "no such account" });
    return row;
  }

  /** A token of ours whose account is gone: the storage was started anew under the same secret. */
  #demandAccount(): void {
    if (!hasSchema(this.ctx.storage)) throw new Refusal("refresh_invalid", { detail: "the account is unknown" });
  }

  #session(sid: string): Session | undefined {
    if (!hasSchema(this.ctx.storage)) return undefined;
    return this.#sql<SessionRow>("SELECT * FROM sessions WHERE sid = ?", sid)[0];
  }

  #live(): Session[] {
    const now = Date.now();
    return this.#sql<SessionRow>("SELECT * FROM sessions ORDER BY auth_time").filter((row) => isLive(row, now));
  }

  /** Ends the sessions that a cutoff hit. The log has announced the cutoff itself. */
  #applyCutoff(cutoff: number): void {
    this.#sql(
      "UPDATE sessions SET ended_at = ?, ended_code = 'session_revoked' WHERE ended_at IS NULL AND auth_time <= ?",
      Math.floor(Date.now() / 1000),
      cutoff,
    );
  }

  #demandLive(sid: string, cutoff: number): void {
    if (hasSchema(this.ctx.storage)) this.#applyCutoff(cutoff);
    const session = this.#session(sid);
    if (session === undefined || !isLive(session, Date.now())) {
      throw new Refusal("session_revoked", { detail: "the session is over" });
    }
  }

  #insert(session: Session): void {
    this.#sql(
      `INSERT INTO sessions (sid, position, secret_hash, rotated_at, auth_time, gen, device, expires_at)
       VALUES (?, ?, ?, ?, ?, ?, ?, ?)`,
      session.sid,
      session.position,
      session.secret_hash,
      session.rotated_at,
      session.auth_time,
      session.gen,
      session.device,
      session.expires_at,
    );
  }

  #advance(session: Session): void {
    this.#sql(
      "UPDATE sessions SET position = ?, secret_hash = ?, rotated_at = ?, expires_at = ? WHERE sid = ?",
      session.position,
      session.secret_hash,
      session.rotated_at,
      session.expires_at,
      session.sid,
    );
  }

  #opened(session: Session, token: RefreshToken): OpenedSession {
    const { sub, tid, scope } = this.#account();
    const { sid, auth_time, gen, expires_at } = session;
    return {
      grant: { sub, sid, tid, scope, auth_time, gen, expires_at },
      refreshToken: writeRefreshToken(token, readConfig(this.env).secret),
    };
  }

  #log() {
    return this.env.REVOCATION_LOG.getByName(REVOCATION_LOG_NAME);
  }

  #sql<T extends Record<string, SqlStorageValue>>(query: string, ...values: SqlStorageValue[]): T[] {
    return this.ctx.storage.sql.exec<T>(query, ...values).toArray();
  }
}

function notEnded(session: Session | undefined): session is Session {
  return session !== undefined && session.ended_at === null;
}

function summary({ sid, device, auth_time, rotated_at, expires_at }: Session): SessionSummary {
  return { sid, device, created_at: auth_time, last_used_at: Math.floor(rotated_at / 1000), expires_at };
}

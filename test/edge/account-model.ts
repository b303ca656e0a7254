/**
 * What an account promises, written down as simply as it can be: no storage, no tokens, no clock of its own. The property test
 * does the same things to this and to the real objects, and compares.
 */
import type { RevocationTarget } from "#contract/revocation";

export const GRACE_MS = 30_000;
export const IDLE_SECONDS = 1_209_600;
export const MAX_SECONDS = 2_592_000;
export const SESSION_LIMIT = 20;
/** How long a session is remembered after it is over: as long as its last access token, and a minute. */
export const AFTERLIFE_SECONDS = 360;

export type Code =
  | "ok"
  | "credentials_wrong"
  | "account_disabled"
  | "refresh_invalid"
  | "refresh_reused"
  | "session_revoked"
  | "not_found"
  | "unavailable";

export interface ModelSession {
  readonly sid: string;
  readonly authTime: number;
  readonly gen: number;
  position: number;
  rotatedMs: number;
  expiresAt: number;
  endedAt: number | undefined;
}

export interface Emitted {
  readonly code: string;
  readonly targets: readonly RevocationTarget[];
}

/** One tenant, as the log knows it. */
export class ModelTenant {
  cutoff = 0;
  readonly emitted: Emitted[] = [];

  readonly tid: string;

  constructor(tid: string) {
    this.tid = tid;
  }

  /** The second in which a session that opens now begins, or undefined when that would be too far ahead. */
  beginning(nowMs: number): number | undefined {
    const now = seconds(nowMs);
    return this.cutoff + 1 > now + 2 ? undefined : Math.max(now, this.cutoff + 1);
  }

  revoke(nowMs: number): void {
    const now = seconds(nowMs);
    this.cutoff = this.cutoff >= now ? this.cutoff + 1 : now;
    this.emitted.push({
      code: "session_revoked",
      targets: [{ kind: "tenant", tid: this.tid, cutoff: this.cutoff }],
    });
  }
}

export class ModelAccount {
  generation = 0;
  passwordGeneration = 0;
  /** Seconds since the epoch; undefined while it is not disabled. */
  disabledUntil: number | undefined;
  deleted = false;
  /** Every session that there ever was, forgotten ones too. */
  readonly all: ModelSession[] = [];
  sessions: ModelSession[] = [];

  readonly sub: string;
  readonly tenant: ModelTenant;

  constructor(sub: string, tenant: ModelTenant) {
    this.sub = sub;
    this.tenant = tenant;
  }

  /** @returns why not, or `ok`; the session is added by `opened`, as only the real one has a name */
  mayOpen(passwordGeneration: number, nowMs: number): Code {
    if (this.deleted || passwordGeneration < this.passwordGeneration) return "credentials_wrong";
    if (this.isDisabled(nowMs)) return "account_disabled";
    return this.tenant.beginning(nowMs) === undefined ? "unavailable" : "ok";
  }

  opened(sid: string, nowMs: number): ModelSession {
    const authTime = this.tenant.beginning(nowMs) ?? 0;
    const byUse = this.live(nowMs).sort((a, b) => b.rotatedMs - a.rotatedMs);
    this.#endEach(byUse.slice(SESSION_LIMIT - 1), nowMs);
    const session: ModelSession = {
      sid,
      authTime,
      gen: this.generation,
      position: 0,
      rotatedMs: nowMs,
      expiresAt: Math.min(seconds(nowMs) + IDLE_SECONDS, authTime + MAX_SECONDS),
      endedAt: undefined,
    };
    this.all.push(session);
    this.sessions.push(session);
    return session;
  }

  /** The table of PROTOCOL, "Refresh token". */
  refresh(sid: string, position: number, nowMs: number): Code {
    this.#applyCutoff(nowMs);
    const judged = this.#judge(sid, position, nowMs);
    if (judged.code === "ok" && judged.advances) {
      const { session } = judged;
      session.position++;
      session.rotatedMs = nowMs;
      session.expiresAt = Math.min(seconds(nowMs) + IDLE_SECONDS, session.authTime + MAX_SECONDS);
    }
    if (judged.code === "refresh_reused") this.#theft(sid, nowMs);
    return judged.code;
  }

  /** Whether a token could be traded, without trading it. What a cutoff hits counts as living until it is next used. */
  isUsable(sid: string, position: number, nowMs: number): boolean {
    return !this.deleted && !this.isDisabled(nowMs) && this.#judge(sid, position, nowMs).code === "ok";
  }

  /** @param position of the refresh token with which it is asked; undefined for an access token */
  logout(sid: string, position: number | undefined, scope: "local" | "others" | "global", nowMs: number): Code {
    const session = this.#find(sid);
    if (scope === "local") {
      this.#endEach(session === undefined || session.endedAt !== undefined ? [] : [session], nowMs);
      return "ok";
    }
    const others = this.live(nowMs).filter((live) => live.sid !== sid);
    const live = session !== undefined && isLive(session, nowMs);
    if (scope === "global" && !live && others.length === 0) return "ok";
    if (!live) return "session_revoked";
    if (position !== undefined) {
      const { code } = this.#judge(sid, position, nowMs);
      if (code === "refresh_reused") this.#theft(sid, nowMs);
      if (code !== "ok") return code;
    }
    if (scope === "others") this.#endEach(others, nowMs);
    else this.#revokeAll(nowMs);
    return "ok";
  }

  revokeSession(sid: string, nowMs: number): Code {
    const session = this.#find(sid);
    if (session === undefined || this.deleted) return "not_found";
    session.endedAt ??= seconds(nowMs);
    this.#emit("session_revoked", [{ kind: "session", sid }]);
    return "ok";
  }

  revokeUser(nowMs: number): Code {
    if (this.deleted) return "not_found";
    this.#revokeAll(nowMs);
    return "ok";
  }

  disable(until: number | undefined, nowMs: number): Code {
    if (this.deleted) return "not_found";
    const was = this.isDisabled(nowMs);
    this.disabledUntil = until ?? Number.POSITIVE_INFINITY;
    if (!was) this.#revokeAll(nowMs);
    return "ok";
  }

  enable(): Code {
    if (this.deleted) return "not_found";
    this.disabledUntil = undefined;
    return "ok";
  }

  changePassword(keep: string, nowMs: number): void {
    this.passwordGeneration++;
    this.#endEach(
      this.live(nowMs).filter(({ sid }) => sid !== keep),
      nowMs,
    );
  }

  delete(nowMs: number): Code {
    if (this.deleted) return "not_found";
    this.deleted = true;
    this.#revokeAll(nowMs);
    return "ok";
  }

  forget(nowMs: number): void {
    const since = seconds(nowMs) - AFTERLIFE_SECONDS;
    this.sessions = this.sessions.filter(({ endedAt, expiresAt }) => (endedAt ?? expiresAt) >= since);
  }

  live(nowMs: number): ModelSession[] {
    return this.sessions.filter((session) => isLive(session, nowMs));
  }

  isDisabled(nowMs: number): boolean {
    return this.disabledUntil !== undefined && this.disabledUntil * 1000 > nowMs;
  }

  #judge(
    sid: string,
    position: number,
    nowMs: number,
  ):
    | { readonly code: "ok"; readonly session: ModelSession; readonly advances: boolean }
    | { readonly code: Exclude<Code, "ok"> } {
    const session = this.#find(sid);
    if (session === undefined) return { code: "refresh_invalid" };
    if (session.endedAt !== undefined) return { code: "session_revoked" };
    if (!isLive(session, nowMs)) return { code: "refresh_invalid" };
    if (position === session.position) return { code: "ok", session, advances: true };
    const isRetry = position === session.position - 1 && nowMs - session.rotatedMs <= GRACE_MS;
    return isRetry ? { code: "ok", session, advances: false } : { code: "refresh_reused" };
  }

  #theft(sid: string, nowMs: number): void {
    const session = this.#find(sid);
    if (session !== undefined) session.endedAt ??= seconds(nowMs);
    this.#emit("refresh_reused", [{ kind: "session", sid }]);
  }

  #revokeAll(nowMs: number): void {
    this.generation++;
    for (const session of this.live(nowMs)) session.endedAt = seconds(nowMs);
    this.#emit("session_revoked", [{ kind: "user", sub: this.sub, generation: this.generation }]);
  }

  #endEach(sessions: readonly ModelSession[], nowMs: number): void {
    if (sessions.length === 0) return;
    for (const session of sessions) session.endedAt = seconds(nowMs);
    this.#emit(
      "session_revoked",
      sessions.map(({ sid }) => ({ kind: "session", sid })),
    );
  }

  #applyCutoff(nowMs: number): void {
    for (const session of this.sessions) {
      if (session.authTime <= this.tenant.cutoff) session.endedAt ??= seconds(nowMs);
    }
  }

  #emit(code: string, targets: readonly RevocationTarget[]): void {
    this.tenant.emitted.push({ code, targets });
  }

  #find(sid: string): ModelSession | undefined {
    return this.sessions.find((session) => session.sid === sid);
  }
}

function isLive({ endedAt, expiresAt }: ModelSession, nowMs: number): boolean {
  return endedAt === undefined && expiresAt * 1000 > nowMs;
}

function seconds(ms: number): number {
  return Math.floor(ms / 1000);
}

/** The sessions of one account as rows. Synchronous, so that reading, judging and writing are one step. */
import type { RevocationCode } from "#contract/revocation";
import { isLive, type Session } from "./session.ts";

type SessionRow = { [K in keyof Session]: Session[K] };

export class SessionTable {
  readonly #sql: SqlStorage;

  constructor(sql: SqlStorage) {
    this.#sql = sql;
  }

  find(sid: string): Session | undefined {
    return this.#select("WHERE sid = ?", sid)[0];
  }

  /** Those that live, oldest first. */
  live(nowMs: number): Session[] {
    return this.#select("ORDER BY auth_time").filter((session) => isLive(session, nowMs));
  }

  insert(session: Session): void {
    const columns = Object.keys(session);
    const places = columns.map(() => "?").join(", ");
    this.#sql.exec(`INSERT INTO sessions (${columns.join(", ")}) VALUES (${places})`, ...Object.values(session));
  }

  /** One row written, and nothing else: what a refresh costs. */
  advance(session: Session): void {
    this.#sql.exec(
      "UPDATE sessions SET position = ?, secret_hash = ?, rotated_at = ?, expires_at = ? WHERE sid = ?",
      session.position,
      session.secret_hash,
      session.rotated_at,
      session.expires_at,
      session.sid,
    );
  }

  end(sid: string, code: RevocationCode, nowMs: number): void {
    const end = "UPDATE sessions SET ended_at = ?, ended_code = ? WHERE sid = ?";
    this.#sql.exec(end, Math.floor(nowMs / 1000), code, sid);
  }

  /** Ends those that a cutoff hits; 0 is none. */
  endBegunBy(cutoff: number, nowMs: number): void {
    if (cutoff === 0) return;
    this.#sql.exec(
      "UPDATE sessions SET ended_at = ?, ended_code = 'session_revoked' WHERE ended_at IS NULL AND auth_time <= ?",
      Math.floor(nowMs / 1000),
      cutoff,
    );
  }

  /** Forgets those that were over before `since`, in seconds. */
  forget(since: number): void {
    this.#sql.exec("DELETE FROM sessions WHERE COALESCE(ended_at, expires_at) < ?", since);
  }

  /** When the first of them was or will be over, in seconds. */
  firstOver(): number | undefined {
    const query = "SELECT MIN(COALESCE(ended_at, expires_at)) AS at FROM sessions";
    return this.#sql.exec<{ at: number | null }>(query).toArray()[0]?.at ?? undefined;
  }

  #select(where: string, ...values: SqlStorageValue[]): Session[] {
    return this.#sql.exec<SessionRow>(`SELECT * FROM sessions ${where}`, ...values).toArray();
  }
}

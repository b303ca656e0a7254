/**
 * The cutoffs as rows: one for each tenant, and one for everyone; and the latest second in which a session was stamped. Seconds since the
 * epoch; they never go back, whatever the clock does: a session that was stamped before the clock was set back is hit by what is
 * revoked after it.
 */

/** A part of a schema step of the log: it never changes. */
export const STAMP_SCHEMA = "CREATE TABLE stamp (one INTEGER PRIMARY KEY CHECK (one = 1), second INTEGER NOT NULL);";

/** Of everyone; no tenant has an empty name. */
const EVERYONE = "";

export class CutoffTable {
  readonly #sql: SqlStorage;
  /** The latest second in which a session was stamped, by the clock of then. */
  #stamped: number;

  constructor(sql: SqlStorage) {
    this.#sql = sql;
    this.#stamped = sql.exec<{ second: number }>("SELECT second FROM stamp").toArray()[0]?.second ?? 0;
  }

  /**
   * The second in which a session of the tenant begins that opens now: after every cutoff. Written down once in a second at most, and
   * no answer leaves the object before that is durable.
   */
  stamp(tid: string | undefined, now: number): number {
    if (now > this.#stamped) {
      this.#sql.exec("INSERT INTO stamp VALUES (1, ?1) ON CONFLICT DO UPDATE SET second = ?1", now);
      this.#stamped = now;
    }
    return Math.max(now, this.of(tid) + 1);
  }

  /** The stricter one of everyone's and the tenant's; 0 when there is none. */
  of(tid: string | undefined): number {
    const query = "SELECT COALESCE(MAX(cutoff), 0) AS cutoff FROM cutoffs WHERE tid IN (?, ?)";
    return this.#sql.exec<{ cutoff: number }>(query, EVERYONE, tid ?? EVERYONE).toArray()[0]?.cutoff ?? 0;
  }

  raise(tid: string | undefined, cutoff: number): void {
    this.#sql.exec(
      `INSERT INTO cutoffs (tid, cutoff) VALUES (?1, ?2) ON CONFLICT DO UPDATE SET cutoff = MAX(cutoff, ?2)`,
      tid ?? EVERYONE,
      cutoff,
    );
  }

  /**
   * Now, or later where the clock was ahead when a session was stamped; and where a cutoff lies at or after that, sessions may have been
   * stamped past it that the next one is to hit as well.
   */
  next(tid: string | undefined, now: number): number {
    const last = tid === undefined ? this.#latest() : this.of(tid);
    const reached = Math.max(now, this.#stamped);
    return last >= reached ? last + 1 : reached;
  }

  /** Those before `cutoff` hit no session any more. */
  forget(cutoff: number): void {
    this.#sql.exec("DELETE FROM cutoffs WHERE cutoff < ?", cutoff);
  }

  first(): number | undefined {
    const query = "SELECT MIN(cutoff) AS cutoff FROM cutoffs";
    return this.#sql.exec<{ cutoff: number | null }>(query).toArray()[0]?.cutoff ?? undefined;
  }

  #latest(): number {
    const query = "SELECT COALESCE(MAX(cutoff), 0) AS cutoff FROM cutoffs";
    return this.#sql.exec<{ cutoff: number }>(query).toArray()[0]?.cutoff ?? 0;
  }
}

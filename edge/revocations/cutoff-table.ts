/** The cutoffs as rows: one for each tenant, and one for everyone. Seconds since the epoch; they never go back. */

/** Of everyone; no tenant has an empty name. */
const EVERYONE = "";

export class CutoffTable {
  readonly #sql: SqlStorage;

  constructor(sql: SqlStorage) {
    this.#sql = sql;
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
   * Now; but where a cutoff lies at or after now, sessions may have been stamped past it that the next one is to hit as well.
   */
  next(tid: string | undefined, now: number): number {
    const last = tid === undefined ? this.#latest() : this.of(tid);
    return last >= now ? last + 1 : now;
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

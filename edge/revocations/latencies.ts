/**
 * How soon revocations were enforced, by the minute in which they were decided. Kept as counts by size, so that a look costs as much as the
 * time that is looked at and not as much as happened in it, and a receipt that is over writes one row. A figure is thus the upper end
 * of a size, at most 9 % more than the true one.
 */

/** A schema step of the log: it never changes. */
export const LATENCIES_SCHEMA = `CREATE TABLE latencies (
    minute INTEGER NOT NULL,
    size INTEGER NOT NULL,
    count INTEGER NOT NULL,
    expired INTEGER NOT NULL,
    longest INTEGER NOT NULL,
    PRIMARY KEY (minute, size)
  ) WITHOUT ROWID;`;

/** Of a span that was decided in: `since` is part of the first bucket, `until` of the last one. */
export interface LatencyQuery {
  /** Milliseconds since the epoch. */
  readonly since: number;
  readonly until: number;
  /** Seconds, whole minutes. */
  readonly step: number;
}

/** Receipts of revocations that were decided within one step. Milliseconds. */
export interface LatencyBucket {
  /** When the step begins, since the epoch. */
  readonly at: number;
  /** Of those that are enforced. */
  readonly count: number;
  /** Of these: enforced only because no token was alive any more, with a node never heard of. */
  readonly expired: number;
  readonly p50: number;
  readonly p90: number;
  readonly max: number;
}

const MINUTE_MS = 60_000;
/** Sizes by which a latency doubles. */
const SIZES_PER_DOUBLING = 8;

type SizeRow = { at: number; size: number; count: number; expired: number; longest: number };

export class Latencies {
  readonly #sql: SqlStorage;

  constructor(sql: SqlStorage) {
    this.#sql = sql;
  }

  /** A receipt is over. Times in milliseconds since the epoch; a clock that was set back makes it 0. */
  add(decidedAt: number, enforcedAt: number, expired: boolean): void {
    const ms = Math.max(0, enforcedAt - decidedAt);
    this.#sql.exec(
      `INSERT INTO latencies (minute, size, count, expired, longest) VALUES (?1, ?2, 1, ?3, ?4)
       ON CONFLICT DO UPDATE SET count = count + 1, expired = expired + ?3, longest = MAX(longest, ?4)`,
      ...[Math.floor(decidedAt / MINUTE_MS), sizeOf(ms), expired ? 1 : 0, ms],
    );
  }

  /** Those steps in which something was decided that is enforced, oldest first. */
  read({ since, until, step }: LatencyQuery): LatencyBucket[] {
    const minutes = step / 60;
    const rows = this.#sql
      .exec<SizeRow>(
        `SELECT minute / CAST(?1 AS INTEGER) AS at, size, SUM(count) AS count, SUM(expired) AS expired, MAX(longest) AS longest
         FROM latencies WHERE minute BETWEEN ?2 AND ?3 GROUP BY 1, size ORDER BY 1, size`,
        ...[minutes, Math.floor(since / MINUTE_MS), Math.floor(until / MINUTE_MS)],
      )
      .toArray();
    const steps = new Map<number, SizeRow[]>();
    for (const row of rows) steps.set(row.at, [...(steps.get(row.at) ?? []), row]);
    return [...steps].map(([at, sizes]) => bucketOf(at * minutes * MINUTE_MS, sizes));
  }

  /** Forgets what was decided before `since`, in milliseconds. */
  forget(since: number): void {
    this.#sql.exec("DELETE FROM latencies WHERE minute < ?", Math.floor(since / MINUTE_MS));
  }
}

/** @param sizes from the smallest on */
function bucketOf(at: number, sizes: readonly SizeRow[]): LatencyBucket {
  const total = (of: "count" | "expired") => sizes.reduce((sum, size) => sum + size[of], 0);
  const max = Math.max(...sizes.map(({ longest }) => longest));
  const count = total("count");
  const quantile = (share: number) => {
    let seen = 0;
    for (const each of sizes) {
      seen += each.count;
      if (seen >= share * count) return Math.min(max, endOf(each.size));
    }
    return max;
  };
  return { at, count, expired: total("expired"), p50: quantile(0.5), p90: quantile(0.9), max };
}

/** 0 for up to a millisecond. */
function sizeOf(ms: number): number {
  return ms <= 1 ? 0 : Math.ceil(Math.log2(ms) * SIZES_PER_DOUBLING);
}

/** What is in a size is no more than this, milliseconds. */
function endOf(size: number): number {
  return Math.round(2 ** (size / SIZES_PER_DOUBLING));
}

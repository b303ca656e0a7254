/**
 * Counts that outlive the object's sleep: a Worker has no memory that a scrape could find again. A row for each name and its labels,
 * and for a histogram one for each bucket that something fell into, so that an observation writes two rows, however many buckets there are.
 */
import type { MetricFamily, Sample } from "../exposition.ts";

/** A part of a schema step of the log: it never changes. */
export const COUNTERS_SCHEMA = `CREATE TABLE counters (
    name TEXT NOT NULL,
    labels TEXT NOT NULL,
    value REAL NOT NULL,
    PRIMARY KEY (name, labels)
  ) WITHOUT ROWID;`;

export type Labels = Readonly<Record<string, string>>;

/** Upper ends, seconds. */
const BUCKETS = [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800] as const;

export class Counters {
  readonly #sql: SqlStorage;

  constructor(sql: SqlStorage) {
    this.#sql = sql;
  }

  add(name: string, labels: Labels = {}, by = 1): void {
    this.#sql.exec(
      `INSERT INTO counters (name, labels, value) VALUES (?1, ?2, ?3)
       ON CONFLICT DO UPDATE SET value = value + ?3`,
      ...[name, JSON.stringify(labels), by],
    );
  }

  /** Into a histogram. A clock that was set back makes it 0. */
  observe(name: string, milliseconds: number, labels: Labels = {}): void {
    const seconds = Math.max(0, milliseconds) / 1000;
    const le = BUCKETS.find((end) => seconds <= end);
    this.add(`${name}_bucket`, { ...labels, le: le === undefined ? "+Inf" : String(le) });
    this.add(`${name}_sum`, labels, seconds);
  }

  /** @param expected what is there from the start, with 0: what comes into being at 1 is no rise to whoever scrapes */
  counter(name: string, help: string, expected: readonly Labels[]): MetricFamily {
    const counted = this.#samples(name);
    const missing = expected.filter((labels) => !counted.some((sample) => isSame(sample.labels, labels)));
    return { name, type: "counter", help, samples: [...counted, ...missing.map((labels) => ({ labels, value: 0 }))] };
  }

  histogram(name: string, help: string): MetricFamily {
    const fallen = this.#samples(`${name}_bucket`);
    const samples = this.#samples(`${name}_sum`).flatMap((sum): Sample[] => {
      const own = fallen.filter(({ labels: { le: _, ...labels } }) => isSame(labels, sum.labels));
      const below = [...BUCKETS.map(String), "+Inf"].map((end): Sample => {
        const counted = own.filter(({ labels }) => bound(labels.le ?? "+Inf") <= bound(end));
        const value = counted.reduce((total, each) => total + each.value, 0);
        return { suffix: "_bucket", labels: { ...sum.labels, le: end }, value };
      });
      const count = below.at(-1)?.value ?? 0;
      return [...below, { ...sum, suffix: "_sum" }, { ...sum, suffix: "_count", value: count }];
    });
    return { name, type: "histogram", help, samples };
  }

  #samples(name: string): Sample[] {
    const query = "SELECT labels, value FROM counters WHERE name = ? ORDER BY labels";
    const rows = this.#sql.exec<{ labels: string; value: number }>(query, name).toArray();
    return rows.map(({ labels, value }) => ({ labels: JSON.parse(labels), value }));
  }
}

function bound(end: string): number {
  return end === "+Inf" ? Number.POSITIVE_INFINITY : Number(end);
}

function isSame(some: Labels, others: Labels): boolean {
  const names = Object.keys(some);
  return names.length === Object.keys(others).length && names.every((name) => some[name] === others[name]);
}

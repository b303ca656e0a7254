/** Which Idempotency-Keys were used, for what, and what was answered. Beside the log, so that a key is as durable as a decision. */
import { Refusal } from "#contract/refusal";

export const IDEMPOTENCY_SCHEMA = `CREATE TABLE claims (
    key TEXT PRIMARY KEY,
    fingerprint TEXT NOT NULL,
    id TEXT NOT NULL,
    claimed_at INTEGER NOT NULL,
    answer TEXT
  ) WITHOUT ROWID;`;

/** What is known of an Idempotency-Key (draft-ietf-httpapi-idempotency-key-header-07). */
export interface Claim {
  /** The id that the order has, whenever it is given. */
  readonly id: string;
  /** Whether it was given before and nobody knows what came of it. */
  readonly again: boolean;
  /** What was answered. */
  readonly answer: string | null;
}

/** How long a key is remembered. */
const CLAIM_MS = 86_400_000;
/** After this long without an answer whoever claimed a key is taken for dead. */
const BUSY_MS = 30_000;

type ClaimRow = { fingerprint: string; id: string; claimed_at: number; answer: string | null };

export class IdempotencyKeys {
  readonly #sql: SqlStorage;

  constructor(sql: SqlStorage) {
    this.#sql = sql;
  }

  /** @throws {Refusal} `idempotency_mismatch`; `conflict` while the first request is being carried out */
  claim(key: string, fingerprint: string, freshId: string): Claim {
    const now = Date.now();
    this.#sql.exec("DELETE FROM claims WHERE claimed_at < ?", now - CLAIM_MS);
    const [known] = this.#sql.exec<ClaimRow>("SELECT * FROM claims WHERE key = ?", key).toArray();
    if (known === undefined) {
      const insert = "INSERT INTO claims (key, fingerprint, id, claimed_at) VALUES (?, ?, ?, ?)";
      this.#sql.exec(insert, key, fingerprint, freshId, now);
      return { id: freshId, again: false, answer: null };
    }
    if (known.fingerprint !== fingerprint) throw new Refusal("idempotency_mismatch");
    if (known.answer === null && now - known.claimed_at < BUSY_MS) {
      throw new Refusal("conflict", { detail: "the request is being carried out", retryAfterSeconds: 1 });
    }
    return { id: known.id, again: true, answer: known.answer };
  }

  /** Keeps what was answered; or, with null, forgets the key. */
  settle(key: string, given: string | null): void {
    if (given === null) this.#sql.exec("DELETE FROM claims WHERE key = ?", key);
    else this.#sql.exec("UPDATE claims SET answer = ? WHERE key = ?", given, key);
  }
}

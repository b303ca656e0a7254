/**
 * What an object has decided and the revocation log does not know yet. A draft is stored in one step with the decision; telling is
 * tried at once, and again by the object's alarm until the log has taken it. The log knows a draft by its id, so that
 * telling twice does no harm.
 */

import { logFailure } from "../log.ts";
import type { Decision, RevocationDraft } from "./event-table.ts";

export const OUTBOX_SCHEMA = `CREATE TABLE outbox (
  id TEXT PRIMARY KEY,
  draft TEXT NOT NULL,
  attempts INTEGER NOT NULL
) WITHOUT ROWID;`;

/** How long the caller is kept waiting for the log. After that it is the alarm's task. */
const PATIENCE_MS = 3_000;
const FIRST_RETRY_MS = 1_000;
const LAST_RETRY_MS = 60_000;

export class Outbox {
  readonly #sql: SqlStorage;
  readonly #append: (draft: RevocationDraft) => Promise<Decision>;

  /** @param append hands a draft to the log; may fail */
  constructor(sql: SqlStorage, append: (draft: RevocationDraft) => Promise<Decision>) {
    this.#sql = sql;
    this.#append = append;
  }

  /** Synchronous, so that it goes with the decision. */
  add(draft: RevocationDraft): void {
    this.#sql.exec("INSERT INTO outbox (id, draft, attempts) VALUES (?, ?, 0)", draft.id, JSON.stringify(draft));
  }

  /** What was added under this id and is not told yet. */
  find(id: string): RevocationDraft | undefined {
    const [row] = this.#sql.exec<{ draft: string }>("SELECT draft FROM outbox WHERE id = ?", id).toArray();
    return row && JSON.parse(row.draft);
  }

  /** Brings everything to the log. What it does not take stays. Never throws. */
  async tell(): Promise<ReadonlyMap<string, Decision>> {
    const told = new Map<string, Decision>();
    for (const { id, draft } of this.#sql.exec<{ id: string; draft: string }>("SELECT * FROM outbox").toArray()) {
      const owed = JSON.parse(draft) as RevocationDraft;
      try {
        told.set(id, await withPatience(this.#append(owed)));
        this.#sql.exec("DELETE FROM outbox WHERE id = ?", id);
      } catch (error) {
        logFailure("the revocation log did not take an event", { revocation: id, request: owed.request }, error);
        this.#sql.exec("UPDATE outbox SET attempts = attempts + 1 WHERE id = ?", id);
        break;
      }
    }
    return told;
  }

  /** When to tell again, milliseconds since the epoch; undefined when there is nothing to tell. */
  retryAt(): number | undefined {
    const query = "SELECT MIN(attempts) AS attempts FROM outbox";
    const [row] = this.#sql.exec<{ attempts: number | null }>(query).toArray();
    if (row?.attempts == null) return undefined;
    return Date.now() + Math.min(LAST_RETRY_MS, FIRST_RETRY_MS * 2 ** row.attempts);
  }
}

async function withPatience<T>(call: Promise<T>): Promise<T> {
  let timer: ReturnType<typeof setTimeout> | null = null;
  const tooLong = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error("the revocation log took too long")), PATIENCE_MS);
  });
  try {
    return await Promise.race([call, tooLong]);
  } finally {
    clearTimeout(timer);
  }
}

/**
 * What an account owes to the directory: what it is, whenever that has changed. That it changed is stored in one step with the change,
 * and told until the directory has listened. Told is always what is so now, so that a notice that comes late says nothing old.
 */
import { logFailure } from "../log.ts";
import { ask } from "../outcome.ts";
import type { AccountRow, AccountTable } from "./account-table.ts";
import { directory } from "./directory.ts";
import type { DirectoryEntry } from "./directory-table.ts";

const FIRST_RETRY_MS = 1_000;
const LAST_RETRY_MS = 60_000;

export class DirectoryNotice {
  readonly #table: AccountTable;
  readonly #env: Env;
  #failures = 0;
  #telling: Promise<void> | undefined;

  constructor(table: AccountTable, env: Env) {
    this.#table = table;
    this.#env = env;
  }

  /** Brings the directory up to date. Never throws; nobody need wait for it. */
  tell(): Promise<void> {
    this.#telling ??= this.#tell().finally(() => {
      this.#telling = undefined;
    });
    return this.#telling;
  }

  /**
   * When to tell again, milliseconds since the epoch; undefined when there is nothing to tell.
   *
   * @param row the account as it stands, where it was just read
   */
  retryAt(row?: AccountRow): number | undefined {
    if (this.#owed(row) === undefined) return undefined;
    return Date.now() + Math.min(LAST_RETRY_MS, FIRST_RETRY_MS * 2 ** this.#failures);
  }

  async #tell(): Promise<void> {
    try {
      for (let row = this.#owed(); row !== undefined; row = this.#owed()) {
        await ask(directory(this.#env).note(this.#entry(row)));
        this.#table.update({ told_version: row.version });
      }
      this.#failures = 0;
    } catch (error) {
      this.#failures++;
      logFailure("the directory did not listen to an account", { sub: this.#table.find()?.sub }, error);
    }
  }

  #owed(row = this.#table.find()): AccountRow | undefined {
    return row !== undefined && row.told_version !== row.version ? row : undefined;
  }

  #entry({
    sub,
    login,
    tid,
    version,
    disabled_at,
    disabled_until,
    deleted_at,
    created_at,
  }: AccountRow): DirectoryEntry {
    return {
      ...{ sub, login, tid, version, disabled_until, created_at, links: this.#table.links() },
      disabled: disabled_at !== null,
      deleted: deleted_at !== null,
    };
  }
}

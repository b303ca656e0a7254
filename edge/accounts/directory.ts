/**
 * Who there is: every account by its names, so that an administrator who knows only how a name begins finds it. The accounts tell it what
 * they are, again and again until it has listened, and it believes only what is newer than what it knows: so it may be behind for a
 * moment, but it forgets nobody and brings nobody back. It decides nothing: whoever is found is looked up in the account itself.
 */
import { DurableObject } from "cloudflare:workers";
import { migrate } from "../migrations.ts";
import { answer, type Outcome } from "../outcome.ts";
import {
  DIRECTORY_SCHEMA,
  type DirectoryEntry,
  type DirectoryPage,
  type DirectoryQuery,
  DirectoryTable,
} from "./directory-table.ts";

/** There is one. */
export const DIRECTORY_NAME = "directory";

export class Directory extends DurableObject<Env> {
  readonly #table: DirectoryTable;

  constructor(ctx: DurableObjectState, env: Env) {
    super(ctx, env);
    migrate(ctx.storage, DIRECTORY_SCHEMA);
    this.#table = new DirectoryTable(ctx.storage.sql);
  }

  /** Takes down what an account tells of itself, unless as much is known. */
  note(entry: DirectoryEntry): Promise<Outcome<null>> {
    return answer(() => {
      const isNews = this.#table.versionOf(entry.sub) < entry.version;
      if (isNews) this.ctx.storage.transactionSync(() => this.#table.put(entry));
      return null;
    });
  }

  /** Accounts of which a name begins like that, sorted by the first such name; or everybody, by login name or subject. */
  find(query: DirectoryQuery): Promise<Outcome<DirectoryPage>> {
    return answer(() => this.#table.find(query));
  }
}

export function directory(env: Env) {
  return env.DIRECTORY.getByName(DIRECTORY_NAME);
}

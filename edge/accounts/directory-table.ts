/** The accounts of the directory as rows, by each of their names. Synchronous, so that judging and writing are one step. */
import type { Identity } from "./account-table.ts";
import { normaliseLogin } from "./credential.ts";

/** An account as it tells of itself. Seconds since the epoch. */
export interface DirectoryEntry {
  readonly sub: string;
  /** One more with every change: what is older than what is known changes nothing. */
  readonly version: number;
  readonly login: string | null;
  readonly tid: string | null;
  readonly links: readonly Identity[];
  readonly disabled: boolean;
  readonly disabled_until: number | null;
  /** Null where it was made before anybody kept that. */
  readonly created_at: number | null;
  readonly deleted: boolean;
}

export type FoundAccount = Pick<DirectoryEntry, "sub" | "login" | "tid" | "disabled" | "disabled_until" | "created_at">;

export interface DirectoryQuery {
  /** How one of its names begins, in whatever case; everybody where it is empty. */
  readonly query: string;
  readonly tid?: string | undefined;
  readonly limit: number;
  /** The `next` of the page before. */
  readonly after?: Spot | undefined;
}

/** Where a page ends. */
export type Spot = readonly [name: string, sub: string];

export interface DirectoryPage {
  readonly accounts: readonly FoundAccount[];
  readonly next?: Spot;
}

/** Steps that are only ever added to. */
export const DIRECTORY_SCHEMA = [
  `CREATE TABLE accounts (
    sub TEXT PRIMARY KEY,
    version INTEGER NOT NULL,
    label TEXT NOT NULL,
    login TEXT,
    tid TEXT,
    disabled INTEGER NOT NULL,
    disabled_until INTEGER,
    created_at INTEGER,
    deleted INTEGER NOT NULL
  ) WITHOUT ROWID;
  CREATE INDEX accounts_by_label ON accounts (label, sub) WHERE deleted = 0;
  CREATE INDEX accounts_of_tenant ON accounts (tid, label, sub) WHERE deleted = 0 AND tid IS NOT NULL;
  CREATE TABLE names (name TEXT NOT NULL, sub TEXT NOT NULL, tid TEXT, PRIMARY KEY (name, sub)) WITHOUT ROWID;
  CREATE INDEX names_of_tenant ON names (tid, name, sub) WHERE tid IS NOT NULL;
  CREATE INDEX names_of_account ON names (sub, name);`,
];

/** Beyond every name that begins with what stands before it: the last code point, which is no character. */
const BEYOND = "\u{10FFFF}";

type AccountRow = {
  sub: string;
  login: string | null;
  tid: string | null;
  disabled: number;
  disabled_until: number | null;
  created_at: number | null;
};

export class DirectoryTable {
  readonly #sql: SqlStorage;

  constructor(sql: SqlStorage) {
    this.#sql = sql;
  }

  /** The version that is known; 0 where nothing is. */
  versionOf(sub: string): number {
    return this.#rows<{ version: number }>("SELECT version FROM accounts WHERE sub = ?", sub)[0]?.version ?? 0;
  }

  /** Puts it in the place of what is known. Of an account that is deleted only that is kept. */
  put({ sub, version, login, tid, links, disabled, disabled_until, created_at, deleted }: DirectoryEntry): void {
    this.#rows("DELETE FROM names WHERE sub = ?", sub);
    const label = login ?? sub;
    const kept = deleted ? [sub, null, null, null] : [label, login, disabled_until, created_at];
    this.#rows(
      `INSERT OR REPLACE INTO accounts (sub, version, tid, disabled, deleted, label, login, disabled_until, created_at)
       VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)`,
      ...[sub, version, tid, disabled ? 1 : 0, deleted ? 1 : 0, ...kept],
    );
    if (deleted) return;
    const names = new Set([label, sub, ...links.map(({ subject }) => subject)].map(normaliseLogin));
    for (const name of names) this.#rows("INSERT INTO names (name, sub, tid) VALUES (?, ?, ?)", name, sub, tid);
  }

  /** A page of those whose names begin like that. */
  find(query: DirectoryQuery): DirectoryPage {
    const spots = query.query === "" ? this.#everybody(query) : this.#named(query);
    const shown = spots.slice(0, query.limit);
    const last = shown.at(-1);
    const accounts = shown.map(({ sub }) => this.#found(sub));
    return { accounts, ...(spots.length > shown.length && last && { next: [last.name, last.sub] as const }) };
  }

  #everybody({ tid, limit, after: [label, sub] = ["", ""] }: DirectoryQuery): { name: string; sub: string }[] {
    const index = tid === undefined ? "accounts_by_label WHERE TRUE" : "accounts_of_tenant WHERE tid = ?";
    return this.#rows(
      `SELECT label AS name, sub FROM accounts INDEXED BY ${index} AND deleted = 0 AND (label, sub) > (?, ?)
       ORDER BY label, sub LIMIT ?`,
      ...[...(tid === undefined ? [] : [tid]), label, sub, limit + 1],
    );
  }

  /** By the first of an account's names that begins like that: with the others it would be found again. */
  #named({ query, tid, limit, after }: DirectoryQuery): { name: string; sub: string }[] {
    const first = normaliseLogin(query);
    const [name, sub] = after?.[0].startsWith(first) ? after : [first, ""];
    const within = tid === undefined ? "TRUE" : "n.tid = ?";
    return this.#rows(
      `SELECT n.name, n.sub FROM names n
       WHERE ${within} AND (n.name, n.sub) > (?, ?) AND n.name < ?
         AND NOT EXISTS (SELECT 1 FROM names m WHERE m.sub = n.sub AND m.name >= ? AND m.name < n.name)
       ORDER BY n.name, n.sub LIMIT ?`,
      ...[...(tid === undefined ? [] : [tid]), name, sub, first + BEYOND, first, limit + 1],
    );
  }

  #found(wanted: string): FoundAccount {
    const columns = "sub, login, tid, disabled, disabled_until, created_at";
    const [row] = this.#rows<AccountRow>(`SELECT ${columns} FROM accounts WHERE sub = ?`, wanted);
    const { disabled, disabled_until, ...account } = row as AccountRow;
    const isOver = disabled_until !== null && disabled_until * 1000 <= Date.now();
    const isDisabled = disabled === 1 && !isOver;
    return { ...account, disabled: isDisabled, disabled_until: isDisabled ? disabled_until : null };
  }

  #rows<T extends Record<string, SqlStorageValue>>(query: string, ...values: SqlStorageValue[]): T[] {
    return this.#sql.exec<T>(query, ...values).toArray();
  }
}

/**
 * One account as rows: whose it is, how it stands, and which identities elsewhere open it. Synchronous, so that reading, judging
 * and writing are one step. Beside it the whole schema of an Account, whose other tables have rooms of their own.
 */
import { Refusal } from "#contract/refusal";
import { AUDIT_OUTBOX_SCHEMA } from "../audit/audit.ts";
import { adminScopesIn } from "../clients/admin-scope.ts";
import type { Origin } from "../origin.ts";
import { OUTBOX_SCHEMA } from "../revocations/outbox.ts";
import { effectiveScope, type SignInMethod } from "./session.ts";

/** Who the account is of. */
export interface Owner {
  readonly sub: string;
  /** Absent where nobody logs in with a password. */
  readonly login: string | null;
  readonly tid: string | null;
  readonly scope: string | null;
}

/** A person as another issuer knows them. */
export interface Identity {
  readonly issuer: string;
  readonly subject: string;
}

/** How a session is to be opened, by whoever judged that it may be. */
export interface Opening {
  readonly method: SignInMethod;
  readonly device?: string | undefined;
  /** Of the account's scope, what the session is to have; all of it where nothing is said. */
  readonly scope?: string | undefined;
  readonly origin?: Origin | undefined;
  /** How often the password that was found right had been changed. */
  readonly passwordGeneration?: number | undefined;
  /** An account of another tenant is none to the opener. */
  readonly tenant?: string | undefined;
  /** Its first access token is to be for administration. */
  readonly administration?: boolean | undefined;
}

/** Seconds since the epoch. */
export type AccountRow = { [K in keyof Owner]: Owner[K] } & {
  generation: number;
  /** How often the password was changed. */
  password_generation: number;
  disabled_at: number | null;
  disabled_until: number | null;
  deleted_at: number | null;
  /** Null where it was made before this was kept. */
  created_at: number | null;
  /** One more with everything that the directory is told. */
  version: number;
  /** The last one that the directory has heard of; 0 before the first. */
  told_version: number;
};

/** What the directory is told of. */
const LISTED: readonly (keyof AccountRow)[] = ["disabled_at", "disabled_until", "deleted_at"];

/** Steps that are only ever added to. */
export const ACCOUNT_SCHEMA = [
  `CREATE TABLE account (
    sub TEXT PRIMARY KEY,
    login TEXT NOT NULL,
    tid TEXT,
    scope TEXT,
    generation INTEGER NOT NULL
  ) WITHOUT ROWID;
  CREATE TABLE sessions (
    sid TEXT PRIMARY KEY,
    position INTEGER NOT NULL,
    secret_hash TEXT NOT NULL,
    rotated_at INTEGER NOT NULL,
    auth_time INTEGER NOT NULL,
    gen INTEGER NOT NULL,
    device TEXT,
    expires_at INTEGER NOT NULL,
    ended_at INTEGER,
    ended_code TEXT
  ) WITHOUT ROWID;
  ${OUTBOX_SCHEMA}`,
  `ALTER TABLE sessions ADD COLUMN method TEXT NOT NULL DEFAULT 'password';
  ALTER TABLE sessions ADD COLUMN scope TEXT;
  ALTER TABLE sessions ADD COLUMN origin TEXT;
  ALTER TABLE account RENAME TO account_of_version_1;
  CREATE TABLE account (
    sub TEXT PRIMARY KEY,
    login TEXT,
    tid TEXT,
    scope TEXT,
    generation INTEGER NOT NULL,
    password_generation INTEGER NOT NULL DEFAULT 0,
    disabled_at INTEGER,
    disabled_until INTEGER,
    deleted_at INTEGER
  ) WITHOUT ROWID;
  INSERT INTO account (sub, login, tid, scope, generation)
    SELECT sub, login, tid, scope, generation FROM account_of_version_1;
  DROP TABLE account_of_version_1;
  CREATE TABLE links (issuer TEXT NOT NULL, subject TEXT NOT NULL, PRIMARY KEY (issuer, subject)) WITHOUT ROWID;
  ${AUDIT_OUTBOX_SCHEMA}`,
  `ALTER TABLE account ADD COLUMN created_at INTEGER;
  ALTER TABLE account ADD COLUMN version INTEGER NOT NULL DEFAULT 1;
  ALTER TABLE account ADD COLUMN told_version INTEGER NOT NULL DEFAULT 0;`,
];

export class AccountTable {
  readonly #sql: SqlStorage;

  constructor(sql: SqlStorage) {
    this.#sql = sql;
  }

  find(): AccountRow | undefined {
    return this.#sql.exec<AccountRow>("SELECT * FROM account").toArray()[0];
  }

  /** Makes the account, or finishes one whose making broke off. */
  create({ sub, login, tid, scope }: Owner, link: Identity | undefined): void {
    this.#sql.exec(
      `INSERT INTO account (sub, login, tid, scope, generation, created_at) VALUES (?1, ?2, ?3, ?4, 0, unixepoch())
       ON CONFLICT DO UPDATE SET tid = ?3, scope = ?4, version = version + 1`,
      ...[sub, login, tid, scope],
    );
    if (link === undefined) return;
    this.#sql.exec("INSERT OR IGNORE INTO links (issuer, subject) VALUES (?, ?)", link.issuer, link.subject);
  }

  update(changed: Partial<Omit<AccountRow, "sub" | "tid" | "version">>): void {
    const columns = Object.keys(changed).map((column) => `${column} = ?`);
    if (LISTED.some((column) => column in changed)) columns.push("version = version + 1");
    this.#sql.exec(`UPDATE account SET ${columns.join(", ")}`, ...Object.values(changed));
  }

  links(): Identity[] {
    return this.#sql.exec<{ issuer: string; subject: string }>("SELECT issuer, subject FROM links").toArray();
  }

  forgetLink({ issuer, subject }: Identity): void {
    this.#sql.exec("DELETE FROM links WHERE issuer = ? AND subject = ?", issuer, subject);
  }
}

/**
 * Lets a session be opened.
 *
 * @throws {Refusal} as `Account.open`
 */
export function demandOpenable(
  account: AccountRow | undefined,
  { method, passwordGeneration = 0, tenant, scope, administration }: Opening,
  nowMs: number,
): AccountRow {
  const known = account !== undefined && account.deleted_at === null && isOfTenant(account, tenant);
  if (!known) throw new Refusal(method === "password" ? "credentials_wrong" : "not_found", { detail: "no account" });
  if (method === "password" && passwordGeneration < account.password_generation) {
    throw new Refusal("credentials_wrong", { detail: "the password was changed since it was judged" });
  }
  if (isDisabled(account, nowMs)) throw new Refusal("account_disabled");
  const granted = effectiveScope(account.scope, scope ?? null);
  if (scope !== undefined && granted?.split(" ").length !== scope.split(" ").length) {
    throw new Refusal("scope_invalid", { detail: "more than the account has" });
  }
  if (administration === true) demandAdministrable(method, granted);
  return account;
}

/**
 * Lets a session have tokens for administration. One that a backend opened has none: whoever may open sessions would else be every
 * administrator.
 *
 * @param scope what the session has
 * @throws {Refusal} `scope_insufficient`
 */
export function demandAdministrable(method: SignInMethod, scope: string | null): void {
  if (method === "backend") throw new Refusal("scope_insufficient", { detail: "a backend opened the session" });
  if (adminScopesIn(scope).length === 0) throw new Refusal("scope_insufficient", { detail: "no admin scope" });
}

/** @param tenant undefined for who is bound to none */
export function isOfTenant({ tid }: AccountRow, tenant: string | undefined): boolean {
  return tenant === undefined || tid === tenant;
}

/** Whether nobody may sign in for now. */
export function isDisabled(account: Pick<AccountRow, "disabled_at" | "disabled_until">, nowMs: number): boolean {
  const { disabled_at, disabled_until } = account;
  return disabled_at !== null && (disabled_until === null || disabled_until * 1000 > nowMs);
}

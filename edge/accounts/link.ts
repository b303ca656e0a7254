/**
 * One person as another issuer knows them, `(issuer, subject)`: whose account that is, and which of the issuer's tokens were used
 * up already. Whoever asks has verified the token.
 */
import { DurableObject } from "cloudflare:workers";
import { Refusal } from "#contract/refusal";
import type { Act } from "../audit/audit.ts";
import { newSubject } from "../identifiers.ts";
import { hasSchema, migrate, migrateExisting } from "../migrations.ts";
import { answer, ask, type Outcome } from "../outcome.ts";
import type { OpenedSession } from "./account.ts";
import type { Identity, Opening } from "./account-table.ts";

/** The account to make for somebody who has none. */
export interface LinkedAccount {
  readonly sub?: string | undefined;
  readonly tid: string | null;
  readonly scope: string | null;
}

/** A verified token. Times are seconds since the epoch. */
export interface SubjectToken {
  readonly identity: Identity;
  readonly jti: string | undefined;
  /** From here on it is refused for its age, so that nobody need remember its `jti`. */
  readonly deadAt: number;
}

const SCHEMA = [
  `CREATE TABLE link (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    sub TEXT NOT NULL,
    confirmed INTEGER NOT NULL
  );
  CREATE TABLE used_tokens (jti TEXT PRIMARY KEY, dead_at INTEGER NOT NULL) WITHOUT ROWID;`,
];

/** Living tokens of one person that are remembered as used. */
const MAX_USED_TOKENS = 256;
const WAIT_SECONDS = 60;

type LinkRow = { sub: string; confirmed: number };

export class Link extends DurableObject<Env> {
  constructor(ctx: DurableObjectState, env: Env) {
    super(ctx, env);
    migrateExisting(ctx.storage, SCHEMA);
  }

  /**
   * Makes an account that this identity opens. If it breaks off halfway, asking again finishes it.
   *
   * @returns the subject
   * @throws {Refusal} `conflict` when the identity has an account, or the subject is taken
   */
  create(identity: Identity, account: LinkedAccount, by?: Act): Promise<Outcome<string>> {
    return answer(async () => {
      if (this.#row()?.confirmed) throw new Refusal("conflict", { detail: "the identity has an account" });
      return await this.#create(identity, account, by);
    });
  }

  /**
   * Opens a session for the holder of a token. One that has a `jti` is good for one session.
   *
   * @param account what to make for somebody who has none; undefined when nothing is to be made
   * @throws {Refusal} `token_invalid` when the token was used before, or nobody is known by it; as `Account.open`
   */
  open(token: SubjectToken, account: LinkedAccount | undefined, opening: Opening): Promise<Outcome<OpenedSession>> {
    return answer(async () => {
      const find = this.#finder(token.identity, account);
      this.#use(token);
      try {
        const sub = await find();
        return await ask(this.env.ACCOUNT.getByName(sub).open(opening));
      } catch (error) {
        // No session came of it: its holder may try again.
        if (token.jti !== undefined) this.#sql("DELETE FROM used_tokens WHERE jti = ?", token.jti);
        throw error;
      }
    });
  }

  /** Whose identity this is. @throws {Refusal} `not_found` */
  subject(): Promise<Outcome<string>> {
    return answer(() => {
      const known = this.#row();
      if (!known?.confirmed) throw new Refusal("not_found", { detail: "no such identity" });
      return known.sub;
    });
  }

  /** Forgets whose identity it is, when it is this subject's. @param sub whose account was deleted */
  release(sub: string): Promise<Outcome<null>> {
    return answer(() => {
      if (this.#row()?.sub === sub) this.#sql("DELETE FROM link");
      return null;
    });
  }

  #finder(identity: Identity, account: LinkedAccount | undefined): () => Promise<string> {
    const known = this.#row();
    if (known?.confirmed) return () => Promise.resolve(known.sub);
    if (account === undefined) throw new Refusal("token_invalid", { detail: "the identity has no account" });
    return () => this.#create(identity, account, undefined);
  }

  /** Two that come at once make one account: both find the name that the first one has reserved. */
  async #create(identity: Identity, wanted: LinkedAccount, by: Act | undefined): Promise<string> {
    migrate(this.ctx.storage, SCHEMA);
    const reserved = this.#row()?.sub;
    if (reserved !== undefined && wanted.sub !== undefined && wanted.sub !== reserved) {
      throw new Refusal("conflict", { detail: "the identity is reserved for another subject" });
    }
    const sub = reserved ?? wanted.sub ?? newSubject();
    this.#sql("INSERT OR REPLACE INTO link (id, sub, confirmed) VALUES (1, ?, 0)", sub);
    const owner = { sub, login: null, tid: wanted.tid, scope: wanted.scope };
    const maker: Act = by ?? { actor: { kind: "system", id: "token-exchange" } };
    try {
      await ask(this.env.ACCOUNT.getByName(sub).create(owner, identity, maker));
    } catch (error) {
      if (error instanceof Refusal && error.code === "conflict") this.#sql("DELETE FROM link WHERE sub = ?", sub);
      throw error;
    }
    this.#sql("UPDATE link SET confirmed = 1 WHERE sub = ?", sub);
    return sub;
  }

  /** Before the session is opened, so that of two who come at once one is refused. */
  #use({ jti, deadAt }: SubjectToken): void {
    if (jti === undefined) return;
    migrate(this.ctx.storage, SCHEMA);
    this.#sql("DELETE FROM used_tokens WHERE dead_at <= ?", Math.floor(Date.now() / 1000));
    if (this.#sql("SELECT 1 FROM used_tokens WHERE jti = ?", jti).length > 0) {
      throw new Refusal("token_invalid", { detail: "the subject token was used before" });
    }
    if (this.#sql("SELECT 1 FROM used_tokens").length >= MAX_USED_TOKENS) {
      throw new Refusal("too_many_attempts", { detail: "too many subject tokens", retryAfterSeconds: WAIT_SECONDS });
    }
    this.#sql("INSERT INTO used_tokens (jti, dead_at) VALUES (?, ?)", jti, deadAt);
  }

  #row(): LinkRow | undefined {
    return hasSchema(this.ctx.storage) ? this.#sql<LinkRow>("SELECT sub, confirmed FROM link")[0] : undefined;
  }

  #sql<T extends Record<string, SqlStorageValue>>(query: string, ...values: SqlStorageValue[]): T[] {
    return this.ctx.storage.sql.exec<T>(query, ...values).toArray();
  }
}

/**
 * A revocation of many users, one object for each: accepted once it is stored, worked off by alarm a hundred at a time, however often
 * the object dies on the way. Every user's revocation has an id that follows from this one's, so that doing a part again does
 * nothing twice.
 */
import { DurableObject } from "cloudflare:workers";
import { Refusal } from "#contract/refusal";
import { derivedRevocationId } from "../identifiers.ts";
import { logFailure } from "../log.ts";
import { hasSchema, migrate, migrateExisting } from "../migrations.ts";
import { answer, ask, type Outcome } from "../outcome.ts";
import { decidedBy } from "./event-table.ts";
import type { Receipt } from "./receipt.ts";
import { type BatchState, type Order, REVOCATION_LOG_NAME } from "./revocation-log.ts";

/** Users in one call. */
export const MAX_BULK_USERS = 10_000;

/** Who is meant: by subject, or by normalised login name. */
export type BulkUser = { readonly sub: string } | { readonly login: string };
export type BulkOrder = Pick<Order, "reason" | "by" | "tenant" | "manner">;

/** How far it has come. Times in milliseconds since the epoch. */
export interface BulkReceipt extends Pick<Receipt, "actor" | "request"> {
  readonly id: string;
  readonly reason: string;
  readonly created_at: number;
  /**
   * `pending` while users remain, `decided` when none do, `delivered` once every cluster has taken every event, `enforced` once every
   * cluster has enforced every one.
   */
  readonly state: "pending" | "decided" | "delivered" | "enforced";
  readonly users: number;
  readonly revoked: number;
  /** Users that do not exist, or are of another tenant than the client is bound to. */
  readonly not_found: number;
  readonly remaining: number;
  readonly clusters: BatchState["clusters"];
}

const SCHEMA = [
  `CREATE TABLE bulk (
    id TEXT PRIMARY KEY,
    body TEXT NOT NULL,
    users INTEGER NOT NULL,
    revoked INTEGER NOT NULL,
    not_found INTEGER NOT NULL,
    created_at INTEGER NOT NULL
  ) WITHOUT ROWID;
  CREATE TABLE parts (position INTEGER PRIMARY KEY, users TEXT NOT NULL, attempts INTEGER NOT NULL);`,
];

/** Users whose accounts are asked at once. */
const PART = 50;
/** Parts of one alarm: well within the calls that one invocation may make. */
const PARTS_PER_ALARM = 4;
const FIRST_RETRY_MS = 1_000;
const LAST_RETRY_MS = 60_000;
/** As long as events stay readable. */
const KEEP_MS = 7 * 86_400_000;

type BulkRow = {
  id: string;
  body: string;
  users: number;
  revoked: number;
  not_found: number;
  created_at: number;
};
type Result = "revoked" | "not_found" | "failed";

export class BulkRevocation extends DurableObject<Env> {
  constructor(ctx: DurableObjectState, env: Env) {
    super(ctx, env);
    migrateExisting(ctx.storage, SCHEMA);
  }

  /** Stores what is to be done. Doing it again changes nothing. */
  begin(id: string, users: readonly BulkUser[], order: BulkOrder): Promise<Outcome<BulkReceipt>> {
    return answer(async () => {
      if (!hasSchema(this.ctx.storage)) this.#store(id, users, order);
      return await this.#receipt();
    });
  }

  /** @param tenant whose revocations alone the asker may see. @throws {Refusal} `not_found` */
  receipt(tenant?: string): Promise<Outcome<BulkReceipt>> {
    return answer(async () => {
      const row = this.#row();
      const order: BulkOrder | undefined = row && JSON.parse(row.body);
      if (order === undefined || (tenant !== undefined && order.tenant !== tenant)) {
        throw new Refusal("not_found", { detail: "no such bulk revocation, or of another tenant" });
      }
      return await this.#receipt();
    });
  }

  /** Never throws: the platform gives up after six retries. */
  override async alarm(): Promise<void> {
    try {
      if (!(await this.#work())) await this.ctx.storage.deleteAll();
    } catch (error) {
      logFailure("the alarm of a bulk revocation failed", {}, error);
      await this.ctx.storage.setAlarm(Date.now() + LAST_RETRY_MS);
    }
  }

  #store(id: string, users: readonly BulkUser[], order: BulkOrder): void {
    migrate(this.ctx.storage, SCHEMA);
    this.ctx.storage.transactionSync(() => {
      const insert = "INSERT INTO bulk (id, body, users, revoked, not_found, created_at) VALUES (?, ?, ?, 0, 0, ?)";
      this.#sql(insert, id, JSON.stringify(order), users.length, Date.now());
      for (let at = 0; at < users.length; at += PART) {
        this.#sql("INSERT INTO parts (users, attempts) VALUES (?, 0)", JSON.stringify(users.slice(at, at + PART)));
      }
    });
    void this.ctx.storage.setAlarm(Date.now());
  }

  /** @returns false when nothing is left to do or to keep */
  async #work(): Promise<boolean> {
    const row = this.#row();
    if (row === undefined) return false;
    const query = "SELECT * FROM parts ORDER BY attempts, position LIMIT ?";
    type Part = { position: number; users: string; attempts: number };
    for (const part of this.#sql<Part>(query, PARTS_PER_ALARM)) {
      const users: BulkUser[] = JSON.parse(part.users);
      const results = await Promise.all(users.map((user) => this.#revoke(row, user)));
      this.#finish(part.position, users, results);
    }
    return this.#schedule(row);
  }

  async #revoke({ id, body }: BulkRow, user: BulkUser): Promise<Result> {
    try {
      const sub = "sub" in user ? user.sub : await ask(this.env.CREDENTIAL.getByName(user.login).subject());
      const order: Order = { ...JSON.parse(body), id: derivedRevocationId(id, sub), again: true, batch: id };
      await ask(this.env.ACCOUNT.getByName(sub).revokeUser(order));
      return "revoked";
    } catch (error) {
      if (error instanceof Refusal && error.code === "not_found") return "not_found";
      const request = (JSON.parse(body) as BulkOrder).by?.request;
      logFailure("a user of a bulk revocation could not be revoked", { bulk: id, request }, error);
      return "failed";
    }
  }

  /** What is done and how much it was, in one step. What failed stays, behind everything that did not. */
  #finish(position: number, users: readonly BulkUser[], results: readonly Result[]): void {
    const count = (wanted: Result) => results.filter((result) => result === wanted).length;
    const failed = users.filter((_, index) => results[index] === "failed");
    this.ctx.storage.transactionSync(() => {
      const add = "UPDATE bulk SET revoked = revoked + ?, not_found = not_found + ?";
      this.#sql(add, count("revoked"), count("not_found"));
      if (failed.length === 0) this.#sql("DELETE FROM parts WHERE position = ?", position);
      else {
        const keep = "UPDATE parts SET users = ?, attempts = attempts + 1 WHERE position = ?";
        this.#sql(keep, JSON.stringify(failed), position);
      }
    });
  }

  #schedule({ created_at }: BulkRow): boolean {
    const [next] = this.#sql<{ attempts: number | null }>("SELECT MIN(attempts) AS attempts FROM parts");
    const now = Date.now();
    if (next?.attempts == null) {
      void this.ctx.storage.setAlarm(created_at + KEEP_MS);
      return created_at + KEEP_MS > now;
    }
    const delay = next.attempts === 0 ? 0 : Math.min(LAST_RETRY_MS, FIRST_RETRY_MS * 2 ** next.attempts);
    void this.ctx.storage.setAlarm(now + delay);
    return true;
  }

  async #receipt(): Promise<BulkReceipt> {
    const row = this.#row();
    if (row === undefined) throw new Refusal("not_found", { detail: "no such bulk revocation" });
    const { events, enforced, clusters } = await ask(
      this.env.REVOCATION_LOG.getByName(REVOCATION_LOG_NAME).batch(row.id),
    );
    const { id, users, revoked, not_found, created_at } = row;
    const order: BulkOrder = JSON.parse(row.body);
    const remaining = users - revoked - not_found;
    const told = events >= revoked && clusters.every(({ delivered }) => delivered >= revoked);
    const over = events >= revoked && clusters.length > 0 && enforced >= revoked;
    const state = remaining > 0 ? "pending" : over ? "enforced" : told ? "delivered" : "decided";
    const by = order.by === undefined ? {} : decidedBy(order.by);
    return { id, reason: order.reason, ...by, created_at, state, users, revoked, not_found, remaining, clusters };
  }

  #row(): BulkRow | undefined {
    return hasSchema(this.ctx.storage) ? this.#sql<BulkRow>("SELECT * FROM bulk")[0] : undefined;
  }

  #sql<T extends Record<string, SqlStorageValue>>(query: string, ...values: SqlStorageValue[]): T[] {
    return this.ctx.storage.sql.exec<T>(query, ...values).toArray();
  }
}

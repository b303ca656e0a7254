/**
 * The signing keys, one object for the whole edge: it makes them, publishes their public halves, and replaces them by alarm.
 *
 * A key is `next` (published, so that every cache knows it before it signs), `current` (it signs), `retiring` (its private half is
 * destroyed; published until its last token is dead) and `gone`. An administrator can hurry the change, or retire a key at once:
 * then a fresh one signs immediately, and a revocation kills whatever the old one signed. There is a line of keys per purpose
 * and algorithm; a line that is no longer configured ends when its key would have been replaced.
 *
 * The object does not sign. One object signs some thousand times a second at best, and every token of the edge would wait for it;
 * so each isolate is given the wrapped key and unwraps it into a CryptoKey that cannot be exported. "Private keys never leave the
 * object that signs" thus means: bytes of a private key exist only wrapped, and whoever signs holds a key that can do nothing else.
 * The price: an isolate that knows KEYCARD_SECRET can sign, and one signs with a retired key for up to ten seconds longer
 * (issuer.ts); such a token is dead when it is born, and its holder refreshes.
 */
import { DurableObject } from "cloudflare:workers";
import type { JSONWebKeySet, JWK } from "jose";
import type { SignatureAlgorithm } from "#contract/access-token";
import { Refusal } from "#contract/refusal";
import type { RevocationTarget } from "#contract/revocation";
import { type Act, AUDIT_OUTBOX_SCHEMA, AuditOutbox, SYSTEM } from "../audit/audit.ts";
import { readConfig } from "../config.ts";
import { newRevocationId } from "../identifiers.ts";
import { logFailure } from "../log.ts";
import { migrate } from "../migrations.ts";
import { answer, ask, type Outcome } from "../outcome.ts";
import { decidedBy, type RevocationDraft } from "../revocations/event-table.ts";
import { OUTBOX_SCHEMA, Outbox } from "../revocations/outbox.ts";
import { REVOCATION_LOG_NAME } from "../revocations/revocation-log.ts";
import { secretName } from "../subkeys.ts";
import {
  EVENTS_ALGORITHM,
  generateSigningKey,
  type KeyPurpose,
  type NewKey,
  rewrapSigningKey,
  type WrappedKey,
} from "./signing-key.ts";

const SECOND_MS = 1_000;
const HOUR_MS = 3_600_000;
const DAY_MS = 86_400_000;

/**
 * How long a key is published before it signs: longer than any cache of the key set lives. That is ten seconds in our isolates,
 * five minutes by `max-age`, five minutes in a realtime node, and the rest is for those who cache as they like.
 */
const PUBLISHED_AHEAD_MS = HOUR_MS;
/**
 * How long a key stays published after it signed last: the longest token that ACCESS_TOKEN_TTL_SECONDS allows, and ten minutes for
 * isolates and clocks. Events for receivers outside may lie in a queue of theirs for longer.
 */
const STAYS_MS: Readonly<Record<KeyPurpose, number>> = { access: HOUR_MS + 600 * SECOND_MS, events: DAY_MS };
/**
 * How long nodes are to remember a retired key. Whoever stole it decides how long its tokens live, so that this lasts until no
 * node can still have the key: a node believes its key set for a day while the edge cannot be reached.
 */
const REMEMBERED_SECONDS = 2 * 86_400;
/** How long a key that is gone is still listed. */
const LISTED_MS = 90 * DAY_MS;
const AFTER_FAILURE_MS = 60 * SECOND_MS;

const SCHEMA = [
  `CREATE TABLE keys (
    kid TEXT PRIMARY KEY,
    alg TEXT NOT NULL,
    public_jwk TEXT NOT NULL,
    wrapped TEXT NOT NULL,
    created_at INTEGER NOT NULL
  ) WITHOUT ROWID`,
  `ALTER TABLE keys ADD COLUMN purpose TEXT NOT NULL DEFAULT 'access';
  ALTER TABLE keys ADD COLUMN wrapped_by TEXT;
  ALTER TABLE keys ADD COLUMN current_at INTEGER;
  ALTER TABLE keys ADD COLUMN rotate_at INTEGER;
  ALTER TABLE keys ADD COLUMN retiring_at INTEGER;
  ALTER TABLE keys ADD COLUMN gone_at INTEGER;
  ALTER TABLE keys ADD COLUMN reason TEXT;
  UPDATE keys SET current_at = created_at;
  UPDATE keys SET wrapped = '', retiring_at = unixepoch() * 1000, gone_at = unixepoch() * 1000 + ${STAYS_MS.access}
    WHERE EXISTS (SELECT 1 FROM keys AS newer WHERE newer.alg = keys.alg AND newer.created_at > keys.created_at);
  ${OUTBOX_SCHEMA}
  ${AUDIT_OUTBOX_SCHEMA}`,
];

export type KeyState = "next" | "current" | "retiring" | "gone";

/** A key as administrators see it. Times in milliseconds since the epoch. */
export interface KeySummary {
  readonly kid: string;
  readonly alg: SignatureAlgorithm;
  readonly purpose: KeyPurpose;
  readonly state: KeyState;
  readonly created_at: number;
  /** Since when it signs, or signed. */
  readonly current_at?: number;
  /** When its successor takes over; of a current one. */
  readonly rotates_at?: number;
  /** Since when it signs no more. */
  readonly retiring_at?: number;
  /** When it leaves, or left, the key set. */
  readonly gone_at?: number;
  /** Why it was retired at once. */
  readonly reason?: string;
}

/** What an administrator wants of a line of keys, and who that is. */
export interface RotationOrder extends Act {
  readonly purpose: KeyPurpose;
  readonly alg: SignatureAlgorithm;
  /** At once, and what the old one signed is dead; or in good order, as soon as the next one is known everywhere. */
  readonly retire: boolean;
  /** The key that is to be retired; the current one of its line unless it is said. */
  readonly kid?: string | undefined;
  readonly reason: string;
}

export interface RotationResult {
  /** Of the revocation that tells the nodes. */
  readonly revocation?: string;
  readonly keys: readonly KeySummary[];
}

type KeyRow = {
  kid: string;
  alg: SignatureAlgorithm;
  purpose: KeyPurpose;
  public_jwk: string;
  /** Empty from the moment that the key signs no more. */
  wrapped: string;
  wrapped_by: string | null;
  created_at: number;
  current_at: number | null;
  rotate_at: number | null;
  retiring_at: number | null;
  gone_at: number | null;
  reason: string | null;
};

interface Line {
  readonly purpose: KeyPurpose;
  readonly alg: SignatureAlgorithm;
}

interface MadeKey extends NewKey {
  readonly line: Line;
}

export class KeyRing extends DurableObject<Env> {
  readonly #outbox: Outbox;
  readonly #audit: AuditOutbox;

  constructor(ctx: DurableObjectState, env: Env) {
    super(ctx, env);
    migrate(ctx.storage, SCHEMA);
    const log = () => this.env.REVOCATION_LOG.getByName(REVOCATION_LOG_NAME);
    this.#outbox = new Outbox(ctx.storage.sql, (draft) => ask(log().append(draft)));
    this.#audit = new AuditOutbox(ctx.storage.sql, env);
  }

  /** The key to sign with from now on. @throws {Refusal} `unavailable` when KEYCARD_SECRET is another one by now */
  current(alg: SignatureAlgorithm, purpose: KeyPurpose = "access"): Promise<Outcome<WrappedKey>> {
    return answer(() => this.#current({ alg, purpose }));
  }

  /** The public keys (RFC 7517): all that living tokens may be signed with, and the ones that will sign next. */
  jwks(alg: SignatureAlgorithm): Promise<Outcome<JSONWebKeySet>> {
    return answer(async () => {
      await this.#current({ alg, purpose: "access" });
      const published = this.#rows("WHERE gone_at IS NULL OR gone_at > ? ORDER BY created_at", Date.now());
      return { keys: published.map(({ public_jwk }): JWK => JSON.parse(public_jwk)) };
    });
  }

  /** Every key, newest first. */
  list(): Promise<Outcome<readonly KeySummary[]>> {
    return answer(() => this.#list());
  }

  /** @throws {Refusal} `not_found` for a key that there is not, `conflict` for one that is gone, or was replaced meanwhile */
  rotate(order: RotationOrder): Promise<Outcome<RotationResult>> {
    return answer(async () => {
      await this.#current(order);
      if (order.retire) return { revocation: await this.#retire(order), keys: this.#list() };
      await this.#hurry(order);
      return { keys: this.#list() };
    });
  }

  /** Rotates. Never throws: the platform gives up after six retries. */
  override async alarm(): Promise<void> {
    try {
      await this.#turn(Date.now());
      await Promise.all([this.#outbox.tell(), this.#audit.tell()]);
      this.#schedule();
    } catch (error) {
      logFailure("the alarm of the key ring failed", {}, error);
      await this.ctx.storage.setAlarm(Date.now() + AFTER_FAILURE_MS);
    }
  }

  async #current(line: Line): Promise<WrappedKey> {
    const known = this.#currentRow(line) ?? (await this.#begin(line));
    if (known.wrapped_by === secretName(readConfig(this.env).secret[0])) return wrappedKey(known);
    await this.#rewrap();
    // One that could not be opened is given out as it is: whoever is to use it says what is wrong.
    return wrappedKey(this.#currentRow(line) ?? known);
  }

  /** The first key of a line signs at once: there is nothing that nodes could have known before it. */
  async #begin(line: Line): Promise<KeyRow> {
    const made = await this.#make(line);
    // Others may have come while the key was made: the first one stored is the one.
    const meanwhile = this.#currentRow(line);
    if (meanwhile !== undefined) return meanwhile;
    const now = Date.now();
    this.ctx.storage.transactionSync(() => {
      this.#store(made, { actor: SYSTEM }, now);
    });
    this.#tellSoon();
    return this.#row(made.key.kid);
  }

  /** Brings every line to where it should be by now. */
  async #turn(now: number): Promise<void> {
    await this.#rewrap();
    for (const row of this.#rows("WHERE current_at IS NOT NULL AND retiring_at IS NULL")) {
      if (!this.#isConfigured(row)) {
        if (this.#rotatesAt(row) <= now) this.#sendOff(row, "the algorithm is no longer configured", now);
        continue;
      }
      const next = this.#nextRow(row);
      if (next === undefined && this.#rotatesAt(row) - PUBLISHED_AHEAD_MS <= now)
        await this.#prepare(row, { actor: SYSTEM });
      else if (next !== undefined && this.#takesOverAt(row, next) <= now) this.#takeOver(row, next, now);
    }
    this.#sql("DELETE FROM keys WHERE gone_at < ?", now - LISTED_MS);
  }

  /** Publishes the key that will sign next. */
  async #prepare(line: Line, by: Act): Promise<void> {
    const made = await this.#make(line);
    if (this.#nextRow(line) !== undefined || this.#currentRow(line) === undefined) return;
    this.ctx.storage.transactionSync(() => {
      this.#store(made, by, null);
    });
  }

  #takeOver(row: KeyRow, next: KeyRow, now: number): void {
    this.ctx.storage.transactionSync(() => {
      this.#sql("UPDATE keys SET current_at = ? WHERE kid = ?", now, next.kid);
      this.#sendOff(row, nameOf(row), now);
    });
  }

  /** It signs no more: its private half is not needed again. */
  #sendOff(row: KeyRow, reason: string, now: number): void {
    this.ctx.storage.transactionSync(() => {
      // One that was retired meanwhile is gone, and must not come back into the set.
      const end = "UPDATE keys SET wrapped = '', retiring_at = ?, gone_at = ? WHERE kid = ? AND retiring_at IS NULL";
      this.#sql(end, now, now + STAYS_MS[row.purpose], row.kid);
      this.#audit.add({ type: "key_rotated", actor: SYSTEM, kid: row.kid, reason });
    });
  }

  /** In good order, but now: the next key is published if it is not yet, and takes over as soon as it is known everywhere. */
  async #hurry(order: RotationOrder): Promise<void> {
    const now = Date.now();
    await this.#prepare(order, actOf(order));
    const current = this.#currentRow(order);
    const next = this.#nextRow(order);
    if (current === undefined || next === undefined) throw new Refusal("conflict", { detail: "the keys changed" });
    this.ctx.storage.transactionSync(() => {
      const rotateAt = Math.max(now, next.created_at + PUBLISHED_AHEAD_MS);
      this.#sql("UPDATE keys SET rotate_at = MIN(?1, COALESCE(rotate_at, ?1)) WHERE kid = ?2", rotateAt, current.kid);
      const reason = `as soon as may be: ${order.reason}`;
      this.#audit.add({ type: "key_rotated", ...actOf(order), kid: current.kid, reason });
    });
    this.#tellSoon();
  }

  /**
   * Ends a key now. With the current one goes the one that was to follow: whoever could read the one could read the other. The
   * end, the fresh key, the revocation and the records of it become durable together.
   *
   * @returns the id of the revocation
   */
  async #retire(order: RotationOrder): Promise<string> {
    const meant = order.kid === undefined ? this.#currentRow(order) : this.#rows("WHERE kid = ?", order.kid)[0];
    if (meant === undefined) throw new Refusal("not_found", { detail: "no such key" });
    const now = Date.now();
    if (stateOf(meant, now) === "gone") throw new Refusal("conflict", { detail: "the key is gone already" });
    if (meant.retiring_at !== null) return await this.#end(order, [meant], undefined, now);
    const made = await this.#make(meant);
    const { purpose, alg, kid } = meant;
    const retired = this.#rows("WHERE purpose = ? AND alg = ? AND retiring_at IS NULL", purpose, alg);
    if (!retired.some((row) => row.kid === kid)) throw new Refusal("conflict", { detail: "it was replaced meanwhile" });
    return await this.#end(order, retired, made, now);
  }

  async #end(
    order: RotationOrder,
    retired: readonly KeyRow[],
    successor: MadeKey | undefined,
    now: number,
  ): Promise<string> {
    const targets = retired.map(({ kid }): RevocationTarget => ({ kind: "key", kid }));
    const expires_at = Math.floor(now / SECOND_MS) + REMEMBERED_SECONDS;
    const id = newRevocationId();
    const { reason } = order;
    const said = { id, targets, code: "token_revoked", decided_at: now, expires_at, reason } as const;
    const draft: RevocationDraft = { ...said, ...decidedBy(order) };
    this.ctx.storage.transactionSync(() => {
      for (const { kid } of retired) {
        const end = "UPDATE keys SET wrapped = '', retiring_at = ?1, gone_at = ?1, reason = ?2 WHERE kid = ?3";
        this.#sql(end, now, reason, kid);
        this.#audit.add({ type: "key_retired", ...actOf(order), kid, revocation: id, reason });
      }
      if (successor !== undefined) this.#store(successor, actOf(order), now);
      this.#outbox.add(draft);
    });
    this.#schedule();
    await this.#outbox.tell();
    this.#tellSoon();
    return id;
  }

  async #make({ purpose, alg }: Line): Promise<MadeKey> {
    return { line: { purpose, alg }, ...(await generateSigningKey(alg, readConfig(this.env).secret)) };
  }

  /** Wraps anew what is still wrapped under the secret of before, so that that one can be forgotten. */
  async #rewrap(): Promise<void> {
    const { secret } = readConfig(this.env);
    const stale = "WHERE wrapped <> '' AND (wrapped_by IS NULL OR wrapped_by <> ?)";
    for (const row of this.#rows(stale, secretName(secret[0]))) {
      try {
        const { wrapped, wrapped_by } = await rewrapSigningKey(wrappedKey(row), secret);
        this.#sql(
          "UPDATE keys SET wrapped = ?, wrapped_by = ? WHERE kid = ? AND wrapped <> ''",
          wrapped,
          wrapped_by,
          row.kid,
        );
      } catch (error) {
        logFailure("a signing key cannot be opened", { kid: row.kid }, error);
        // It never signed, and never can.
        if (row.current_at === null) this.#sql("DELETE FROM keys WHERE kid = ?", row.kid);
      }
    }
  }

  /** Without waiting: what is told is safe in the outbox. */
  #tellSoon(): void {
    this.#schedule();
    this.ctx.waitUntil(this.#audit.tell().then(() => this.#schedule()));
  }

  /** Sets the alarm to when something is next to be done. Synchronous, so that it goes with the write. */
  #schedule(): void {
    const current = this.#rows("WHERE current_at IS NOT NULL AND retiring_at IS NULL");
    const turns = current.map((row) => {
      if (!this.#isConfigured(row)) return this.#rotatesAt(row);
      const next = this.#nextRow(row);
      return next === undefined ? this.#rotatesAt(row) - PUBLISHED_AHEAD_MS : this.#takesOverAt(row, next);
    });
    const due = [...turns, this.#outbox.retryAt(), this.#audit.retryAt()].filter((at) => at !== undefined);
    if (due.length > 0) void this.ctx.storage.setAlarm(Math.min(...due));
  }

  #isConfigured({ purpose, alg }: Line): boolean {
    return alg === (purpose === "events" ? EVENTS_ALGORITHM : readConfig(this.env).algorithm);
  }

  #rotatesAt({ current_at, rotate_at }: KeyRow): number {
    const usual = (current_at ?? 0) + readConfig(this.env).keyRotationDays * DAY_MS;
    return Math.min(usual, rotate_at ?? usual);
  }

  #takesOverAt(current: KeyRow, next: KeyRow): number {
    return Math.max(this.#rotatesAt(current), next.created_at + PUBLISHED_AHEAD_MS);
  }

  #list(): readonly KeySummary[] {
    const now = Date.now();
    return this.#rows("ORDER BY created_at DESC").map((row) => this.#summary(row, now));
  }

  #summary(row: KeyRow, now: number): KeySummary {
    const { kid, alg, purpose, created_at } = row;
    const state = stateOf(row, now);
    return {
      kid,
      alg,
      purpose,
      state,
      created_at,
      ...(row.current_at !== null && { current_at: row.current_at }),
      ...(state === "current" && { rotates_at: this.#rotatesAt(row) }),
      ...(row.retiring_at !== null && { retiring_at: row.retiring_at }),
      ...(row.gone_at !== null && { gone_at: row.gone_at }),
      ...(row.reason !== null && { reason: row.reason }),
    };
  }

  #currentRow({ purpose, alg }: Line): KeyRow | undefined {
    const where = "WHERE purpose = ? AND alg = ? AND current_at IS NOT NULL AND retiring_at IS NULL";
    return this.#rows(`${where} ORDER BY created_at DESC LIMIT 1`, purpose, alg)[0];
  }

  #nextRow({ purpose, alg }: Line): KeyRow | undefined {
    return this.#rows("WHERE purpose = ? AND alg = ? AND current_at IS NULL AND retiring_at IS NULL", purpose, alg)[0];
  }

  #row(kid: string): KeyRow {
    const [row] = this.#rows("WHERE kid = ?", kid);
    if (row === undefined) throw new Error("a key is gone that was just stored");
    return row;
  }

  #rows(where: string, ...values: SqlStorageValue[]): KeyRow[] {
    return this.#sql<KeyRow>(`SELECT * FROM keys ${where}`, ...values);
  }

  /** @param currentAt since when it signs; null for the one that will sign next */
  #store({ line, publicJwk, key }: MadeKey, by: Act, currentAt: number | null): void {
    this.#sql(
      `INSERT INTO keys (kid, alg, purpose, public_jwk, wrapped, wrapped_by, created_at, current_at)
       VALUES (?, ?, ?, ?, ?, ?, ?, ?)`,
      key.kid,
      line.alg,
      line.purpose,
      JSON.stringify(publicJwk),
      key.wrapped,
      key.wrapped_by,
      currentAt ?? Date.now(),
      currentAt,
    );
    this.#audit.add({ type: "key_created", ...by, kid: key.kid, reason: nameOf(line) });
  }

  #sql<T extends Record<string, SqlStorageValue>>(query: string, ...values: SqlStorageValue[]): T[] {
    return this.ctx.storage.sql.exec<T>(query, ...values).toArray();
  }
}

function stateOf({ current_at, retiring_at, gone_at }: KeyRow, now: number): KeyState {
  if (gone_at !== null && gone_at <= now) return "gone";
  if (retiring_at !== null) return "retiring";
  return current_at === null ? "next" : "current";
}

function actOf({ actor, from, request }: RotationOrder): Act {
  return { actor, from, request };
}

function wrappedKey({ kid, alg, wrapped, wrapped_by }: KeyRow): WrappedKey {
  return { kid, alg, wrapped, wrapped_by };
}

function nameOf({ purpose, alg }: Line): string {
  return `${purpose}, ${alg}`;
}

/**
 * Event streams (Shared Signals Framework 1.0 section 8.1): receivers outside who are told of revocations, by push (RFC 8935) with the
 * patience that clusters are brought events with, or by poll (RFC 8936). They read the same log from where they stood when they were
 * made; what the log has let go of after a week they do not get any more.
 */
import { signTyped } from "#contract/access-token";
import { Refusal } from "#contract/refusal";
import { SECURITY_EVENT_MEDIA_TYPE, SECURITY_EVENT_TYPE } from "#contract/revocation";
import { readConfig } from "../config.ts";
import { randomName } from "../identifiers.ts";
import { eventSigningKey } from "../keys/issuer.ts";
import { logFailure } from "../log.ts";
import { type Audience, sessionRevokedSets, type UnsignedSet, verificationSet } from "./caep.ts";
import { exchange, failure, type Push } from "./cluster.ts";
import { Delivery, type DeliveryLog } from "./delivery.ts";

export const EVENT_STREAMS_SCHEMA = `CREATE TABLE streams (
    stream_id TEXT PRIMARY KEY,
    owner TEXT NOT NULL,
    tid TEXT,
    audience TEXT NOT NULL,
    endpoint_url TEXT,
    authorization_header TEXT,
    description TEXT,
    created_at INTEGER NOT NULL,
    verification TEXT
  ) WITHOUT ROWID;
  CREATE TABLE acknowledged (stream_id TEXT, jti TEXT, PRIMARY KEY (stream_id, jti)) WITHOUT ROWID;`;

export interface NewStream {
  /** The client that may see it; its events are of no other tenant than the client's. */
  readonly owner: string;
  readonly tid: string | null;
  readonly audience: string;
  /** Where events are pushed to; null for a receiver that polls. */
  readonly endpoint_url: string | null;
  /** Sent with every push. Never shown again. */
  readonly authorization_header: string | null;
  readonly description: string | null;
}

export interface EventStream extends Omit<NewStream, "authorization_header"> {
  readonly stream_id: string;
  /** Milliseconds since the epoch. */
  readonly created_at: number;
  /** Of its last push that failed and was not made good yet. */
  readonly last_error: string | null;
}

/** RFC 8936 section 2.2. */
export interface PollRequest {
  readonly maxEvents: number;
  /** `jti` of what was taken, or was refused for good. */
  readonly done: readonly string[];
}

/** RFC 8936 section 2.3. */
export interface PollAnswer {
  readonly sets: Readonly<Record<string, string>>;
  readonly moreAvailable: boolean;
}

type StreamRow = { [K in keyof NewStream]: NewStream[K] } & {
  stream_id: string;
  created_at: number;
  /** A verification that a polling receiver has not acknowledged: `{jti, state}`. */
  verification: string | null;
};

const MAX_STREAMS = 100;
const TIMEOUT_MS = 5_000;
const MAX_ERROR_LENGTH = 300;
/** Events that one poll looks at. */
const POLL_EVENTS = 100;

export class EventStreams {
  readonly #sql: SqlStorage;
  readonly #env: Env;
  readonly #log: DeliveryLog;
  #pumps: Map<string, Delivery> | undefined;

  /** @param log the events, in whose books a stream is a receiver like a cluster */
  constructor(sql: SqlStorage, env: Env, log: DeliveryLog) {
    this.#sql = sql;
    this.#env = env;
    this.#log = log;
  }

  /** One pump per receiver that is pushed to: a slow one must not delay another. */
  deliveries(): readonly Delivery[] {
    if (this.#pumps === undefined) {
      const rows = this.#rows("WHERE endpoint_url IS NOT NULL");
      this.#pumps = new Map(rows.map((row) => [row.stream_id, this.#pump(row)]));
    }
    return [...this.#pumps.values()];
  }

  /** @throws {Refusal} `conflict` when there are too many */
  create(stream: NewStream): EventStream {
    const [count] = this.#sql.exec<{ streams: number }>("SELECT COUNT(*) AS streams FROM streams").toArray();
    if ((count?.streams ?? 0) >= MAX_STREAMS) throw new Refusal("conflict", { detail: "too many event streams" });
    const row: StreamRow = {
      ...stream,
      stream_id: `st_${randomName(128)}`,
      created_at: Date.now(),
      verification: null,
    };
    const columns = Object.keys(row);
    const places = columns.map(() => "?").join(", ");
    this.#sql.exec(`INSERT INTO streams (${columns.join(", ")}) VALUES (${places})`, ...Object.values(row));
    // It begins now, and not with what was before it.
    this.#sql.exec("INSERT INTO cursors (cluster, seq) VALUES (?, 0)", receiverOf(row.stream_id));
    this.#log.caughtUp(receiverOf(row.stream_id));
    this.#pumps = undefined;
    return this.#shown(row);
  }

  /** @param owner whose streams alone the asker may see; undefined for all. @throws {Refusal} `not_found` */
  find(streamId: string, owner: string | undefined): EventStream {
    return this.#shown(this.#row(streamId, owner));
  }

  list(owner: string | undefined): readonly EventStream[] {
    const rows = owner === undefined ? this.#rows("") : this.#rows("WHERE owner = ?", owner);
    return rows.map((row) => this.#shown(row));
  }

  /** @throws {Refusal} `not_found` */
  remove(streamId: string, owner: string | undefined): void {
    this.#row(streamId, owner);
    this.#sql.exec("DELETE FROM streams WHERE stream_id = ?", streamId);
    this.#sql.exec("DELETE FROM acknowledged WHERE stream_id = ?", streamId);
    this.#sql.exec("DELETE FROM cursors WHERE cluster = ?", receiverOf(streamId));
    this.#sql.exec("DELETE FROM deliveries WHERE cluster = ?", receiverOf(streamId));
    this.#pumps = undefined;
  }

  /** Takes what the receiver has acknowledged off its list, and gives it what is next. @throws {Refusal} `not_found` */
  async poll(streamId: string, owner: string | undefined, { maxEvents, done }: PollRequest): Promise<PollAnswer> {
    const row = this.#row(streamId, owner);
    for (const jti of done) this.#acknowledge(row, jti);
    const waiting = this.#waiting(this.#row(streamId, owner));
    const given = waiting.slice(0, maxEvents);
    const sets = await Promise.all(given.map(async (set) => [set.jti, await this.#sign(set)] as const));
    return { sets: Object.fromEntries(sets), moreAvailable: waiting.length > given.length };
  }

  /**
   * Shows the receiver that the stream works: at once where it is pushed to, at its next poll where not.
   *
   * @throws {Refusal} `not_found`
   */
  async verify(streamId: string, owner: string | undefined, state: string | undefined): Promise<void> {
    const row = this.#row(streamId, owner);
    const jti = `ver_${randomName(128)}`;
    if (row.endpoint_url === null) {
      const pending = JSON.stringify({ jti, state });
      this.#sql.exec("UPDATE streams SET verification = ? WHERE stream_id = ?", pending, streamId);
      return;
    }
    const push = await this.#push(row, verificationSet(streamId, state, jti, this.#audience(row)));
    if (!push.taken) logFailure("a receiver did not take a verification", { stream: streamId, error: push.error });
  }

  #pump(row: StreamRow): Delivery {
    const id = receiverOf(row.stream_id);
    const [cursor] = this.#sql.exec<{ seq: number }>("SELECT seq FROM cursors WHERE cluster = ?", id).toArray();
    const deliver = async (event: Parameters<typeof sessionRevokedSets>[0]): Promise<Push> => {
      for (const set of sessionRevokedSets(event, this.#audience(row))) {
        const push = await this.#push(row, set);
        // The ones before it come again with it, under the same names.
        if (!push.taken) return push;
      }
      return { taken: true };
    };
    return new Delivery({ id, deliver }, this.#log, cursor?.seq ?? 0);
  }

  /** RFC 8935 section 2. */
  async #push({ endpoint_url, authorization_header }: StreamRow, set: UnsignedSet): Promise<Push> {
    const headers = {
      "content-type": SECURITY_EVENT_MEDIA_TYPE,
      accept: "application/json",
      ...(authorization_header !== null && { authorization: authorization_header }),
    };
    const request = { method: "POST", headers, body: await this.#sign(set) };
    const answer = await exchange(endpoint_url ?? "", request, TIMEOUT_MS);
    if (answer.status === 202) return { taken: true };
    const error = failure(answer).slice(0, MAX_ERROR_LENGTH);
    return { taken: false, reason: answer.status === 400 ? "refused" : "later", error };
  }

  async #sign({ payload }: UnsignedSet): Promise<string> {
    return await signTyped(SECURITY_EVENT_TYPE, payload, await eventSigningKey(this.#env));
  }

  #acknowledge(row: StreamRow, jti: string): void {
    const { stream_id, verification } = row;
    if (verification !== null && JSON.parse(verification).jti === jti) {
      this.#sql.exec("UPDATE streams SET verification = NULL WHERE stream_id = ?", stream_id);
      return;
    }
    // Only what is on its list: names that it makes up must not fill the storage.
    const event = this.#undelivered(row).find(({ id }) => jti === id || jti.startsWith(`${id}.`));
    const sets = event === undefined ? [] : sessionRevokedSets(event, this.#audience(row));
    if (event === undefined || !sets.some((set) => set.jti === jti)) return;
    this.#sql.exec("INSERT OR IGNORE INTO acknowledged (stream_id, jti) VALUES (?, ?)", stream_id, jti);
    if (sets.some((set) => !this.#isAcknowledged(stream_id, set.jti))) return;
    this.#log.delivered(receiverOf(stream_id), event);
    for (const set of sets) {
      this.#sql.exec("DELETE FROM acknowledged WHERE stream_id = ? AND jti = ?", stream_id, set.jti);
    }
  }

  #waiting(row: StreamRow): UnsignedSet[] {
    const audience = this.#audience(row);
    const sets = this.#undelivered(row).flatMap((event) => {
      const said = sessionRevokedSets(event, audience);
      if (said.length === 0) this.#log.delivered(receiverOf(row.stream_id), event);
      return said.filter(({ jti }) => !this.#isAcknowledged(row.stream_id, jti));
    });
    if (row.verification === null) return sets;
    const { jti, state }: { jti: string; state?: string } = JSON.parse(row.verification);
    return [verificationSet(row.stream_id, state, jti, audience), ...sets];
  }

  #undelivered({ stream_id }: StreamRow) {
    const receiver = receiverOf(stream_id);
    const [cursor] = this.#sql.exec<{ seq: number }>("SELECT seq FROM cursors WHERE cluster = ?", receiver).toArray();
    const events = this.#log.undelivered(receiver, cursor?.seq ?? 0, POLL_EVENTS);
    const [first] = events;
    if (first === undefined) this.#log.caughtUp(receiver);
    else this.#sql.exec("UPDATE cursors SET seq = ?1 WHERE cluster = ?2 AND seq <> ?1", first.seq - 1, receiver);
    return events;
  }

  #isAcknowledged(streamId: string, jti: string): boolean {
    const query = "SELECT 1 FROM acknowledged WHERE stream_id = ? AND jti = ?";
    return this.#sql.exec(query, streamId, jti).toArray().length > 0;
  }

  #audience({ audience, tid }: StreamRow): Audience {
    const { issuer, audience: application } = readConfig(this.#env);
    return { issuer, audience, application, tid: tid ?? undefined };
  }

  #row(streamId: string, owner: string | undefined): StreamRow {
    const [row] = this.#rows("WHERE stream_id = ?", streamId);
    if (row === undefined || (owner !== undefined && row.owner !== owner)) {
      throw new Refusal("not_found", { detail: "no such event stream, or somebody else's" });
    }
    return row;
  }

  #rows(where: string, ...values: SqlStorageValue[]): StreamRow[] {
    return this.#sql.exec<StreamRow>(`SELECT * FROM streams ${where}`, ...values).toArray();
  }

  #shown({ authorization_header: _, verification: __, ...row }: StreamRow): EventStream {
    const query = `SELECT last_error FROM deliveries WHERE cluster = ? AND delivered_at IS NULL
      AND last_error IS NOT NULL ORDER BY seq DESC LIMIT 1`;
    const [failed] = this.#sql.exec<{ last_error: string }>(query, receiverOf(row.stream_id)).toArray();
    return { ...row, last_error: failed?.last_error ?? null };
  }
}

/** A name in the log's books that no cluster can have: theirs are without spaces. */
function receiverOf(streamId: string): string {
  return `stream ${streamId}`;
}

/**
 * Follows the cluster's log in Redis. Pub/sub is the bell, the stream is the memory: the bell brings an event within
 * a millisecond, and a heartbeat that reads the stream after the last position finds what the bell lost. The same
 * heartbeat renews this node's lease; a node whose lease has run out by its own clock must trust nothing it knows.
 */
import type { Redis } from "ioredis";
import type { ClusterReceipt, NodeReceipt, Rehearsal } from "#contract/revocation";

const LOG = "{keycard}:log";
const BELL = "{keycard}:bell";
const NODES = "{keycard}:nodes";
const QUESTIONS = "{keycard}:questions";
const answerKey = (id: string) => `{keycard}:answer:${id}`;
const ticketKey = (jti: string) => `{keycard}:ticket:${jti}`;
const receiptKey = (name: string) => `{keycard}:receipt:${name}`;

const PAGE = 500;
const COMMAND_TIMEOUT_MS = 2_000;
const RETRY_MS = 250;
const ACKS_AT_ONCE = 100;
const ANSWER_SECONDS = 30;
const ANSWER_LOOK_MS = 10;
/** Bell entries remembered before the stream is read that far; forgetting one only means judging it twice. */
const AHEAD_LIMIT = 10_000;

/** Appends and rings in one step, once per event; says who was there to hear it. */
const APPEND = `
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local entry = redis.call('HGET', KEYS[3], 'entry')
if not entry then
  entry = redis.call('XADD', KEYS[1], 'MINID', '~', now - ARGV[3], '*', 'set', ARGV[1])
  local expected = redis.call('ZRANGEBYSCORE', KEYS[2], now, '+inf')
  redis.call('HSET', KEYS[3], 'entry', entry, 'expected', #expected > 0 and cjson.encode(expected) or '[]')
  redis.call('PEXPIRE', KEYS[3], ARGV[3])
end
redis.call('PUBLISH', ARGV[2], entry .. ' ' .. ARGV[1])
return entry`;

/** Reads on from a position and, where asked to, renews the lease in the same step. */
const FOLLOW = `
if ARGV[1] ~= '' then
  local time = redis.call('TIME')
  local now = time[1] * 1000 + math.floor(time[2] / 1000)
  redis.call('ZADD', KEYS[2], now + ARGV[2], ARGV[1])
  redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', now - 86400000)
end
local last = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)
return {last[1] and last[1][1] or '', redis.call('XRANGE', KEYS[1], '(' .. ARGV[3], '+', 'COUNT', ARGV[4])}`;

/** Nodes whose lease is running. */
const HOLDERS = `
local time = redis.call('TIME')
return redis.call('ZRANGEBYSCORE', KEYS[1], time[1] * 1000 + math.floor(time[2] / 1000), '+inf')`;

/** The first word of a node stands, and nothing is written for an event that has been forgotten. */
const ACKNOWLEDGE = `
for i, key in ipairs(KEYS) do
  if redis.call('EXISTS', key) == 1 then redis.call('HSETNX', key, 'node:' .. ARGV[1], ARGV[i + 1]) end
end`;

export interface LogOptions {
  /** Its settings are taken over for two connections of our own; it is not used itself. */
  readonly redis: Redis;
  readonly node: string;
  readonly heartbeatMs: number;
  /** How long others may believe this node alive after its last heartbeat. */
  readonly leaseMs: number;
  /** How long events and receipts are kept: longer than any token lives. */
  readonly retentionMs: number;
  /**
   * Takes one signed event: resolves once nobody whom it covers gets in any more, with the promise of this node's receipt
   * for when their sockets are closed; to undefined when it is not to be believed; rejects when that cannot be told yet,
   * and is then asked again.
   */
  apply(set: string): Promise<{ readonly name: string; readonly done: Promise<NodeReceipt> } | undefined>;
  /** Counts whom a signed question speaks of; undefined when it is not to be believed. Changes nothing. */
  count(question: string): Promise<(Count & { readonly id: string }) | undefined>;
  onProblem(message: string, error: unknown): void;
}

/** What one node says to a question that all were asked. */
export interface Count {
  readonly sockets: number;
  readonly sids: readonly string[];
}

export interface RevocationLog {
  /** Replays the whole stream, then takes the lease. Keeps trying until it has. */
  start(): Promise<void>;
  /** Whether everything is replayed and the lease is running, by this machine's monotonic clock. */
  isCurrent(): boolean;
  /** Puts an event into the cluster's log, durably as far as Redis is. Rejects when Redis cannot take it now. */
  append(name: string, set: string): Promise<void>;
  /** Asks every node that holds a lease, and adds up what those said that answered in time. */
  ask(id: string, question: string, waitMs: number): Promise<Rehearsal>;
  /** What the cluster knows of an event; undefined when it knows nothing of it. */
  receipt(name: string, id: string): Promise<ClusterReceipt | undefined>;
  /** Uses a ticket up. Resolves to whether it was unused until now; rejects when Redis cannot tell. */
  burn(ticket: string, seconds: number): Promise<boolean>;
  /** Milliseconds since the last good heartbeat; infinite before the first. */
  silenceMs(): number;
  /** Gives the lease back and leaves. */
  stop(): Promise<void>;
}

type FollowReply = [last: string, entries: [id: string, fields: string[]][]];

export function createLog(options: LogOptions): RevocationLog {
  const { node, heartbeatMs, leaseMs, retentionMs, onProblem } = options;
  const commands = options.redis.duplicate({
    lazyConnect: true,
    enableOfflineQueue: false,
    maxRetriesPerRequest: 0,
    commandTimeout: COMMAND_TIMEOUT_MS,
    connectTimeout: COMMAND_TIMEOUT_MS,
    retryStrategy: () => RETRY_MS,
  });
  const bell = options.redis.duplicate({
    lazyConnect: true,
    maxRetriesPerRequest: null,
    connectTimeout: COMMAND_TIMEOUT_MS,
    retryStrategy: () => RETRY_MS,
  });

  let position = "0-0";
  let lastBeat = Number.NEGATIVE_INFINITY;
  let leaseEnd = Number.NEGATIVE_INFINITY;
  let stopped = false;
  let timer: NodeJS.Timeout | undefined;
  /** Entries that the bell brought before the stream was read that far. */
  const ahead = new Map<string, string>();
  /** Entries that could not be judged yet. */
  const unsettled = new Map<string, string>();
  const unacknowledged = new Map<string, NodeReceipt>();
  let acknowledging: Promise<void> | undefined;

  async function take(entry: string, set: string): Promise<void> {
    try {
      const applied = await options.apply(set);
      unsettled.delete(entry);
      // Not waited for: closing may take its time, and the heartbeat must not.
      if (applied !== undefined) void acknowledgeOnce(applied.name, applied.done);
    } catch (error) {
      unsettled.set(entry, set);
      onProblem("an event cannot be judged yet", error);
    }
  }

  async function acknowledgeOnce(id: string, done: Promise<NodeReceipt>): Promise<void> {
    try {
      unacknowledged.set(id, await done);
      await acknowledge();
    } catch (error) {
      onProblem("a receipt could not be written; the next heartbeat will", error);
    }
  }

  /** Writes what there is to write, in one go for all that wait. */
  function acknowledge(): Promise<void> {
    acknowledging ??= writeReceipts().finally(() => {
      acknowledging = undefined;
    });
    return acknowledging;
  }

  async function writeReceipts(): Promise<void> {
    while (unacknowledged.size > 0) {
      const batch = [...unacknowledged].slice(0, ACKS_AT_ONCE);
      const words = batch.map(([, { applied_at, closed }]) => JSON.stringify({ applied_at, closed }));
      await commands.eval(ACKNOWLEDGE, batch.length, ...batch.map(([id]) => receiptKey(id)), node, ...words);
      for (const [id] of batch) unacknowledged.delete(id);
    }
  }

  /** Reads one page. Resolves to whether there may be more. */
  async function follow(lease: boolean): Promise<boolean> {
    const sentAt = performance.now();
    const holder = lease ? node : "";
    const reply = await commands.eval(FOLLOW, 2, LOG, NODES, holder, leaseMs, position, PAGE);
    const [last, entries] = reply as FollowReply;
    if (last !== "" && isBefore(last, position)) {
      // The stream is behind what was read from it: Redis was emptied or has lost its tail. Read it all again.
      position = "0-0";
      return true;
    }
    await Promise.all(
      entries.map(([entry, [, set = ""]]) => {
        // Only if the bell brought these very words: anybody who can ring could have named the entry beforehand.
        const known = ahead.get(entry) === set;
        ahead.delete(entry);
        return known ? undefined : take(entry, set);
      }),
    );
    position = entries.at(-1)?.[0] ?? position;
    lastBeat = performance.now();
    // Counted from before the request: Redis cannot have started the lease earlier than that.
    if (lease && entries.length < PAGE) leaseEnd = sentAt + leaseMs;
    return entries.length === PAGE;
  }

  async function beat(): Promise<void> {
    for (const [entry, set] of unsettled) await take(entry, set);
    while (await follow(true));
    await acknowledge();
  }

  function beatForever(): void {
    timer = setTimeout(async () => {
      try {
        await beat();
      } catch (error) {
        onProblem("the heartbeat failed", error);
        // A link that swallows commands without closing would stay like that for minutes.
        if (isTimeout(error)) commands.disconnect(true);
      }
      if (!stopped) beatForever();
    }, heartbeatMs);
  }

  async function answer(question: string): Promise<void> {
    const count = await options.count(question);
    if (count === undefined) return;
    const key = answerKey(count.id);
    const sids = `${key}:sids`;
    const pipeline = commands.pipeline();
    for (let i = 0; i < count.sids.length; i += PAGE) pipeline.pfadd(sids, ...count.sids.slice(i, i + PAGE));
    pipeline.expire(sids, ANSWER_SECONDS).hset(key, node, count.sockets).expire(key, ANSWER_SECONDS);
    await pipeline.exec();
  }

  bell.on("message", (channel: string, message: string) => {
    if (channel === QUESTIONS) {
      answer(message).catch((error: unknown) => onProblem("a question could not be answered", error));
      return;
    }
    const space = message.indexOf(" ");
    const entry = message.slice(0, space);
    const set = message.slice(space + 1);
    if (space < 0 || ahead.get(entry) === set || !isBefore(position, entry)) return;
    if (ahead.size >= AHEAD_LIMIT) ahead.clear();
    ahead.set(entry, set);
    void take(entry, set);
  });
  for (const connection of [commands, bell]) {
    connection.on("error", (error) => onProblem("the link to Redis is broken", error));
  }

  async function replay(): Promise<void> {
    // The bell first: what is appended while the stream is read would be missed otherwise until the next heartbeat.
    await bell.subscribe(BELL, QUESTIONS);
    while (await follow(false));
    await beat();
  }

  return {
    async start() {
      if (stopped) return;
      for (const connection of [commands, bell]) connection.connect().catch(() => undefined); // told by "error", retried
      while (!stopped) {
        try {
          await replay();
          beatForever();
          return;
        } catch (error) {
          onProblem("cannot replay the log yet", error);
          await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
        }
      }
    },
    isCurrent: () => performance.now() < leaseEnd && unsettled.size === 0,
    async append(name, set) {
      await commands.eval(APPEND, 3, LOG, NODES, receiptKey(name), set, BELL, retentionMs);
    },
    async ask(id, question, waitMs) {
      const nodes = await commands.eval(HOLDERS, 1, NODES);
      const expected = nodes as string[];
      await commands.publish(QUESTIONS, question);
      const until = performance.now() + waitMs;
      for (;;) {
        const said = await commands.hgetall(answerKey(id));
        const silent = expected.filter((holder) => !(holder in said));
        if (silent.length > 0 && performance.now() < until) {
          await new Promise((resolve) => setTimeout(resolve, ANSWER_LOOK_MS));
          continue;
        }
        const sockets = Object.values(said).reduce((sum, count) => sum + Number(count), 0);
        return { sockets, sessions: await commands.pfcount(`${answerKey(id)}:sids`), silent };
      }
    },
    async receipt(name, id) {
      return clusterReceipt(id, await commands.hgetall(receiptKey(name)));
    },
    async burn(ticket, seconds) {
      return (await commands.set(ticketKey(ticket), node, "EX", seconds, "NX")) === "OK";
    },
    silenceMs: () => performance.now() - lastBeat,
    async stop() {
      stopped = true;
      leaseEnd = Number.NEGATIVE_INFINITY;
      clearTimeout(timer);
      await commands.zrem(NODES, node).catch(() => undefined); // Redis is away: the lease ends by itself
      commands.disconnect();
      bell.disconnect();
    },
  };
}

function clusterReceipt(id: string, hash: Record<string, string>): ClusterReceipt | undefined {
  const { entry, expected: expectedJson, ...words } = hash;
  if (entry === undefined || expectedJson === undefined) return undefined;
  const expected = JSON.parse(expectedJson) as string[];
  const applied = Object.entries(words).map(([field, word]) => ({
    node: field.slice("node:".length),
    ...(JSON.parse(word) as Omit<NodeReceipt, "node">),
  }));
  const done = new Set(applied.map(({ node }) => node));
  return { id, expected, applied, pending: expected.filter((node) => !done.has(node)) };
}

/** Whether stream entry `a` is older than `b`; both are `<milliseconds>-<sequence>`. */
function isBefore(a: string, b: string): boolean {
  const [aTime = 0, aCount = 0] = a.split("-").map(Number);
  const [bTime = 0, bCount = 0] = b.split("-").map(Number);
  return aTime < bTime || (aTime === bTime && aCount < bCount);
}

function isTimeout(error: unknown): boolean {
  return error instanceof Error && error.message === "Command timed out";
}

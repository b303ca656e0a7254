/**
 * Follows the cluster's log in Redis. Pub/sub is the bell, the stream is the memory: the bell brings an event within a
 * millisecond, and a heartbeat that reads the stream after the last position finds what the bell lost. The same step says
 * that this node is alive, and shows who else is.
 */
import type { ClusterSecrets } from "#contract/cluster";
import { CLOSED } from "./connection.ts";
import { heartbeat, leaseNow, type Member, memberKey, type Peers } from "./lease.ts";
import { QUESTIONS } from "./questions.ts";
import type { LogLinks } from "./redis.ts";
import { Trouble, type TroubleListener } from "./trouble.ts";

const LOG = "{keycard}:log";
const BELL = "{keycard}:bell";
const LEASES = "{keycard}:leases";
const ticketKey = (jti: string) => `{keycard}:ticket:${jti}`;

/** Before every entry of a stream. */
const BEGINNING = "0-0";
const PAGE = 500;
/** How long Redis is waited for, where the edge tells what it holds as well. */
const TAIL_WITHIN_MS = 1_000;
const RETRY_MS = 250;
/** How long replicas are waited for. */
const DURABLE_WITHIN_MS = 1_000;
const FAREWELL_TRIES = 5;
const FAREWELL_RETRY_MS = 100;
/** Bell entries remembered before the stream is read that far; forgetting one only means judging it twice. */
const AHEAD_LIMIT = 10_000;

/** Appends and rings in one step, once per event; says who is there to hear it, and whose word is awaited already. */
const APPEND = `
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local entry = redis.call('HGET', KEYS[3], 'entry')
if not entry then
  entry = redis.call('XADD', KEYS[1], 'MINID', '~', now - ARGV[3], '*', 'set', ARGV[1])
  if tonumber(ARGV[4]) > 0 then redis.call('XTRIM', KEYS[1], 'MAXLEN', '~', ARGV[4]) end
  redis.call('HSET', KEYS[3], 'entry', entry)
end
redis.call('PEXPIRE', KEYS[3], ARGV[3])
redis.call(ARGV[5], ARGV[2], entry .. ' ' .. ARGV[1])
return {redis.call('HGET', KEYS[3], 'expected') or '', redis.call('HGETALL', KEYS[2])}`;

/** Reads on from a position and, where asked to, leaves a heartbeat in the same step; says what stood in its place. */
const FOLLOW = `
local before = ''
if ARGV[1] ~= '' then
  before = redis.call('HGET', KEYS[2], ARGV[1]) or ''
  redis.call('HSET', KEYS[2], ARGV[1], ARGV[2])
end
local last = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)
return {
  before, last[1] and last[1][1] or '',
  redis.call('XRANGE', KEYS[1], '(' .. ARGV[3], '+', 'COUNT', ARGV[4]), redis.call('HGETALL', KEYS[2])
}`;

/** Removes what nobody needs any more, unless it has changed meanwhile. */
const FORGET = `
for i = 1, #ARGV, 2 do
  if redis.call('HGET', KEYS[1], ARGV[i]) == ARGV[i + 1] then redis.call('HDEL', KEYS[1], ARGV[i]) end
end`;

/** By which way an event came in from Redis. */
export type LogWay = "bell" | "stream";

export interface LogOptions extends TroubleListener {
  readonly links: LogLinks;
  readonly cluster: string;
  readonly secrets: ClusterSecrets;
  readonly self: Member;
  readonly peers: Peers;
  readonly heartbeatMs: number;
  /** How long Redis keeps events. */
  readonly retentionMs: number;
  /** How many of them, roughly, at most; 0 is without end. */
  readonly maxEvents: number;
  /** Replicas that must have confirmed a heartbeat or an event before it counts. */
  readonly replicas: number;
  /**
   * Takes one signed event: resolves once nobody whom it covers gets in any more, or it is not to be believed; rejects when
   * that cannot be told yet, and is then asked again.
   */
  apply(set: string, way: LogWay): Promise<void>;
  /** All nodes were asked something. */
  onQuestion(question: string): void;
  /** Everything that is in Redis has been read. */
  onRead(beat: Beat): void;
  /** Redis has less than was read from it. */
  onLoss(): void;
}

/** A heartbeat that has found its way. */
export interface Beat {
  /** When it was sent, by `leaseNow`. */
  readonly sentAt: number;
  /** The one before stood where it was left: everybody could see without a break that this node is alive. */
  readonly unbroken: boolean;
}

export interface Log {
  /**
   * Connects, and says how far the stream goes by now, unless Redis cannot tell: whoever asks elsewhere for everything that was decided
   * before need not read it.
   */
  tail(): Promise<string | undefined>;
  /** Listens for the bell, and beats from here on. @param after where in the stream to begin; its beginning unless given */
  start(after?: string): Promise<void>;
  /** Events that could not be judged yet. */
  readonly unsettled: number;
  /** Beats now. */
  hurry(): void;
  /**
   * Puts an event into the cluster's log, durably as far as Redis is. Rejects when Redis cannot take it now.
   *
   * @param receipt the key of its receipt
   * @returns whose word is awaited already, as it stands in Redis
   */
  append(receipt: string, set: string): Promise<string>;
  /** Uses a ticket up. Resolves to whether it was unused until now; rejects when Redis cannot tell. */
  burn(ticket: string, seconds: number): Promise<boolean>;
  /** Milliseconds since the last good heartbeat; infinite before the first. */
  silenceMs(): number;
  /** Says farewell and leaves. */
  stop(): Promise<void>;
}

type FollowReply = [before: string, last: string, entries: [id: string, fields: string[]][], heartbeats: string[]];

export function createLog(options: LogOptions): Log {
  const { links, self, peers } = options;
  const heartbeats = new Trouble({ begun: "the heartbeat failed", over: "the heartbeat gets through again" }, options);
  let position = BEGINNING;
  let isConnecting = false;
  let lastBeat = Number.NEGATIVE_INFINITY;
  let stopped = false;
  let beating: Promise<void> | undefined;
  let wake: (() => void) | undefined;
  /** Somebody did not want to wait for the next heartbeat, perhaps while the one before was under way. */
  let isHurried = false;
  let count = 0;
  /** Heartbeats of which one should stand in Redis: the last one that was answered, and those sent since. */
  let standing: string[] = [];
  /** Entries that the bell brought before the stream was read that far. */
  const ahead = new Map<string, string>();
  /** Entries that could not be judged yet. */
  const unsettled = new Map<string, string>();

  function isWritten(beat: string): Promise<boolean> {
    return links.commands.hset(LEASES, memberKey(self), beat).then(
      () => true,
      () => false,
    );
  }

  async function take(entry: string, set: string, way: LogWay): Promise<void> {
    try {
      await options.apply(set, way);
      unsettled.delete(entry);
    } catch (error) {
      if (!unsettled.has(entry)) options.onProblem("an event cannot be judged yet", error, 1);
      unsettled.set(entry, set);
    }
  }

  /** Reads one page. Resolves to whether there may be more. */
  async function follow(): Promise<boolean> {
    const sentAt = leaseNow();
    const askedAt = performance.now();
    const value = heartbeat(self, ++count, options.cluster, options.secrets);
    standing.push(value);
    const args = [memberKey(self), value, position, PAGE];
    const reply = await links.evalDurable(FOLLOW, [LOG, LEASES], args, options.replicas, DURABLE_WITHIN_MS);
    const [before, last, entries, heartbeats] = reply as FollowReply;
    const unbroken = standing.includes(before);
    standing = [value];
    await lookAround(heartbeats, askedAt);
    if (last === "" ? position !== BEGINNING : isBefore(last, position)) {
      // Redis was emptied or has lost its tail. Read it all again.
      position = BEGINNING;
      options.onLoss();
      return true;
    }
    await Promise.all(
      entries.map(([entry, [, set = ""]]) => {
        // Only if the bell brought these very words: anybody who can ring could have named the entry beforehand.
        const known = ahead.get(entry) === set;
        ahead.delete(entry);
        return known ? undefined : take(entry, set, "stream");
      }),
    );
    position = entries.at(-1)?.[0] ?? position;
    if (entries.length === PAGE) return true;
    lastBeat = performance.now();
    options.onRead({ sentAt, unbroken });
    return false;
  }

  async function lookAround(heartbeats: readonly string[], askedAt: number): Promise<void> {
    const forgotten = peers.observe(pairs(heartbeats), askedAt);
    if (forgotten.length > 0) await links.eval(FORGET, [LEASES], forgotten.flat());
  }

  async function beat(): Promise<void> {
    for (const [entry, set] of unsettled) await take(entry, set, "stream");
    while (await follow());
  }

  async function beatForever(): Promise<void> {
    while (!stopped) {
      try {
        await beat();
        heartbeats.over();
      } catch (error) {
        if (!stopped && !isUnconnected(error)) heartbeats.failed(error);
        // A link that swallows commands without closing would stay like that for minutes.
        if (isTimeout(error)) links.reset();
      }
      if (!stopped) await pause();
    }
  }

  function pause(): Promise<void> {
    return new Promise((resolve) => {
      const waitMs = Number.isFinite(lastBeat) ? options.heartbeatMs : RETRY_MS;
      const end = () => {
        clearTimeout(timer);
        wake = undefined;
        resolve();
      };
      const timer = setTimeout(end, isHurried ? 0 : waitMs);
      isHurried = false;
      wake = end;
    });
  }

  function hear(channel: string, message: string): void {
    if (channel === QUESTIONS) {
      options.onQuestion(message);
      return;
    }
    const space = message.indexOf(" ");
    const entry = message.slice(0, space);
    const set = message.slice(space + 1);
    if (space < 0 || ahead.get(entry) === set || !isBefore(position, entry)) return;
    if (ahead.size >= AHEAD_LIMIT) ahead.clear();
    ahead.set(entry, set);
    void take(entry, set, "bell");
  }

  function connect(): void {
    if (!isConnecting) links.connect();
    isConnecting = true;
  }

  return {
    async tail() {
      connect();
      if (!(await links.connected(TAIL_WITHIN_MS))) return undefined;
      const last = links.commands.xrevrange(LOG, "+", "-", "COUNT", 1);
      return await last.then(
        ([entry]) => entry?.[0] ?? BEGINNING,
        () => undefined, // it is read from its beginning, and told if that fails
      );
    },
    async start(after = BEGINNING) {
      if (stopped) return;
      connect();
      position = after;
      // Not waited for: what is appended before the bell is heard, the next heartbeat finds.
      links
        .subscribe([BELL, QUESTIONS], hear)
        .catch((error: unknown) =>
          options.onProblem("the bell cannot be heard; the heartbeat finds what it brings", error, 1),
        );
      beating = beatForever();
    },
    get unsettled() {
      return unsettled.size;
    },
    hurry() {
      isHurried = wake === undefined;
      wake?.();
    },
    async append(receipt, set) {
      const askedAt = performance.now();
      const args = [set, BELL, options.retentionMs, options.maxEvents, links.publishCommand];
      const reply = await links.evalDurable(APPEND, [LOG, LEASES, receipt], args, options.replicas, DURABLE_WITHIN_MS);
      const [expected, heartbeats] = reply as [string, string[]];
      peers.observe(pairs(heartbeats), askedAt);
      return expected;
    },
    async burn(ticket, seconds) {
      return (await links.commands.set(ticketKey(ticket), self.node, "EX", seconds, "NX")) === "OK";
    },
    silenceMs: () => performance.now() - lastBeat,
    async stop() {
      stopped = true;
      wake?.();
      await beating;
      const farewell = heartbeat({ ...self, leaseMs: 0 }, ++count, options.cluster, options.secrets);
      // With Redis away the lease ends by itself. With the link just coming back, a moment spares receipts that wait.
      for (let left = FAREWELL_TRIES; left > 0 && !(await isWritten(farewell)); left--) {
        await new Promise((resolve) => setTimeout(resolve, FAREWELL_RETRY_MS));
      }
      links.disconnect();
    },
  };
}

function pairs(flat: readonly string[]): Map<string, string> {
  const map = new Map<string, string>();
  for (let i = 0; i < flat.length; i += 2) map.set(flat[i] ?? "", flat[i + 1] ?? "");
  return map;
}

/** Whether stream entry `a` is older than `b`; both are `<milliseconds>-<sequence>`. */
function isBefore(a: string, b: string): boolean {
  const [aTime = 0, aCount = 0] = a.split("-").map(Number);
  const [bTime = 0, bCount = 0] = b.split("-").map(Number);
  return aTime < bTime || (aTime === bTime && aCount < bCount);
}

/** There is no connection, and whoever holds it says why. */
function isUnconnected(error: unknown): boolean {
  if (!(error instanceof Error)) return false;
  return error.message === CLOSED || error.message.startsWith("Stream isn't writeable");
}

function isTimeout(error: unknown): boolean {
  return error instanceof Error && error.message === "Command timed out";
}

/**
 * Until when a node may trust what it knows, and until when others must reckon with it.
 *
 * A node holds a lease for as long as one of its links (Redis, the edge's feed) has lately told it everything. When the lease is
 * over it is fenced: it lets nobody in and closes its sockets. Others may say so of it without hearing from it, because they
 * count from later: the holder from before it sent its heartbeat, they from when they first saw it, each by a clock that nobody
 * can set. No two machines' clocks are ever compared.
 */
import type { ClusterSecrets } from "#contract/cluster";
import { isSealed, seal } from "./seal.ts";

/** Of a lease's length, beyond its end, before others take a node's sockets for closed: closing takes a moment, and clocks drift. */
const FENCE_MARGIN = 0.4;
/** How long a heartbeat that does not change any more stays in Redis. */
const FORGET_MS = 60_000;

/** The links by which a node can be told everything. */
export type Link = "redis" | "feed";

/** What the wall clock may gain on the monotonic one between two looks: one is in whole milliseconds, and slewed. */
const JUMP_MS = 250;
let lookedAt = { monotonic: performance.now(), wall: Date.now() };
let suspendedMs = 0;

/**
 * Time as a holder counts its lease, milliseconds: the monotonic clock, and the time besides in which the machine was suspended, when that
 * clock stands still while others count on. A wall clock that was set ahead looks the same: then a lease is over early, and the next
 * heartbeat begins it anew.
 */
export function leaseNow(): number {
  const look = { monotonic: performance.now(), wall: Date.now() };
  const gained = look.wall - lookedAt.wall - (look.monotonic - lookedAt.monotonic);
  if (gained > JUMP_MS) suspendedMs += gained;
  lookedAt = look;
  return look.monotonic + suspendedMs;
}

/** A node's own lease. Times are of `leaseNow`. */
export class Lease {
  readonly #ends: Record<Link, number> = { redis: Number.NEGATIVE_INFINITY, feed: Number.NEGATIVE_INFINITY };

  /** @param until at most the lease's length after the request was *sent* whose answer told everything */
  extend(link: Link, until: number): void {
    this.#ends[link] = Math.max(this.#ends[link], until);
  }

  end(): void {
    this.#ends.redis = Number.NEGATIVE_INFINITY;
    this.#ends.feed = Number.NEGATIVE_INFINITY;
  }

  get endsAt(): number {
    return Math.max(this.#ends.redis, this.#ends.feed);
  }

  isRunning(): boolean {
    return leaseNow() < this.endsAt;
  }

  holds(link: Link): boolean {
    return leaseNow() < this.#ends[link];
  }

  /** The link that it holds it by; the feed only where Redis does not do. */
  get link(): Link | undefined {
    if (this.holds("redis")) return "redis";
    return this.holds("feed") ? "feed" : undefined;
  }
}

/** One run of one node's process. */
export interface Member {
  readonly node: string;
  /** Another one for each run, so that a node that comes back does not speak for its former self. */
  readonly boot: string;
  readonly leaseMs: number;
  /** How long it keeps its sockets after its lease is over. */
  readonly keepMs: number;
}

/** The name under which a member stands in Redis. */
export function memberKey({ node, boot }: Pick<Member, "node" | "boot">): string {
  return `${node} ${boot}`;
}

/** `<count>.<lease ms>.<keep ms>.<seal>`; a lease of 0 is a farewell. */
export function heartbeat(member: Member, count: number, cluster: string, secrets: ClusterSecrets): string {
  return `${count}.${member.leaseMs}.${member.keepMs}.${seal(secrets, leaseWords(member, count, cluster))}`;
}

function leaseWords({ node, boot, leaseMs, keepMs }: Member, count: number, cluster: string) {
  return ["lease", cluster, node, boot, count, leaseMs, keepMs] as const;
}

interface Sighting extends Member {
  readonly count: number;
  readonly value: string;
  /** When this heartbeat was first seen here. */
  readonly seenAt: number;
}

/** The other nodes of the cluster, as far as one node has seen their heartbeats. */
export class Peers {
  readonly #cluster: string;
  readonly #secrets: ClusterSecrets;
  readonly #onForged: (key: string) => void;
  readonly #seen = new Map<string, Sighting>();
  /** Values that no node sealed, so that each is judged once. */
  readonly #forged = new Map<string, string>();
  #watchingSince = Number.POSITIVE_INFINITY;
  /** When it was last asked for what it was shown last. */
  #askedAt = Number.NEGATIVE_INFINITY;

  constructor(cluster: string, secrets: ClusterSecrets, onForged: (key: string) => void) {
    this.#cluster = cluster;
    this.#secrets = secrets;
    this.#onForged = onForged;
  }

  /**
   * Takes in the heartbeats that are in Redis now.
   *
   * @param heartbeats member key → heartbeat
   * @param askedAt when Redis was asked for them
   * @returns those that have not changed for so long that nobody needs them any more
   */
  observe(
    heartbeats: ReadonlyMap<string, string>,
    askedAt: number,
  ): readonly (readonly [key: string, value: string])[] {
    const now = performance.now();
    this.#watchingSince = Math.min(this.#watchingSince, askedAt);
    for (const [key, value] of heartbeats) if (this.#seen.get(key)?.value !== value) this.#judge(key, value, now);
    for (const [key, sighting] of this.#seen) {
      if (!heartbeats.has(key) && now > endOf(sighting) + FORGET_MS) this.#seen.delete(key);
    }
    for (const key of this.#forged.keys()) if (!heartbeats.has(key)) this.#forged.delete(key);
    this.#askedAt = Math.max(this.#askedAt, askedAt);
    return [...heartbeats].filter(([key]) => {
      const sighting = this.#seen.get(key);
      return sighting !== undefined && now > endOf(sighting) + FORGET_MS;
    });
  }

  #judge(key: string, value: string, now: number): void {
    if (this.#forged.get(key) === value) return;
    const said = this.#read(key, value);
    if (said === undefined) {
      this.#forged.set(key, value);
      this.#onForged(key);
      return;
    }
    // An old heartbeat that somebody puts back must not bring a node back to life, nor shorten its life.
    if (said.count > (this.#seen.get(key)?.count ?? -1)) this.#seen.set(key, { ...said, value, seenAt: now });
  }

  #read(key: string, value: string): Omit<Sighting, "seenAt" | "value"> | undefined {
    const space = key.lastIndexOf(" ");
    const [count = "", leaseMs = "", keepMs = "", signature = ""] = value.split(".");
    const numbers = [count, leaseMs, keepMs].map(Number);
    if (space < 0 || !numbers.every((number) => Number.isSafeInteger(number) && number >= 0)) return undefined;
    const member = {
      node: key.slice(0, space),
      boot: key.slice(space + 1),
      leaseMs: Number(leaseMs),
      keepMs: Number(keepMs),
    };
    const words = leaseWords(member, Number(count), this.#cluster);
    return isSealed(this.#secrets, words, signature) ? { ...member, count: Number(count) } : undefined;
  }

  /** Members that may hold sockets now. */
  alive(): readonly Member[] {
    const now = performance.now();
    return [...this.#seen.values()].filter((sighting) => now < endOf(sighting));
  }

  /** Whether it has watched for so long that no member can be alive that it has not seen. */
  canVouch({ leaseMs, keepMs }: Pick<Member, "leaseMs" | "keepMs">): boolean {
    return this.#askedAt > this.#watchingSince + lifeOf({ leaseMs, keepMs });
  }

  /**
   * When the lease of a member was over and its sockets closed, by this machine's monotonic clock; undefined while that cannot be
   * said. Only what was looked at since then counts: a node that was asleep has missed heartbeats, and knows nothing.
   */
  endOf(member: Member): number | undefined {
    const sighting = this.#seen.get(memberKey(member));
    const end = sighting === undefined ? this.#watchingSince + lifeOf(member) : endOf(sighting);
    return this.#askedAt > end ? end : undefined;
  }
}

function endOf(sighting: Sighting): number {
  return sighting.leaseMs === 0 ? sighting.seenAt : sighting.seenAt + lifeOf(sighting);
}

function lifeOf({ leaseMs, keepMs }: Pick<Member, "leaseMs" | "keepMs">): number {
  return leaseMs * (1 + FENCE_MARGIN) + keepMs;
}

/**
 * Knows what is revoked, by whichever link works, and whether it knows everything: the bell and the stream in Redis, which are
 * fast and can lose things; each edge's own feed, which is the truth; and the lease, which says until when the node may go on
 * without either.
 *
 * A lease by Redis begins only when nothing can have been missed: the node leaves a heartbeat, so that whoever appends from now on awaits its
 * word; then it asks every edge for what was decided before; then it finds its heartbeat where it left it. A lease by the feed
 * needs no such dance, because the edge notes it in the same step in which it tells everything.
 */
import { MAX_LEASE_MS } from "#contract/cluster";
import type { Feed } from "./feed.ts";
import { Lease, type Link, leaseNow, type Member } from "./lease.ts";
import type { Beat, Log } from "./log.ts";
import { Trouble, type TroubleListener } from "./trouble.ts";

/** A hole is given this long to be filled by what is on its way already. */
const GAP_PATIENCE_MS = 500;
const TICK_MS = 100;
const FEED_RETRY_MS = 1_000;
/** Between two questions to the feed, however fast it answers. */
const SHORTEST_ROUND_MS = 20;
/** Of a lease's length: how long Redis may be silent before the feed takes its place. */
const PATIENCE = 0.3;
/** Of a lease's length: how long one question to the feed waits for news, so that the next one is in time. */
const FEED_WAIT = 0.4;

export interface FollowerOptions extends TroubleListener {
  readonly self: Member;
  readonly feeds: readonly Feed[];
  /** Whether everything that can revoke something here is told by a feed. */
  readonly feedsSuffice: boolean;
  /** How often the feeds are asked though nothing is amiss, milliseconds. */
  readonly checkMs: number;
  /** The lease is over: nobody may be let in, and those who are in may not stay. */
  onFenced(): void;
  /** A link is used that was not used before; undefined when there is none. */
  onLink(link: Link | undefined): void;
}

export class Follower {
  readonly #options: FollowerOptions;
  readonly #lease = new Lease();
  #log: Log | undefined;
  #link: Link | undefined;
  /** How far a lease by Redis has come; a new registration makes every question before it void. */
  #standing: "absent" | "registered" | "asked" | "held" = "absent";
  #registrations = 0;
  #redisEndsAt = Number.NEGATIVE_INFINITY;
  #hurriedAfter = Number.NEGATIVE_INFINITY;
  #gapSince: number | undefined;
  #startedAt = performance.now();
  #checkedAt = performance.now();
  #checking: Promise<boolean> | undefined;
  #stopped = false;
  #fence: NodeJS.Timeout | undefined;
  #firstLease: (() => void) | undefined;
  readonly #following: Promise<void>[] = [];
  readonly #troubles: ReadonlyMap<Feed, Trouble>;

  constructor(options: FollowerOptions) {
    this.#options = options;
    this.#troubles = new Map(options.feeds.map((feed) => [feed, troubleWith(feed, options)]));
  }

  /** Follows from here on. Resolves once everything is known for the first time. */
  async start(log: Log): Promise<void> {
    if (this.#stopped) return;
    this.#log = log;
    const first = new Promise<void>((resolve) => {
      this.#firstLease = resolve;
    });
    // A page of the feed has one signature, each entry of the stream its own. What stands there by now the feeds tell as well, asked after it.
    const tail = this.#options.feedsSuffice ? await log.tail() : undefined;
    const complete = await this.#check();
    await log.start(complete ? tail : undefined);
    this.#startedAt = performance.now();
    this.#following.push(this.#watch());
    await first;
  }

  /** Whether nothing that is revoked can be unknown here. */
  isCurrent(): boolean {
    return this.#lease.isRunning() && this.#log?.unsettled === 0;
  }

  /** When the lease is over, by `leaseNow`. */
  get leaseEndsAt(): number {
    return this.#lease.endsAt;
  }

  get link(): Link | undefined {
    return this.#lease.link;
  }

  get hasGap(): boolean {
    return this.#options.feeds.some(({ hasGap }) => hasGap);
  }

  /** Redis has told everything. */
  read({ sentAt, unbroken }: Beat): void {
    if (this.#standing === "held" && leaseNow() > this.#redisEndsAt) this.#standing = "absent";
    if (this.#standing === "held") {
      if (unbroken) this.#extendByRedis(sentAt);
    } else if (this.#standing === "absent" || !unbroken) {
      this.#standing = "registered";
      void this.#askAfterRegistration(++this.#registrations);
    } else if (this.#standing === "asked") {
      this.#standing = "held";
      this.#extendByRedis(sentAt);
    }
  }

  /** Redis has lost something, and it may be something that was never read. */
  lost(): void {
    this.#checkedAt = Number.NEGATIVE_INFINITY;
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    clearTimeout(this.#fence);
    this.#lease.end();
    for (const feed of this.#options.feeds) feed.close();
    await Promise.all(this.#following);
    await this.#log?.stop();
  }

  async #askAfterRegistration(registration: number): Promise<void> {
    const complete = await this.#check();
    if (this.#stopped || registration !== this.#registrations || this.#standing !== "registered") return;
    this.#standing = complete ? "asked" : "absent";
    if (complete) this.#log?.hurry();
  }

  #extendByRedis(sentAt: number): void {
    this.#redisEndsAt = sentAt + this.#options.self.leaseMs;
    this.#extend("redis", this.#redisEndsAt);
  }

  #extend(link: Link, until: number): void {
    if (this.#stopped) return;
    this.#lease.extend(link, until);
    this.#noteLink();
    this.#firstLease?.();
    this.#armFence();
  }

  #armFence(): void {
    clearTimeout(this.#fence);
    this.#fence = setTimeout(() => this.#end(), Math.max(0, this.#lease.endsAt - leaseNow()) + 1);
  }

  #end(): void {
    this.#noteLink();
    // A timer may be a little early.
    if (this.#lease.isRunning()) this.#armFence();
    else this.#options.onFenced();
  }

  #noteLink(): void {
    const { link } = this.#lease;
    if (link === this.#link) return;
    this.#link = link;
    this.#options.onLink(link);
  }

  /** Asks every feed for what is missing. Resolves to whether nothing is; never rejects. */
  async #check(): Promise<boolean> {
    this.#checkedAt = performance.now();
    const answers = await Promise.all(
      this.#options.feeds.map(async (feed) => {
        try {
          await feed.catchUp();
          this.#troubles.get(feed)?.over();
          return true;
        } catch (error) {
          this.#fail(feed, error);
          return false;
        }
      }),
    );
    return answers.every((complete) => complete);
  }

  #fail(feed: Feed, error: unknown): void {
    if (!this.#stopped) this.#troubles.get(feed)?.failed(error);
  }

  async #watch(): Promise<void> {
    while (!this.#stopped) {
      this.#hurryOnce();
      if (this.#options.feedsSuffice && this.#redisIsSilent()) await this.#liveByFeeds();
      else if (this.#isCheckDue()) await this.#checkOnce();
      else await pause(TICK_MS);
    }
  }

  /** A machine that was suspended asks as soon as it wakes; until it is answered nothing goes in or out. */
  #hurryOnce(): void {
    if (this.#lease.holds("redis") || this.#hurriedAfter === this.#redisEndsAt) return;
    this.#hurriedAfter = this.#redisEndsAt;
    this.#log?.hurry();
  }

  #redisIsSilent(): boolean {
    const silence = Math.min(this.#log?.silenceMs() ?? 0, performance.now() - this.#startedAt);
    return silence > this.#options.self.leaseMs * PATIENCE;
  }

  #isCheckDue(): boolean {
    const now = performance.now();
    this.#gapSince = this.hasGap ? (this.#gapSince ?? now) : undefined;
    const gapIsOld = this.#gapSince !== undefined && now - this.#gapSince > GAP_PATIENCE_MS;
    const sinceCheck = now - this.#checkedAt;
    return sinceCheck > this.#options.checkMs || (gapIsOld && sinceCheck > FEED_RETRY_MS);
  }

  async #checkOnce(): Promise<void> {
    this.#checking ??= this.#check().finally(() => {
      this.#checking = undefined;
    });
    await this.#checking;
  }

  /** One question to each feed, which is answered when there is news or the wait is over. */
  async #liveByFeeds(): Promise<void> {
    const { self, feeds } = this.#options;
    const sentAt = leaseNow();
    const answers = await Promise.all(feeds.map((feed) => this.#follow(feed)));
    if (answers.every((complete) => complete)) {
      this.#extend("feed", sentAt + self.leaseMs);
      await pause(SHORTEST_ROUND_MS);
    } else await pause(Math.min(FEED_RETRY_MS, self.leaseMs * PATIENCE));
  }

  async #follow(feed: Feed): Promise<boolean> {
    const { leaseMs, keepMs } = this.#options.self;
    try {
      // The first question must not wait: the lease by Redis may be over before there is news.
      const waitMs = this.#lease.holds("feed") ? leaseMs * FEED_WAIT : 0;
      await feed.follow(Math.min(leaseMs + keepMs, MAX_LEASE_MS), waitMs);
      this.#troubles.get(feed)?.over();
      return true;
    } catch (error) {
      this.#fail(feed, error);
      return false;
    }
  }
}

function troubleWith({ issuer }: Feed, listener: TroubleListener): Trouble {
  const words = { begun: `the feed of ${issuer} cannot be read`, over: `the feed of ${issuer} is read again` };
  return new Trouble(words, listener);
}

function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

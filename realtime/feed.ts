/**
 * Follows one edge's own log over HTTPS. Redis is a cache of it, and can lose its tail, be emptied or be away: so a node asks here
 * before it lets anybody in, whenever a number is missing, after every outage of Redis and now and then in any case; and it lives
 * by this feed alone while Redis is away.
 */
import { randomBytes } from "node:crypto";
import { setImmediate as nextTurn } from "node:timers/promises";
import {
  type ClusterSecrets,
  type FeedPage,
  type FeedWord,
  JWT_MEDIA_TYPE,
  MAX_LEASE_MS,
  MAX_WORDS,
  type NodeReceipt,
  signFeedQuery,
} from "#contract/cluster";
import type { RevocationEvent } from "#contract/revocation";
import type { Applied } from "./admissions.ts";
import { readBounded } from "./bounded-body.ts";
import { Sequence } from "./sequence.ts";

const ANSWER_TIMEOUT_MS = 5_000;
/** Events that are taken in in one turn. */
const SLICE = 100;
const MAX_PAGE_BYTES = 4 * 1024 * 1024;

export interface FeedOptions {
  readonly issuer: string;
  readonly uri: URL;
  readonly cluster: string;
  readonly secrets: ClusterSecrets;
  readonly node: string;
  readonly boot: string;
  /** Judges a page. @throws {Refusal} */
  verify(page: string, nonce: string): Promise<FeedPage>;
  /** Takes an event in: nobody whom it covers gets in any more. @returns once their sockets are closed */
  apply(event: RevocationEvent): Applied["done"];
  onProblem(message: string, error: unknown, times: number): void;
  /** It was asked: each time. */
  onAsked(outcome: "answered" | "failed"): void;
}

export interface Feed {
  readonly issuer: string;
  /** Notes an event that came another way, and when its sockets are closed. */
  saw(event: RevocationEvent, done: Applied["done"]): void;
  /** Whether an event is known to be missing. */
  readonly hasGap: boolean;
  /** Up to where every event is applied, and the sockets that it covers are closed. */
  readonly done: number;
  /** Asks for everything that is missing. Resolves when nothing is; rejects when the edge cannot be asked. */
  catchUp(): Promise<void>;
  /**
   * As `catchUp`, on behalf of a node that lives by the feed; waits for news.
   *
   * @param leaseMs how long the node goes on after the answer, its keeping of sockets included
   */
  follow(leaseMs: number, waitMs: number): Promise<void>;
  close(): void;
}

export function createFeed(options: FeedOptions): Feed {
  const stopping = new AbortController();
  const known = new Sequence();
  /** Those whose sockets are being closed. */
  const closing = new Set<number>();
  /** Words that the edge may not have heard, oldest first. */
  const words = new Map<string, FeedWord>();
  let catching: Promise<void> = Promise.resolve();

  function saw({ id, seq }: RevocationEvent, done: Applied["done"]): void {
    known.add(seq);
    if (!(done instanceof Promise)) {
      note(id, done);
      return;
    }
    closing.add(seq);
    done.then(
      (word) => {
        closing.delete(seq);
        note(id, word);
      },
      // It stays among those that are not done.
      (error: unknown) => options.onProblem("the sockets of a revocation could not be closed", error, 1),
    );
  }

  function note(id: string, { applied_at, closed }: NodeReceipt): void {
    words.delete(id);
    words.set(id, { id, applied_at, closed });
    if (words.size > MAX_WORDS) words.delete(words.keys().next().value ?? "");
  }

  function done(): number {
    let through = known.through;
    for (const seq of closing) through = Math.min(through, seq - 1);
    return through;
  }

  /** In slices: those who are in are not kept waiting, and the next question finds its way out. */
  async function take(page: FeedPage): Promise<void> {
    // The edge's storage was restored, or is another one: its numbers say nothing about ours.
    if (page.head < page.after) {
      options.onProblem("the edge's log ends before what was read from it; it is read anew", undefined, 1);
      known.restart(0);
      closing.clear();
      return;
    }
    for (let from = 0; from < page.events.length; from += SLICE) {
      await nextTurn();
      if (isOutdated(page)) return;
      for (const event of page.events.slice(from, from + SLICE)) {
        if (!known.has(event.seq)) saw(event, options.apply(event));
      }
    }
    // What is not listed before that is over: no token that it hits is alive.
    if (!isOutdated(page)) known.advance(page.upto);
  }

  /** Whether what was read has been begun anew since it was asked for: its numbers are not those of the log as it is now. */
  function isOutdated({ after }: FeedPage): boolean {
    return after > known.through;
  }

  async function ask(after: number, waitMs: number, leaseMs: number | undefined): Promise<FeedPage> {
    try {
      const page = await request(after, waitMs, leaseMs);
      options.onAsked("answered");
      return page;
    } catch (error) {
      if (!stopping.signal.aborted) options.onAsked("failed");
      throw error;
    }
  }

  async function request(after: number, waitMs: number, leaseMs: number | undefined): Promise<FeedPage> {
    const nonce = randomBytes(16).toString("base64url");
    const { issuer, uri, cluster, secrets, node, boot } = options;
    const query = {
      ...{ cluster, node, boot, nonce },
      ...(leaseMs === undefined
        ? {}
        : { lease: { ms: Math.min(leaseMs, MAX_LEASE_MS), done: done(), words: [...words.values()] } }),
    };
    const bearer = await signFeedQuery(query, issuer, secrets, Math.floor(Date.now() / 1000));
    const url = new URL(uri);
    url.searchParams.set("after", String(after));
    if (waitMs >= 1000) url.searchParams.set("wait", String(Math.floor(waitMs / 1000)));
    const response = await fetch(url, {
      headers: { authorization: `Bearer ${bearer}`, accept: JWT_MEDIA_TYPE },
      redirect: "error",
      signal: AbortSignal.any([stopping.signal, AbortSignal.timeout(waitMs + ANSWER_TIMEOUT_MS)]),
    });
    if (response.status !== 200) throw new Error(`the feed answered ${response.status}`);
    return await options.verify(await readBounded(response, MAX_PAGE_BYTES), nonce);
  }

  /** Asks until nothing is missing; the first question waits for news. */
  async function readAll(waitMs: number, leaseMs: number | undefined): Promise<void> {
    let asked = ask(known.through, waitMs, leaseMs);
    for (;;) {
      const page = await asked;
      const goesOn = page.upto > page.after && page.upto < page.head;
      if (goesOn) {
        // On its way while this one is taken in.
        asked = ask(page.upto, 0, leaseMs);
        asked.catch(() => undefined); // where nobody needs it any more
      }
      const before = known.through;
      await take(page);
      if (known.through >= page.head) return;
      if (goesOn) continue;
      if (known.through === before) throw new Error("the feed does not go on");
      asked = ask(known.through, 0, leaseMs);
    }
  }

  return {
    issuer: options.issuer,
    saw,
    get hasGap() {
      return known.hasGap;
    },
    get done() {
      return done();
    },
    catchUp() {
      // Not one that is under way: what was decided since it asked would not be in its answer.
      catching = catching.catch(() => undefined).then(() => readAll(0, undefined));
      return catching;
    },
    follow: (leaseMs, waitMs) => readAll(waitMs, leaseMs),
    close: () => stopping.abort(),
  };
}

/**
 * The feed: the log as nodes read it that do not trust Redis to bring them everything, or have lost it. A page is made when something
 * was added, once for all who wait for it; everybody who waits stands at the end of the log, so that it is the same one.
 */
import { FEED_PAGE_EVENTS, type FeedPage } from "#contract/cluster";
import type { RevocationEvent } from "#contract/revocation";
import type { EventTable } from "./event-table.ts";

/** Who comes beyond these is answered at once. */
const MAX_WAITING = 2_000;
/** Characters of the events in one page, unless a single event has more. Far from what a node takes. */
const MAX_PAGE_LENGTH = 1024 * 1024;
/** How long what was found to be the first living event is taken for it: too early a one harms nobody. */
const FIRST_FRESH_MS = 1_000;

export class Feed {
  readonly #events: EventTable;
  /** All of them stand at `#waitedFrom`. */
  readonly #waiting = new Set<(page: FeedPage) => void>();
  #waitedFrom = 0;
  #first: { readonly seq: number; readonly at: number } | undefined;

  constructor(events: EventTable) {
    this.#events = events;
  }

  /** What comes after `after`; where nothing does, what comes next, or an empty page after `waitMs`. */
  async page(after: number, waitMs: number): Promise<FeedPage> {
    const mayWait = waitMs > 0 && this.#waiting.size < MAX_WAITING;
    if (!mayWait || after !== this.#events.head()) return this.#read(after);
    this.#waitedFrom = after;
    return await new Promise((resolve) => {
      const give = (page: FeedPage) => {
        clearTimeout(timer);
        this.#waiting.delete(give);
        resolve(page);
      };
      const timer = setTimeout(() => give(this.#read(after)), waitMs);
      this.#waiting.add(give);
    });
  }

  /** Something may have been added to the log. */
  wake(): void {
    if (this.#waiting.size === 0 || this.#events.head() === this.#waitedFrom) return;
    const page = this.#read(this.#waitedFrom);
    for (const give of this.#waiting) give(page);
  }

  #read(after: number): FeedPage {
    const now = Date.now();
    const head = this.#events.head();
    const first = this.#firstLiving(head, now);
    // Who is ahead of the log has read another one; `upto` shows it.
    if (after >= head) return { after, upto: head, head, first, events: [] };
    const events: RevocationEvent[] = [];
    let length = 0;
    for (const event of this.#events.living(Math.max(after, first - 1), now, FEED_PAGE_EVENTS + 1)) {
      length += JSON.stringify(event).length;
      const last = events.at(-1);
      const full = events.length === FEED_PAGE_EVENTS || length > MAX_PAGE_LENGTH;
      if (last !== undefined && full) return { after, upto: last.seq, head, first, events };
      events.push(event);
    }
    return { after, upto: head, head, first, events };
  }

  #firstLiving(head: number, now: number): number {
    if (this.#first === undefined || now - this.#first.at > FIRST_FRESH_MS) {
      this.#first = { seq: this.#events.firstLiving(now) ?? head + 1, at: now };
    }
    return this.#first.seq;
  }
}

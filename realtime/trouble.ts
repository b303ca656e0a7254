/**
 * Something that fails again and again, told so that somebody can read it: when it begins, once a minute how often it has happened
 * since, and when it is over. Every reason is told by itself, because another one is news; nothing is told for each attempt.
 */
import { Refusal } from "#contract/refusal";

/** The same reason is told again after this long, with a count. */
const TELL_AGAIN_MS = 60_000;
/** Reasons may hold words of strangers: beyond these they count as one. */
const MAX_REASONS = 20;

/** How long something went on, and how often it failed meanwhile. */
export interface Ended {
  readonly times: number;
  readonly afterMs: number;
}

export interface TroubleListener {
  /** @param times how often it happened since it was told last, this one included */
  onProblem(message: string, error: unknown, times: number): void;
  /** What was told of is over. */
  onBack?(message: string, ended: Ended): void;
}

export interface TroubleWords {
  readonly begun: string;
  /** Absent for what has no end that could be seen. */
  readonly over?: string;
}

export class Trouble {
  readonly #words: TroubleWords;
  readonly #listener: TroubleListener;
  readonly #why: ((error: unknown) => Promise<unknown>) | undefined;
  readonly #reasons = new Map<string, { toldAt: number; since: number }>();
  #begunAt = 0;
  #times = 0;
  #told: Promise<void> | undefined;

  /** @param why finds a better reason than the one that was given, asked only when it is told; undefined when there is none at all */
  constructor(words: TroubleWords, listener: TroubleListener, why?: (error: unknown) => Promise<unknown>) {
    this.#words = words;
    this.#listener = listener;
    this.#why = why;
  }

  /** Whether it goes on, as far as anybody was told. */
  get isTold(): boolean {
    return this.#reasons.size > 0;
  }

  /** It has happened, once more or for the first time. */
  failed(error: unknown): void {
    const now = performance.now();
    if (!this.isTold) this.#begunAt = now;
    this.#times += 1;
    const said = reasonOf(error);
    const reason = this.#reasons.has(said) || this.#reasons.size < MAX_REASONS ? said : "others";
    const known = this.#reasons.get(reason);
    const times = (known?.since ?? 0) + 1;
    const isNews = known === undefined || now - known.toldAt >= TELL_AGAIN_MS;
    this.#reasons.set(reason, isNews ? { toldAt: now, since: 0 } : { ...known, since: times });
    if (isNews) this.#tell(error, times);
  }

  /** It works again. */
  over(): void {
    if (!this.isTold) return;
    const ended = { times: this.#times, afterMs: Math.round(performance.now() - this.#begunAt) };
    this.#reasons.clear();
    this.#times = 0;
    const { over } = this.#words;
    if (over !== undefined) this.#inTurn(() => this.#listener.onBack?.(over, ended));
  }

  #tell(error: unknown, times: number): void {
    const { begun } = this.#words;
    if (this.#why === undefined) {
      this.#listener.onProblem(begun, error, times);
      return;
    }
    const why = this.#why(error);
    this.#inTurn(async () => {
      const cause = await why;
      if (cause !== undefined) this.#listener.onProblem(begun, cause, times);
    });
  }

  /** At once, unless a reason is still being looked for: what began must not be told after its end. */
  #inTurn(speak: () => unknown): void {
    if (this.#why === undefined) speak();
    else this.#told = (this.#told ?? Promise.resolve()).then(async () => void (await speak()));
  }
}

/** What makes two failures the same. */
function reasonOf(error: unknown): string {
  return error instanceof Refusal ? `${error.code}: ${error.detail}` : String(error);
}

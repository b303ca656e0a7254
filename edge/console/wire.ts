/** One call to the edge: bounded in time, its refusal thrown, and whether the edge can be reached at all kept for everybody to see. */
import { type Problem, Refused, Unreachable } from "./refused.ts";

export interface Call {
  readonly method?: "GET" | "POST" | "PATCH" | "DELETE";
  readonly body?: object;
  readonly token?: string;
  readonly headers?: Readonly<Record<string, string>>;
  readonly signal?: AbortSignal;
}

const ANSWER_WITHIN_MS = 15_000;
const FIRST_PROBE_MS = 1_000;
const LAST_PROBE_MS = 15_000;

/**
 * Asks the edge, which is where this page came from.
 *
 * @returns the JSON of its answer; undefined for an empty one
 * @throws {Refused} the edge said no
 * @throws {Unreachable} no answer
 */
export function ask<T>(path: string, call: Call = {}): Promise<T> {
  return withinTime(call, async (signal) => {
    const text = await (await answered(path, call, signal)).text();
    return (text === "" ? undefined : JSON.parse(text)) as T;
  });
}

/** As {@link ask}, for an answer that goes on for as long as `call.signal` lets it. */
export function askForStream(path: string, call: Call): Promise<Response> {
  return withinTime(call, (signal) => answered(path, call, signal));
}

async function withinTime<T>({ signal: given }: Call, attempt: (signal: AbortSignal) => Promise<T>): Promise<T> {
  const late = new AbortController();
  const timer = setTimeout(() => late.abort(), ANSWER_WITHIN_MS);
  try {
    const answer = await attempt(given === undefined ? late.signal : AbortSignal.any([given, late.signal]));
    network.found();
    return answer;
  } catch (error) {
    given?.throwIfAborted();
    if (error instanceof Refused) network.found();
    else network.lost();
    throw error instanceof Refused ? error : new Unreachable(error);
  } finally {
    clearTimeout(timer);
  }
}

async function answered(path: string, call: Call, signal: AbortSignal): Promise<Response> {
  const { method = "GET", body, token, headers = {} } = call;
  const response = await fetch(path, {
    method,
    headers: {
      ...headers,
      ...(body !== undefined && { "content-type": "application/json" }),
      ...(token !== undefined && { authorization: `Bearer ${token}` }),
    },
    body: body === undefined ? null : JSON.stringify(body),
    credentials: "same-origin",
    cache: "no-store",
    redirect: "error",
    signal,
  });
  if (!response.ok) throw await refusedBy(response);
  return response;
}

async function refusedBy(response: Response): Promise<Refused> {
  const requestId = response.headers.get("x-request-id") ?? undefined;
  const problem: Partial<Problem> = await response.json().catch(() => ({}));
  // What stands between here and the edge has words of its own.
  const { code = "unavailable", advice = "retry", title = `It was answered ${response.status}.` } = problem;
  return new Refused({ ...problem, code, advice, title, status: response.status }, requestId);
}

/** Whether the edge can be reached. Tells `change`; while it cannot, it is asked again and again. */
class Network extends EventTarget {
  #isUp = true;
  #timer: ReturnType<typeof setTimeout> | undefined;

  constructor() {
    super();
    window.addEventListener("online", () => this.#isUp || this.#probe(FIRST_PROBE_MS));
  }

  get isUp(): boolean {
    return this.#isUp;
  }

  /** Resolves a moment later, once the edge can be reached. */
  async back(signal: AbortSignal): Promise<void> {
    await new Promise((resolve) => setTimeout(resolve, FIRST_PROBE_MS));
    while (!this.#isUp && !signal.aborted) {
      await new Promise((resolve) => {
        this.addEventListener("change", resolve, { once: true });
        signal.addEventListener("abort", resolve, { once: true });
      });
    }
  }

  lost(): void {
    if (!this.#isUp) return;
    this.#set(false);
    this.#timer = setTimeout(() => this.#probe(FIRST_PROBE_MS), FIRST_PROBE_MS);
  }

  found(): void {
    if (!this.#isUp) this.#set(true);
  }

  #set(isUp: boolean): void {
    this.#isUp = isUp;
    clearTimeout(this.#timer);
    this.dispatchEvent(new Event("change"));
  }

  #probe(afterwardsMs: number): void {
    clearTimeout(this.#timer);
    const again = () => {
      if (this.#isUp) return;
      this.#timer = setTimeout(() => this.#probe(Math.min(LAST_PROBE_MS, afterwardsMs * 2)), afterwardsMs);
    };
    // A refusal is an answer too.
    ask("/healthz").then(again, again);
  }
}

/** There is one. */
export const network = new Network();

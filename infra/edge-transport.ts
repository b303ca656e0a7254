/**
 * One call to an edge over HTTP: bounded in time and size, tried again only where that can do no harm, and with one kind of
 * error for each way to fail. What was sent and may have arrived is said to be so (`EdgeUnreachable`), because
 * whoever revoked somebody must know whether to look.
 *
 * Redirects are not followed: they would carry a credential, and a POST, somewhere else.
 */
import { setTimeout as sleep } from "node:timers/promises";
import type { z } from "zod";
import { EdgeMisunderstood, EdgeRefusal, EdgeUnreachable, requestIdOf, unanswered } from "./edge-failure.ts";

export type Operation = `${"GET" | "POST" | "PATCH" | "DELETE"} /${string}`;

export interface Call {
  /** As in the reference: `GET /admin/revocations/:id`. */
  readonly operation: Operation;
  readonly path?: Readonly<Record<string, string>>;
  readonly query?: Readonly<Record<string, string | number | undefined>>;
  /** Sent as JSON. */
  readonly body?: object;
  /** Sent as a form. */
  readonly form?: Readonly<Record<string, string>>;
  readonly headers?: Readonly<Record<string, string>>;
  readonly bearer?: string | undefined;
  /** Whether carrying it out twice is the same as once. So it is for GET; for the rest only where this says so. */
  readonly repeatable?: boolean;
  /** Ends it, besides the signal of all calls. */
  readonly signal?: AbortSignal;
}

export interface TransportOptions {
  readonly url: string;
  /** For one attempt; 15 s. */
  readonly answerWithinMs?: number;
  /** For how long a call is tried again; 0: once. Where nobody listens at all it is given up sooner. */
  readonly patienceMs?: number;
  readonly signal?: AbortSignal | undefined;
  /** Every answer, with its `X-Request-Id`, for whoever has to find it in the edge's log. */
  onAnswer?(operation: Operation, status: number, requestId: string | undefined): void;
  /** It did not work, and will be tried again. */
  onRetry?(error: Error, waitMs: number): void;
}

const ANSWER_WITHIN_MS = 15_000;
/** For as long as nobody listens: a deployment in between takes less. */
const ABSENCE_PATIENCE_MS = 3_000;
const FIRST_RETRY_MS = 250;
const LAST_RETRY_MS = 4_000;
/** A page of 500 audit records with their receipts is far below. */
const MAX_ANSWER_BYTES = 32 * 1024 * 1024;
const MAX_REFUSAL_BYTES = 64 * 1024;
const CONFLICT = 409;
const TOO_MANY = 429;
const PASSING = [500, 502, 503, 504];

export class EdgeTransport {
  readonly url: string;
  readonly #options: TransportOptions;

  constructor(options: TransportOptions) {
    this.url = options.url;
    this.#options = options;
  }

  /**
   * Makes a call and reads its answer.
   *
   * @throws {EdgeRefusal | EdgeUnreachable | EdgeMisunderstood}
   */
  async call<T>(call: Call, schema: z.ZodType<T>): Promise<T> {
    return await this.#patiently(call, async () => {
      const signal = this.#joined(AbortSignal.timeout(this.#answerWithinMs), call);
      const response = await this.#send(call, signal);
      const body = await this.#read(response, MAX_ANSWER_BYTES, call);
      return this.#judged(call, response, body, schema);
    });
  }

  /** Opens an answer that goes on, as a stream of text. @throws as `call` */
  async open(call: Call): Promise<ReadableStream<Uint8Array>> {
    return await this.#patiently(call, async () => {
      // Only the beginning has a deadline: what follows is for whoever reads.
      const aborted = new AbortController();
      const timer = setTimeout(() => aborted.abort(new DOMException("", "TimeoutError")), this.#answerWithinMs);
      try {
        const { body } = await this.#send(call, this.#joined(aborted.signal, call));
        return body ?? new ReadableStream();
      } finally {
        clearTimeout(timer);
      }
    });
  }

  async #patiently<T>(call: Call, attempt: () => Promise<T>): Promise<T> {
    const began = performance.now();
    for (let tried = 0; ; tried++) {
      try {
        return await attempt();
      } catch (error) {
        const wait = error instanceof Error ? waitBefore(error, call, tried) : undefined;
        const end = began + Math.min(this.#options.patienceMs ?? 0, patienceWith(error));
        if (wait === undefined || performance.now() + wait > end) throw error;
        this.#options.onRetry?.(error as Error, wait);
        await this.#pause(wait, call);
      }
    }
  }

  async #send(call: Call, signal: AbortSignal): Promise<Response> {
    const { operation, body, form, bearer, headers } = call;
    const [method = "GET"] = operation.split(" ");
    const contentType = body ? "application/json" : form ? "application/x-www-form-urlencoded" : undefined;
    try {
      const response = await fetch(`${this.url}${pathOf(call)}`, {
        method,
        headers: {
          ...(contentType === undefined ? {} : { "content-type": contentType }),
          ...(bearer === undefined ? {} : { authorization: `Bearer ${bearer}` }),
          ...headers,
        },
        body: body ? JSON.stringify(body) : form ? new URLSearchParams(form).toString() : null,
        redirect: "manual",
        signal,
      });
      this.#options.onAnswer?.(operation, response.status, requestIdOf(response));
      if (!response.ok) await this.#refuse(call, response);
      return response;
    } catch (error) {
      throw this.#translated(error, call);
    }
  }

  async #refuse(call: Call, response: Response): Promise<never> {
    const { operation } = call;
    if (response.status >= 300 && response.status < 400) {
      await response.body?.cancel();
      const to = response.headers.get("location") ?? "somewhere else";
      throw new EdgeMisunderstood(operation, `${this.url} sends us to ${to}; name that address if it is yours`);
    }
    const body = parsed(await this.#read(response, MAX_REFUSAL_BYTES, call));
    const refusal = new EdgeRefusal(operation, response, typeof body === "object" && body !== null ? body : {});
    if (refusal.isOfAnEdge || PASSING.includes(response.status) || response.status === TOO_MANY) throw refusal;
    throw new EdgeMisunderstood(operation, `HTTP ${response.status}, and not as an edge says it`, refusal.requestId);
  }

  async #read(response: Response, limit: number, call: Call): Promise<string> {
    const decoder = new TextDecoder();
    let [size, whole] = [0, ""];
    try {
      for await (const chunk of response.body ?? []) {
        size += chunk.byteLength;
        if (size > limit) throw new EdgeMisunderstood(call.operation, `the answer has more than ${limit} bytes`);
        whole += decoder.decode(chunk, { stream: true });
      }
    } catch (error) {
      throw this.#translated(error, call);
    }
    return whole + decoder.decode();
  }

  #judged<T>({ operation }: Call, response: Response, body: string, schema: z.ZodType<T>): T {
    const { success, data, error } = schema.safeParse(body === "" ? {} : parsed(body));
    if (success) return data;
    const [{ path, message } = { path: [], message: "not readable" }] = error.issues;
    const what = `the answer is not what an edge says (${path.join(".") || "body"}: ${message})`;
    throw new EdgeMisunderstood(operation, what, requestIdOf(response));
  }

  #translated(error: unknown, call: Call): unknown {
    if (error instanceof EdgeRefusal || error instanceof EdgeMisunderstood) return error;
    const ended = this.#enders(call).find((signal) => signal.aborted);
    if (ended !== undefined) return ended.reason;
    const { host } = new URL(this.url);
    if (error instanceof DOMException && error.name === "TimeoutError") {
      const why = `gave no answer within ${this.#answerWithinMs / 1000} s`;
      return new EdgeUnreachable(call.operation, host, why, true, error);
    }
    return unanswered(call.operation, host, error);
  }

  get #answerWithinMs(): number {
    return this.#options.answerWithinMs ?? ANSWER_WITHIN_MS;
  }

  async #pause(ms: number, call: Call): Promise<void> {
    const signal = AbortSignal.any(this.#enders(call));
    await sleep(ms, undefined, { signal }).catch(() => signal.throwIfAborted());
  }

  #joined(deadline: AbortSignal, call: Call): AbortSignal {
    return AbortSignal.any([deadline, ...this.#enders(call)]);
  }

  #enders(call: Pick<Call, "signal">): AbortSignal[] {
    return [this.#options.signal, call.signal].filter((signal) => signal !== undefined);
  }
}

/** How long to wait before it is tried again, milliseconds; undefined when it must not be. */
function waitBefore(error: Error, call: Call, tried: number): number | undefined {
  const harmless = call.repeatable ?? call.operation.startsWith("GET ");
  const backoff = Math.min(LAST_RETRY_MS, FIRST_RETRY_MS * 2 ** tried) * (0.5 + Math.random() / 2);
  if (error instanceof EdgeUnreachable) return harmless || !error.mayHaveArrived ? backoff : undefined;
  if (!(error instanceof EdgeRefusal)) return undefined;
  const { status, retryAfterSeconds } = error;
  // What was turned away for its number was not carried out. A conflict that passes is our own call, still being carried out.
  const passing = status === TOO_MANY || (harmless && (PASSING.includes(status) || isBusy(error)));
  if (!passing) return undefined;
  return retryAfterSeconds === undefined ? backoff : retryAfterSeconds * 1000 + Math.random() * FIRST_RETRY_MS;
}

function isBusy({ status, retryAfterSeconds }: EdgeRefusal): boolean {
  return status === CONFLICT && retryAfterSeconds !== undefined;
}

function patienceWith(error: unknown): number {
  return error instanceof EdgeUnreachable && !error.mayHaveArrived ? ABSENCE_PATIENCE_MS : Number.POSITIVE_INFINITY;
}

function pathOf({ operation, path = {}, query = {} }: Call): string {
  const [, template = ""] = operation.split(" ");
  const filled = template.replace(/:(\w+)/g, (_all, name: string) => encodeURIComponent(path[name] ?? ""));
  const given = new URLSearchParams();
  for (const [name, value] of Object.entries(query)) if (value !== undefined) given.set(name, String(value));
  return given.size === 0 ? filled : `${filled}?${given}`;
}

function parsed(body: string): unknown {
  try {
    return JSON.parse(body);
  } catch {
    return undefined; // a page of some proxy: judged as what it is by whoever asked
  }
}

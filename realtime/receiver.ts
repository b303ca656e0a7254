/**
 * The HTTP side of a node: takes in events (push delivery, RFC 8935), answers receipt queries, and says how it is.
 */
import type { IncomingMessage, ServerResponse } from "node:http";
import { JWT_MEDIA_TYPE } from "#contract/cluster";
import { Refusal, toRefusal } from "#contract/refusal";
import { REHEARSAL_MEDIA_TYPE, type Rehearsal, SECURITY_EVENT_MEDIA_TYPE } from "#contract/revocation";
import { Trouble, type TroubleListener } from "./trouble.ts";

const MAX_EVENT_BYTES = 16_384;
const BODY_TIMEOUT_MS = 5_000;
const MAX_WAIT_MS = 5_000;

/** What a node says of itself. `ready` is whether it should be sent new connections. */
export interface Health {
  readonly ready: boolean;
  readonly [detail: string]: unknown;
}

export interface ReceiverOptions extends TroubleListener {
  /** Judges a Security Event Token and makes it durable for the cluster. @throws {Refusal} */
  accept(set: string): Promise<void>;
  /** Says whom a revocation would hit. @throws {Refusal} when no trusted issuer asks */
  rehearse(question: string): Promise<Rehearsal>;
  /** Says what became of events, as a JWT. @throws {Refusal} when no trusted issuer asks */
  receipts(query: string, waitMs: number): Promise<string>;
  /** Says what the nodes say of themselves, as a JWT. @throws {Refusal} when no trusted issuer asks */
  nodes(query: string): Promise<string>;
  health(): Health;
}

/** Answers a request if it is one of ours. Returns whether it was. */
export type Receiver = (request: IncomingMessage, response: ServerResponse) => boolean;

interface Answer {
  readonly status: number;
  readonly body?: unknown;
  /** In the place of a body. */
  readonly jwt?: string;
  readonly headers?: Readonly<Record<string, string>>;
}

export function createReceiver(options: ReceiverOptions): Receiver {
  const words = { begun: "an event could not be taken in", over: "events are taken in again" };
  const untaken = new Trouble(words, options);
  const refusals = new Trouble({ begun: "an event was refused" }, options);

  function route(request: IncomingMessage): (() => Answer | Promise<Answer>) | undefined {
    // Not `new URL`: it throws on what a stranger can put into a request line, such as "//".
    const [pathname = "", query] = request.url?.split("?", 2) ?? [];
    if (pathname === "/healthz") return only(request, "GET", () => ({ status: 200, body: { status: "ok" } }));
    if (pathname === "/readyz") return only(request, "GET", readiness);
    if (pathname === "/events") return only(request, "POST", () => takeEvent(request));
    if (pathname === "/rehearsals") return only(request, "POST", () => rehearse(request));
    if (pathname === "/receipts") {
      const wait = Number(new URLSearchParams(query).get("wait")) || 0;
      const waitMs = Math.min(Math.max(wait, 0), MAX_WAIT_MS);
      return only(request, "POST", () => tell(request, (asked) => options.receipts(asked, waitMs)));
    }
    if (pathname === "/nodes") return only(request, "POST", () => tell(request, (asked) => options.nodes(asked)));
    return undefined;
  }

  function readiness(): Answer {
    const health = options.health();
    return { status: health.ready ? 200 : 503, body: health };
  }

  async function takeEvent(request: IncomingMessage): Promise<Answer> {
    if (mediaTypeOf(request) !== SECURITY_EVENT_MEDIA_TYPE) {
      return deliveryError("invalid_request", `the content type must be ${SECURITY_EVENT_MEDIA_TYPE}`);
    }
    const set = await readBody(request);
    if (set === undefined) return deliveryError("invalid_request", "the body is missing, too large or too slow");
    try {
      await options.accept(set);
      untaken.over();
      return { status: 202 };
    } catch (error) {
      return refusedDelivery(toRefusal(error));
    }
  }

  async function rehearse(request: IncomingMessage): Promise<Answer> {
    const question = mediaTypeOf(request) === REHEARSAL_MEDIA_TYPE ? await readBody(request) : undefined;
    if (question === undefined) return refused(new Refusal("request_malformed"));
    try {
      return { status: 200, body: await options.rehearse(question) };
    } catch (error) {
      return refused(toRefusal(error));
    }
  }

  function refusedDelivery(refusal: Refusal): Answer {
    if (refusal.status >= 500) {
      untaken.failed(refusal);
      return { status: 503, headers: { "retry-after": "1" } };
    }
    refusals.failed(refusal);
    return deliveryError(deliveryErrorCode(refusal), refusal.message);
  }

  /** What an edge asks with a token of its own, and is told in one. */
  async function tell(request: IncomingMessage, answer: (query: string) => Promise<string>): Promise<Answer> {
    const query = mediaTypeOf(request) === JWT_MEDIA_TYPE ? await readBody(request) : undefined;
    if (query === undefined) return refused(new Refusal("request_malformed"));
    try {
      return { status: 200, jwt: await answer(query) };
    } catch (error) {
      return refused(toRefusal(error));
    }
  }

  return (request, response) => {
    const answer = route(request);
    if (answer === undefined) return false;
    Promise.resolve()
      .then(answer)
      .catch((error: unknown): Answer => {
        options.onProblem(`${request.method} ${request.url?.split("?")[0]} failed`, error, 1);
        return { status: 503, headers: { "retry-after": "1" } };
      })
      .then((outcome) => send(request, response, outcome));
    return true;
  };
}

function refused(refusal: Refusal): Answer {
  const headers: Record<string, string> = refusal.status === 401 ? { "www-authenticate": "Bearer" } : {};
  return { status: refusal.status, body: refusal.answer(), headers };
}

function only(request: IncomingMessage, method: string, answer: () => Answer | Promise<Answer>) {
  return request.method === method ? answer : () => ({ status: 405, headers: { allow: method } });
}

function send(request: IncomingMessage, response: ServerResponse, { status, body, jwt, headers }: Answer): void {
  const text = jwt ?? (body === undefined ? undefined : JSON.stringify(body));
  const type = jwt === undefined ? "application/json" : JWT_MEDIA_TYPE;
  // A body that was not read to its end must not be taken for the next request.
  if (!request.complete) response.setHeader("connection", "close");
  response.writeHead(status, {
    "cache-control": "no-store",
    ...(text === undefined ? { "content-length": "0" } : { "content-type": type }),
    ...headers,
  });
  response.end(text);
}

/** RFC 8935 section 2.4. The codes are coarse, and say no more than the sender of a bad event needs. */
function deliveryError(err: string, description: string): Answer {
  return { status: 400, body: { err, description }, headers: { "content-language": "en" } };
}

function deliveryErrorCode(refusal: Refusal): string {
  if (refusal.code === "request_malformed" || refusal.code === "token_missing") return "invalid_request";
  const detail = refusal.detail ?? "";
  if (detail.includes('"aud"')) return "invalid_audience";
  if (detail.includes('"iss"') || detail.includes("issuer")) return "invalid_issuer";
  if (detail.includes("JWKS")) return "invalid_key";
  return detail.includes("SIGNATURE") ? "authentication_failed" : "invalid_request";
}

function mediaTypeOf(request: IncomingMessage): string {
  return (request.headers["content-type"] ?? "").split(";", 1)[0]?.trim().toLowerCase() ?? "";
}

/** The whole body as text; undefined when it is empty, larger than allowed, or does not come in time. */
function readBody(request: IncomingMessage): Promise<string | undefined> {
  return new Promise((resolve) => {
    const chunks: Buffer[] = [];
    let size = 0;
    const finish = (text: string | undefined) => {
      clearTimeout(timer);
      request.removeAllListeners("data");
      request.resume();
      resolve(text);
    };
    const timer = setTimeout(() => finish(undefined), BODY_TIMEOUT_MS);
    request.on("data", (chunk: Buffer) => {
      size += chunk.length;
      if (size > MAX_EVENT_BYTES) finish(undefined);
      else chunks.push(chunk);
    });
    request.once("end", () => finish(size === 0 ? undefined : Buffer.concat(chunks).toString("utf8")));
    request.once("error", () => finish(undefined)); // the sender is gone; there is nobody to answer
  });
}

/**
 * Refusing below Socket.IO, where it is a matter of time or place: an HTTP request of a transport, an upgrade included, is answered 503 or 429
 * with `Retry-After`. Engine.IO would answer 400 to whatever its middleware says no to; a proxy can do nothing with that, but at a 503 it tries
 * the next node. What is wrong for good stays a 400, which tells a stranger nothing.
 */
import { type IncomingMessage, type ServerResponse, STATUS_CODES } from "node:http";
import type { Refusal } from "#contract/refusal";

const RETRY_AFTER_SECONDS = 1;

const PASSING: readonly number[] = [429, 503];

/** Answers before Engine.IO does, which then sees that it was done; or leaves it to Engine.IO. */
export function refuseTransport(request: IncomingMessage, response: ServerResponse, refusal: Refusal): void {
  const { status } = refusal;
  if (!PASSING.includes(status)) return;
  const body = JSON.stringify(refusal.answer());
  const retryAfter = refusal.retryAfterSeconds ?? (status === 503 ? RETRY_AFTER_SECONDS : undefined);
  const headers = {
    "content-type": "application/json",
    "content-length": String(Buffer.byteLength(body)),
    "cache-control": "no-store",
    ...(retryAfter === undefined ? {} : { "retry-after": String(retryAfter) }),
  };
  if (request.headers.upgrade === undefined) {
    response.writeHead(status, headers).end(body);
    return;
  }
  // Of an upgrade there is only the connection: what Engine.IO passes for a response writes nothing.
  const lines = Object.entries({ ...headers, connection: "close" }).map(([name, value]) => `${name}: ${value}\r\n`);
  request.socket.end(`HTTP/1.1 ${status} ${STATUS_CODES[status]}\r\n${lines.join("")}\r\n${body}`);
}

/**
 * The HTTP request that opened a transport. Socket.IO keeps it for as long as the socket lives, and it is the largest thing that it keeps. Once the app
 * has seen the socket, what it is asked for later takes its place: headers, URL and connection. Where somebody has put something of their
 * own on it, a session or a user, it stays as it is.
 */
import { IncomingMessage, ServerResponse } from "node:http";
import type { Socket as Connection } from "node:net";
import type { ProtectedSocket } from "./sockets.ts";

/** What Engine.IO and Node put on a request that is on its way; the others are on every one from its beginning. */
const NOT_THE_APPS = new Set(["_query", "res", "websocket", "cleanup", "parser", "_events", "_eventsCount"]);

/** What is left of it, under the same names. */
class OpeningRequest {
  readonly headers: IncomingMessage["headers"];
  readonly url: string | undefined;
  readonly method: string | undefined;
  readonly socket: Connection;
  /** As Engine.IO has read it: for the handshake of another namespace on the same transport. */
  readonly _query: unknown;

  constructor({ headers, url, method, socket, _query }: IncomingMessage & { readonly _query?: unknown }) {
    this.headers = headers;
    this.url = url;
    this.method = method;
    this.socket = socket;
    this._query = _query;
  }

  get connection(): Connection {
    return this.socket;
  }
}

/** What Engine.IO gives its middleware in the place of a response to an upgrade. It holds the request for as long as the connection lives. */
interface UpgradeResponse {
  req?: unknown;
}

export interface OpeningRequests {
  /** A request that opens a transport, before anybody else has seen it. */
  note(request: IncomingMessage, response: ServerResponse): void;
  /** Puts what is left of it in its place, unless it is more than Node and Engine.IO have made it. */
  letGo(conn: ProtectedSocket["conn"]): void;
}

export function createOpeningRequests(): OpeningRequests {
  const responses = new WeakMap<IncomingMessage, UpgradeResponse>();
  let untouched: ReadonlySet<string> | undefined;
  return {
    note(request, response) {
      if (!(response instanceof ServerResponse)) responses.set(request, response as UpgradeResponse);
    },
    letGo(conn) {
      const { request } = conn;
      if (!(request instanceof IncomingMessage)) return;
      untouched ??= new Set(Object.keys(new IncomingMessage(request.socket)));
      for (const key of Object.keys(request)) if (!untouched.has(key) && !NOT_THE_APPS.has(key)) return;
      const left = new OpeningRequest(request);
      const response = responses.get(request);
      if (response?.req === request) response.req = left;
      (conn as { request: unknown }).request = left;
    },
  };
}

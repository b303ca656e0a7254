/** A stock socket.io-client, and everything that happens to it, in order and with the time. */
import { io, type ManagerOptions, type Socket, type SocketOptions } from "socket.io-client";
import type { UnauthorizedErrorData } from "#contract/refusal";

/** What the demo's handlers broadcast. */
export interface ChatMessage {
  readonly from: string;
  readonly node: string;
  readonly text: string;
  readonly at: number;
}

/** One token, or where to get a fresh one at each attempt to connect. */
export type TokenSource = string | (() => Promise<string>);

/** What of a stock client may be set otherwise. */
export type SocketOverrides = Partial<
  Pick<ManagerOptions, "extraHeaders" | "reconnection" | "reconnectionDelay" | "reconnectionDelayMax" | "transports">
>;

export interface ObservedSocket {
  readonly socket: Socket;
  /** Where it connects to. */
  readonly node: string;
  readonly messages: readonly ChatMessage[];
  /** `unauthorized` events: why it was thrown out. */
  readonly unauthorized: readonly UnauthorizedErrorData[];
  /** `err.data` of each `connect_error` that was a refusal: why it was not let in. */
  readonly refusals: readonly UnauthorizedErrorData[];
  /** `err.message` of each `connect_error` that was none, as when nobody listens. */
  readonly failures: readonly string[];
  readonly disconnects: readonly string[];
  /** How often it connected: more than once means that it came back. */
  readonly connects: number;
  /** `performance.now()` of the last disconnect. */
  readonly disconnectedAt: number | undefined;
}

export function openSocket(
  node: { readonly name: string; readonly url: string },
  token: TokenSource,
  overrides: SocketOverrides = {},
): ObservedSocket {
  const socket = io(node.url, { forceNew: true, auth: authOf(token), ...overrides });
  const messages: ChatMessage[] = [];
  const unauthorized: UnauthorizedErrorData[] = [];
  const refusals: UnauthorizedErrorData[] = [];
  const failures: string[] = [];
  const disconnects: string[] = [];
  let connects = 0;
  let disconnectedAt: number | undefined;
  socket.on("connect", () => connects++);
  socket.on("message", (message: ChatMessage) => messages.push(message));
  socket.on("unauthorized", ({ data }: { data: UnauthorizedErrorData }) => unauthorized.push(data));
  socket.on("disconnect", (reason) => {
    disconnectedAt = performance.now();
    disconnects.push(reason);
  });
  socket.on("connect_error", (error: Error & { data?: UnauthorizedErrorData }) => {
    if (error.data?.type === "UnauthorizedError") refusals.push(error.data);
    else failures.push(error.message);
  });
  return {
    socket,
    node: node.name,
    messages,
    unauthorized,
    refusals,
    failures,
    disconnects,
    get connects() {
      return connects;
    },
    get disconnectedAt() {
      return disconnectedAt;
    },
  };
}

function authOf(token: TokenSource): NonNullable<SocketOptions["auth"]> {
  if (typeof token !== "function") return { token };
  return (answer: (data: object) => void) => {
    // Without a token the node refuses, which is what a client that cannot refresh has to see.
    token().then(
      (fresh) => answer({ token: fresh }),
      () => answer({}),
    );
  };
}

/** People who use a deployment while it is being changed: stock clients that take part, those who are thrown out, and those who try to get back in. */
import { io, type Socket } from "socket.io-client";
import type { UnauthorizedErrorData } from "#contract/refusal";
import { type EdgeClient, EdgeRefusal, type Tokens } from "../../infra/edge-client.ts";
import { until } from "../../infra/until.ts";

/** One connection of one client, as the client saw it. */
export interface Connection {
  readonly id: string;
  /** The last number of the app before it came, as its node said. */
  welcome: number | undefined;
  readonly numbers: number[];
  /** Why it was sent away, if it was. */
  goodbye: UnauthorizedErrorData | undefined;
  /** Why it ended, if it has. */
  ended: string | undefined;
}

export interface Participant {
  readonly name: string;
  readonly socket: Socket;
  readonly connections: readonly Connection[];
  /** Attempts to connect that failed, and why. */
  readonly failures: readonly string[];
}

/**
 * A session that gives a fresh access token to whoever asks, one refresh at a time, and goes on when the edge is away for a moment. Once the
 * session is over it gives the last one, as somebody would who does not want to go.
 */
export function tokensOf(edge: EdgeClient, first: Tokens): () => Promise<string> {
  let { refresh_token: refresh, access_token: access } = first;
  let turn: Promise<string> = Promise.resolve(access);
  const fresh = async () => {
    const tokens = await until("the edge answers", () =>
      edge
        .refresh(refresh)
        .catch((error: unknown) => (isOver(error) ? { refresh_token: "", access_token: access } : undefined)),
    );
    ({ refresh_token: refresh, access_token: access } = tokens);
    return access;
  };
  return () => {
    turn = turn.then(fresh, fresh);
    return turn;
  };
}

function isOver(error: unknown): boolean {
  return error instanceof EdgeRefusal && error.advice === "login";
}

/** A stock client with nothing set but its transports, whose `auth` asks for a fresh token at every attempt, and which does what it is advised. */
export function participate(url: string, transports: string[], freshToken: () => Promise<string>): Participant {
  const socket = io(url, {
    forceNew: true,
    transports,
    auth: (give) => void freshToken().then((token) => give({ token })),
  });
  const connections: Connection[] = [];
  const failures: string[] = [];
  const current = () => connections.at(-1) as Connection;
  socket.on("connect", () => {
    connections.push({ id: socket.id ?? "", welcome: undefined, numbers: [], goodbye: undefined, ended: undefined });
  });
  socket.on("welcome", (last: number) => {
    current().welcome = last;
  });
  socket.on("number", (number: number) => current().numbers.push(number));
  socket.on("unauthorized", ({ data }: { data: UnauthorizedErrorData }) => {
    current().goodbye = data;
  });
  socket.on("disconnect", (reason) => {
    // One that is lost before it is let in is no connection of the app's.
    if (connections.length > 0) current().ended ??= reason;
    // A node that ends a socket for good does not keep a session out whose token alone is dead.
    if (reason === "io server disconnect" && current().goodbye?.advice === "refresh") socket.connect();
  });
  socket.on("connect_error", (error: Error & { data?: UnauthorizedErrorData }) => {
    failures.push(error.data?.code ?? error.message);
    if (error.data?.advice === "refresh") socket.connect();
  });
  return { name: transports.join("+"), socket, connections, failures };
}

export interface Knocking {
  /** What each attempt came to: the code of the refusal, "connected", or "no answer". */
  readonly outcomes: readonly string[];
  /** One more token that is tried from here on. */
  add(token: string): void;
  stop(): Promise<void>;
}

/** Between two attempts, so that the nodes' bounds per address are not what keeps them out. */
const KNOCK_EVERY_MS = 100;

/** Tries to get in with tokens that are dead, one after the other, over both transports, until it is stopped. */
export function keepKnocking(url: string): Knocking {
  const tokens: string[] = [];
  const outcomes: string[] = [];
  let stopped = false;
  const attempt = (token: string, transport: string) =>
    new Promise<string>((resolve) => {
      const socket = io(url, { forceNew: true, reconnection: false, transports: [transport], auth: { token } });
      socket.on("connect", () => resolve("connected"));
      socket.on("disconnect", () => resolve("no answer"));
      socket.on("connect_error", (error: Error & { data?: UnauthorizedErrorData }) =>
        resolve(error.data?.code ?? "no answer"),
      );
    });
  const knocking = (async () => {
    for (let turn = 0; !stopped; turn++) {
      const token = tokens[turn % Math.max(1, tokens.length)];
      if (token !== undefined) outcomes.push(await attempt(token, turn % 2 ? "polling" : "websocket"));
      await new Promise((resolve) => setTimeout(resolve, KNOCK_EVERY_MS));
    }
  })();
  return {
    outcomes,
    add: (token) => void tokens.push(token),
    async stop() {
      stopped = true;
      await knocking;
    },
  };
}

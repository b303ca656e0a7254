/** A real Socket.IO client that tries to get in once, and sees what happens to it afterwards. */
import type { Socket } from "socket.io-client";
import { CommandFailed } from "../failure.ts";
import type { Site } from "./site.ts";

export interface VisitOptions {
  readonly transport: "websocket" | "polling";
  readonly token: string | undefined;
  readonly origin?: string;
}

export interface Visit {
  readonly connected: boolean;
  /** From the call to the answer. */
  readonly ms: number;
  /** Of the refusal, where it was one. */
  readonly code: string | undefined;
  /** What the client says, where it did not get in. */
  readonly why: string;
  /** What became of a socket that was in: `performance.now()` of its end, and what it was told. */
  readonly ended: Promise<{ readonly at: number; readonly reason: string; readonly code: string | undefined }>;
  close(): void;
}

const WITHIN_MS = 10_000;

/** Tries to get in. @throws {CommandFailed} where socket.io-client is not installed */
export async function visit(
  { options: { path, signal } }: Site,
  url: string,
  { transport, token, origin }: VisitOptions,
): Promise<Visit> {
  const io = await socketClient();
  signal.throwIfAborted();
  const began = performance.now();
  const socket = io(url, {
    ...{ path, transports: [transport], forceNew: true, reconnection: false, timeout: WITHIN_MS },
    auth: token === undefined ? {} : { token },
    ...(origin !== undefined && { extraHeaders: { origin } }),
  });
  const ended = endOf(socket);
  const outcome = await answerOf(socket, signal);
  if (signal.aborted) socket.close();
  signal.throwIfAborted();
  return {
    ...outcome,
    ms: Math.round(performance.now() - began),
    ended,
    close: () => void socket.close(),
  };
}

/** An optional peer: who has a front end has it. */
async function socketClient(): Promise<typeof import("socket.io-client").io> {
  try {
    return (await import("socket.io-client")).io;
  } catch (error) {
    throw new CommandFailed(
      "Real handshakes need socket.io-client, and it is not installed here.",
      "`npm install socket.io-client` beside keycard.",
      {
        cause: error,
      },
    );
  }
}

function answerOf(socket: Socket, signal: AbortSignal): Promise<Pick<Visit, "connected" | "code" | "why">> {
  return new Promise((resolve) => {
    const settle = (connected: boolean, code: string | undefined, why: string) => {
      clearTimeout(tired);
      signal.removeEventListener("abort", stop);
      resolve({ connected, code, why });
    };
    const stop = () => settle(false, undefined, "stopped");
    const tired = setTimeout(() => settle(false, undefined, "no answer in time"), WITHIN_MS);
    signal.addEventListener("abort", stop);
    socket.once("connect", () => settle(true, undefined, ""));
    socket.once("connect_error", (error: Error & { data?: { code?: unknown }; description?: unknown }) => {
      const code = typeof error.data?.code === "string" ? error.data.code : undefined;
      const status = typeof error.description === "number" ? ` (HTTP ${error.description})` : "";
      settle(false, code, `${error.message}${status}`);
    });
  });
}

function endOf(socket: Socket): Visit["ended"] {
  return new Promise((resolve) => {
    let code: string | undefined;
    socket.once("unauthorized", (told: { data?: { code?: unknown } }) => {
      if (typeof told?.data?.code === "string") code = told.data.code;
    });
    socket.once("disconnect", (reason) => resolve({ at: performance.now(), reason, code }));
  });
}

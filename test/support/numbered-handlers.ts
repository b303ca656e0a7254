/**
 * An app that numbers what it says. A process beside the nodes publishes 1, 2, 3 … through the Redis adapter; each node passes a number on to its
 * own sockets, tells a newcomer the last one that it passed on, and notes the last one that it passed on to a socket before it said goodbye.
 */
import { Redis } from "ioredis";
import { Server } from "socket.io";
import { createAppAdapter } from "../../realtime/app-adapter.ts";
import type { Handlers } from "../../realtime/server.ts";

const EVERY_MS = 10;

/** What a node prints when it sends a socket away. */
export interface Goodbye {
  readonly goodbye: string;
  readonly last: number;
}

const numberedHandlers: Handlers = (io) => {
  let last = 0;
  io.on("number", (number: number) => {
    last = number;
    io.local.emit("number", number);
  });
  io.on("connection", (socket) => {
    socket.emit("welcome", last);
    socket.onAnyOutgoing((event) => {
      if (event === "unauthorized") console.log(JSON.stringify({ goodbye: socket.id, last } satisfies Goodbye));
    });
  });
};

export default numberedHandlers;

export interface Publisher {
  /** The last number. */
  readonly published: number;
  /** Goes on with another secret of the cluster. Whoever calls this sees to it that everybody has heard the last number. */
  sealWith(secret: string): Promise<void>;
  stop(): void;
}

/** The process beside the nodes: an app server that has no sockets of its own, and speaks as the nodes do. */
export async function publishNumbers(redisUrl: string, secret: string): Promise<Publisher> {
  let published = 0;
  let stop = await publishOver(redisUrl, secret, () => ++published);
  return {
    get published() {
      return published;
    },
    async sealWith(other) {
      stop();
      stop = await publishOver(redisUrl, other, () => ++published);
    },
    stop: () => stop(),
  };
}

async function publishOver(redisUrl: string, secret: string, next: () => number): Promise<() => void> {
  const client = new Redis(redisUrl, { lazyConnect: true });
  const { adapter, disconnect } = await createAppAdapter(client, {
    secrets: [secret],
    onForged() {},
    onProblem() {},
    onBack() {},
  });
  const io = new Server({ adapter });
  const publishing = setInterval(() => io.serverSideEmit("number", next()), EVERY_MS);
  return () => {
    clearInterval(publishing);
    disconnect();
  };
}

/**
 * An app that numbers what it says. A process beside the nodes publishes 1, 2, 3 … through the Redis adapter; each node passes a number on to its
 * own sockets, tells a newcomer the last one that it passed on, and notes the last one that it passed on to a socket before it said goodbye.
 */
import { createAdapter } from "@socket.io/redis-adapter";
import { Redis } from "ioredis";
import { Server } from "socket.io";
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

/** The process beside the nodes: an app server that has no sockets of its own. @returns how to stop it */
export function publishNumbers(redisUrl: string): () => void {
  const redis = new Redis(redisUrl);
  const hearing = redis.duplicate();
  const io = new Server({ adapter: createAdapter(redis, hearing) });
  let published = 0;
  const publishing = setInterval(() => {
    published += 1;
    io.serverSideEmit("number", published);
  }, EVERY_MS);
  return () => {
    clearInterval(publishing);
    redis.disconnect();
    hearing.disconnect();
  };
}

/**
 * The Socket.IO adapter, which carries the app's own messages between nodes, and only those. While Redis is away a message
 * reaches this node's sockets and is not queued, so that it neither comes late nor fills the memory.
 *
 * In a cluster every classic message goes to every server; so there each room has a channel of its own on one of them.
 */
import { createAdapter, createShardedAdapter } from "@socket.io/redis-adapter";
import type { Cluster, Redis } from "ioredis";
import type { Logger } from "pino";
import type { ServerOptions } from "socket.io";
import { keepTrying, surviveErrors } from "./connection.ts";
import { isCluster, type RedisClient } from "./redis.ts";

export interface AppAdapter {
  readonly adapter: NonNullable<ServerOptions["adapter"]>;
  disconnect(): void;
}

const RETRY_MS = 1_000;
/** A failure that has not happened for so long is news again. */
const FORGOTTEN_AFTER_MS = 60_000;
/** What ioredis says besides, or instead of, what is the matter. The links to the log ask, and say it. */
const HEARSAY = /: Error: (All sentinels are unreachable|Connection is closed\.$)/;
/** How often a cluster is asked who serves what, for a change that no error and no server told of. */
const LOOK_AGAIN_MS = 10_000;
/** The adapter does not look at what becomes of these, and a rejection that nobody looks at ends a process. */
const UNAWAITED = [
  ...["publish", "subscribe", "psubscribe", "unsubscribe", "punsubscribe"],
  ...["spublish", "ssubscribe", "sunsubscribe"],
];

/** @param client not used itself */
export async function createAppAdapter(client: RedisClient, log: Logger): Promise<AppAdapter> {
  const tell = createTeller(log);
  const [pub, sub] = isCluster(client) ? clusterPair(client) : serverPair(client);
  const farewells: (() => void)[] = [];
  for (const each of [pub, sub]) {
    surviveErrors(each);
    each.on("error", (err) => tell(err, "the adapter lost Redis"));
    catchUnawaited(each, (err) => tell(err, "the adapter could not reach Redis"));
    await connectedOrNot(each);
    farewells.push(isCluster(each) ? () => each.disconnect() : keepTrying(each, RETRY_MS));
  }
  return {
    adapter: isCluster(client) ? createShardedAdapter(pub, sub) : createAdapter(pub, sub),
    disconnect() {
      for (const leave of farewells) leave();
    },
  };
}

function serverPair(client: Redis): [pub: Redis, sub: Redis] {
  const again = { sentinelRetryStrategy: () => RETRY_MS };
  return [
    client.duplicate({ ...again, enableOfflineQueue: false, maxRetriesPerRequest: 0 }),
    client.duplicate({ ...again, maxRetriesPerRequest: null }),
  ];
}

function clusterPair(client: Cluster): [pub: Cluster, sub: Cluster] {
  const look = { slotsRefreshInterval: LOOK_AGAIN_MS };
  return [client.duplicate([], look), client.duplicate([], { ...look, shardedSubscribers: true })];
}

/** Where Redis is away the node starts without it. */
function connectedOrNot(client: RedisClient): Promise<void> {
  return new Promise((resolve) => {
    client.once("error", () => resolve());
    client.connect().then(resolve, () => resolve()); // told by "error", retried
  });
}

function catchUnawaited(client: RedisClient, onError: (error: unknown) => void): void {
  const commands = client as unknown as Record<string, (...args: unknown[]) => Promise<unknown>>;
  for (const name of UNAWAITED) {
    const command = commands[name]?.bind(client);
    commands[name] = async (...args) => {
      try {
        // A cluster's queue is for the whole client, and what waits in it comes late.
        if (name === "spublish" && client.status !== "ready") throw new Error("no server of the cluster is reached");
        return await command?.(...args);
      } catch (error) {
        onError(error);
        return undefined;
      }
    };
  }
}

/** Says the same thing once, for as long as it goes on. */
function createTeller(log: Logger): (err: unknown, message: string) => void {
  const lastTime = new Map<string, number>();
  return (err, message) => {
    const what = `${message}: ${err}`;
    const quietMs = performance.now() - (lastTime.get(what) ?? Number.NEGATIVE_INFINITY);
    lastTime.set(what, performance.now());
    if (!HEARSAY.test(what) && quietMs > FORGOTTEN_AFTER_MS) log.warn({ err }, message);
  };
}

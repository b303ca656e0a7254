/**
 * The Socket.IO adapter, which carries the app's own messages between nodes, and only those, sealed with the cluster's secret. While Redis is away a message
 * reaches this node's sockets and is not queued, so that it neither comes late nor fills the memory.
 *
 * In a cluster every classic message goes to every server; so there each room has a channel of its own on one of them.
 */
import { createAdapter, createShardedAdapter } from "@socket.io/redis-adapter";
import type { Cluster, Redis } from "ioredis";
import type { ServerOptions } from "socket.io";
import type { ClusterSecrets } from "#contract/cluster";
import { keepTrying, surviveErrors } from "./connection.ts";
import { isCluster, type RedisClient } from "./redis.ts";
import { openHeard, sealPublished } from "./sealed-messages.ts";
import { Trouble, type TroubleListener } from "./trouble.ts";

export interface AppAdapter {
  readonly adapter: NonNullable<ServerOptions["adapter"]>;
  disconnect(): void;
}

const RETRY_MS = 1_000;
/** What ioredis says besides, or instead of, what is the matter. The links to the log ask, and say it. */
const HEARSAY = /^Error: (All sentinels are unreachable|Connection is closed\.$)/;
/** How often a cluster is asked who serves what, for a change that no error and no server told of. */
const LOOK_AGAIN_MS = 10_000;
/** The adapter does not look at what becomes of these, and a rejection that nobody looks at ends a process. */
const UNAWAITED = [
  ...["publish", "subscribe", "psubscribe", "unsubscribe", "punsubscribe"],
  ...["spublish", "ssubscribe", "sunsubscribe"],
];

export interface AppAdapterOptions extends TroubleListener {
  /** Every attempt to connect, for whoever counts them. */
  onAttempt?(outcome: "made" | "lost"): void;
  /** What the nodes share; undefined where others than nodes speak on the adapter's channels, and anybody who can write there. */
  readonly secrets: ClusterSecrets | undefined;
  /** A message was dropped that no node sealed. */
  onForged(): void;
}

/** @param client not used itself */
export async function createAppAdapter(client: RedisClient, options: AppAdapterOptions): Promise<AppAdapter> {
  const lost = new Trouble({ begun: "the adapter lost Redis", over: "the adapter has Redis again" }, options);
  // One room's channel may fail while others do not, so that no success says that it is over.
  const unsent = new Trouble({ begun: "the adapter could not reach Redis" }, options);
  const tell = (trouble: Trouble, err: unknown) => void (HEARSAY.test(String(err)) || trouble.failed(err));
  const pair = isCluster(client) ? clusterPair(client) : serverPair(client);
  const [pub, sub] = pair;
  if (options.secrets !== undefined) {
    sealPublished(pub, options.secrets);
    openHeard(sub, options.secrets, options.onForged);
  }
  const farewells: (() => void)[] = [];
  for (const each of pair) {
    surviveErrors(each);
    each.on("error", (err) => tell(lost, err));
    each.on("close", () => options.onAttempt?.("lost"));
    each.on("ready", () => {
      options.onAttempt?.("made");
      if (pair.every(({ status }) => status === "ready")) lost.over();
    });
    catchUnawaited(each, (err) => tell(unsent, err));
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

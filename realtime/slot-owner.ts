/**
 * Who serves the log's slot in a Redis Cluster. ioredis' own Cluster is for any number of slots: it follows each command
 * by itself, gives up subscriptions in silence when a slot moves, and says of a failed discovery only that a connection
 * was closed. The log has one slot, and so one master to find, as ioredis finds one by sentinels.
 */
import { connect as connectTcp } from "node:net";
import { connect as connectTls } from "node:tls";
import { AbstractConnector, type Cluster, type ClusterNode, Redis, type RedisOptions } from "ioredis";
import { CLOSED, surviveErrors } from "./connection.ts";

interface Address {
  readonly host: string;
  readonly port: number;
}

/** CRC16 of `keycard` modulo 16384: where whatever is tagged `{keycard}` is kept. */
export const LOG_SLOT = 15_770;
/** How long a connection that is given up may take to say goodbye. */
export const GOODBYE_MS = 250;
/** Whatever the app's client likes: our scripts and hashes are read in these shapes. */
export const LEGACY = { replyMapping: "legacy" } as const;

/** For the option `Connector` of connections that are made like those of this cluster's client. */
export function slotConnector(cluster: Cluster): new (options: unknown) => AbstractConnector {
  const first = firstServersOf(cluster);
  let known = first;
  return class extends AbstractConnector {
    readonly #options: RedisOptions;
    #owner: Address | undefined;

    constructor(options: unknown) {
      super(GOODBYE_MS);
      this.#options = options as RedisOptions;
    }

    override check({ role }: { role?: string }): boolean {
      return role === undefined || role === "master";
    }

    override async connect(): Promise<AbstractConnector["stream"]> {
      this.connecting = true;
      const { owner, servers } = await askForOwner(inOrder(known, this.#owner), this.#options);
      known = withoutTwins([...first, ...servers.map((server) => reachedAt(server, cluster))]);
      if (!this.connecting) throw new Error(CLOSED);
      const { tls } = this.#options;
      this.#owner = reachedAt(owner, cluster);
      this.stream = tls ? connectTls({ ...this.#owner, ...tls }) : connectTcp(this.#owner);
      this.stream.on("error", (error: Error) => {
        this.firstError = error;
      });
      return this.stream;
    }
  };
}

interface View {
  readonly owner: Address;
  readonly servers: readonly Address[];
}

/** At random: one that is cut off from the others answers too, and is not always the first. Who was lost comes last. */
function inOrder(servers: readonly Address[], lost: Address | undefined): readonly Address[] {
  const isLost = ({ host, port }: Address) => Number(host === lost?.host && port === lost.port);
  return servers.toSorted((a, b) => isLost(a) - isLost(b) || Math.random() - 0.5);
}

/** As whichever answers first sees it. */
async function askForOwner(known: readonly Address[], options: RedisOptions): Promise<View> {
  let failure: unknown;
  for (const server of known) {
    try {
      return viewOf(await askForSlots(server, options), server);
    } catch (error) {
      failure = error;
    }
  }
  throw failure;
}

type SlotRange = readonly [
  from: number,
  to: number,
  ...servers: (readonly [host: string | null, port: number, ...unknown[]])[],
];

function askForSlots(server: Address, options: RedisOptions): Promise<SlotRange[]> {
  return askOnce({ ...options, ...server }, (redis) => redis.cluster("SLOTS"));
}

/** On a connection of its own. Rejects with why there was none, of which a command says only that it is closed. */
export async function askOnce<T>(options: RedisOptions, question: (redis: Redis) => Promise<T>): Promise<T> {
  const once = { lazyConnect: true, enableReadyCheck: false, enableOfflineQueue: true, retryStrategy: null };
  const redis = new Redis({ ...options, ...once, ...LEGACY, Connector: undefined });
  let failure: unknown;
  surviveErrors(redis);
  redis.on("error", (error) => {
    failure ??= error;
  });
  try {
    return await question(redis);
  } catch (error) {
    throw failure ?? error;
  } finally {
    redis.disconnect();
  }
}

/** @throws {Error} when nobody serves the slot of the log */
function viewOf(ranges: readonly SlotRange[], asked: Address): View {
  // A server that does not know under which name it is reached leaves the name out.
  const addressOf = ([host, port]: SlotRange[2]) => ({ host: host || asked.host, port });
  const [, , owner] = ranges.find(([from, to]) => from <= LOG_SLOT && LOG_SLOT <= to) ?? [];
  if (owner === undefined) throw new Error("no server of the cluster serves the slot of the log");
  return { owner: addressOf(owner), servers: ranges.flatMap(([, , ...servers]) => servers.map(addressOf)) };
}

function withoutTwins(servers: readonly Address[]): readonly Address[] {
  return [...new Map(servers.map((server) => [`${server.host}:${server.port}`, server])).values()];
}

function reachedAt(server: Address, { options: { natMap } }: Cluster): Address {
  const name = `${server.host}:${server.port}`;
  return (typeof natMap === "function" ? natMap(name) : natMap?.[name]) ?? server;
}

/** Where the client was told to begin, which ioredis has and its types do not show. */
function firstServersOf(cluster: Cluster): readonly Address[] {
  const { startupNodes } = cluster as unknown as { startupNodes: readonly ClusterNode[] };
  return startupNodes.map((node) => {
    const { host, port } = typeof node === "object" ? node : new Redis(`${node}`, { lazyConnect: true }).options;
    return { host: host ?? "127.0.0.1", port: port ?? 6379 };
  });
}

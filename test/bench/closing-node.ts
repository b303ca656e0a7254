/**
 * A process that holds sockets which somebody has to close: a node of Keycard, and beside it bare Socket.IO servers with the same settings and
 * handlers over the adapters of others, of which each is idle while another one is measured. Started by `closing-nodes.ts`.
 */
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { createAdapter, createShardedAdapter } from "@socket.io/redis-adapter";
import { Redis } from "ioredis";
import { Server, type ServerOptions } from "socket.io";
import { readConfig } from "../../realtime/config.ts";
import { createNodeLog } from "../../realtime/log-lines.ts";
import { startNode } from "../../realtime/server.ts";
import { serveMeasured } from "./measured-process.ts";
import { peerPath } from "./peers.ts";

export const ADAPTERS = ["classic", "sharded", "streams"] as const;
export type AdapterName = (typeof ADAPTERS)[number];
export type Kind = "keycard" | AdapterName;

export interface ClosingNodeSettings {
  readonly kinds: readonly Kind[];
  /** Each has a connection of its own, which may lead through a link. */
  readonly redisUrl: string;
  /** Of a Keycard node, as in its environment. */
  readonly keycard: Readonly<Record<string, string>>;
}

export interface ClosingNodeReady {
  readonly ports: Readonly<Partial<Record<Kind, number>>>;
}

const HOP = "bench hop";
/** As a node has them. */
const SETTINGS: Partial<ServerOptions> = { serveClient: false, maxHttpBufferSize: 64 * 1024, connectTimeout: 10_000 };

const servers = new Map<Kind, Server>();
let isReady = async (): Promise<unknown> => undefined;
let firstPushAt: bigint | undefined;
let hoppedAt = 0n;

function takeRooms(io: Server): void {
  io.on("connection", (socket) => {
    socket.on("join", async (room: string, done: () => void) => {
      await socket.join(room);
      done();
    });
  });
}

async function startKeycard({ redisUrl, keycard }: ClosingNodeSettings): Promise<number> {
  const config = readConfig({ PORT: "0", HOST: "127.0.0.1", LOG_LEVEL: "silent", REDIS_URL: redisUrl, ...keycard });
  const log = createNodeLog({ node: config.NODE_NAME, cluster: config.CLUSTER, level: config.LOG_LEVEL });
  const node = await startNode(config, log, (io, door) => {
    servers.set("keycard", io);
    takeRooms(io);
    isReady = () => door.ready();
    (io as unknown as { httpServer: NodeJS.EventEmitter }).httpServer.prependListener("request", ({ url }) => {
      if (url === "/events") firstPushAt ??= process.hrtime.bigint();
    });
  });
  return node.port;
}

async function startPeer(name: AdapterName, redisUrl: string): Promise<number> {
  const http = createServer();
  const io = new Server(http, { ...SETTINGS, adapter: await adapterOf(name, redisUrl) });
  takeRooms(io);
  servers.set(name, io);
  await new Promise<void>((resolve) => http.listen(0, "127.0.0.1", resolve));
  return (http.address() as AddressInfo).port;
}

async function adapterOf(name: AdapterName, redisUrl: string): Promise<NonNullable<ServerOptions["adapter"]>> {
  const pub = clientOf(redisUrl);
  if (name === "streams") {
    const streams = (await import(peerPath("@socket.io/redis-streams-adapter"))) as StreamsAdapter;
    return streams.createAdapter(pub, { streamName: name });
  }
  const sub = clientOf(redisUrl);
  if (name === "sharded") return createShardedAdapter(pub, sub, { channelPrefix: name });
  return createAdapter(pub, sub, { key: name });
}

interface StreamsAdapter {
  createAdapter(client: Redis, options: { streamName: string }): NonNullable<ServerOptions["adapter"]>;
}

function clientOf(redisUrl: string): Redis {
  const redis = new Redis(redisUrl);
  redis.on("error", () => {}); // a link that is cut
  return redis;
}

/** @returns when it was called, by the machine's monotonic clock */
function disconnectRooms({ kind, rooms }: { readonly kind: AdapterName; readonly rooms: string[] }): bigint {
  const calledAt = process.hrtime.bigint();
  servers.get(kind)?.in(rooms).disconnectSockets(true);
  return calledAt;
}

serveMeasured(async (settings: ClosingNodeSettings) => {
  const ports: Partial<Record<Kind, number>> = {};
  for (const kind of settings.kinds) {
    ports[kind] = kind === "keycard" ? await startKeycard(settings) : await startPeer(kind, settings.redisUrl);
  }
  const [pub, sub] = [clientOf(settings.redisUrl), clientOf(settings.redisUrl)];
  await sub.subscribe(HOP);
  sub.on("message", () => {
    hoppedAt = process.hrtime.bigint();
  });
  const actions = {
    untilReady: async () => void (await isReady()),
    sockets: (kind: Kind) => servers.get(kind)?.of("/").sockets.size ?? 0,
    disconnectRooms,
    /** When the first event came since this was asked last. */
    pushedAt() {
      const at = firstPushAt;
      firstPushAt = undefined;
      return at;
    },
    hoppedAt: () => hoppedAt,
    hop() {
      const at = process.hrtime.bigint();
      void pub.publish(HOP, "");
      return at;
    },
  };
  return { ready: { ports } satisfies ClosingNodeReady, actions };
});

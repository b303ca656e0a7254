/**
 * One Socket.IO server with the Redis adapter, and at its door one of those that are compared: nobody, what tutorials show, two libraries, Keycard.
 * All else is the same. It keeps the sockets until it is told to let them go.
 */
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { createAdapter } from "@socket.io/redis-adapter";
import { Redis } from "ioredis";
import { Server, type Socket } from "socket.io";
import { protect } from "../../realtime/protect.ts";
import { serveMeasured } from "./measured-process.ts";
import { peerPath } from "./peers.ts";

export type Door = "bare" | "tutorial" | "blacklist" | "thream" | "auth0" | "keycard";

export interface ServerSettings {
  readonly door: Door;
  readonly redisUrl: string;
  /** Of HMAC tokens: a string, as in tutorials. */
  readonly secret: string;
  /** Of all others. */
  readonly issuer: string;
  readonly audience: string;
  readonly clusterSecret: string;
}

export interface ServerReady {
  readonly port: number;
}

type Middleware = (socket: Socket, next: (error?: Error) => void) => void;
interface JsonWebToken {
  verify(token: unknown, secret: string): object;
}

/** Nobody is turned away for coming too often: all come from one address. */
const UNLIMITED = { burst: 1_000_000, perSecond: 1_000_000 };
/** Longer than a benchmark takes: what it costs is none of a handshake's. */
const FEED_CHECK_MS = 3_600_000;

serveMeasured(async (settings: ServerSettings) => {
  const redis = new Redis(settings.redisUrl);
  const http = createServer();
  const io = new Server(http, { adapter: createAdapter(redis.duplicate(), redis.duplicate()), serveClient: false });
  await guard(io, redis, settings);
  await new Promise<void>((resolve) => http.listen(0, "127.0.0.1", resolve));
  const clients = () => Object.values((io.engine as unknown as { clients: Record<string, Closable> }).clients);
  return {
    ready: { port: (http.address() as AddressInfo).port } satisfies ServerReady,
    actions: {
      connected: () => io.sockets.sockets.size,
      async letGo() {
        for (const client of clients()) client.close(true);
        while (io.engine.clientsCount > 0) await new Promise((resolve) => setTimeout(resolve, 5));
      },
    },
  };
});

interface Closable {
  close(discard: boolean): void;
}

async function guard(io: Server, redis: Redis, settings: ServerSettings): Promise<void> {
  const { door, secret, issuer, audience, clusterSecret } = settings;
  if (door === "keycard") {
    const issuers = [{ issuer, audience }];
    const limits = { connectionsPerAddress: UNLIMITED };
    const own = protect(io, { redis, issuers, cluster: "test", clusterSecret, limits, feedCheckMs: FEED_CHECK_MS });
    await own.ready();
  } else if (door !== "bare") {
    io.use(await MIDDLEWARE[door](secret, redis));
  }
}

const MIDDLEWARE: Readonly<
  Record<Exclude<Door, "bare" | "keycard">, (secret: string, redis: Redis) => Promise<Middleware>>
> = {
  async tutorial(secret) {
    const jwt = await jsonWebToken();
    return (socket, next) => {
      try {
        socket.data.user = jwt.verify(socket.handshake.auth.token, secret);
        next();
      } catch {
        next(new Error("unauthorized"));
      }
    };
  },
  async blacklist(secret, redis) {
    const jwt = await jsonWebToken();
    return async (socket, next) => {
      const { token } = socket.handshake.auth;
      try {
        socket.data.user = jwt.verify(token, secret);
        next((await redis.get(`blacklist:${token}`)) === null ? undefined : new Error("unauthorized"));
      } catch {
        next(new Error("unauthorized"));
      }
    };
  },
  async thream(secret) {
    return (await import(peerPath("@thream/socketio-jwt"))).authorize({ secret });
  },
  async auth0(secret) {
    return (await import(peerPath("socketio-jwt"))).default.authorize({ secret, handshake: true });
  },
};

async function jsonWebToken(): Promise<JsonWebToken> {
  return (await import(peerPath("jsonwebtoken"))).default;
}

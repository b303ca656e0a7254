/** A node: HTTP, Socket.IO with the Redis adapter, and the door. An app's own handlers are put on top. */
import { randomBytes } from "node:crypto";
import { createServer, type IncomingMessage } from "node:http";
import type { AddressInfo } from "node:net";
import type { Logger } from "pino";
import { Server } from "socket.io";
import { createAppAdapter } from "./app-adapter.ts";
import type { Config } from "./config.ts";
import { createMetrics } from "./metrics.ts";
import { type Door, protect } from "./protect.ts";
import { connectRedis } from "./redis.ts";

/** An app's own part of a node. */
export type Handlers = (io: Server, door: Door) => void | Promise<void>;

export interface Node {
  readonly door: Door;
  readonly port: number;
  /** Lets no new socket in, sends those that are open elsewhere, and stops. */
  stop(): Promise<void>;
}

/** A token of the largest size fits, and little else: this much is read from somebody whom nobody knows yet. */
const MAX_PACKET_BYTES = 64 * 1024;
const IDLE_SWEEP_MS = 50;
/** Of chance in the id of a transport, which nobody must guess. */
const SID_BYTES = 18;
/** How long a connection may stay open without having been let in. */
const CONNECT_TIMEOUT_MS = 10_000;

export async function startNode(config: Config, log: Logger, handlers: Handlers | undefined): Promise<Node> {
  const redis = connectRedis(config);
  const messages = await createAppAdapter(redis, log);
  const http = createServer();
  const io = new Server(http, {
    adapter: messages.adapter,
    serveClient: false,
    maxHttpBufferSize: MAX_PACKET_BYTES,
    connectTimeout: CONNECT_TIMEOUT_MS,
    cors: { origin: config.ALLOWED_ORIGINS.includes("*") ? true : [...config.ALLOWED_ORIGINS], credentials: true },
    // CORS does not cover WebSocket, so the origin is judged here for both transports.
    allowRequest: (request, decide) => decide(null, isAllowedOrigin(config, request)),
  });
  const door = protect(io, {
    redis,
    issuers: [
      {
        issuer: config.ISSUER,
        audience: config.AUDIENCE,
        jwksUri: config.JWKS_URL,
        feed: config.FEED_URL,
        algorithms: config.ALGORITHMS.length > 0 ? config.ALGORITHMS : undefined,
      },
    ],
    cluster: config.CLUSTER,
    node: config.NODE_NAME,
    clusterSecret: config.CLUSTER_SECRET,
    leaseMs: config.LEASE_SECONDS * 1000,
    fencedKeepSeconds: config.FENCED_KEEP_SECONDS,
    replicas: config.REDIS_WAIT_REPLICAS,
    credentials: {
      cookie:
        config.TOKEN_COOKIE === undefined ? undefined : { name: config.TOKEN_COOKIE, origins: config.ALLOWED_ORIGINS },
      ticket: config.QUERY_TICKET === "on",
      queryToken: config.QUERY_TOKEN === "on",
    },
    lobby: config.LOBBY_SECONDS > 0 ? { timeoutMs: config.LOBBY_SECONDS * 1000 } : undefined,
    expiryLeadSeconds: config.EXPIRY_LEAD_SECONDS,
    limits: { trustedProxies: config.TRUSTED_PROXIES },
  });
  // A proxy knows by it where each request of a transport belongs, without a cookie and without having seen the first one.
  io.engine.generateId = () => `${door.node}.${randomBytes(SID_BYTES).toString("base64url")}`;
  logEvents(log, door);
  const metrics = createMetrics(door);
  http.on("request", (request, response) => {
    if (request.url?.startsWith(io.path()) || door.receive(request, response)) return;
    if (request.url === "/metrics" && request.method === "GET") {
      metrics.text().then(
        (text) => response.writeHead(200, { "content-type": metrics.contentType }).end(text),
        (err: unknown) => {
          log.error({ err }, "the metrics could not be collected");
          response.writeHead(500, { "content-length": "0" }).end();
        },
      );
      return;
    }
    response.writeHead(404, { "content-length": "0" }).end();
  });
  await handlers?.(io, door);
  await new Promise<void>((resolve, reject) => {
    http.once("error", reject);
    http.listen(config.PORT, config.HOST, resolve);
  });
  const { port } = http.address() as AddressInfo;
  log.info({ port, node: door.node, cluster: config.CLUSTER }, "listening");
  door.ready().then(() => log.info({ node: door.node }, "ready"));

  return {
    door,
    port,
    async stop() {
      door.drain();
      await door.close();
      const closed = io.close();
      // Connections that were busy when it began, and that a proxy would now keep for later.
      const sweep = setInterval(() => http.closeIdleConnections(), IDLE_SWEEP_MS);
      await closed;
      clearInterval(sweep);
      messages.disconnect();
      redis.disconnect();
    },
  };
}

function isAllowedOrigin(config: Config, request: IncomingMessage): boolean {
  const { origin } = request.headers;
  return origin === undefined || config.ALLOWED_ORIGINS.includes("*") || config.ALLOWED_ORIGINS.includes(origin);
}

function logEvents(log: Logger, { events }: Door): void {
  events.on("admitted", (about) => log.debug(about, "admitted"));
  events.on("refused", ({ cause, ...about }) => {
    if (about.code === "internal") log.error({ ...about, err: cause }, "refused");
    else log.info(about, "refused");
  });
  events.on("renewed", (about) => log.debug(about, "renewed"));
  events.on("expired", (about) => log.info(about, "expired"));
  events.on("revoked", (about) => log.info(about, "revoked"));
  events.on("ignored", (about) => log.warn(about, "somebody who is not trusted wrote to Redis"));
  events.on("fenced", (about) => log.error(about, "fenced: neither Redis nor the edge can be reached"));
  events.on("link", ({ link }) => {
    if (link === "redis") log.info({ link }, "revocations come through Redis");
    else log.warn({ link: link ?? "none" }, link === "feed" ? "Redis is away; following the edge's feed" : "cut off");
  });
  events.on("back", ({ message }) => log.info(message));
  events.on("problem", ({ message, error }) => log.warn({ err: error }, message));
}

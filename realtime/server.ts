/** A node: HTTP, Socket.IO with the Redis adapter, and the door. An app's own handlers are put on top. */
import { randomBytes } from "node:crypto";
import { readFileSync } from "node:fs";
import { createServer, type Server as HttpServer, type IncomingMessage } from "node:http";
import type { AddressInfo } from "node:net";
import { Server } from "socket.io";
import { createAppAdapter } from "./app-adapter.ts";
import type { Config } from "./config.ts";
import { logEvents, type NodeLog } from "./log-lines.ts";
import { createMetrics, type Metrics } from "./metrics.ts";
import { type Door, protect } from "./protect.ts";
import { connectRedis } from "./redis.ts";

/** An app's own part of a node. */
export type Handlers = (io: Server, door: Door) => void | Promise<void>;

export interface Node {
  readonly door: Door;
  readonly port: number;
  /** Where the metrics are, if not at `port`. */
  readonly metricsPort?: number | undefined;
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

const VERSION: string = JSON.parse(readFileSync(new URL("../package.json", import.meta.url), "utf8")).version;

export async function startNode(config: Config, log: NodeLog, handlers: Handlers | undefined): Promise<Node> {
  const metrics = createMetrics({ version: VERSION }, (err) =>
    log.error({ err }, "the metrics could not be collected"),
  );
  const redis = connectRedis(config, () => metrics.connection("sentinel", "lost"));
  const messages = await createAppAdapter(redis, {
    onProblem: (message, err, times) => log.warn({ err, times }, message),
    onBack: (message, ended) => log.info(ended, message),
    onAttempt: (outcome) => metrics.connection("adapter", outcome),
    secrets: config.SEALED_ADAPTER === "on" ? config.CLUSTER_SECRET : undefined,
    onForged: () => door.events.emit("ignored", { detail: "a message of the adapter" }),
  });
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
  const door: Door = protect(io, {
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
    keepRequest: config.KEEP_REQUEST === "on",
  });
  // A proxy knows by it where each request of a transport belongs, without a cookie and without having seen the first one.
  io.engine.generateId = () => `${door.node}.${randomBytes(SID_BYTES).toString("base64url")}`;
  logEvents(log, door);
  metrics.watch(door, io);
  const isScrapedHere = config.METRICS_PORT === undefined;
  http.on("request", (request, response) => {
    if (request.url?.startsWith(io.path()) || door.receive(request, response)) return;
    if (isScrapedHere && metrics.receive(request, response)) return;
    response.writeHead(404, { "content-length": "0" }).end();
  });
  await handlers?.(io, door);
  const metricsServer = isScrapedHere ? undefined : serveMetrics(metrics);
  const port = await listen(http, config.PORT, config.HOST);
  const metricsPort =
    metricsServer && (await listen(metricsServer, config.METRICS_PORT ?? 0, config.METRICS_HOST ?? config.HOST));
  log.info({ port, ...(metricsPort === undefined ? {} : { metricsPort }), version: VERSION }, "listening");
  door.ready().then(() => log.info({}, "ready"));

  return {
    door,
    port,
    metricsPort,
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
      // The last: that a node is draining shows there.
      metricsServer?.closeAllConnections();
      await new Promise((resolve) => (metricsServer === undefined ? resolve(undefined) : metricsServer.close(resolve)));
    },
  };
}

/** Metrics and nothing else, for a port that only those reach who scrape them. */
function serveMetrics(metrics: Metrics): HttpServer {
  return createServer((request, response) => {
    if (!metrics.receive(request, response)) response.writeHead(404, { "content-length": "0" }).end();
  });
}

/** @returns the port, where any was asked for */
async function listen(server: HttpServer, port: number, host: string): Promise<number> {
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject);
    server.listen(port, host, resolve);
  });
  return (server.address() as AddressInfo).port;
}

function isAllowedOrigin(config: Config, request: IncomingMessage): boolean {
  const { origin } = request.headers;
  return origin === undefined || config.ALLOWED_ORIGINS.includes("*") || config.ALLOWED_ORIGINS.includes(origin);
}

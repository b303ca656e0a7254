/** What stays of the request that opened a socket's transport: what apps ask it for, and all of it where they have put something on it. */
import { createServer, IncomingMessage } from "node:http";
import type { AddressInfo } from "node:net";
import { Redis } from "ioredis";
import { Server } from "socket.io";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { until } from "../../infra/until.ts";
import { type Door, type ProtectedSocket, type ProtectOptions, protect } from "../../realtime/protect.ts";
import { AUDIENCE, CLUSTER_SECRET, connected, startCluster, type TestCluster } from "../support/realtime-cluster.ts";

let cluster: TestCluster;
const stops: (() => Promise<unknown>)[] = [];

beforeAll(async () => {
  cluster = await startCluster();
});

afterAll(async () => {
  for (const stop of stops.toReversed()) await stop();
  await cluster.stop();
});

interface OwnServer {
  readonly io: Server;
  readonly door: Door;
  /** As `cluster.client` takes it. */
  readonly node: Parameters<TestCluster["client"]>[0];
  /** Whether the request was whole when the app first saw each socket. */
  readonly wasWhole: boolean[];
}

async function startServer(options: Partial<ProtectOptions> = {}): Promise<OwnServer> {
  const http = createServer();
  const io = new Server(http);
  const redis = new Redis(cluster.redis.url);
  const door = protect(io, {
    redis,
    issuers: [{ issuer: cluster.issuer.url, audience: AUDIENCE }],
    cluster: "test",
    clusterSecret: CLUSTER_SECRET,
    ...options,
  });
  const wasWhole: boolean[] = [];
  io.on("connection", ({ request }) => wasWhole.push(request instanceof IncomingMessage));
  io.of("/second");
  await new Promise<void>((resolve) => http.listen(0, "127.0.0.1", resolve));
  const node = { url: `http://127.0.0.1:${(http.address() as AddressInfo).port}` } as OwnServer["node"];
  stops.push(
    async () => redis.disconnect(),
    async () => io.close(),
    () => door.close(),
  );
  await door.ready();
  return { io, door, node, wasWhole };
}

async function onlySocket({ io }: OwnServer): Promise<ProtectedSocket> {
  const sockets = () => [...io.sockets.sockets.values()];
  await until("it is there alone", () => sockets().length === 1);
  return sockets()[0] as unknown as ProtectedSocket;
}

describe.each([["websocket"], ["polling"]])("over %s", (transport) => {
  const options = { transports: [transport], extraHeaders: { "x-asked-later": "yes" } };

  it("the app's first look is at the whole request, and later looks find headers, URL, method and connection", async () => {
    const server = await startServer();
    const client = cluster.client(server.node, await cluster.issuer.token(), options);
    await connected(client);
    const { request, handshake, conn } = await onlySocket(server);
    expect(server.wasWhole).toEqual([true]);
    expect(request).not.toBeInstanceOf(IncomingMessage);
    expect(request.headers).toMatchObject({ "x-asked-later": "yes" });
    expect([request.method, request.url]).toEqual(["GET", handshake.url]);
    expect(request.socket.remoteAddress).toBe(conn.remoteAddress);
    expect(request.connection).toBe(request.socket);
    expect(handshake.headers).toMatchObject({ "x-asked-later": "yes" });
    expect(handshake.query).toMatchObject({ EIO: "4" });
    client.disconnect();
  });

  it("another namespace of the same transport is judged by what it was: its header, and its query", async () => {
    const server = await startServer({ credentials: { queryToken: true } });
    const token = await cluster.issuer.token();
    for (const bearing of [{ extraHeaders: { authorization: `Bearer ${token}` } }, { query: { token } }]) {
      const first = cluster.client(server.node, undefined, {
        ...options,
        ...bearing,
        forceNew: false,
        multiplex: true,
      });
      await connected(first);
      const second = first.io.socket("/second").connect();
      await until("the second is in", () => second.connected);
      expect(second.io.engine).toBe(first.io.engine);
      for (const socket of [first, second]) socket.disconnect();
    }
  });

  it("a request on which the app has put a session stays whole", async () => {
    const server = await startServer();
    server.io.engine.use((request: IncomingMessage, _response: unknown, next: () => void) => {
      Object.assign(request, { session: { views: 1 } });
      next();
    });
    await connected(cluster.client(server.node, await cluster.issuer.token(), options));
    const { request } = await onlySocket(server);
    expect(request).toBeInstanceOf(IncomingMessage);
    expect(request).toMatchObject({ session: { views: 1 } });
  });

  it("every request stays whole where the app has said so", async () => {
    const server = await startServer({ keepRequest: true });
    await connected(cluster.client(server.node, await cluster.issuer.token(), options));
    expect((await onlySocket(server)).request).toBeInstanceOf(IncomingMessage);
  });
});

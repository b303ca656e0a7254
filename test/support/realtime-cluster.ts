/**
 * Realtime nodes in this process, on a real Redis of their own, trusting an issuer whose keys we hold: every token
 * and every event is really signed, really verified and really travels.
 */

import { mkdtemp, rm } from "node:fs/promises";
import { createServer } from "node:http";
import {
  type AddressInfo,
  connect as connectTcp,
  createServer as createTcpServer,
  type Socket as TcpSocket,
} from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pino } from "pino";
import { io, type ManagerOptions, type Socket, type SocketOptions } from "socket.io-client";
import {
  type AccessTokenClaims,
  signAccessToken,
  signTicket,
  signTyped,
  type TicketClaims,
} from "#contract/access-token";
import {
  type ClusterReceipt,
  RECEIPT_QUERY_TYPE,
  type RevocationEvent,
  type RevocationTarget,
  SECURITY_EVENT_MEDIA_TYPE,
  signRevocation,
} from "#contract/revocation";
import { obtainRedisServer, type RedisProcess, startRedis } from "../../infra/redis.ts";
import { until } from "../../infra/until.ts";
import { readConfig } from "../../realtime/config.ts";
import { type Handlers, type Node, startNode } from "../../realtime/server.ts";
import { createSigner, type TestSigner } from "./tokens.ts";

export const CLUSTER = "test";
export const AUDIENCE = "keycard";

export interface TestIssuer {
  readonly url: string;
  readonly signer: TestSigner;
  /** How often its keys were asked for. */
  readonly asked: () => number;
  /** Publishes another key besides its own, until what is returned is called. */
  publish(signer: TestSigner): () => void;
  token(claims?: Partial<AccessTokenClaims>, signer?: TestSigner): Promise<string>;
  set(
    event?: Partial<RevocationEvent>,
    envelope?: { audience?: string; issuer?: string; signer?: TestSigner },
  ): Promise<string>;
  ticket(claims?: Partial<TicketClaims>): Promise<string>;
  query(): Promise<string>;
  stop(): Promise<void>;
  start(): Promise<void>;
}

let serial = 0;
const next = (prefix: string) => `${prefix}${++serial}`;
const nowSeconds = () => Math.floor(Date.now() / 1000);

export async function createIssuer(): Promise<TestIssuer> {
  const signer = await createSigner("ES256", next("k"));
  const keys = [signer.publicJwk];
  let requests = 0;
  const server = createServer((_request, response) => {
    requests += 1;
    response.setHeader("content-type", "application/json").end(JSON.stringify({ keys }));
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo;
  const url = `http://127.0.0.1:${port}`;
  return {
    url,
    signer,
    asked: () => requests,
    publish(other) {
      keys.push(other.publicJwk);
      return () => void keys.splice(keys.indexOf(other.publicJwk), 1);
    },
    token(claims, by = signer) {
      const sub = claims?.sub ?? next("u_");
      const iat = nowSeconds();
      return signAccessToken(
        {
          iss: url,
          aud: AUDIENCE,
          sub,
          client_id: "test",
          iat,
          exp: iat + 300,
          jti: next("t_"),
          sid: next(`${sub}.s`),
          auth_time: iat,
          gen: 1,
          ...claims,
        },
        by.key,
      );
    },
    set(event, envelope) {
      const seq = ++serial;
      const body = { ...revocationOf([{ kind: "everyone", cutoff: 0 }]), id: `rev_${seq}`, seq, ...event };
      const issuedAt = nowSeconds();
      const header = { issuer: envelope?.issuer ?? url, audience: envelope?.audience ?? CLUSTER, issuedAt };
      return signRevocation(body, header, (envelope?.signer ?? signer).key);
    },
    ticket(claims) {
      const iat = nowSeconds();
      const sub = claims?.sub ?? next("u_");
      const times = { iat, exp: iat + 30, auth_time: iat, gen: 1, access: { jti: next("t_"), exp: iat + 300 } };
      const names = { iss: url, aud: AUDIENCE, sub, client_id: "test", jti: next("ticket_"), sid: `${sub}.s` };
      return signTicket({ ...names, ...times, ...claims }, signer.key);
    },
    query: () =>
      signTyped(RECEIPT_QUERY_TYPE, { iss: url, aud: CLUSTER, iat: nowSeconds(), exp: nowSeconds() + 60 }, signer.key),
    async stop() {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
    async start() {
      await new Promise<void>((resolve) => server.listen(port, "127.0.0.1", resolve));
    },
  };
}

export function revocationOf(targets: readonly RevocationTarget[]): RevocationEvent {
  const seq = ++serial;
  const decided_at = Date.now();
  const expires_at = nowSeconds() + 400;
  return { id: `rev_${seq}`, seq, targets, code: "session_revoked", decided_at, expires_at };
}

export interface TestNode extends Node {
  readonly url: string;
  /** Every line it logged. */
  readonly lines: string[];
}

export interface TestCluster {
  readonly redis: RedisProcess;
  readonly issuer: TestIssuer;
  startNode(settings?: Record<string, string>, handlers?: Handlers): Promise<TestNode>;
  /** A stock client, with nothing set that an app would not set. */
  client(node: TestNode, token: unknown, options?: Partial<ManagerOptions & SocketOptions>): TestClient;
  /** Pushes an event to a node as the edge does. */
  push(node: TestNode, set: string): Promise<Response>;
  /** Revokes and waits until the receipt has nothing pending. */
  revoke(
    node: TestNode,
    targets: readonly RevocationTarget[],
    event?: Partial<RevocationEvent>,
  ): Promise<ClusterReceipt>;
  receipt(node: TestNode, id: string, waitMs?: number): Promise<ClusterReceipt>;
  stop(): Promise<void>;
}

export interface TestClient extends Socket {
  /** Everything that happened to it, in order: "connect", "connect_error:code", "unauthorized:code", "disconnect:reason". */
  readonly history: string[];
}

export async function startCluster(): Promise<TestCluster> {
  const dir = await mkdtemp(join(tmpdir(), "keycard-test-"));
  const redis = await startRedis({ binary: await obtainRedisServer(), dir, persist: true });
  const issuer = await createIssuer();
  const nodes: TestNode[] = [];
  const clients: Socket[] = [];

  async function receipt(node: TestNode, id: string, waitMs = 5_000): Promise<ClusterReceipt> {
    const headers = { authorization: `Bearer ${await issuer.query()}` };
    const response = await fetch(`${node.url}/receipts/${id}?wait=${waitMs}`, { headers });
    if (response.status !== 200) throw new Error(`the receipt query answered ${response.status}`);
    return (await response.json()) as ClusterReceipt;
  }

  function push(node: TestNode, set: string): Promise<Response> {
    const headers = { "content-type": SECURITY_EVENT_MEDIA_TYPE, accept: "application/json" };
    return fetch(`${node.url}/events`, { method: "POST", headers, body: set });
  }

  return {
    redis,
    issuer,
    push,
    receipt,
    async startNode(settings = {}, handlers) {
      const config = readConfig({
        PORT: "0",
        HOST: "127.0.0.1",
        NODE_NAME: next("node-"),
        CLUSTER,
        REDIS_URL: redis.url,
        ISSUER: issuer.url,
        ALLOWED_ORIGINS: "http://app.test",
        ...settings,
      });
      const lines: string[] = [];
      const log = pino({ level: "debug" }, { write: (line: string) => void lines.push(line) });
      const node = await startNode(config, log, handlers);
      nodes.push(Object.assign(node, { url: `http://127.0.0.1:${node.port}`, lines }));
      return nodes.at(-1) as TestNode;
    },
    client(node, token, options = {}) {
      const socket = io(node.url, { auth: { token }, transports: ["websocket"], forceNew: true, ...options });
      const history: string[] = [];
      socket.on("connect", () => history.push("connect"));
      socket.on("connect_error", (error: Error & { data?: { code?: string } }) =>
        history.push(`connect_error:${error.data?.code ?? "transport"}`),
      );
      socket.on("unauthorized", (error: { data: { code: string } }) => history.push(`unauthorized:${error.data.code}`));
      socket.on("disconnect", (reason) => history.push(`disconnect:${reason}`));
      clients.push(socket);
      return Object.assign(socket, { history });
    },
    async revoke(node, targets, event) {
      const whole = { ...revocationOf(targets), ...event };
      const response = await push(node, await issuer.set(whole));
      if (response.status !== 202) throw new Error(`the event was answered ${response.status}`);
      return receipt(node, whole.id);
    },
    async stop() {
      for (const socket of clients) socket.disconnect();
      for (const node of nodes) await node.stop();
      await issuer.stop();
      await redis.stop();
      await rm(dir, { recursive: true, force: true });
    },
  };
}

export async function connected(client: TestClient): Promise<void> {
  await until("the client is connected", () => client.connected);
}

/** A link that can be cut: every byte to and from `port` goes through it. */
export interface Link {
  readonly port: number;
  /** Breaks what is open and refuses what is new. */
  cut(): void;
  /** Keeps connections open and forwards nothing. */
  stall(): void;
  heal(): void;
  close(): Promise<void>;
}

export async function linkTo(port: number): Promise<Link> {
  const open = new Set<TcpSocket>();
  let state: "open" | "cut" | "stalled" = "open";
  const server = createTcpServer((inward) => {
    if (state === "cut") {
      inward.destroy();
      return;
    }
    const outward = connectTcp(port, "127.0.0.1");
    for (const [from, to] of [
      [inward, outward],
      [outward, inward],
    ] as const) {
      open.add(from);
      from.on("data", (chunk) => {
        if (state === "open") to.write(chunk);
      });
      from.on("error", () => to.destroy()); // the other end left; so does this one
      from.on("close", () => {
        open.delete(from);
        to.destroy();
      });
    }
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const breakOpen = () => {
    for (const socket of open) socket.destroy();
  };
  return {
    port: (server.address() as AddressInfo).port,
    cut() {
      state = "cut";
      breakOpen();
    },
    stall() {
      state = "stalled";
    },
    heal() {
      // Bytes swallowed while it was stalled are gone, so a connection from then cannot go on.
      if (state === "stalled") breakOpen();
      state = "open";
    },
    async close() {
      breakOpen();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

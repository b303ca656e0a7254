/**
 * Realtime nodes in this process, on a real Redis of their own, trusting an issuer whose keys we hold: every token
 * and every event is really signed, really verified and really travels.
 */

import { mkdtemp, rm } from "node:fs/promises";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { io, type ManagerOptions, type Socket, type SocketOptions } from "socket.io-client";
import { type AccessTokenClaims, signAccessToken, signTicket, type TicketClaims } from "#contract/access-token";
import {
  type ClusterReceipt,
  type ClusterSecrets,
  FEED_PAGE_EVENTS,
  type FeedQuery,
  JWT_MEDIA_TYPE,
  signFeedPage,
  signReceiptQuery,
  verifyFeedQuery,
  verifyReceipts,
} from "#contract/cluster";
import {
  type NodeAnswer,
  type NodeAnswers,
  type NodeQuestion,
  signNodeQuery,
  verifyNodeAnswers,
} from "#contract/node-query";
import {
  type RevocationEvent,
  type RevocationTarget,
  SECURITY_EVENT_MEDIA_TYPE,
  signRevocation,
} from "#contract/revocation";
import { obtainRedisServer, type RedisProcess, startRedis } from "../../infra/redis.ts";
import { until } from "../../infra/until.ts";
import { readConfig } from "../../realtime/config.ts";
import { createNodeLog } from "../../realtime/log-lines.ts";
import { type Handlers, type Node, startNode } from "../../realtime/server.ts";
import { createSigner, type TestSigner } from "./tokens.ts";

export const CLUSTER = "test";
export const CLUSTER_SECRET = "what the nodes of the test cluster share";
const SECRETS: ClusterSecrets = [CLUSTER_SECRET];
export const AUDIENCE = "keycard";

export interface TestIssuer {
  readonly url: string;
  readonly signer: TestSigner;
  /** How often its keys were asked for. */
  readonly asked: () => number;
  /** What was asked of its feed. */
  readonly feedQueries: readonly FeedQuery[];
  /** Notes an event in its log, which the feed tells. */
  record(event: RevocationEvent): void;
  /** The feed tells so many events in one page until what is returned is called. */
  tellInPagesOf(events: number): () => void;
  /** The feed answers nobody until what is returned is called. */
  silenceFeed(): () => void;
  /** Publishes another key besides its own, until what is returned is called. */
  publish(signer: TestSigner): () => void;
  token(claims?: Partial<AccessTokenClaims>, signer?: TestSigner): Promise<string>;
  set(
    event?: Partial<RevocationEvent>,
    envelope?: { audience?: string; issuer?: string; signer?: TestSigner },
  ): Promise<string>;
  ticket(claims?: Partial<TicketClaims>): Promise<string>;
  /** A query for receipts, and what its answer must repeat. */
  query(...ids: string[]): Promise<{ readonly jwt: string; readonly nonce: string }>;
  /** A question to all nodes, likewise. */
  nodeQuery(question: NodeQuestion, by?: TestSigner): Promise<{ readonly jwt: string; readonly nonce: string }>;
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
  const events = new Map<number, RevocationEvent>();
  const feedQueries: FeedQuery[] = [];
  let feedIsSilent = false;
  let perPage = FEED_PAGE_EVENTS;
  const server = createServer((request, response) => {
    if (request.url?.startsWith("/revocations")) {
      if (feedIsSilent) response.writeHead(503).end();
      else answerFeed(request, response).catch(() => response.writeHead(401).end());
      return;
    }
    requests += 1;
    response.setHeader("content-type", "application/json").end(JSON.stringify({ keys }));
  });

  /** As the edge does, but for waiting longer than a moment. */
  async function answerFeed(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const bearer = request.headers.authorization?.slice("Bearer ".length);
    const query = await verifyFeedQuery(bearer, url, () => SECRETS);
    feedQueries.push(query);
    const params = new URL(request.url ?? "", url).searchParams;
    const after = Number(params.get("after"));
    const news = () => [...events.values()].filter(({ seq }) => seq > after);
    const until = Date.now() + Number(params.get("wait") ?? 0) * 1000;
    while (news().length === 0 && Date.now() < until && !feedIsSilent) await new Promise((go) => setTimeout(go, 5));
    const told = news().sort((a, b) => a.seq - b.seq);
    const shown = told.slice(0, perPage);
    const upto = shown.length < told.length ? (shown.at(-1)?.seq ?? after) : serial;
    const page = { after, upto, head: serial, first: 1, events: shown };
    const envelope = { issuer: url, audience: query.cluster, issuedAt: nowSeconds(), nonce: query.nonce };
    response.setHeader("content-type", JWT_MEDIA_TYPE).end(await signFeedPage(page, envelope, signer.key));
  }

  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo;
  const url = `http://127.0.0.1:${port}`;
  return {
    url,
    signer,
    asked: () => requests,
    feedQueries,
    record: (event) => void events.set(event.seq, event),
    tellInPagesOf(events) {
      perPage = events;
      return () => {
        perPage = FEED_PAGE_EVENTS;
      };
    },
    silenceFeed() {
      feedIsSilent = true;
      return () => {
        feedIsSilent = false;
      };
    },
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
    async query(...ids) {
      const nonce = next("nonce_");
      const envelope = { issuer: url, audience: CLUSTER, issuedAt: nowSeconds(), nonce };
      return { jwt: await signReceiptQuery(ids, envelope, signer.key), nonce };
    },
    async nodeQuery(question, by = signer) {
      const nonce = next("nonce_");
      const envelope = { issuer: url, audience: CLUSTER, issuedAt: nowSeconds(), nonce };
      return { jwt: await signNodeQuery(question, envelope, by.key), nonce };
    },
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

export interface TestNodes {
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
  /** Revokes as the edge does: again until it is taken, and asks again until the receipt is told. */
  insist(node: TestNode, targets: readonly RevocationTarget[]): Promise<ClusterReceipt>;
  receipt(node: TestNode, id: string, waitMs?: number): Promise<ClusterReceipt>;
  /** Asks all nodes about themselves, by way of one. */
  ask<Q extends NodeQuestion>(node: TestNode, question: Q): Promise<NodeAnswers<NodeAnswer<Q>>>;
  stop(): Promise<void>;
}

export interface TestCluster extends TestNodes {
  readonly redis: RedisProcess;
}

export interface TestClient extends Socket {
  /** Everything that happened to it, in order: "connect", "connect_error:code", "unauthorized:code", "disconnect:reason". */
  readonly history: string[];
}

export async function startCluster(): Promise<TestCluster> {
  const dir = await mkdtemp(join(tmpdir(), "keycard-test-"));
  const redis = await startRedis({ binary: await obtainRedisServer(), dir, persist: true });
  const nodes = await startNodesOn({ REDIS_URL: redis.url });
  return {
    ...nodes,
    redis,
    async stop() {
      await nodes.stop();
      await redis.stop();
      await rm(dir, { recursive: true, force: true });
    },
  };
}

/** @param redis the settings that say where Redis is; somebody else's to stop */
export async function startNodesOn(redis: Readonly<Record<string, string>>): Promise<TestNodes> {
  const issuer = await createIssuer();
  const nodes: TestNode[] = [];
  const clients: Socket[] = [];

  async function receipt(node: TestNode, id: string, waitMs = 10_000): Promise<ClusterReceipt> {
    const { jwt, nonce } = await issuer.query(id);
    const request = { method: "POST", headers: { "content-type": JWT_MEDIA_TYPE }, body: jwt };
    const response = await fetch(`${node.url}/receipts?wait=${Math.min(waitMs, 5_000)}`, request);
    if (response.status !== 200) throw new Error(`the receipt query answered ${response.status}`);
    const [found] = await verifyReceipts(
      await response.text(),
      { cluster: CLUSTER, issuer: issuer.url, nonce },
      SECRETS,
    );
    if (found === undefined) throw new Error("the cluster does not know the event");
    // Right after the cluster's start no node can say yet whether it has seen all others.
    return found.pending.length > 0 && waitMs > 5_000 ? receipt(node, id, waitMs - 5_000) : found;
  }

  async function ask<Q extends NodeQuestion>(node: TestNode, question: Q): Promise<NodeAnswers<NodeAnswer<Q>>> {
    const { jwt, nonce } = await issuer.nodeQuery(question);
    const request = { method: "POST", headers: { "content-type": JWT_MEDIA_TYPE }, body: jwt };
    const response = await fetch(`${node.url}/nodes`, request);
    if (response.status !== 200) throw new Error(`the node query answered ${response.status}`);
    const asked = { cluster: CLUSTER, issuer: issuer.url, nonce };
    return await verifyNodeAnswers(await response.text(), question, asked, SECRETS);
  }

  function push(node: TestNode, set: string): Promise<Response> {
    const headers = { "content-type": SECURITY_EVENT_MEDIA_TYPE, accept: "application/json" };
    return fetch(`${node.url}/events`, { method: "POST", headers, body: set });
  }

  return {
    issuer,
    push,
    receipt,
    ask,
    async startNode(settings = {}, handlers) {
      const config = readConfig({
        PORT: "0",
        HOST: "127.0.0.1",
        NODE_NAME: next("node-"),
        CLUSTER,
        CLUSTER_SECRET,
        LEASE_SECONDS: "3",
        ...redis,
        ISSUER: issuer.url,
        ALLOWED_ORIGINS: "http://app.test",
        ...settings,
      });
      const lines: string[] = [];
      const about = { node: config.NODE_NAME, cluster: CLUSTER, level: "debug" };
      const log = createNodeLog(about, { write: (line: string) => void lines.push(line) });
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
      issuer.record(whole);
      const response = await push(node, await issuer.set(whole));
      if (response.status !== 202) throw new Error(`the event was answered ${response.status}`);
      return receipt(node, whole.id);
    },
    async insist(node, targets) {
      const event = revocationOf(targets);
      issuer.record(event);
      const set = await issuer.set(event);
      await until("it is taken", async () => (await push(node, set)).status === 202);
      return until("it is told", () => receipt(node, event.id).catch(() => undefined));
    },
    async stop() {
      for (const socket of clients) socket.disconnect();
      for (const node of nodes) await node.stop();
      await issuer.stop();
    },
  };
}

export async function connected(client: TestClient): Promise<void> {
  await until("the client is connected", () => client.connected);
}

/**
 * Realtime clusters as the edge meets them, over real HTTP on loopback: they take events and answer receipt queries, and do it
 * as badly as a test asks. Runs in Node, beside the tests.
 *
 * `PUT /<cluster>?edge=<kid>` with a `Manner` changes how it behaves; `GET /<cluster>?edge=<kid>` is what it was sent. Every file of tests
 * has an edge of its own, known by the keys that it signs with, and meets clusters of its own.
 */
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { decodeJwt, decodeProtectedHeader } from "jose";
import type { TestProject } from "vitest/node";
import { type ClusterReceipt, JWT_MEDIA_TYPE, signReceipts } from "#contract/cluster";
import { type NodeQuestion, type NodeSockets, type NodeStatus, signNodeAnswers } from "#contract/node-query";
import type { ClusterLife, Manner } from "./cluster.ts";
import { SECRETS } from "./cluster-secrets.ts";

interface Life extends Manner {
  sets: string[];
  queries: ClusterLife["queries"][number][];
  /** Ids of the events that are in its Redis. */
  known: Set<string>;
}

const ISSUER = "https://keycard.test";
const PATIENCE_MS = 20;

const lives = new Map<string, Life>();

export default async function setup(project: TestProject): Promise<() => Promise<void>> {
  const server = createServer((request, response) => void serve(request, response));
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  project.provide("clusterServer", `http://127.0.0.1:${(server.address() as AddressInfo).port}`);
  return () =>
    new Promise((resolve) => {
      server.close(() => resolve());
      server.closeAllConnections();
    });
}

async function serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
  const url = new URL(request.url ?? "/", "http://cluster");
  const [, name = "", action] = url.pathname.split("/");
  const body = await text(request);
  const life = lifeOf(name, edgeOf(body));
  if (name === "down") return send(response, 503);
  if (action === "events") return takeEvent(response, life, body);
  if (action === "nodes") return await answerForNodes(response, name, life, body);
  if (action === "receipts") return await answerQuery(response, name, life, body, Number(url.searchParams.get("wait")));
  const known = url.searchParams.getAll("edge").map((edge) => lifeOf(name, edge));
  if (request.method === "PUT") for (const each of known) change(each, JSON.parse(body));
  const sent = (what: "sets" | "queries") => [...new Set(known)].flatMap((each): unknown[] => each[what]);
  send(response, 200, { sets: sent("sets"), queries: sent("queries") });
}

/** The key that something is signed with. */
function edgeOf(body: string): string {
  return body.split(".").length === 3 ? (decodeProtectedHeader(body).kid ?? "") : "";
}

function change(life: Life, { flush, ...manner }: Partial<Manner> & { flush?: boolean }): void {
  Object.assign(life, manner);
  if (flush === true) life.known.clear();
}

function takeEvent(response: ServerResponse, life: Life, set: string): void {
  switch (life.events) {
    case "take":
      life.sets.push(set);
      life.known.add(decodeJwt(set).jti ?? "");
      send(response, 202);
      break;
    case "later":
      send(response, 503);
      break;
    case "refuse":
      send(response, 400, { err: "invalid_request", description: "not today" });
      break;
    case "elsewhere":
      response.writeHead(307, { location: "/thief/events" }).end();
      break;
    case "never":
  }
}

async function answerQuery(
  response: ServerResponse,
  name: string,
  life: Life,
  query: string,
  waitMs: number,
): Promise<void> {
  // The clock of the edge may be a fake one.
  const { jti: nonce = "", iat: now = 0, ids } = decodeJwt<{ ids: string[] }>(query);
  life.queries.push({ query, ids, waitMs, at: Date.now() });
  if (life.receipts === "never") return;
  if (life.receipts === "later") return send(response, 503);
  if (life.receipts === "nonsense") return send(response, 200, { expected: "everybody" });
  const end = Date.now() + waitMs;
  while (isPending(life) && Date.now() < end) await new Promise((resolve) => setTimeout(resolve, PATIENCE_MS));
  const receipts = ids.filter((id) => life.known.has(id)).map((id) => receiptOf(id, life));
  const secret = life.receipts === "forged" ? "a secret that somebody has made up" : secretOf(name);
  const answered = life.receipts === "stale" ? "the nonce of another question" : nonce;
  const envelope = { cluster: name, node: "one", issuer: ISSUER, nonce: answered };
  const answer = await signReceipts(receipts, envelope, [secret], now);
  response.writeHead(200, { "content-type": JWT_MEDIA_TYPE }).end(answer);
}

async function answerForNodes(response: ServerResponse, name: string, { nodes }: Life, query: string): Promise<void> {
  const { jti = "", iat: now = 0, question } = decodeJwt<{ question: NodeQuestion }>(query);
  if (nodes === "later") return send(response, 503);
  if (nodes === "nonsense") return send(response, 200, { answers: "everybody" });
  const [secret, nonce] = [nodes === "forged" ? "a secret that somebody has made up" : secretOf(name), jti];
  const isWhole = nodes !== "one without Redis";
  const answers = ["one", "two"].slice(0, isWhole ? 2 : 1).map((node) => nodeAnswer(node, question));
  const given = { answers, silent: isWhole ? [] : ["two"], redis: isWhole };
  const envelope = { cluster: name, node: "one", issuer: ISSUER, nonce: nodes === "stale" ? "another" : nonce };
  const answer = await signNodeAnswers(given, envelope, [secret], now);
  response.writeHead(200, { "content-type": JWT_MEDIA_TYPE }).end(answer);
}

/** Two sockets of whoever is asked about on the first node, and none on the second. */
function nodeAnswer(node: string, question: NodeQuestion): NodeStatus | NodeSockets {
  const name = { node, boot: `${node}-boot` };
  if (question.about === "sockets") {
    const times = { connected_at: 1_790_000_000, expires_at: 1_790_000_300 };
    const socket = { id: "s1", sid: `${question.sub}.a`, nsp: "/", transport: "websocket", ...times };
    return { ...name, sockets: node === "one" ? 2 : 0, listed: node === "one" ? [socket] : [] };
  }
  return {
    ...{ ...name, version: "0.0.1", started_at: 1_790_000_000_000, ready: true, link: "redis", lease_ms: 4_000 },
    ...{ applied: 1, sockets: 2, gap: false, unsettled: 0, log_silence_ms: 10 },
  };
}

function isPending({ receipts }: Life): boolean {
  return receipts === "pending";
}

function receiptOf(id: string, { receipts }: Life): ClusterReceipt {
  const two = receipts === "pending" || receipts === "fenced" ? ["two"] : [];
  return {
    id,
    expected: ["one", ...two],
    applied: [{ node: "one", applied_at: 1_790_000_000_000, closed: 2 }],
    pending: receipts === "pending" ? two : [],
    fenced: receipts === "fenced" ? [{ node: "two", fenced_at: 1_790_000_000_500 }] : [],
  };
}

function secretOf(name: string): string {
  return name === "north" || name === "south" ? SECRETS[name] : "";
}

/** What is no cluster has a name that nobody else uses. */
function lifeOf(name: string, edge: string): Life {
  const key = name === "north" || name === "south" ? `${name} ${edge}` : name;
  const fresh: Life = { events: "take", receipts: "applied", nodes: "all", sets: [], queries: [], known: new Set() };
  const known = lives.get(key) ?? fresh;
  lives.set(key, known);
  return known;
}

function send(response: ServerResponse, status: number, body?: unknown): void {
  response
    .writeHead(status, { "content-type": "application/json" })
    .end(body === undefined ? "" : JSON.stringify(body));
}

async function text(request: IncomingMessage): Promise<string> {
  let whole = "";
  for await (const chunk of request.setEncoding("utf8")) whole += chunk;
  return whole;
}

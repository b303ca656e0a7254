/**
 * Realtime clusters as the edge meets them, over real HTTP on loopback: they take events and answer receipt queries, and do it
 * as badly as a test asks. Runs in Node, beside the tests.
 *
 * `PUT /<cluster>` with a `Manner` changes how it behaves; `GET /<cluster>` is what it was sent.
 */
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import type { TestProject } from "vitest/node";
import type { ClusterLife, Manner } from "./cluster.ts";

interface Life extends Manner {
  sets: string[];
  queries: { id: string; authorization: string | undefined; wait: string | null }[];
}

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
  const [, name = "", action, id = ""] = url.pathname.split("/");
  const life = lifeOf(name);
  const body = await text(request);
  if (name === "down") return send(response, 503);
  if (action === "events") return takeEvent(response, life, body);
  if (action === "receipts") {
    life.queries.push({ id, authorization: request.headers.authorization, wait: url.searchParams.get("wait") });
    return answerQuery(response, life, id);
  }
  if (request.method === "PUT") Object.assign(life, JSON.parse(body));
  send(response, 200, { sets: life.sets, queries: life.queries } satisfies ClusterLife);
}

function takeEvent(response: ServerResponse, life: Life, set: string): void {
  switch (life.events) {
    case "take":
      life.sets.push(set);
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
  }
}

function answerQuery(response: ServerResponse, life: Life, id: string): void {
  const applied = [{ node: "one", applied_at: 1_790_000_000_000, closed: 2 }];
  const pending = life.receipts === "pending" ? ["two"] : [];
  if (life.receipts === "nonsense") send(response, 200, { id, expected: "everybody" });
  else if (life.receipts === "unknown") send(response, 404);
  else send(response, 200, { id, expected: ["one", ...pending], applied, pending });
}

function lifeOf(name: string): Life {
  const known = lives.get(name) ?? { events: "take", receipts: "applied", sets: [], queries: [] };
  lives.set(name, known);
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

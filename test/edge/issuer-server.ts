/**
 * OpenID providers as the edge meets them, over real HTTP on loopback: a discovery document and keys, and misbehaviour as a test
 * asks for it. Runs in Node, beside the tests.
 *
 * `PUT /<issuer>` with a `Provider` changes how it behaves; `GET /<issuer>` says how often its keys were fetched.
 */
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import type { TestProject } from "vitest/node";
import type { Provider } from "./issuer.ts";

interface Life extends Provider {
  fetches: number;
}

const lives = new Map<string, Life>();

export default async function setup(project: TestProject): Promise<() => Promise<void>> {
  const server = createServer((request, response) => void serve(request, response));
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  project.provide("issuerServer", `http://127.0.0.1:${(server.address() as AddressInfo).port}`);
  return () =>
    new Promise((resolve) => {
      server.close(() => resolve());
      server.closeAllConnections();
    });
}

async function serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
  const base = `http://${request.headers.host}`;
  const [, name = "", action] = (request.url ?? "").split("/");
  const life = lifeOf(name);
  if (request.method === "PUT") Object.assign(life, JSON.parse(await text(request)));
  if (action === undefined) return send(response, 200, { fetches: life.fetches });
  if (life.manner === "down") return send(response, 503, {});
  if (action === ".well-known") {
    const issuer = life.manner === "another" ? `${base}/thief` : `${base}/${name}`;
    return send(response, 200, { issuer, jwks_uri: `${base}/${name}/jwks` });
  }
  life.fetches++;
  if (life.manner === "elsewhere") return void response.writeHead(302, { location: `${base}/thief/jwks` }).end();
  const padding = life.manner === "endless" ? "x".repeat(200_000) : undefined;
  send(response, 200, { keys: life.keys, padding });
}

function lifeOf(name: string): Life {
  const known = lives.get(name) ?? { manner: "well", keys: [], fetches: 0 };
  lives.set(name, known);
  return known;
}

function send(response: ServerResponse, status: number, body: unknown): void {
  response.writeHead(status, { "content-type": "application/json" }).end(JSON.stringify(body));
}

async function text(request: IncomingMessage): Promise<string> {
  let whole = "";
  for await (const chunk of request.setEncoding("utf8")) whole += chunk;
  return whole;
}

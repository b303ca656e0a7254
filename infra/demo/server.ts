/**
 * Serves the page, and carries out its actions for nobody but the page: the server holds the admin credential, so a page
 * of another origin, or another name that points at this machine (DNS rebinding), must not be able to use it.
 */
import { readFile } from "node:fs/promises";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import { createRequire } from "node:module";
import { extname, join } from "node:path";
import { Refusal, toRefusal } from "#contract/refusal";
import { LOOPBACK } from "../ports.ts";
import type { Stack } from "../stack.ts";
import { type Actions, createActions } from "./actions.ts";

export interface DemoServer {
  readonly url: string;
  /** From here on the page works; before, it says that the stack is starting. */
  open(stack: Stack): void;
  close(): Promise<void>;
}

const CLIENT_DIST = join(createRequire(import.meta.url).resolve("socket.io-client/package.json"), "..", "dist");
const FILES: Readonly<Record<string, string>> = {
  "/": join(import.meta.dirname, "index.html"),
  "/style.css": join(import.meta.dirname, "style.css"),
  "/page.js": join(import.meta.dirname, "page.js"),
  "/sessions.js": join(import.meta.dirname, "sessions.js"),
  "/grid.js": join(import.meta.dirname, "grid.js"),
  "/revoking.js": join(import.meta.dirname, "revoking.js"),
  "/talk.js": join(import.meta.dirname, "talk.js"),
  "/icon.svg": join(import.meta.dirname, "icon.svg"),
  "/socket.io.js": join(CLIENT_DIST, "socket.io.esm.min.js"),
  "/socket.io.esm.min.js.map": join(CLIENT_DIST, "socket.io.esm.min.js.map"),
};
const MEDIA_TYPES: Readonly<Record<string, string>> = {
  ".html": "text/html; charset=utf-8",
  ".css": "text/css; charset=utf-8",
  ".js": "text/javascript; charset=utf-8",
  ".svg": "image/svg+xml",
  ".map": "application/json",
};
const API = "/api/";
const MAX_BODY_BYTES = 16 * 1024;

/** Listens on the preferred port, or on a free one if it is taken. */
export async function startDemoServer(preferred: { readonly port: number }): Promise<DemoServer> {
  let stack: Stack | undefined;
  let actions: Actions | undefined;
  let port = 0;
  const server = createServer((request, response) => {
    answer(request, response).catch((error) => refuse(response, toRefusal(error)));
  });

  async function answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const { host } = request.headers;
    setHeaders(response, stack);
    const url = URL.parse(request.url ?? "/", urlOf(port));
    if (url === null) throw new Refusal("request_malformed", { detail: "url" });
    if (host === `localhost:${port}` && request.method === "GET") {
      // The cookie of the edge belongs to a host name: page and edge must share it.
      response.writeHead(307, { location: `${urlOf(port)}${url.pathname}` }).end();
      return;
    }
    if (host !== `${LOOPBACK}:${port}`) throw new Refusal("origin_forbidden", { detail: "host" });
    if (!url.pathname.startsWith(API)) return serveFile(request, response, url.pathname);
    if (!isFromPage(request, urlOf(port))) throw new Refusal("origin_forbidden", { detail: "origin" });
    if (actions === undefined) throw new Refusal("unavailable", { retryAfterSeconds: 1 });
    const body = request.method === "POST" ? await readJson(request) : undefined;
    const result = await actions.perform(request.method ?? "GET", url.pathname.slice(API.length), body);
    send(response, result.status, result.body);
  }

  port = await listen(server, preferred.port);
  return {
    url: urlOf(port),
    open(running) {
      stack = running;
      actions = createActions(running);
    },
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}

/** Browsers set both headers themselves; a page cannot forge them, nor leave Origin off a request that changes something. */
function isFromPage(request: IncomingMessage, ownOrigin: string): boolean {
  const { origin, "sec-fetch-site": site } = request.headers;
  if (site !== undefined && site !== "same-origin") return false;
  return request.method === "GET" ? origin === undefined || origin === ownOrigin : origin === ownOrigin;
}

function setHeaders(response: ServerResponse, stack: Stack | undefined): void {
  const servers = stack === undefined ? [] : [stack.edgeUrl, ...stack.nodes.map(({ url }) => url)];
  const reached = servers.flatMap((url) => [url, url.replace(/^http/, "ws")]);
  const policy = [
    "default-src 'none'",
    "script-src 'self'",
    "style-src 'self'",
    "img-src 'self'",
    `connect-src 'self' ${reached.join(" ")}`.trim(),
    "base-uri 'none'",
    "form-action 'none'",
    "frame-ancestors 'none'",
  ];
  response.setHeader("content-security-policy", policy.join("; "));
  response.setHeader("x-content-type-options", "nosniff");
  response.setHeader("referrer-policy", "no-referrer");
  response.setHeader("cross-origin-opener-policy", "same-origin");
  response.setHeader("cross-origin-resource-policy", "same-origin");
  response.setHeader("cache-control", "no-store");
}

async function serveFile(request: IncomingMessage, response: ServerResponse, path: string): Promise<void> {
  if (request.method !== "GET" && request.method !== "HEAD") throw new Refusal("method_not_allowed");
  const file = Object.hasOwn(FILES, path) ? FILES[path] : undefined;
  if (file === undefined) throw new Refusal("not_found");
  const content = await readFile(file);
  response.writeHead(200, { "content-type": MEDIA_TYPES[extname(file)] ?? "application/octet-stream" });
  response.end(request.method === "HEAD" ? undefined : content);
}

async function readJson(request: IncomingMessage): Promise<unknown> {
  if (!/^application\/json\b/i.test(request.headers["content-type"] ?? "")) throw new Refusal("media_type_unsupported");
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of request as AsyncIterable<Buffer>) {
    size += chunk.length;
    if (size > MAX_BODY_BYTES) throw new Refusal("request_too_large");
    chunks.push(chunk);
  }
  try {
    return JSON.parse(Buffer.concat(chunks).toString("utf8"));
  } catch (error) {
    throw new Refusal("request_malformed", { cause: error });
  }
}

function refuse(response: ServerResponse, refusal: Refusal): void {
  if (refusal.code === "internal") console.error(refusal.cause);
  if (response.headersSent) response.destroy();
  else send(response, refusal.status, { status: refusal.status, title: refusal.message, ...refusal.answer() });
}

function send(response: ServerResponse, status: number, body: unknown): void {
  if (body === null) response.writeHead(status).end();
  else response.writeHead(status, { "content-type": "application/json" }).end(JSON.stringify(body));
}

function urlOf(port: number): string {
  return `http://${LOOPBACK}:${port}`;
}

async function listen(server: Server, preferred: number): Promise<number> {
  for (const port of [preferred, 0]) {
    if (!(await tryListen(server, port))) continue;
    const address = server.address();
    if (typeof address === "object" && address !== null) return address.port;
  }
  throw new Error("No free port could be had for the page.");
}

function tryListen(server: Server, port: number): Promise<boolean> {
  return new Promise((resolve, reject) => {
    const failed = (error: NodeJS.ErrnoException) => (error.code === "EADDRINUSE" ? resolve(false) : reject(error));
    server.once("error", failed);
    server.listen(port, LOOPBACK, () => {
      server.off("error", failed);
      resolve(true);
    });
  });
}

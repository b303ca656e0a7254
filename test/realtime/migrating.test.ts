/** Every block of ours in infra/MIGRATING.md, run as it stands there: only names of hosts are put in. */
import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { Redis } from "ioredis";
import { Server } from "socket.io";
import { io as connect, type Socket } from "socket.io-client";
import { afterAll, afterEach, beforeAll, expect, it } from "vitest";
import { signTyped } from "#contract/access-token";
import { until } from "../../infra/until.ts";
import { type Door, type ProtectOptions, protect, requireScope } from "../../realtime/protect.ts";
import { CLUSTER, CLUSTER_SECRET, startCluster, type TestCluster, type TestNode } from "../support/realtime-cluster.ts";

const PAGE = readFileSync(join(import.meta.dirname, "../../infra/MIGRATING.md"), "utf8");
const AUDIENCE = "https://api.example.com";

let cluster: TestCluster;
const stops: (() => unknown)[] = [];
/** What the page's own functions were called with. */
let called: string[] = [];

beforeAll(async () => {
  cluster = await startCluster();
});
afterEach(async () => {
  for (const stop of stops.splice(0).reverse()) await stop();
  called = [];
});
afterAll(() => cluster.stop());

/** The blocks of one section whose first line names them. */
function blocks(section: string, name: "keycard server" | "keycard client"): string[] {
  const text = PAGE.split(/^## /m).find((part) => part.startsWith(section)) ?? "";
  const found = [...text.matchAll(/```js\n\/\/ (.*)\n([\s\S]*?)```/g)].filter(([, first]) => first === name);
  return found.map(([, , code = ""]) => code.replace(/^import .*$/gm, ""));
}

/** Runs a block with the names that it takes as given. */
function runBlock(code: string | undefined, names: Readonly<Record<string, unknown>>, result = ""): unknown {
  if (code === undefined) throw new Error("the page has no such block");
  const here = code.replaceAll('"https://example.eu.auth0.com/"', JSON.stringify(cluster.issuer.url));
  return new Function(...Object.keys(names), `"use strict";\n${here}\n${result}`)(...Object.values(names));
}

/** An app's own server, protected by a block of the page. */
async function serve(code: string | undefined): Promise<{ url: string; door: Door }> {
  const http = createServer();
  const io = new Server(http);
  let door: Door | undefined;
  const options: ProtectOptions = {
    redis: new Redis(cluster.redis.url, { lazyConnect: true }),
    cluster: CLUSTER,
    clusterSecret: CLUSTER_SECRET,
    issuers: [{ issuer: cluster.issuer.url, audience: AUDIENCE, foreign: {} }],
  };
  const names = {
    http,
    io,
    options,
    Redis,
    requireScope,
    process: { env: { REDIS_URL: cluster.redis.url, CLUSTER_SECRET } },
    console: { log: (said: object) => called.push(JSON.stringify(said)) },
    isBanned: async (sub: string) => sub === "u_banned",
    findUser: async (sub: string) => ({ name: sub }),
    protect: (...args: Parameters<typeof protect>) => {
      door = protect(...args);
      return door;
    },
  };
  runBlock(code, names);
  io.of("/admin").on("connection", (socket) => socket.on("user", (answer) => answer(socket.data.user)));
  io.of("/tenant-acme");
  await new Promise<void>((resolve) => http.listen(0, "127.0.0.1", resolve));
  if (door === undefined) throw new Error("the block does not call protect");
  const own = door;
  stops.push(
    () => io.close(),
    () => own.close(),
  );
  await own.ready();
  return { url: `http://127.0.0.1:${(http.address() as AddressInfo).port}`, door: own };
}

function client(code: string | undefined, url: string, token: unknown, refreshed?: string): Socket {
  const names = {
    url,
    token,
    io: (to: string, options: object) => connect(to, { forceNew: true, transports: ["websocket"], ...options }),
    console: { log: (said: string) => called.push(said) },
    logInAgain: (code: string) => called.push(`logInAgain ${code}`),
    refreshToken: async () => {
      called.push("refreshToken");
      return refreshed;
    },
  };
  const socket = runBlock(code, names, "return socket;") as Socket;
  stops.push(() => socket.disconnect());
  return socket;
}

/** A token as Auth0 and the like make them. */
function token(claims: object = {}): Promise<string> {
  const now = Math.floor(Date.now() / 1000);
  const usual = { iss: cluster.issuer.url, aud: AUDIENCE, sub: "auth0|7", sid: "s7", iat: now, exp: now + 300 };
  return signTyped("JWT", { ...usual, ...claims }, cluster.issuer.signer.key);
}

it("connect with a token", async () => {
  const [server] = blocks("Connect", "keycard server");
  const [simple] = blocks("Connect", "keycard client");
  const { url } = await serve(server);
  const socket = client(simple, url, await token());
  await until("it is in", () => socket.connected);
  expect(await socket.emitWithAck("whoami")).toBe("auth0|7");
  expect((await fetch(`${url}/readyz`)).status).toBe(200);
});

it("handle errors", async () => {
  const [server] = blocks("Handle", "keycard server");
  const [handling] = blocks("Handle", "keycard client");
  const { url, door } = await serve(server);
  client(handling, url, "garbage");
  await until("it is told", () => called.includes("logInAgain token_invalid"));
  client(handling, url, await token({ exp: 1_000 }));
  await until("it is told", () => called.includes("refreshToken"));
  const socket = client(handling, url, await token({ sid: "s_ended" }));
  await until("it is in", () => socket.connected);
  const event = { targets: [{ kind: "session" as const, sid: "s_ended" }] };
  const set = await cluster.issuer.set(event);
  expect((await cluster.push((await reachable(door)) as TestNode, set)).status).toBe(202);
  await until("it is told", () => called.includes("logInAgain session_revoked"));
  expect(called.join()).toContain('"code":"token_invalid"');
  expect(called.join()).toContain('"sub":"auth0|7"');
});

/** Where events are taken in, for a block that says nothing of it. */
async function reachable(door: Door): Promise<{ url: string }> {
  const http = createServer((request, response) => void door.receive(request, response));
  await new Promise<void>((resolve) => http.listen(0, "127.0.0.1", resolve));
  stops.push(() => {
    http.closeAllConnections();
    http.close();
  });
  return { url: `http://127.0.0.1:${(http.address() as AddressInfo).port}` };
}

it("two round trips become the lobby", async () => {
  const [server] = blocks("Two", "keycard server");
  const [twoSteps, renewing] = blocks("Two", "keycard client");
  const { url } = await serve(server);
  const socket = client(twoSteps, url, await token());
  const welcome = new Promise((resolve) => socket.once("welcome", resolve));
  expect(await welcome).toBe("auth0|7");
  await until("it is told", () => called.some((said) => /^in for (299|300) s$/.test(said)));
  client(twoSteps, url, "garbage");
  await until("it is told", () => called.includes("logInAgain token_invalid"));
  const soon = Math.floor(Date.now() / 1000) + 3;
  const short = client(renewing, url, await token({ exp: soon }), await token());
  await until("it is in", () => short.connected);
  const { id } = short;
  await until("its first token is over", () => Date.now() / 1000 > soon + 1);
  expect(short.id).toBe(id);
});

it("namespaces and additional_auth become rules", async () => {
  const [server] = blocks("Namespaces", "keycard server");
  const [simple] = blocks("Connect", "keycard client");
  const { url } = await serve(server);
  const outcome = async (nsp: string, claims: object) => {
    const socket = client(simple, url + nsp, await token(claims));
    const refused = new Promise((resolve) =>
      socket.once("connect_error", (error: Error & { data?: object }) => resolve(error.data)),
    );
    return await Promise.race([refused, new Promise((resolve) => socket.once("connect", () => resolve(socket)))]);
  };
  expect(await outcome("/admin", { scope: "chat" })).toMatchObject({ requires: "scope admin" });
  expect(await outcome("/admin", { scope: "admin", sub: "u_banned" })).toMatchObject({ code: "scope_insufficient" });
  const admin = (await outcome("/admin", { scope: "admin" })) as Socket;
  expect(await admin.emitWithAck("user")).toEqual({ name: "auth0|7" });
  expect(await outcome("/tenant-acme", { tid: "globex" })).toMatchObject({ code: "scope_insufficient" });
  expect(await outcome("/tenant-acme", { tid: "acme" })).toMatchObject({ connected: true });
});

it("decoded_token becomes socket.data.session", async () => {
  const [server] = blocks("decoded_token", "keycard server");
  const [simple] = blocks("Connect", "keycard client");
  const { url } = await serve(server);
  const socket = client(simple, url, await token({ "https://example.com/roles": ["ops", "chat"] }));
  await until("it is in", () => socket.connected);
  expect(await socket.emitWithAck("scope")).toBe("ops chat");
});

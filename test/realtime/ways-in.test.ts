/**
 * Every credential × transport × namespace rule × client, and what comes of it. The table is generated from three short lists and
 * one rule for each column; a row that behaves otherwise fails by its name.
 */
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { Redis } from "ioredis";
import { Server } from "socket.io";
import { io as connect, type ManagerOptions, type SocketOptions } from "socket.io-client";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type Door, protect } from "../../realtime/protect.ts";
import { AUDIENCE, CLUSTER, CLUSTER_SECRET, startCluster, type TestCluster } from "../support/realtime-cluster.ts";

/** Its package shows no types to a resolver of today; what it does on the wire is what counts. */
const OLDEST: string = "socket.io-client-oldest";
const { io: connectOldest } = (await import(OLDEST)) as { io: typeof connect };

const ORIGIN = "http://app.test";

let cluster: TestCluster;
let server: Server;
let door: Door;
let url: string;

beforeAll(async () => {
  cluster = await startCluster();
  const http = createServer();
  server = new Server(http, { cleanupEmptyChildNamespaces: true });
  door = protect(server, {
    redis: new Redis(cluster.redis.url, { lazyConnect: true }),
    issuers: [{ issuer: cluster.issuer.url, audience: AUDIENCE }],
    cluster: CLUSTER,
    clusterSecret: CLUSTER_SECRET,
    credentials: { cookie: { name: "token", origins: [ORIGIN] }, queryToken: true },
    require: { allow: ({ sub }) => sub !== "u_banned" },
    namespaces: [
      { namespace: "/ops", scope: ["ops", "chat"] },
      { namespace: /^\/tenant-acme/, tenant: "acme" },
      { namespace: (name) => name.startsWith("/vip-"), allow: async ({ sub }) => sub === "u_vip" },
      { namespace: "/broken", allow: () => Promise.reject(new Error("the app's rule failed")) },
    ],
    limits: {
      attemptsPerConnection: 5,
      failuresPerAddress: { burst: 10_000, perSecond: 1 },
      connectionsPerAddress: { burst: 10_000, perSecond: 1 },
    },
  });
  for (const name of ["/ops", "/broken"]) server.of(name);
  server.of(/^\/tenant-\w+$/);
  server.of((name, _auth, next) => next(null, name.startsWith("/vip-")));
  await new Promise<void>((resolve) => http.listen(0, "127.0.0.1", resolve));
  url = `http://127.0.0.1:${(http.address() as AddressInfo).port}`;
  await door.ready();
});

afterAll(async () => {
  await door.close();
  await server.close();
  await cluster.stop();
});

type Options = Partial<ManagerOptions & SocketOptions>;

/** How a token is shown. */
const CREDENTIALS: Readonly<Record<string, (token: string) => Options>> = {
  "auth object": (token) => ({ auth: { token } }),
  "auth callback": (token) => ({ auth: (give: (data: object) => void) => give({ token }) }),
  "Authorization header": (token) => ({ extraHeaders: { authorization: `Bearer ${token}` } }),
  "cookie from a trusted page": (token) => ({ extraHeaders: { cookie: `other=1; token=${token}`, origin: ORIGIN } }),
  "cookie from another page": (token) => ({ extraHeaders: { cookie: `token=${token}`, origin: "http://evil.test" } }),
  "cookie from no page": (token) => ({ extraHeaders: { cookie: `token=${token}` } }),
  "query token": (token) => ({ query: { token } }),
  nothing: () => ({}),
};
const TRANSPORTS = ["websocket", "polling"] as const;

/** Namespaces, whom they are tried by, and what is to come of it. */
const NAMESPACES: readonly (readonly [name: string, claims: object, outcome: string])[] = [
  ["/", {}, "connect"],
  ["/", { sub: "u_banned" }, "scope_insufficient"],
  ["/ops", { scope: "chat ops" }, "connect"],
  ["/ops", { scope: "chat" }, "scope_insufficient"],
  ["/ops", {}, "scope_insufficient"],
  ["/tenant-acme", { tid: "acme" }, "connect"],
  ["/tenant-acme", { tid: "globex" }, "scope_insufficient"],
  ["/tenant-acme", {}, "scope_insufficient"],
  ["/tenant-other", {}, "connect"],
  ["/vip-lounge", { sub: "u_vip" }, "connect"],
  ["/vip-lounge", {}, "scope_insufficient"],
  ["/broken", {}, "internal"],
];

function expected(credential: string, outcome: string): string {
  if (credential === "nothing") return "token_missing";
  if (credential === "cookie from another page" || credential === "cookie from no page") return "origin_forbidden";
  return outcome;
}

const table = Object.keys(CREDENTIALS).flatMap((credential) =>
  TRANSPORTS.flatMap((transport) =>
    NAMESPACES.map(
      ([name, claims, outcome]) =>
        [expected(credential, outcome), credential, transport, name, JSON.stringify(claims), claims] as const,
    ),
  ),
);

/** Connects once and says what came of it. */
async function attempt(
  nsp: string,
  options: Options,
  open: typeof connect = connect,
): Promise<{ outcome: string; data?: Record<string, unknown> }> {
  const socket = open(url + nsp, { forceNew: true, reconnection: false, ...options });
  try {
    return await new Promise((resolve) => {
      socket.on("connect", () => resolve({ outcome: "connect" }));
      socket.on("connect_error", (error: Error & { data?: { code: string } }) =>
        resolve({ outcome: error.data?.code ?? error.message, data: { ...error.data } }),
      );
    });
  } finally {
    socket.disconnect();
  }
}

describe("the ways in", () => {
  describe.each([
    ["today's", connect],
    ["the oldest 4.x", connectOldest],
  ])("with %s socket.io-client", (_version, open) => {
    it.each(table)("%s: %s over %s into %s with %s", async (outcome, credential, transport, nsp, _text, claims) => {
      const options = CREDENTIALS[credential]?.(await cluster.issuer.token(claims)) ?? {};
      expect((await attempt(nsp, { transports: [transport], ...options }, open)).outcome).toBe(outcome);
    });
  });

  it("another person's token is refused as such, though it lacks the scope as well, and the socket stays", async () => {
    const token = await cluster.issuer.token({ scope: "chat ops" });
    const socket = connect(`${url}/ops`, { forceNew: true, auth: { token } });
    await new Promise((resolve) => socket.once("connect", () => resolve(undefined)));
    const answer = await socket.emitWithAck("authenticate", { token: await cluster.issuer.token() });
    expect(answer).toMatchObject({ code: "session_mismatch" });
    expect(socket.connected).toBe(true);
    socket.disconnect();
  });

  it("a refusal names what is required", async () => {
    const { data } = await attempt("/ops", { auth: { token: await cluster.issuer.token({ scope: "chat" }) } });
    expect(data).toMatchObject({ code: "scope_insufficient", advice: "fix", requires: "scope ops" });
  });
});

describe("bounds before anybody is let in", () => {
  it.each([
    ["namespaces that there are", 10, "tenant-t"],
    ["namespaces that there are not", 200, "none-"],
  ])("a connection that keeps asking for %s is cut off", async (_name, times, prefix) => {
    const socket = new WebSocket(`${url.replace("http", "ws")}/socket.io/?EIO=4&transport=websocket`);
    const closed = new Promise((resolve) => socket.addEventListener("close", resolve));
    socket.addEventListener("open", () => {
      for (let i = 0; i < times; i++) socket.send(`40/${prefix}${i},{"token":"garbage"}`);
    });
    // By the server, well before its time for a first CONNECT is over: this side never closes.
    await closed;
  });
});

import type { Server } from "node:http";
import { Redis } from "ioredis";
import { decodeJwt } from "jose";
import { afterAll, beforeAll, describe, expect, it, type MockInstance, vi } from "vitest";
import { until } from "../../infra/until.ts";
import { connected, startCluster, type TestCluster, type TestNode } from "../support/realtime-cluster.ts";
import { createSigner, forge, forgeHmac, goodClaims, signingInput } from "../support/tokens.ts";

const HEARTBEAT_COMMANDS = ["eval", "hget", "hset", "hgetall", "hdel", "xrevrange", "xrange", "info"];

/** What every write to a connection passes. */
type Line = { _writeGeneric(): void };

let cluster: TestCluster;
let node: TestNode;

beforeAll(async () => {
  cluster = await startCluster();
  node = await cluster.startNode({}, (io) => {
    io.on("connection", (socket) => {
      socket.on("whoami", (answer) => answer(socket.data.session.sub));
      socket.on("throw", () => Promise.reject(new Error("a handler that forgot to catch")));
    });
    io.of("/admin");
    io.of(/^\/room-\d+$/);
    io.of("/slow").use((_socket, next) => void setTimeout(next, 50));
  });
  await node.door.ready();
});

afterAll(() => cluster.stop());

/** Connects and resolves to the refusal, or fails if it was let in. */
async function refusalOf(token: unknown, options = {}, to = node) {
  const client = cluster.client(to, token, options);
  const error = await new Promise<Error & { data?: Record<string, unknown> }>((resolve, reject) => {
    client.on("connect_error", resolve);
    client.on("connect", () => reject(new Error("it was let in")));
  });
  client.disconnect();
  return { message: error.message, data: error.data };
}

describe("a living token", () => {
  it.each([["websocket"], ["polling"]])(
    "lets a stock client in over %s, with its claims on the socket",
    async (transport) => {
      const token = await cluster.issuer.token({ sub: "u_ada" });
      const client = cluster.client(node, token, { transports: [transport] });
      await connected(client);
      expect(await client.emitWithAck("whoami")).toBe("u_ada");
    },
  );

  it.each([["websocket"], ["polling"]])("is found in the Authorization header over %s", async (transport) => {
    const authorization = `Bearer ${await cluster.issuer.token()}`;
    await connected(cluster.client(node, undefined, { transports: [transport], extraHeaders: { authorization } }));
  });

  it("is found behind the word Bearer in the auth payload, as users of other libraries send it", async () => {
    await connected(cluster.client(node, `Bearer ${await cluster.issuer.token()}`));
  });

  it.each([["/admin"], ["/room-7"]])("is needed for the namespace %s as well", async (nsp) => {
    const at = { ...node, url: node.url + nsp };
    expect((await refusalOf(undefined, {}, at)).data).toMatchObject({ code: "token_missing" });
    await connected(cluster.client(at, await cluster.issuer.token()));
  });

  it("is answered with two writes over a WebSocket: the upgrade with the transport's opening, and the welcome", async () => {
    const writes: MockInstance[] = [];
    const watched = await cluster.startNode({}, (io) => {
      const { httpServer } = io as unknown as { httpServer: Server };
      httpServer.prependListener("connection", (line) =>
        writes.push(vi.spyOn(line as unknown as Line, "_writeGeneric")),
      );
    });
    await watched.door.ready();
    await connected(cluster.client(watched, await cluster.issuer.token()));
    expect(writes.map(({ mock }) => mock.calls.length)).toEqual([2]);
    await watched.stop();
  });

  it("costs neither a request to the issuer nor a command to Redis", async () => {
    const redis = new Redis(cluster.redis.url);
    const calls = async () => {
      const stats = (await redis.info("commandstats")).matchAll(/cmdstat_(\w+):calls=(\d+)/g);
      // What the heartbeat does each second, and this question itself, go on in any case.
      const others = [...stats].filter(([, name = ""]) => !HEARTBEAT_COMMANDS.includes(name));
      return others.map(([, name, count]) => `${name} ${count}`);
    };
    const tokens = await Promise.all(Array.from({ length: 5 }, () => cluster.issuer.token()));
    const before = [cluster.issuer.asked(), await calls()];
    expect(before[1]).not.toEqual([]);
    for (const token of tokens) await connected(cluster.client(node, token));
    expect([cluster.issuer.asked(), await calls()]).toEqual(before);
    redis.disconnect();
  });
});

describe("a bad token is refused by its code, and the node goes on", () => {
  const expectations: readonly (readonly [string, () => unknown, string, string])[] = [
    ["a missing one", () => undefined, "token_missing", "login"],
    ["an empty one", () => "", "token_missing", "login"],
    ["null", () => null, "token_missing", "login"],
    ["a number", () => 12345, "token_invalid", "login"],
    ["an object", () => ({ toString: "x" }), "token_invalid", "login"],
    ["an array", () => [["Bearer x"]], "token_invalid", "login"],
    ["one that is no JWT", () => "abc", "token_invalid", "login"],
    ["three empty parts", () => "..", "token_invalid", "login"],
    ["one that is too long", () => "x".repeat(20_000), "token_invalid", "login"],
    ["alg none", () => `${signingInput({ alg: "none", typ: "at+jwt" }, claims())}.`, "token_invalid", "login"],
    [
      "an HMAC with the public key",
      () => forgeHmac({ alg: "HS256", typ: "at+jwt" }, claims(), JSON.stringify(cluster.issuer.signer.publicJwk)),
      "token_invalid",
      "login",
    ],
    [
      "a key in its own header",
      async () => {
        const mallory = await createSigner("ES256", "mallory");
        return forge(
          { alg: "ES256", typ: "at+jwt", jwk: mallory.publicJwk, jku: "http://127.0.0.1:1/" },
          claims(),
          mallory,
        );
      },
      "token_invalid",
      "login",
    ],
    ["another issuer", () => cluster.issuer.token({ iss: "https://elsewhere.test" }), "token_invalid", "login"],
    ["another audience", () => cluster.issuer.token({ aud: "elsewhere" }), "token_invalid", "login"],
    [
      "an expired one",
      () => cluster.issuer.token({ iat: 1_000, auth_time: 1_000, exp: 2_000 }),
      "token_expired",
      "refresh",
    ],
    [
      "one from the future",
      () => cluster.issuer.token({ iat: 9_000_000_000, exp: 9_000_000_300 }),
      "token_invalid",
      "login",
    ],
    ["an event in place of a token", () => cluster.issuer.set(), "token_invalid", "login"],
  ];
  const claims = () => goodClaims(Math.floor(Date.now() / 1000), { issuer: cluster.issuer.url, audience: "keycard" });

  it.each(expectations)("%s", async (_name, make, code, advice) => {
    const token = await make();
    const { message, data } = await refusalOf(token);
    expect(data).toMatchObject({ type: "UnauthorizedError", code, advice, message });
    if (typeof token === "string" && token.length > 2) expect(JSON.stringify(data)).not.toContain(token);
    await connected(cluster.client(node, await cluster.issuer.token()));
  });

  it("never shows up in the log", async () => {
    const token = `${await cluster.issuer.token()}x`;
    await refusalOf(token);
    const signature = token.split(".")[2] ?? token;
    expect(node.lines.join("\n")).not.toContain(signature);
  });

  it("an unknown key makes the issuer be asked at most once for a burst", async () => {
    const mallory = await createSigner("ES256", "unknown");
    const before = cluster.issuer.asked();
    const clients = await Promise.all(
      Array.from({ length: 20 }, async () => cluster.client(node, await cluster.issuer.token({}, mallory))),
    );
    await until("all are turned away", () => clients.every(({ history }) => history.length > 0));
    // Told so, or, while the issuer may not be asked again, sent away to come back with another token.
    const outcomes = clients.map(({ history }) => history[0]);
    for (const outcome of outcomes)
      expect(outcome).toMatch(/^(connect_error:token_invalid|disconnect:transport close)$/);
    for (const client of clients) client.disconnect();
    expect(cluster.issuer.asked() - before).toBeLessThanOrEqual(1);
  });

  it("a handler that rejects does not end the process", async () => {
    const client = cluster.client(node, await cluster.issuer.token());
    const survived = new Promise((resolve) => process.once("unhandledRejection", resolve));
    await connected(client);
    client.emit("throw");
    await survived;
    expect(await client.emitWithAck("whoami")).toBeDefined();
  });
});

describe("time", () => {
  it("a socket is closed when its token expires, and a stock client comes back by itself with a fresh one", async () => {
    const soon = Math.floor(Date.now() / 1000) + 2;
    const tokens = [await cluster.issuer.token({ exp: soon }), await cluster.issuer.token()];
    const auth = (give: (data: object) => void) => give({ token: tokens.shift() });
    const client = cluster.client(node, undefined, { auth });
    await until("it came back", () => client.history.filter((what) => what === "connect").length === 2);
    expect(client.history).toEqual(["connect", "unauthorized:token_expired", "disconnect:transport close", "connect"]);
    expect(Date.now() / 1000).toBeGreaterThanOrEqual(soon);
  });

  it("a token that expires while the handshake runs is refused at its end", async () => {
    const token = await cluster.issuer.token({ exp: Math.floor(Date.now() / 1000) + 1 });
    const ran = await until(
      "its last moment",
      () => Date.now() / 1000 > (decodeJwt(token).exp ?? 0) - 0.03 || undefined,
    );
    expect(ran).toBe(true);
    const at = { ...node, url: `${node.url}/slow` };
    const client = cluster.client(at, token, { reconnection: false });
    await until("it is out", () => client.history.length > 0 && !client.connected);
    expect(client.history.join()).toContain("token_expired");
  });
});

describe("a node that cannot know what is revoked", () => {
  it("lets nobody in before it has keys and has read the log, and stock clients come in by themselves then", async () => {
    await cluster.issuer.stop();
    const starting = await cluster.startNode();
    const token = await cluster.issuer.token();
    const client = cluster.client(starting, token, { reconnectionDelay: 20, reconnectionDelayMax: 50 });
    await until("it was refused", () => client.history.includes("connect_error:transport"));
    expect((await fetch(`${starting.url}/readyz`)).status).toBe(503);
    expect((await fetch(`${starting.url}/healthz`)).status).toBe(200);
    await cluster.issuer.start();
    await starting.door.ready();
    await connected(client);
    expect((await fetch(`${starting.url}/readyz`)).status).toBe(200);
  });

  it("keeps letting people in while the issuer is down", async () => {
    const token = await cluster.issuer.token();
    await cluster.issuer.stop();
    await connected(cluster.client(node, token));
    await cluster.issuer.start();
  });
});

describe("origins", () => {
  it.each([["websocket"], ["polling"]])(
    "a page of a foreign origin is refused over %s, an allowed one is not",
    async (transport) => {
      const token = await cluster.issuer.token();
      const from = (origin: string) => ({ transports: [transport], extraHeaders: { origin }, reconnection: false });
      const foreign = cluster.client(node, token, from("http://evil.test"));
      await until("it was refused", () => foreign.history.includes("connect_error:transport"));
      await connected(cluster.client(node, token, from("http://app.test")));
    },
  );
});

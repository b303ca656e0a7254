import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { Redis } from "ioredis";
import { Server } from "socket.io";
import { io as connect } from "socket.io-client";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { until } from "../../infra/until.ts";
import { type Door, type ProtectOptions, protect } from "../../realtime/protect.ts";
import { AUDIENCE, CLUSTER, CLUSTER_SECRET, startCluster, type TestCluster } from "../support/realtime-cluster.ts";

let cluster: TestCluster;
const stops: (() => Promise<unknown>)[] = [];

beforeAll(async () => {
  cluster = await startCluster();
});
afterEach(async () => {
  for (const stop of stops.splice(0).reverse()) await stop();
});
afterAll(() => cluster.stop());

/** An app's own server, protected. */
async function app(
  options: Partial<ProtectOptions>,
  socketIo: object = {},
): Promise<{ url: string; door: Door; io: Server }> {
  const http = createServer();
  const io = new Server(http, socketIo);
  const door = protect(io, {
    redis: new Redis(cluster.redis.url, { lazyConnect: true }),
    issuers: [{ issuer: cluster.issuer.url, audience: AUDIENCE }],
    cluster: CLUSTER,
    clusterSecret: CLUSTER_SECRET,
    ...options,
  });
  await new Promise<void>((resolve) => http.listen(0, "127.0.0.1", resolve));
  http.on("request", (request, response) => void door.receive(request, response));
  stops.push(
    () => io.close(),
    () => door.close(),
  );
  await door.ready();
  return { url: `http://127.0.0.1:${(http.address() as AddressInfo).port}`, door, io };
}

function outcomeOf(url: string, token: string, extraHeaders: Record<string, string> = {}): Promise<string> {
  const socket = connect(url, { forceNew: true, reconnection: false, auth: { token }, extraHeaders });
  return new Promise<string>((resolve) => {
    socket.on("connect", () => resolve("connect"));
    socket.on("connect_error", (error: Error & { data?: { code: string } }) =>
      resolve(error.data?.code ?? "transport"),
    );
  }).finally(() => socket.disconnect());
}

describe("an address that fails too often", () => {
  it("is told to wait, while another one behind the same proxy is let in", async () => {
    const { url } = await app({
      limits: { failuresPerAddress: { burst: 3, perSecond: 0.001 }, trustedProxies: ["127.0.0.0/8"] },
    });
    const good = await cluster.issuer.token();
    const from = (address: string) => ({ "x-forwarded-for": `10.9.9.9, ${address}` });
    const outcomes = [];
    for (let i = 0; i < 5; i++) outcomes.push(await outcomeOf(url, "garbage", from("203.0.113.7")));
    expect(outcomes).toEqual([...Array(3).fill("token_invalid"), ...Array(2).fill("too_many_attempts")]);
    expect(await outcomeOf(url, good, from("203.0.113.7"))).toBe("too_many_attempts");
    expect(await outcomeOf(url, good, from("203.0.113.8"))).toBe("connect");
  });

  it("cannot speak for another one when no proxy is trusted", async () => {
    const { url } = await app({ limits: { failuresPerAddress: { burst: 2, perSecond: 0.001 } } });
    const outcomes = [];
    for (let i = 0; i < 3; i++) outcomes.push(await outcomeOf(url, "garbage", { "x-forwarded-for": `203.0.113.${i}` }));
    expect(outcomes).toEqual(["token_invalid", "token_invalid", "too_many_attempts"]);
  });

  it("an honest client whose token expired is not counted", async () => {
    const { url } = await app({ limits: { failuresPerAddress: { burst: 2, perSecond: 0.001 } } });
    const expired = await cluster.issuer.token({ exp: 1_000 });
    for (let i = 0; i < 4; i++) expect(await outcomeOf(url, expired)).toBe("token_expired");
    expect(await outcomeOf(url, await cluster.issuer.token())).toBe("connect");
  });
});

describe("an address that opens too many connections", () => {
  it("is refused below Socket.IO until it slows down", async () => {
    const { url } = await app({ limits: { connectionsPerAddress: { burst: 2, perSecond: 0.001 } } });
    const token = await cluster.issuer.token();
    const sockets = [1, 2, 3].map(() =>
      connect(url, { forceNew: true, reconnection: false, transports: ["websocket"], auth: { token } }),
    );
    const failed: string[] = [];
    for (const socket of sockets) socket.on("connect_error", (error) => failed.push(error.message));
    await until("all are judged", () => failed.length + sockets.filter(({ connected }) => connected).length === 3);
    expect(failed).toEqual(["websocket error"]);
    for (const socket of sockets) socket.disconnect();
  });
});

describe("a connection on which nobody is let in", () => {
  const raw = (url: string) => {
    const socket = new WebSocket(`${url.replace("http", "ws")}/socket.io/?EIO=4&transport=websocket`);
    const closed = new Promise<void>((resolve) => socket.addEventListener("close", () => resolve()));
    return { socket, closed };
  };

  it("is cut off when it says too much at once", async () => {
    const { url } = await app({ limits: { bytesBeforeAdmission: 1_000 } });
    const { socket, closed } = raw(url);
    socket.addEventListener("open", () => socket.send(`40{"token":"${"x".repeat(2_000)}"}`));
    await closed;
    expect(await outcomeOf(url, await cluster.issuer.token())).toBe("connect");
  });

  it("is cut off when it stays too long, while one on which somebody is let in stays", async () => {
    const { url } = await app({ limits: { msBeforeAdmission: 300 } });
    const inside = connect(url, { forceNew: true, auth: { token: await cluster.issuer.token() } });
    await until("it is in", () => inside.connected);
    await raw(url).closed;
    expect(inside.connected).toBe(true);
    inside.disconnect();
  });

  it.each([["websocket"], ["polling"]])(
    "is refused over %s when its page is of an origin that is not trusted",
    async (transport) => {
      const { url } = await app({ limits: { origins: ["http://app.test"] } });
      const token = await cluster.issuer.token();
      const from = (origin: string) => {
        const socket = connect(url, {
          forceNew: true,
          reconnection: false,
          transports: [transport],
          auth: { token },
          extraHeaders: { origin },
        });
        return new Promise<string>((resolve) => {
          socket.on("connect", () => resolve("connect"));
          socket.on("connect_error", () => resolve("refused"));
        }).finally(() => socket.disconnect());
      };
      expect([await from("http://app.test"), await from("http://evil.test")]).toEqual(["connect", "refused"]);
    },
  );
});

describe("connection state recovery", () => {
  it.each([[{}], [{ skipMiddlewares: true }]])(
    "never skips verification, configured as %j",
    async (connectionStateRecovery) => {
      const { url, io, door } = await app({}, { connectionStateRecovery });
      const sid = `u_csr.${JSON.stringify(connectionStateRecovery).length}`;
      const token = await cluster.issuer.token({ sid });
      const client = connect(url, { forceNew: true, auth: { token }, transports: ["websocket"], reconnectionDelay: 1 });
      await until("it is in", () => client.connected);
      io.emit("offset", 1);
      await until("it has something to recover", () => (client as unknown as { _lastOffset?: string })._lastOffset);
      client.io.engine.close();
      await until("it is back", () => client.connected);
      expect(client.recovered).toBe(true);
      const refusals: string[] = [];
      client.on("connect_error", (error: Error & { data?: { code: string } }) => refusals.push(error.data?.code ?? ""));
      // Revoked while it is away: what it left behind must not let it in.
      client.io.reconnection(false);
      client.io.engine.close();
      await until("it is gone", () => !client.connected);
      const node = { url, door } as Parameters<TestCluster["revoke"]>[0];
      await cluster.revoke(node, [{ kind: "session", sid }]);
      client.connect();
      await until("it was refused", () => refusals.length > 0);
      expect(refusals).toEqual(["session_revoked"]);
      client.disconnect();
    },
  );
});

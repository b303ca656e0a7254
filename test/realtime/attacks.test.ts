/**
 * The attacks that people have made or asked about, each tried on real nodes: what becomes of it, and that a good client
 * is let in afterwards. Proved elsewhere, and so not repeated here:
 *
 * | attack | test file |
 * |---|---|
 * | tokens that are no strings, no JWTs, too long, unsigned, signed by HMAC or by a key in their own header | handshake |
 * | a token's text in logs or answers | handshake, system/attacks |
 * | a flood of unknown `kid`s, to make us flood the issuer | handshake |
 * | a page of a foreign origin, over both transports | handshake (origins) |
 * | a socket that outlives its token, or expires during its handshake | handshake (time) |
 * | a flood of namespaces that there are or are not on one connection | ways-in |
 * | a cookie from a foreign page, from no page, in every namespace | ways-in |
 * | floods from one address, and an address that speaks for another | bounds |
 * | recovery with a revoked token | bounds |
 * | a used, expired or revoked ticket; a ticket as a token and the reverse | ticket |
 * | a revocation in the middle of a handshake; the same token after it | revocation |
 * | an event that pub/sub lost, a flushed or dead Redis, unsigned entries in it | revocation |
 * | a second login within the second of a cutoff; a cutoff compared with "now" | contract/revocation-index |
 * | broken Engine.IO, WebSocket and HTTP framing; event bodies that never end | system/attacks |
 * | another person's token in `authenticate`, or in the header of a polling request | renewal |
 * | a stranger who listens in the lobby | lobby |
 * | clients that come back all at once, or again with the token that was refused | browser/client |
 */
import { createServer, type Server as HttpServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { Redis } from "ioredis";
import { base64url } from "jose";
import { Server, type Socket } from "socket.io";
import { io as connect, type ManagerOptions, type SocketOptions } from "socket.io-client";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { signTyped } from "#contract/access-token";
import { until } from "../../infra/until.ts";
import { type Door, type ProtectedSocket, type ProtectOptions, protect } from "../../realtime/protect.ts";
import {
  AUDIENCE,
  CLUSTER,
  CLUSTER_SECRET,
  connected,
  createIssuer,
  revocationOf,
  startCluster,
  type TestClient,
  type TestCluster,
  type TestIssuer,
  type TestNode,
} from "../support/realtime-cluster.ts";
import { createSigner, type TestSigner } from "../support/tokens.ts";

const NO_LIMITS = { burst: 100_000, perSecond: 100_000 };

let cluster: TestCluster;
/** The node under attack, and another one of its cluster. */
let node: TestNode;
let other: TestNode;
let server: Server;
/** What handlers of the app were called with on the node under attack. */
let handled: string[] = [];
const rejections: unknown[] = [];
const noteRejection = (reason: unknown) => void rejections.push(reason);
const stops: (() => unknown)[] = [];

beforeAll(async () => {
  cluster = await startCluster();
  node = await cluster.startNode({}, (io) => {
    server = io;
    io.on("connection", (socket: ProtectedSocket) => {
      socket.onAny((event) => handled.push(event));
      socket.on("whoami", (answer) => answer(socket.data.session.sub));
      socket.on("bytes", (bytes: Buffer, answer) => answer(bytes.length));
    });
  });
  other = await cluster.startNode();
  await Promise.all([node.door.ready(), other.door.ready()]);
});

beforeEach(() => {
  handled = [];
  process.on("unhandledRejection", noteRejection);
});

afterEach(async () => {
  for (const stop of stops.splice(0).reverse()) await stop();
  // Whatever was tried, the node lives, and lets in whom it should.
  const good = cluster.client(node, await cluster.issuer.token());
  await connected(good);
  expect(await good.emitWithAck("whoami")).toBeDefined();
  good.disconnect();
  process.off("unhandledRejection", noteRejection);
  expect(rejections.splice(0)).toEqual([]);
});

afterAll(() => cluster.stop());

interface App {
  readonly url: string;
  readonly door: Door;
  readonly io: Server;
}

/** An app's own server, protected. */
async function app(options: Partial<ProtectOptions> = {}, socketIo: object = {}): Promise<App> {
  const http = createServer();
  const io = new Server(http, socketIo);
  const door = protect(io, {
    redis: new Redis(cluster.redis.url, { lazyConnect: true }),
    issuers: [{ issuer: cluster.issuer.url, audience: AUDIENCE }],
    cluster: CLUSTER,
    clusterSecret: CLUSTER_SECRET,
    limits: { connectionsPerAddress: NO_LIMITS, failuresPerAddress: NO_LIMITS },
    ...options,
  });
  http.on("request", (request, response) => void door.receive(request, response));
  const url = await listen(http);
  stops.push(
    () => io.close(),
    () => door.close(),
  );
  await door.ready();
  return { url, door, io };
}

async function listen(http: HttpServer): Promise<string> {
  await new Promise<void>((resolve) => http.listen(0, "127.0.0.1", resolve));
  return `http://127.0.0.1:${(http.address() as AddressInfo).port}`;
}

/** Connects once and says what came of it: "connect", or the code of the refusal. */
async function outcomeOf(url: string, options: Partial<ManagerOptions & SocketOptions>): Promise<string> {
  const socket = connect(url, { forceNew: true, reconnection: false, transports: ["websocket"], ...options });
  try {
    return await new Promise((resolve) => {
      socket.on("connect", () => resolve("connect"));
      socket.on("connect_error", (error: Error & { data?: { code: string } }) =>
        resolve(error.data?.code ?? error.message),
      );
      socket.on("disconnect", () => resolve("sent away"));
    });
  } finally {
    socket.disconnect();
  }
}

const withToken = (token: unknown) => ({ auth: { token } });

/** A WebSocket below Socket.IO that stays open until the server closes it or the test ends. */
interface RawSocket {
  readonly heard: string[];
  readonly closed: boolean;
  send(...messages: (string | Uint8Array<ArrayBuffer>)[]): void;
  close(): void;
}

async function openRaw(url: string): Promise<RawSocket> {
  const socket = new WebSocket(`${url.replace("http", "ws")}/socket.io/?EIO=4&transport=websocket`);
  const heard: string[] = [];
  socket.addEventListener("message", ({ data }) => heard.push(String(data)));
  await new Promise((resolve) => socket.addEventListener("open", resolve));
  stops.push(() => socket.close());
  return {
    heard,
    get closed() {
      return socket.readyState === WebSocket.CLOSED;
    },
    send(...messages) {
      for (const message of messages) socket.send(message);
    },
    close: () => socket.close(),
  };
}

const connectPacket = (auth: object, nsp = "") => `40${nsp}${JSON.stringify(auth)}`;

describe("cross-site WebSocket hijacking", () => {
  const TRUSTED = "http://app.test";
  it.each([
    ["another site", "http://evil.test"],
    ["a site whose name begins like the trusted one", "http://app.test.evil.test"],
    ["a site whose name ends like the trusted one", "http://evil-app.test"],
    ["another port", "http://app.test:8080"],
    ["another scheme", "https://app.test"],
    ["a sandboxed frame", "null"],
    ["an empty origin", ""],
    ["two origins", "http://app.test, http://evil.test"],
  ])("with the victim's cookie from %s is refused over both transports", async (_name, origin) => {
    const { url } = await app({ credentials: { cookie: { name: "token", origins: [TRUSTED] } } });
    const cookie = `token=${await cluster.issuer.token()}`;
    for (const transport of ["websocket", "polling"]) {
      const from = (page: string) => ({ transports: [transport], extraHeaders: { cookie, origin: page } });
      expect(await outcomeOf(url, from(origin)), transport).toBe("origin_forbidden");
      // Nor does an empty token of the page's own make the cookie count.
      expect(await outcomeOf(url, { ...from(origin), ...withToken("") }), transport).toBe("origin_forbidden");
      expect(await outcomeOf(url, from(TRUSTED)), transport).toBe("connect");
    }
  });
});

describe("connection state recovery", () => {
  interface Recoverable {
    readonly app: App;
    readonly sid: string;
    /** What its client would show to get back what it missed. */
    readonly claim: { readonly pid: string; readonly offset: string };
  }

  let away = 0;
  const tokenOf = (sid: string, claims = {}) => cluster.issuer.token({ sub: "u_away", sid, ...claims });

  /** A client that was in a room, has gone, and has missed something said in that room. */
  async function somebodyAway(options: Partial<ProtectOptions> = {}): Promise<Recoverable> {
    const sid = `u_away.${++away}`;
    const own = await app(options, { connectionStateRecovery: {} });
    own.io.once("connection", (socket) => void socket.join("private"));
    const client = connect(own.url, {
      forceNew: true,
      transports: ["websocket"],
      reconnection: false,
      auth: { token: await tokenOf(sid) },
    });
    const offset = new Promise<string>((resolve) => client.on("said", (_text, id) => resolve(id)));
    await until("it is in", () => client.connected);
    own.io.to("private").emit("said", "before");
    const claim = { pid: (client as unknown as { _pid: string })._pid, offset: await offset };
    client.io.engine.close();
    await until("the server has noticed", () => own.io.sockets.sockets.size === 0);
    own.io.to("private").emit("said", "a secret of the room");
    return { app: own, sid, claim };
  }

  const strangers: readonly (readonly [string, (sid: string, own: App) => Promise<object>])[] = [
    ["no token", async () => ({})],
    ["garbage in place of a token", async () => ({ token: "garbage" })],
    ["an expired token", async (sid) => ({ token: await tokenOf(sid, { exp: 1_000 }) })],
    [
      "a revoked token",
      async (sid, { url, door }) => {
        await cluster.revoke({ url, door } as TestNode, [{ kind: "session", sid }]);
        return { token: await tokenOf(sid) };
      },
    ],
  ];

  it.each(strangers)("with %s is refused, and not one missed message is told", async (_name, credential) => {
    const { app: own, sid, claim } = await somebodyAway();
    const raw = await openRaw(own.url);
    raw.send(connectPacket({ ...(await credential(sid, own)), ...claim }));
    await until("it is judged", () => raw.heard.some((message) => message.startsWith("44")) || raw.closed);
    expect(raw.heard.join()).not.toContain("a secret of the room");
  });

  it("by another person, who has stolen its name, gives neither messages nor rooms", async () => {
    const { app: own, claim } = await somebodyAway();
    const thief = await openRaw(own.url);
    thief.send(connectPacket({ token: await cluster.issuer.token(), ...claim }));
    await until("it is in", () => thief.heard.some((message) => message.startsWith("40")));
    own.io.to("private").emit("said", "another secret");
    own.io.emit("said", "for all");
    await until("it hears", () => thief.heard.join().includes("for all"));
    expect(thief.heard.join()).not.toContain("secret");
  });

  it("in the lobby tells nothing to somebody without a token", async () => {
    const { app: own, claim } = await somebodyAway({ lobby: { timeoutMs: 10_000 } });
    const raw = await openRaw(own.url);
    raw.send(connectPacket(claim));
    await until("it is in the lobby", () => raw.heard.some((message) => message.startsWith("40")));
    expect(raw.heard.join()).not.toContain("a secret of the room");
  });

  it("of one's own session gives back rooms and what was missed", async () => {
    const { app: own, sid, claim } = await somebodyAway();
    const raw = await openRaw(own.url);
    raw.send(connectPacket({ token: await tokenOf(sid), ...claim }));
    await until("it is told", () => raw.heard.join().includes("a secret of the room"));
  });
});

describe("an app's own code that fails", () => {
  it.each<readonly [string, () => never | Promise<never>]>([
    [
      "throws",
      () => {
        throw new Error("thrown");
      },
    ],
    ["rejects", () => Promise.reject(new Error("rejected"))],
    ["rejects with nothing", () => Promise.reject(undefined)],
  ])("a rule that %s keeps out and ends nothing", async (_name, fail) => {
    const own = await app({ require: { allow: ({ sub }) => (sub === "u_bad" ? fail() : true) } });
    expect(await outcomeOf(own.url, withToken(await cluster.issuer.token({ sub: "u_bad" })))).toBe("internal");
    expect(await outcomeOf(own.url, withToken(await cluster.issuer.token()))).toBe("connect");
  });

  it("a rule that never answers holds nobody else up", async () => {
    let judged = 0;
    const own = await app({
      require: {
        allow: ({ sub }) => {
          judged += 1;
          return sub === "u_never" ? new Promise<boolean>(() => {}) : true;
        },
      },
    });
    const raw = await openRaw(own.url);
    raw.send(connectPacket({ token: await cluster.issuer.token({ sub: "u_never" }) }));
    await until("it is being judged", () => judged === 1);
    expect(await outcomeOf(own.url, withToken(await cluster.issuer.token()))).toBe("connect");
  });

  it("a disconnect handler that throws keeps nobody in who is revoked", async () => {
    const own = await app();
    own.io.on("connection", (socket) =>
      socket.on("disconnect", () => {
        throw new Error("a handler that forgot to catch");
      }),
    );
    const sid = "u_throwing.a";
    const token = await cluster.issuer.token({ sid });
    const raws = await Promise.all([1, 2, 3].map(() => openRaw(own.url)));
    for (const raw of raws) raw.send(connectPacket({ token }));
    await until("all are in", () => own.door.health().sockets === 3);
    await cluster.push(
      { url: own.url } as TestNode,
      await cluster.issuer.set(revocationOf([{ kind: "session", sid }])),
    );
    await until("all are out", () => raws.every((raw) => raw.closed), { withinMs: 5_000 });
  });

  it("a listener of the door that throws keeps nobody in who is revoked, and is told of", async () => {
    const own = await app();
    const problems: string[] = [];
    own.door.events.on("problem", ({ message }) => problems.push(message));
    const all = [
      "admitted",
      "applied",
      "connection",
      "feed",
      "ignored",
      "link",
      "problem",
      "refused",
      "revoked",
    ] as const;
    for (const event of all) {
      own.door.events.on(event, () => {
        throw new Error("a listener that forgot to catch");
      });
    }
    const sid = "u_overheard.a";
    const stranger = await openRaw(own.url);
    stranger.send(connectPacket({ token: "no token" }));
    await until("somebody was refused", () => problems.includes("a listener for refused threw"));
    const raw = await openRaw(own.url);
    raw.send(connectPacket({ token: await cluster.issuer.token({ sid }) }));
    await until("it is in", () => own.door.health().sockets === 1);
    const set = await cluster.issuer.set(revocationOf([{ kind: "session", sid }]));
    expect((await cluster.push({ url: own.url } as TestNode, set)).status).toBe(202);
    await until("it is out", () => raw.closed, { withinMs: 5_000 });
    for (const event of ["admitted", "applied", "refused", "revoked"]) {
      expect(problems).toContain(`a listener for ${event} threw`);
    }
    await until("the stranger is told", () => stranger.heard.join().includes("token_invalid"));
  });

  it("middleware of a dynamic namespace does not run for a stranger", async () => {
    const own = await app();
    const met: unknown[] = [];
    own.io.of(/^\/dynamic-\d+$/).use((socket, next) => {
      met.push(socket.data.session);
      next();
    });
    expect(await outcomeOf(`${own.url}/dynamic-1`, withToken("garbage"))).toBe("token_invalid");
    expect(met).toEqual([]);
    expect(await outcomeOf(`${own.url}/dynamic-1`, withToken(await cluster.issuer.token({ sub: "u_dyn" })))).toBe(
      "connect",
    );
    expect(met).toMatchObject([{ sub: "u_dyn" }]);
  });
});

describe("a flood", () => {
  it("of CONNECT packets for one namespace ends the connection after a few", async () => {
    const raw = await openRaw(node.url);
    raw.send(...Array.from({ length: 1_000 }, () => connectPacket({ token: "garbage" })));
    await until("it is cut off", () => raw.closed);
    expect(raw.heard.length).toBeLessThan(60);
  });

  it("of CONNECT packets in one polling request ends that session", async () => {
    const own = await app();
    const refused: unknown[] = [];
    own.door.events.on("refused", (event) => refused.push(event));
    const { sid } = await openPolling(own.url);
    const body = Array.from({ length: 1_000 }, () => connectPacket({ token: "garbage" })).join("\u001e");
    await (await post(own.url, sid, body)).text();
    await until("it is gone", async () => (await post(own.url, sid, "1")).status === 400);
    expect(refused.length).toBeLessThanOrEqual(51);
  });

  it("of CONNECT packets with a good token counts them, too", async () => {
    const token = await cluster.issuer.token();
    const raw = await openRaw(node.url);
    raw.send(...Array.from({ length: 200 }, () => connectPacket({ token })));
    await until("it is cut off", () => raw.closed);
    await until("nothing is left behind", () => node.door.health().sockets === 0);
  });

  it("of connections cannot pass the limit by naming a session twice in the query", async () => {
    const own = await app({
      limits: { connectionsPerAddress: { burst: 3, perSecond: 0.001 }, failuresPerAddress: NO_LIMITS },
    });
    const statuses = [];
    for (let i = 0; i < 10; i++) {
      const response = await fetch(`${own.url}/socket.io/?EIO=4&transport=polling&sid=x&sid=`);
      await response.body?.cancel();
      statuses.push(response.status);
    }
    expect(statuses.filter((status) => status === 200).length).toBeLessThanOrEqual(3);
  });

  it("of 900 kilobytes from a stranger is cut off by a node, and by an app's own server that would take a megabyte", async () => {
    const large = connectPacket({ token: "x".repeat(900_000) });
    const raw = await openRaw(node.url);
    raw.send(large);
    await until("it is cut off", () => raw.closed);
    const { sid } = await openPolling(node.url);
    const status = await post(node.url, sid, large).then(
      (response) => response.status,
      () => 413, // cut in the middle of the body: that, too, is a no
    );
    expect(status).toBe(413);
    const own = await app();
    const stranger = await openRaw(own.url);
    stranger.send(large);
    await until("it is cut off", () => stranger.closed);
    expect(await outcomeOf(own.url, withToken(await cluster.issuer.token()))).toBe("connect");
  });
});

async function openPolling(url: string): Promise<{ sid: string }> {
  const text = await (await fetch(`${url}/socket.io/?EIO=4&transport=polling`)).text();
  return JSON.parse(text.slice(1)) as { sid: string };
}

function post(url: string, sid: string, body: string, headers: Record<string, string> = {}): Promise<Response> {
  return fetch(`${url}/socket.io/?EIO=4&transport=polling&sid=${sid}`, { method: "POST", body, headers });
}

describe("a race", () => {
  it("between a rule of the app and a revocation is won by the revocation", async () => {
    let letGo = (_answer: boolean) => {};
    const own = await app({
      require: {
        allow: () =>
          new Promise<boolean>((resolve) => {
            letGo = resolve;
          }),
      },
    });
    const idle = letGo;
    const sid = "u_race.a";
    const outcome = outcomeOf(own.url, withToken(await cluster.issuer.token({ sid })));
    await until("the rule is asked", () => letGo !== idle);
    await cluster.revoke({ url: own.url, door: own.door } as TestNode, [{ kind: "session", sid }]);
    letGo(true);
    expect(await outcome).toBe("session_revoked");
  });

  it("between the app's middleware and a revocation shows the app's handlers no dead socket", async () => {
    const own = await app();
    const met: string[] = [];
    let letGo = () => {};
    own.io.of("/slow").use((_socket, next) => {
      letGo = next;
    });
    own.io.of("/slow").on("connection", (socket: ProtectedSocket) => {
      met.push(socket.data.session.sid);
      socket.emit("welcome", "a secret");
    });
    const idle = letGo;
    const raw = await openRaw(own.url);
    // Somebody else is on the same connection, so that it stays open.
    raw.send(connectPacket({ token: await cluster.issuer.token() }));
    raw.send(connectPacket({ token: await cluster.issuer.token({ sid: "u_slow.a" }) }, "/slow,"));
    await until("it is in the app's middleware", () => letGo !== idle);
    await cluster.revoke({ url: own.url, door: own.door } as TestNode, [{ kind: "session", sid: "u_slow.a" }]);
    letGo();
    await until("it is out", () => raw.heard.some((message) => message.startsWith("41/slow")));
    expect(met).toEqual([]);
    expect(raw.heard.join()).not.toContain("a secret");
    expect(raw.closed).toBe(false);
  });
});

describe("coming back on the connection that one was thrown out on", () => {
  it("is refused after a revocation, while somebody else keeps that connection open", async () => {
    server.of("/second");
    const raw = await openRaw(node.url);
    const token = await cluster.issuer.token({ sid: "u_engine.a" });
    raw.send(connectPacket({ token: await cluster.issuer.token() }, "/second,"), connectPacket({ token }));
    await until("both are in", () => raw.heard.filter((message) => message.startsWith("40")).length === 2);
    await cluster.revoke(node, [{ kind: "session", sid: "u_engine.a" }]);
    await until("one is out", () => raw.heard.some((message) => message === "41"));
    raw.send('42["whoami"]', connectPacket({ token }));
    await until("it is judged", () => raw.closed || raw.heard.some((message) => message.startsWith("44")));
    expect(raw.heard.filter((message) => message.startsWith("40{"))).toHaveLength(1);
    expect(handled).toEqual([]);
  });

  it("is impossible when nobody else is on it: the connection is closed with the socket", async () => {
    const raw = await openRaw(node.url);
    const token = await cluster.issuer.token({ sid: "u_alone.a" });
    raw.send(connectPacket({ token }));
    await until("it is in", () => raw.heard.some((message) => message.startsWith("40")));
    await cluster.revoke(node, [{ kind: "session", sid: "u_alone.a" }]);
    await until("it is closed", () => raw.closed);
  });
});

describe("a revoked token", () => {
  it("does not renew a living socket of the same person", async () => {
    const revoked = await cluster.issuer.token({ sub: "u_same", sid: "u_same.a" });
    await cluster.revoke(node, [{ kind: "session", sid: "u_same.a" }]);
    const client = cluster.client(node, await cluster.issuer.token({ sub: "u_same", sid: "u_same.b" }));
    await connected(client);
    expect(await client.emitWithAck("authenticate", revoked)).toMatchObject({ code: "session_revoked" });
    expect(await client.emitWithAck("whoami")).toBe("u_same");
  });

  it("of an issuer without token ids cannot be shown again in another spelling", async () => {
    const foreign = await createIssuer();
    stops.push(() => foreign.stop());
    const own = await app({ issuers: [{ issuer: foreign.url, audience: AUDIENCE, foreign: {} }] });
    const now = Math.floor(Date.now() / 1000);
    const claims = { iss: foreign.url, aud: AUDIENCE, sub: "auth0|7", iat: now, exp: now + 300 };
    const token = await signTyped("JWT", claims, foreign.signer.key);
    let name = "";
    own.io.once("connection", (socket: ProtectedSocket) => {
      name = socket.data.session.jti;
    });
    expect(await outcomeOf(own.url, withToken(token))).toBe("connect");
    const event = { ...revocationOf([{ kind: "token", jti: name }]), code: "token_revoked" as const };
    const set = await foreign.set(event);
    expect((await cluster.push({ url: own.url } as TestNode, set)).status).toBe(202);
    expect(await outcomeOf(own.url, withToken(token))).toBe("token_revoked");
    // ECDSA: (r, s) and (r, n − s) are signatures of the same message, and anybody can compute one from the other.
    expect(await outcomeOf(own.url, withToken(otherSignatureOf(token)))).not.toBe("connect");
  });
});

/** The order of P-256. */
const ORDER = 0xffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551n;

function otherSignatureOf(token: string): string {
  const [header, payload, signature = ""] = token.split(".");
  const bytes = Buffer.from(base64url.decode(signature));
  const s = BigInt(`0x${bytes.subarray(32).toString("hex")}`);
  const mirrored = Buffer.from((ORDER - s).toString(16).padStart(64, "0"), "hex");
  return `${header}.${payload}.${base64url.encode(Buffer.concat([bytes.subarray(0, 32), mirrored]))}`;
}

describe("somebody who can write to Redis", () => {
  it("cannot hide an event by ringing for its place in the stream beforehand", async () => {
    const sid = "u_hidden.a";
    const token = await cluster.issuer.token({ sid });
    const clients = [node, other].map((each) => cluster.client(each, token));
    await Promise.all(clients.map(connected));
    const redis = new Redis(cluster.redis.url);
    stops.push(() => redis.disconnect());
    // Where its clock is now: the next entries will be named by the milliseconds after this.
    const [now] = ((await redis.xadd("clock", "*", "a", "b")) ?? "").split("-").map(Number);
    const genuineOfLongAgo = await cluster.issuer.set(revocationOf([{ kind: "session", sid: "u_nobody.a" }]));
    const bells = redis.pipeline();
    for (let ms = 0; ms < 2_000; ms++) {
      bells.publish("{keycard}:bell", `${(now ?? 0) + ms}-0 ${ms % 2 === 0 ? "garbage" : genuineOfLongAgo}`);
    }
    await bells.exec();
    const receipt = await cluster.revoke(node, [{ kind: "session", sid }]);
    expect(receipt.pending).toEqual([]);
    await until("all are out", () => clients.every((client) => !client.connected));
  });
});

describe("one of several trusted issuers", () => {
  let [a, b]: TestIssuer[] = [];
  let apps: readonly App[];
  const audience = "two";

  beforeEach(async () => {
    [a, b] = await Promise.all([createIssuer(), createIssuer()]);
    const issuers = [a, b].map((each) => ({ issuer: each?.url ?? "", audience: AUDIENCE }));
    stops.push(
      () => a?.stop(),
      () => b?.stop(),
    );
    apps = [await app({ issuers, cluster: audience }), await app({ issuers, cluster: audience })];
  });

  const first = () => apps[0] as App;
  const push = ({ url }: App, set: string) => cluster.push({ url } as TestNode, set);

  async function heartbeat(door: Door): Promise<void> {
    let before = 0;
    await until("its heart has beaten", () => {
      const silence = Number(door.health().log_silence_ms);
      const hasBeaten = silence < before;
      before = silence;
      return hasBeaten;
    });
  }

  it("cannot make tokens of the other with its own key, under either key's name", async () => {
    if (a === undefined || b === undefined) throw new Error("no issuers");
    const asA: TestSigner = { ...b.signer, key: { ...b.signer.key, kid: a.signer.key.kid } };
    expect(await outcomeOf(first().url, withToken(await a.token({}, b.signer)))).toBe("token_invalid");
    expect(await outcomeOf(first().url, withToken(await a.token({}, asA)))).toBe("token_invalid");
    // Not even once it publishes a key of that name: keys are looked up per issuer.
    b.publish({ ...b.signer, publicJwk: { ...b.signer.publicJwk, kid: a.signer.key.kid } });
    const third = await app({ issuers: [a, b].map(({ url }) => ({ issuer: url, audience: AUDIENCE })) });
    expect(await outcomeOf(third.url, withToken(await b.token({}, asA)))).toBe("connect");
    expect(await outcomeOf(third.url, withToken(await a.token({}, asA)))).toBe("token_invalid");
    expect(await outcomeOf(third.url, withToken(await a.token()))).toBe("connect");
  });

  it("cannot revoke people of the other, whatever it names", async () => {
    if (a === undefined || b === undefined) throw new Error("no issuers");
    const victim = { sub: "u_both", sid: "u_both.a", jti: "t_both", tid: "acme" };
    const client = connect(first().url, {
      forceNew: true,
      transports: ["websocket"],
      auth: { token: await a.token(victim) },
    });
    stops.push(() => client.disconnect());
    await until("it is in", () => client.connected);
    const soon = Math.floor(Date.now() / 1000) + 60;
    const event = revocationOf([
      { kind: "token", jti: victim.jti },
      { kind: "session", sid: victim.sid },
      { kind: "user", sub: victim.sub, generation: 1_000 },
      { kind: "tenant", tid: victim.tid, cutoff: soon },
      { kind: "everyone", cutoff: soon },
    ]);
    expect((await push(first(), await b.set(event, { audience }))).status).toBe(202);
    expect(await outcomeOf(first().url, withToken(await b.token()))).toBe("session_revoked");
    expect(await outcomeOf(first().url, withToken(await a.token(victim)))).toBe("connect");
    expect(client.connected).toBe(true);
  });

  it("cannot keep an event of the other from the cluster by using its name first", async () => {
    if (a === undefined || b === undefined) throw new Error("no issuers");
    const sid = "u_squatted.a";
    const token = await a.token({ sid });
    const id = "rev_squatted";
    const squatting = { ...revocationOf([{ kind: "token", jti: "none" }]), id };
    expect((await push(first(), await b.set(squatting, { audience }))).status).toBe(202);
    await until("both have it", () => apps.every(({ door }) => door.health().revocations === 1));
    // And have read the log that far, so that no bell rung for that place is heard any more.
    await Promise.all(apps.map(({ door }) => heartbeat(door)));
    await push(first(), await a.set({ ...revocationOf([{ kind: "session", sid }]), id }, { audience }));
    // A third event behind them: once it has arrived, so would have the second.
    const behind = await a.set(revocationOf([{ kind: "session", sid: "u_later.a" }]), { audience });
    expect((await push(first(), behind)).status).toBe(202);
    const later = await a.token({ sid: "u_later.a" });
    for (const { url } of apps) {
      await until("the later one is there", async () => (await outcomeOf(url, withToken(later))) === "session_revoked");
      expect(await outcomeOf(url, withToken(token))).toBe("session_revoked");
    }
  });
});

describe("an issuer's key set", () => {
  type Answer = (request: IncomingMessage, response: ServerResponse) => void;
  /** An issuer whose key set says whatever it is told to say. */
  async function keySetThat(first: Answer) {
    let answer = first;
    const signer = await createSigner("ES256", "k");
    const http = createServer((request, response) => answer(request, response));
    const url = await listen(http);
    stops.push(() => {
      http.closeAllConnections();
      http.close();
    });
    return {
      url,
      signer,
      says(next: Answer) {
        answer = next;
      },
      good: ((_request, response) => response.end(JSON.stringify({ keys: [signer.publicJwk] }))) as Answer,
    };
  }

  const bad: readonly (readonly [string, Answer])[] = [
    ["is huge", (_request, response) => response.end(`{"keys":[${'{"kty":"oct"},'.repeat(100_000)}{}]}`)],
    ["is endless", (_request, response) => endlessly(response)],
    ["is elsewhere", (_request, response) => response.writeHead(302, { location: `${cluster.issuer.url}/` }).end()],
    ["is no JSON", (_request, response) => response.end("<html>")],
    ["has no keys", (_request, response) => response.end('{"keys":"none"}')],
    ["has keys that are none", (_request, response) => response.end('{"keys":[null,7,"x",[]]}')],
    ["is null", (_request, response) => response.end("null")],
    ["is an error", (_request, response) => response.writeHead(500).end('{"keys":[]}')],
    ["never comes", () => {}],
    ["breaks off", (_request, response) => response.writeHead(200, { "content-length": "999" }).destroy()],
  ];

  function endlessly(response: ServerResponse): void {
    const timer = setInterval(() => response.write(" ".repeat(4_096)), 1);
    response.on("close", () => clearInterval(timer));
  }

  it.each(bad)("that %s lets nobody in, and is asked again until it is good", async (_name, answer) => {
    const keySet = await keySetThat(answer);
    const http = createServer();
    const io = new Server(http);
    const door = protect(io, {
      redis: new Redis(cluster.redis.url, { lazyConnect: true }),
      issuers: [{ issuer: keySet.url, audience: AUDIENCE, feed: false }],
      cluster: CLUSTER,
      clusterSecret: CLUSTER_SECRET,
    });
    const problems: string[] = [];
    door.events.on("problem", ({ message }) => problems.push(message));
    const url = await listen(http);
    stops.push(
      () => io.close(),
      () => door.close(),
    );
    await until("it was asked", () => problems.some((message) => message.includes(keySet.url)));
    const token = await cluster.issuer.token({ iss: keySet.url }, keySet.signer);
    expect(await outcomeOf(url, withToken(token))).toBe("websocket error");
    keySet.says(keySet.good);
    await door.ready();
    expect(await outcomeOf(url, withToken(token))).toBe("connect");
    // Nor does a bad one take away the keys that there are.
    keySet.says(answer);
    const unknown = await cluster.issuer.token({ iss: keySet.url }, await createSigner("ES256", "unknown"));
    expect(["token_invalid", "sent away"]).toContain(await outcomeOf(url, withToken(unknown)));
    expect(await outcomeOf(url, withToken(token))).toBe("connect");
  });

  it("that gained a key is asked for it, though a stranger has just made us ask for one that is not there", async () => {
    const sid = "u_rotated.a";
    const client = cluster.client(other, await cluster.issuer.token({ sid }));
    await connected(client);
    // On the other node only: the one that takes the event in has not asked lately.
    const unknown = await createSigner("ES256", "of-a-stranger");
    await outcomeOf(other.url, withToken(await cluster.issuer.token({}, unknown)));
    const rotated = await createSigner("ES256", "rotated");
    cluster.issuer.publish(rotated);
    const fresh = await cluster.startNode();
    await fresh.door.ready();
    const set = await cluster.issuer.set(revocationOf([{ kind: "session", sid }]), { signer: rotated });
    expect((await cluster.push(fresh, set)).status).toBe(202);
    await until("it is out", () => !client.connected, { withinMs: 5_000 });
  });
});

describe("a client that was let in", () => {
  async function letIn(): Promise<RawSocket> {
    const raw = await openRaw(node.url);
    raw.send(connectPacket({ token: await cluster.issuer.token() }));
    await until("it is in", () => raw.heard.some((message) => message.startsWith("40")));
    return raw;
  }

  it.each(["connect", "connect_error", "disconnect", "disconnecting", "newListener", "removeListener"])(
    "and sends an event named %s reaches no handler and is cut off",
    async (name) => {
      const raw = await letIn();
      raw.send(`42["${name}"]`);
      await until("it is cut off", () => raw.closed);
      expect(handled).toEqual([]);
    },
  );

  it.each(["error", "connection", "expiring", "authenticated", "unauthorized", "__proto__", "constructor"])(
    "and sends an event named %s has sent an ordinary event",
    async (name) => {
      const raw = await letIn();
      raw.send(`42["${name}",{"__proto__":{"admin":true}}]`, '421["whoami"]');
      await until("it is answered", () => raw.heard.some((message) => message.startsWith("431")));
      expect(handled).toEqual([name, "whoami"]);
      expect({}).not.toHaveProperty("admin");
    },
  );

  it("and acknowledges what nobody asked, or twice, or with a huge number, changes nothing", async () => {
    const raw = await letIn();
    raw.send('437["x"]', '430["x"]', '430["x"]', '43999999999999999["x"]', '43["x"]', '421["whoami"]');
    await until("it is answered or cut off", () => raw.closed || raw.heard.some((each) => each.startsWith("431")));
    expect(handled.filter((event) => event !== "whoami")).toEqual([]);
  });

  it("and sends bytes is understood, and one that names more than it sends is not", async () => {
    const good = await letIn();
    good.send('451-7["bytes",{"_placeholder":true,"num":0}]', new Uint8Array([1, 2, 3]));
    await until("it is answered", () => good.heard.includes("437[3]"));
    for (const packet of ['4599999-["bytes"]', '451-["bytes",{"_placeholder":true,"num":7}]', "45-[]", "461-1[]"]) {
      const raw = await letIn();
      raw.send(packet, new Uint8Array([1]), '421["whoami"]');
      await until("it is cut off, or goes on", () => raw.closed || raw.heard.some((each) => each.startsWith("431")));
    }
    expect(handled.filter((event) => event === "bytes")).toHaveLength(1);
  });

  it("and shows bytes as its token is refused and stays who it was", async () => {
    const raw = await letIn();
    raw.send('451-9["authenticate",{"token":{"_placeholder":true,"num":0}}]', new Uint8Array([1, 2, 3]));
    await until("it is answered", () => raw.heard.some((message) => message.startsWith("439[")));
    expect(raw.heard.join()).toContain("token_invalid");
    raw.send('421["whoami"]');
    await until("it goes on", () => raw.heard.some((message) => message.startsWith("431")));
  });

  it("and shows a token shows it to no handler of the app, not even one for all events", async () => {
    const client = cluster.client(node, await cluster.issuer.token({ sub: "u_any", sid: "u_any.a" }));
    await connected(client);
    await client.emitWithAck("authenticate", await cluster.issuer.token({ sub: "u_any", sid: "u_any.a" }));
    expect(handled).toEqual([]);
    client.disconnect();
  });

  it("and floods authenticate is answered for each, one judged at a time, and stays who it was", async () => {
    const client = cluster.client(node, await cluster.issuer.token({ sub: "u_flood", sid: "u_flood.a" }));
    await connected(client);
    const fresh = await cluster.issuer.token({ sub: "u_flood", sid: "u_flood.a" });
    const answers = await Promise.all(Array.from({ length: 100 }, () => client.emitWithAck("authenticate", fresh)));
    expect(answers).toHaveLength(100);
    expect(await client.emitWithAck("whoami")).toBe("u_flood");
    client.disconnect();
  });
});

describe("somebody else's polling session", () => {
  it("is not carried on by a request that bears a token of one's own, and its owner stays", async () => {
    const owner = cluster.client(node, await cluster.issuer.token({ sub: "u_owner" }), {
      transports: ["polling"],
      reconnection: false,
    });
    await connected(owner);
    const sid = owner.io.engine.id;
    const authorization = `Bearer ${await cluster.issuer.token()}`;
    const posted = await post(node.url, sid, '42["intruded"]', { authorization });
    expect(posted.status).toBe(400);
    const polled = await fetch(`${node.url}/socket.io/?EIO=4&transport=polling&sid=${sid}`, {
      headers: { authorization },
    });
    expect(polled.status).toBe(400);
    // The first of two names is judged, the last is used by some parsers.
    for (const query of [`sid=x&sid=${sid}`, `sid=${sid}&sid=x`]) {
      const url = `${node.url}/socket.io/?EIO=4&transport=polling&${query}`;
      const response = await fetch(url, { method: "POST", body: '42["intruded"]', headers: { authorization } });
      expect(response.status, query).toBe(400);
    }
    expect(await owner.emitWithAck("whoami")).toBe("u_owner");
    expect(handled).toEqual(["whoami"]);
    owner.disconnect();
  });

  it("cannot be guessed", async () => {
    const sids = await Promise.all(Array.from({ length: 5 }, async () => (await openPolling(node.url)).sid));
    expect(new Set(sids).size).toBe(5);
    for (const sid of sids) expect(sid).toMatch(/^node-\d+\.[\w-]{24}$/);
    for (const sid of ["__proto__", "constructor", "toString", "%00", "x".repeat(5_000)]) {
      const authorization = `Bearer ${await cluster.issuer.token()}`;
      expect((await post(node.url, sid, "40", { authorization })).status, sid).toBe(400);
    }
  });
});

describe("a token that renews by the header of a polling request", () => {
  it("is judged by the rules of the namespace, as any other", async () => {
    const own = await app({ namespaces: [{ namespace: "/ops", scope: "ops" }] });
    own.io.of("/ops").on("connection", (socket: ProtectedSocket) => {
      socket.on("scope", (answer) => answer(socket.data.session.scope));
    });
    const person = { sub: "u_less", sid: "u_less.a" };
    const soon = Math.floor(Date.now() / 1000);
    const bearer = async (scope: string, exp: number) =>
      `Bearer ${await cluster.issuer.token({ ...person, scope, exp })}`;
    const extraHeaders = { authorization: await bearer("ops", soon + 200) };
    const client = connect(`${own.url}/ops`, {
      forceNew: true,
      transports: ["polling"],
      reconnection: false,
      extraHeaders,
    });
    stops.push(() => client.disconnect());
    await until("it is in", () => client.connected);
    extraHeaders.authorization = await bearer("chat", soon + 300);
    const answers: unknown[] = [];
    client.emit("scope", (answer: unknown) => answers.push(answer));
    await until("it is answered, or out", () => answers.length > 0 || !client.connected);
    // Either it goes on as what it was, or it is out; it is not in with a token that does not reach this far.
    expect(answers).not.toContain("chat");
    await until("it is out", () => !client.connected, { withinMs: 3_000 });
  });
});

describe("a reader that never reads", () => {
  /** A client of the node that takes nothing from its connection any more, with more waiting than fits in between. */
  async function stalled(token: string, to: TestNode): Promise<{ client: TestClient; socket: Socket }> {
    const met = new Promise<Socket>((resolve) => server.once("connection", resolve));
    const client = cluster.client(to, token, { reconnection: false });
    await connected(client);
    const socket = await met;
    (client.io.engine as unknown as { transport: { ws: { pause(): void } } }).transport.ws.pause();
    const chunk = "x".repeat(1_000_000);
    for (let i = 0; i < 20; i++) socket.emit("bulk", chunk);
    await until("it is stuck", () => !socket.conn.transport.writable);
    return { client, socket };
  }

  it("is dead once it is revoked, and its connection is cut though it never drains", async () => {
    const sid = "u_stall.a";
    const { client, socket } = await stalled(await cluster.issuer.token({ sid }), node);
    const tcp = socket.conn.request.socket;
    const receipt = await cluster.revoke(node, [{ kind: "session", sid }]);
    expect(receipt.applied.find((each) => each.node === node.door.node)?.closed).toBe(1);
    expect(socket.connected).toBe(false);
    expect(socket.conn.readyState).not.toBe("open");
    client.emit("after the end");
    await until("its transport is closed", () => socket.conn.readyState === "closed", { withinMs: 3_000 });
    await until("its connection is gone", () => tcp.destroyed, { withinMs: 5_000 });
    expect(handled).not.toContain("after the end");
  });

  it("is dead at its token's end, and its connection is cut though it never drains", async () => {
    const exp = Math.floor(Date.now() / 1000) + 2;
    const { client, socket } = await stalled(await cluster.issuer.token({ exp }), node);
    const tcp = socket.conn.request.socket;
    await until("its time is over", () => Date.now() / 1000 > exp);
    await until("it is dead", () => socket.conn.readyState !== "open", { withinMs: 1_000 });
    client.emit("after the end");
    await until("it is out", () => !socket.connected, { withinMs: 3_000 });
    await until("its connection is gone", () => tcp.destroyed, { withinMs: 5_000 });
    expect(handled).not.toContain("after the end");
  });
});

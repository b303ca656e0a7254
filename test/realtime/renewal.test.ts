import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { until } from "../../infra/until.ts";
import type { ProtectedSocket } from "../../realtime/protect.ts";
import {
  connected,
  startCluster,
  type TestClient,
  type TestCluster,
  type TestNode,
} from "../support/realtime-cluster.ts";

let cluster: TestCluster;
let node: TestNode;

beforeAll(async () => {
  cluster = await startCluster();
  node = await cluster.startNode({}, (io, itsDoor) => {
    io.on("connection", (socket: ProtectedSocket) => {
      socket.on("scope", (answer) => answer(socket.data.session.scope));
      socket.on("room", (room, scope, answer) => {
        itsDoor.join(socket, room, { scope: scope ?? undefined });
        answer([...socket.rooms]);
      });
      socket.on("rooms", (answer) => answer([...socket.rooms]));
      socket.on("siblings", (answer) => answer(itsDoor.sessionSockets(socket).length));
      socket.on("kick me", () => itsDoor.kick(socket));
    });
  });
  await node.door.ready();
});

afterAll(() => cluster.stop());

const person = (sub: string) => ({ sub, sid: `${sub}.a` });
const nowSeconds = () => Math.floor(Date.now() / 1000);

function eventsOf(client: TestClient, name: string): { expires_in: number; expires_at: number }[] {
  const seen: { expires_in: number; expires_at: number }[] = [];
  client.on(name, (event) => seen.push(event));
  return seen;
}

describe("a socket whose token is about to expire", () => {
  it("is told so, shows a fresh one, and goes on with the same id, rooms and no break", async () => {
    const first = await cluster.issuer.token({ ...person("u_renew"), exp: nowSeconds() + 3 });
    const client = cluster.client(node, first);
    await connected(client);
    const { id } = client;
    const expiring = eventsOf(client, "expiring");
    await client.emitWithAck("room", "lounge", undefined);
    await until("it is told", () => expiring.length > 0);
    const fresh = await cluster.issuer.token({ ...person("u_renew"), scope: "chat" });
    const answer = await client.emitWithAck("authenticate", { token: fresh });
    expect(answer).toMatchObject({ expires_in: expect.any(Number), expires_at: expect.any(Number) });
    await until(
      "the first token is long over",
      () => Date.now() / 1000 > nowSeconds() && nowSeconds() > (expiring[0]?.expires_at ?? 0) + 1,
    );
    expect(client.history).toEqual(["connect"]);
    expect(client.id).toBe(id);
    expect(await client.emitWithAck("scope")).toBe("chat");
    expect(await client.emitWithAck("rooms")).toContain("lounge");
  });

  it("is closed after all when it shows nothing", async () => {
    const client = cluster.client(node, await cluster.issuer.token({ exp: nowSeconds() + 1 }), { reconnection: false });
    await until("it is out", () => client.history.length === 3);
    expect(client.history).toEqual(["connect", "unauthorized:token_expired", "disconnect:transport close"]);
  });
});

describe("a node that is left alone", () => {
  it("closes a socket at its token's end though Redis and the issuer are both gone", async () => {
    const alone = await startCluster();
    const island = await alone.startNode();
    await island.door.ready();
    const exp = nowSeconds() + 2;
    const client = alone.client(island, await alone.issuer.token({ exp }), { reconnection: false });
    await connected(client);
    await alone.redis.kill("SIGKILL");
    await alone.issuer.stop();
    await until("it is out", () => !client.connected);
    expect(client.history).toEqual(["connect", "unauthorized:token_expired", "disconnect:transport close"]);
    expect(Date.now() / 1000).toBeGreaterThanOrEqual(exp);
    await alone.issuer.start();
    await alone.stop();
  });
});

describe("authenticate on a living socket", () => {
  const rows: readonly (readonly [string, () => unknown, string])[] = [
    ["another person's token", () => cluster.issuer.token(), "session_mismatch"],
    ["another session's token", () => cluster.issuer.token({ sub: "u_own", sid: "u_own.b" }), "session_mismatch"],
    ["a token that has expired", () => cluster.issuer.token({ ...person("u_own"), exp: 1_000 }), "token_expired"],
    ["nothing", () => undefined, "token_missing"],
    ["garbage", () => ({ token: { a: 1 } }), "token_invalid"],
  ];

  it.each(rows)(
    "refuses %s, says so in the ack and the event, and leaves the socket as it was",
    async (_name, make, code) => {
      const client = cluster.client(node, await cluster.issuer.token({ ...person("u_own"), scope: "before" }));
      await connected(client);
      const answer = await client.emitWithAck("authenticate", await make());
      expect(answer).toMatchObject({ type: "UnauthorizedError", code });
      await until("the event is there", () => client.history.includes(`unauthorized:${code}`));
      expect(await client.emitWithAck("scope")).toBe("before");
    },
  );

  it("moves the socket to its new token: revoking the old one leaves it, revoking the new one ends it", async () => {
    const client = cluster.client(node, await cluster.issuer.token({ ...person("u_jti"), jti: "t_old" }));
    await connected(client);
    await client.emitWithAck("authenticate", await cluster.issuer.token({ ...person("u_jti"), jti: "t_new" }));
    await cluster.revoke(node, [{ kind: "token", jti: "t_old" }]);
    expect(client.connected).toBe(true);
    await cluster.revoke(node, [{ kind: "token", jti: "t_new" }], { code: "token_revoked" });
    await until("it is out", () => !client.connected);
    expect(client.history).toContain("unauthorized:token_revoked");
  });

  it("leaves the rooms that the fresh token no longer reaches, and keeps the others", async () => {
    const client = cluster.client(node, await cluster.issuer.token({ ...person("u_rooms"), scope: "ops chat" }));
    await connected(client);
    await client.emitWithAck("room", "ops-room", "ops");
    await client.emitWithAck("room", "chat-room", "chat");
    await client.emitWithAck("authenticate", await cluster.issuer.token({ ...person("u_rooms"), scope: "chat" }));
    const rooms = await client.emitWithAck("rooms");
    expect(rooms).toContain("chat-room");
    expect(rooms).not.toContain("ops-room");
  });

  it("an older token of the same session changes nothing", async () => {
    const client = cluster.client(
      node,
      await cluster.issuer.token({ ...person("u_older"), scope: "new", exp: nowSeconds() + 300 }),
    );
    await connected(client);
    await client.emitWithAck(
      "authenticate",
      await cluster.issuer.token({ ...person("u_older"), scope: "old", exp: nowSeconds() + 100 }),
    );
    expect(await client.emitWithAck("scope")).toBe("new");
  });
});

describe("polling with a header on every request", () => {
  it("a newer token in it renews the socket, and another person's is refused", async () => {
    const headers = { authorization: `Bearer ${await cluster.issuer.token({ ...person("u_poll"), scope: "one" })}` };
    const client = cluster.client(node, undefined, {
      transports: ["polling"],
      extraHeaders: headers,
      reconnection: false,
    });
    await connected(client);
    expect(await client.emitWithAck("scope")).toBe("one");
    headers.authorization = `Bearer ${await cluster.issuer.token({ ...person("u_poll"), scope: "two", exp: nowSeconds() + 400 })}`;
    expect(await client.emitWithAck("scope")).toBe("two");
    headers.authorization = `Bearer ${await cluster.issuer.token()}`;
    client.emit("rooms", () => undefined);
    await until("it is out", () => !client.connected);
    expect(client.history).toEqual(["connect", "disconnect:transport error"]);
  });
});

describe("for the app", () => {
  it("finds the sockets of a session on this node, and can kick one", async () => {
    const token = await cluster.issuer.token(person("u_two"));
    const clients = [cluster.client(node, token), cluster.client(node, token)];
    await Promise.all(clients.map(connected));
    expect(await clients[0]?.emitWithAck("siblings")).toBe(2);
    clients[0]?.emit("kick me");
    await until("one is out", () => clients.filter((client) => client.connected).length === 1);
  });
});

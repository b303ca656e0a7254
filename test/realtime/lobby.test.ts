import type { Server } from "socket.io";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { until } from "../../infra/until.ts";
import type { ProtectedSocket } from "../../realtime/protect.ts";
import { connected, startCluster, type TestCluster, type TestNode } from "../support/realtime-cluster.ts";

let cluster: TestCluster;
let node: TestNode;
let server: Server;
/** Who the app's `connection` listener has met. */
const met: string[] = [];

beforeAll(async () => {
  cluster = await startCluster();
  node = await cluster.startNode({ LOBBY_SECONDS: "2" }, (io) => {
    server = io;
    io.on("connection", (socket: ProtectedSocket) => {
      met.push(socket.data.session.sub);
      void socket.join("hall");
      socket.on("whoami", (answer) => answer(socket.data.session.sub));
    });
  });
  await node.door.ready();
});

afterAll(() => cluster.stop());

describe("a client without a token, where the lobby is open", () => {
  it("connects, receives nothing, may say nothing, and is let in once it has shown a token", async () => {
    const client = cluster.client(node, undefined);
    const heard: unknown[] = [];
    client.on("news", (news) => heard.push(news));
    await connected(client);
    server.emit("news", "for all");
    server.to("hall").emit("news", "for the hall");
    server.to(client.id ?? "").emit("news", "for this one");
    expect(await server.local.fetchSockets()).toEqual([]);
    expect(await client.emitWithAck("whoami")).toMatchObject({ code: "token_missing", advice: "login" });
    expect(met).toEqual([]);
    const authenticated = new Promise((resolve) => client.once("authenticated", resolve));
    client.emit("authenticate", { token: await cluster.issuer.token({ sub: "u_lobby" }) });
    expect(await authenticated).toMatchObject({ expires_in: expect.any(Number) });
    expect(met).toEqual(["u_lobby"]);
    expect(await client.emitWithAck("whoami")).toBe("u_lobby");
    server.emit("news", "later, for all");
    server.to("hall").emit("news", "later, for the hall");
    await until("it hears", () => heard.length >= 2);
    expect(heard).toEqual(["later, for all", "later, for the hall"]);
    expect(client.history).toEqual(["connect"]);
  });

  it("is closed when it takes too long", async () => {
    const client = cluster.client(node, undefined);
    await until("it is out", () => client.history.length === 3);
    expect(client.history).toEqual(["connect", "unauthorized:token_missing", "disconnect:io server disconnect"]);
  });

  it("is closed when what it shows is not good", async () => {
    const client = cluster.client(node, undefined);
    await connected(client);
    client.emit("authenticate", { token: "garbage" });
    await until("it is out", () => client.history.length === 3);
    expect(client.history).toEqual(["connect", "unauthorized:token_invalid", "disconnect:io server disconnect"]);
  });

  it("is let in by the first of several tokens that it shows at once, and is not closed for its haste", async () => {
    const client = cluster.client(node, undefined);
    await connected(client);
    const token = await cluster.issuer.token({ sub: "u_hasty" });
    const answers = await Promise.all([1, 2, 3].map(() => client.emitWithAck("authenticate", { token })));
    expect(answers[0]).toMatchObject({ expires_in: expect.any(Number) });
    expect(answers.slice(1).map(({ code }) => code)).toEqual(["too_many_attempts", "too_many_attempts"]);
    expect(await client.emitWithAck("whoami")).toBe("u_hasty");
    expect(client.history).toEqual(["connect"]);
  });

  it("is not let in by a token that was revoked, and can be revoked once it is in", async () => {
    const sid = "u_lr.a";
    const client = cluster.client(node, undefined);
    await connected(client);
    await client.emitWithAck("authenticate", { token: await cluster.issuer.token({ sid }) });
    await cluster.revoke(node, [{ kind: "session", sid }]);
    await until("it is out", () => !client.connected);
    expect(client.history).toContain("unauthorized:session_revoked");
    const again = cluster.client(node, undefined);
    await connected(again);
    const answer = await again.emitWithAck("authenticate", { token: await cluster.issuer.token({ sid }) });
    expect(answer).toMatchObject({ code: "session_revoked" });
  });

  it("who brings a token needs no second trip, and a bad one is refused at once", async () => {
    await connected(cluster.client(node, await cluster.issuer.token()));
    const bad = cluster.client(node, "garbage");
    await until("it was refused", () => bad.history.length > 0);
    expect(bad.history).toEqual(["connect_error:token_invalid"]);
  });
});

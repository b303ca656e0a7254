import { afterAll, beforeAll, expect, it } from "vitest";
import { until } from "../../infra/until.ts";
import { type ProtectedSocket, requireScope } from "../../realtime/protect.ts";
import { connected, startCluster, type TestCluster, type TestNode } from "../support/realtime-cluster.ts";

let cluster: TestCluster;
let nodes: TestNode[];

beforeAll(async () => {
  cluster = await startCluster();
  nodes = await Promise.all(
    [1, 2].map(() =>
      cluster.startNode({ QUERY_TICKET: "on" }, (io) => {
        io.on("connection", (socket: ProtectedSocket) => {
          socket.on("exp", (answer) => answer(socket.data.session.exp));
          socket.on(
            "post",
            requireScope("chat.write", (text: string, answer: (text: string) => void) => answer(text)),
          );
        });
      }),
    ),
  );
  await Promise.all(nodes.map(({ door }) => door.ready()));
});
afterAll(() => cluster.stop());

const withTicket = (node: number, ticket: string) =>
  cluster.client(nodes[node] as TestNode, undefined, { query: { ticket }, reconnection: false });

it("a ticket lets in once, on one node, for as long as the access token that it speaks for", async () => {
  const exp = Math.floor(Date.now() / 1000) + 250;
  const ticket = await cluster.issuer.ticket({ access: { jti: "t_spoken_for", exp } });
  const clients = [0, 1, 0, 1].map((node) => withTicket(node, ticket));
  await until("all are judged", () => clients.every(({ history }) => history.length > 0));
  const winners = clients.filter((client) => client.connected);
  expect(winners).toHaveLength(1);
  expect(clients.flatMap(({ history }) => history).sort()).toEqual([
    "connect",
    ...Array(3).fill("connect_error:token_invalid"),
  ]);
  expect(await winners[0]?.emitWithAck("exp")).toBe(exp);
  await cluster.revoke(nodes[0] as TestNode, [{ kind: "token", jti: "t_spoken_for" }], { code: "token_revoked" });
  await until("it is out", () => !winners[0]?.connected);
});

it.each([
  ["an expired ticket", () => cluster.issuer.ticket({ exp: 1_000 }), "token_expired"],
  ["an access token in its place", () => cluster.issuer.token(), "token_invalid"],
  [
    "a ticket for a session that is over",
    () => cluster.issuer.ticket({ sub: "u_gone", sid: "u_gone.s" }),
    "session_revoked",
  ],
])("%s is refused", async (_name, make, code) => {
  await cluster.revoke(nodes[0] as TestNode, [{ kind: "session", sid: "u_gone.s" }]);
  const client = withTicket(0, await make());
  await until("it was refused", () => client.history.length > 0);
  expect(client.history).toEqual([`connect_error:${code}`]);
});

it("a ticket is no access token", async () => {
  const client = cluster.client(nodes[0] as TestNode, await cluster.issuer.ticket());
  await until("it was refused", () => client.history.length > 0);
  expect(client.history).toEqual(["connect_error:token_invalid"]);
});

it("a handler behind requireScope runs only for who has it, and says what is required", async () => {
  const can = cluster.client(nodes[0] as TestNode, await cluster.issuer.token({ scope: "chat.write chat.read" }));
  const cannot = cluster.client(nodes[0] as TestNode, await cluster.issuer.token({ scope: "chat.read" }));
  await Promise.all([can, cannot].map(connected));
  expect(await can.emitWithAck("post", "hello")).toBe("hello");
  expect(await cannot.emitWithAck("post", "hello")).toMatchObject({
    code: "scope_insufficient",
    requires: "scope chat.write",
  });
});

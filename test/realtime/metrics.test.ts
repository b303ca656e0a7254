import { afterAll, beforeAll, expect, it } from "vitest";
import { until } from "../../infra/until.ts";
import { connected, startCluster, type TestCluster, type TestNode } from "../support/realtime-cluster.ts";

let cluster: TestCluster;

beforeAll(async () => {
  cluster = await startCluster();
});
afterAll(() => cluster.stop());

async function metricsOf({ url }: Pick<TestNode, "url">): Promise<{ text: string; value(name: string): number }> {
  const response = await fetch(`${url}/metrics`);
  expect(response.headers.get("content-type")).toContain("text/plain");
  const text = await response.text();
  const line = (name: string) => text.split("\n").find((each) => each.startsWith(name));
  return { text, value: (name) => Number(line(name)?.split(" ").at(-1)) };
}

it("a node counts who came in, who did not and who was thrown out, and names nobody", async () => {
  const node = await cluster.startNode({}, (io) => {
    io.of("/lounge");
    io.of(/^\/person-/);
  });
  await node.door.ready();
  const token = await cluster.issuer.token({ sub: "u_secretive", sid: "u_secretive.a" });
  const client = cluster.client(node, token);
  await connected(client);
  const others = ["/lounge", "/person-secretive"].map((name) => client.io.socket(name, { auth: { token } }));
  await until("it is in two more namespaces", () => others.every((socket) => socket.connected));
  const { value: before } = await metricsOf(node);
  expect(before('keycard_namespace_sockets{namespace="/"')).toBe(1);
  expect(before('keycard_namespace_sockets{namespace="/lounge"')).toBe(1);
  expect(before('keycard_namespace_sockets{namespace="others"')).toBe(1);
  const refused = cluster.client(node, "garbage");
  await until("it was refused", () => refused.history.length > 0);
  await cluster.revoke(node, [{ kind: "session", sid: "u_secretive.a" }]);
  const { text, value } = await metricsOf(node);
  expect(value('keycard_handshakes_total{outcome="admitted"')).toBe(3);
  expect(value('keycard_handshakes_total{outcome="token_invalid"')).toBe(1);
  expect(value('keycard_revocations_total{code="session_revoked"')).toBe(1);
  // Pushed to this node; but its question to the feed may have been a moment earlier.
  expect(value('keycard_events_total{way="push"') + value('keycard_events_total{way="feed"')).toBe(1);
  expect(value("keycard_revoked_sockets_total")).toBe(3);
  expect(value("keycard_revocation_seconds_count")).toBe(1);
  expect(value("keycard_sockets")).toBe(0);
  expect(value("keycard_closing_revocations")).toBe(0);
  expect(value("keycard_unwritten_receipts")).toBe(0);
  await until("it is ready", async () => (await metricsOf(node)).value("keycard_ready") === 1);
  expect(value('keycard_feed_requests_total{outcome="answered"')).toBeGreaterThan(0);
  expect(text).toMatch(/^keycard_build_info\{version="\d+\.\d+\.\d+",nodejs="\d+\.\d+\.\d+",node="/m);
  expect(text).toContain("nodejs_eventloop_lag_seconds");
  expect(text).not.toContain("secretive");
});

it("the metrics are on a port of their own where one is given, and nowhere else", async () => {
  const node = await cluster.startNode({ METRICS_PORT: "0", METRICS_HOST: "127.0.0.1" });
  expect((await fetch(`${node.url}/metrics`)).status).toBe(404);
  const url = `http://127.0.0.1:${node.metricsPort}`;
  const { text } = await metricsOf({ url });
  expect(text).toContain("keycard_ready");
  for (const path of ["/readyz", "/events", "/socket.io/?EIO=4&transport=polling"]) {
    expect((await fetch(url + path)).status).toBe(404);
  }
  await node.stop();
  await expect(fetch(`${url}/metrics`)).rejects.toThrow();
});

it("while Redis is away every attempt is counted, and the log says when it began and when it was over", async () => {
  const node = await cluster.startNode();
  await node.door.ready();
  const lost = async (connection: string) =>
    (await metricsOf(node)).value(`keycard_redis_connections_total{connection="${connection}",outcome="lost"`) || 0;
  const before = node.lines.length;
  await cluster.redis.kill("SIGKILL");
  await until("it was tried often", async () => (await lost("commands")) >= 8 && (await lost("adapter")) >= 4);
  await cluster.redis.restart();
  const messages = () =>
    node.lines.slice(before).map((line): string => (JSON.parse(line) as { message: string }).message);
  const ends = ["the link to Redis is back", "the adapter has Redis again"];
  await until("it is over", () => ends.every((end) => messages().includes(end)));
  for (const message of ["the link to Redis is broken", "the adapter lost Redis", ...ends]) {
    expect(messages().filter((each) => each === message)).toEqual([message]);
  }
  expect(messages()).not.toContain("the heartbeat failed");
  const back = node.lines.find((line) => line.includes("the link to Redis is back")) ?? "";
  expect(JSON.parse(back)).toMatchObject({ level: "info", times: expect.any(Number), afterMs: expect.any(Number) });
});

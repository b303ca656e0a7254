import { afterAll, beforeAll, expect, it } from "vitest";
import { until } from "../../infra/until.ts";
import { connected, startCluster, type TestCluster } from "../support/realtime-cluster.ts";

let cluster: TestCluster;

beforeAll(async () => {
  cluster = await startCluster();
});
afterAll(() => cluster.stop());

it("a node counts who came in, who did not and who was thrown out, and names nobody", async () => {
  const node = await cluster.startNode();
  await node.door.ready();
  const token = await cluster.issuer.token({ sub: "u_secretive", sid: "u_secretive.a" });
  const client = cluster.client(node, token);
  await connected(client);
  const refused = cluster.client(node, "garbage");
  await until("it was refused", () => refused.history.length > 0);
  await cluster.revoke(node, [{ kind: "session", sid: "u_secretive.a" }]);
  const response = await fetch(`${node.url}/metrics`);
  expect(response.headers.get("content-type")).toContain("text/plain");
  const text = await response.text();
  const value = (name: string) =>
    Number(
      text
        .split("\n")
        .find((line) => line.startsWith(name))
        ?.split(" ")
        .at(-1),
    );
  expect(value('keycard_handshakes_total{outcome="admitted"')).toBe(1);
  expect(value('keycard_handshakes_total{outcome="token_invalid"')).toBe(1);
  expect(value('keycard_revocations_total{code="session_revoked"')).toBe(1);
  expect(value("keycard_revoked_sockets_total")).toBe(1);
  expect(value("keycard_revocation_seconds_count")).toBe(1);
  expect(value("keycard_sockets")).toBe(0);
  expect(value("keycard_ready")).toBe(1);
  expect(text).not.toContain("u_secretive");
});

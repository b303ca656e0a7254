/** A node that is being stopped turns clients away so that they go elsewhere: a proxy is told in its own words, and no stock client gives up. */
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { until } from "../../infra/until.ts";
import { sendBytes, upgradeWith } from "../support/raw.ts";
import { connected, startCluster, type TestCluster, type TestNode } from "../support/realtime-cluster.ts";

let cluster: TestCluster;
let node: TestNode;

beforeAll(async () => {
  cluster = await startCluster();
});

beforeEach(async () => {
  node = await cluster.startNode();
  await node.door.ready();
});

afterAll(() => cluster.stop());

describe("while a node is draining", () => {
  it("opening a polling transport is answered 503, and when to come back", async () => {
    const open = () =>
      fetch(`${node.url}/socket.io/?EIO=4&transport=polling`, { headers: { origin: "http://app.test" } });
    const before = await open();
    expect(before.status).toBe(200);
    await before.body?.cancel();
    node.door.drain();
    const response = await open();
    expect(response.status).toBe(503);
    expect(response.headers.get("retry-after")).toBe("1");
    expect(response.headers.get("access-control-allow-origin")).toBe("http://app.test");
    expect(await response.json()).toMatchObject({ code: "unavailable", advice: "retry" });
  });

  it("opening a WebSocket is answered 503", async () => {
    const upgrade = () => sendBytes(node.url, upgradeWith("/socket.io/?EIO=4&transport=websocket"), 20);
    expect(await upgrade()).toMatch(/^HTTP\/1.1 101 /);
    node.door.drain();
    expect(await upgrade()).toMatch(/^HTTP\/1.1 503 Service Unavailable\r\n/);
  });

  it.each([["websocket"], ["polling"]] as const)(
    "a stock client in the middle of its handshake over %s loses its connection, and tries again",
    async (transport) => {
      let letGo = () => {};
      const held = new Promise<void>((resolve) => {
        letGo = resolve;
      });
      const token = await cluster.issuer.token();
      let asked = 0;
      const client = cluster.client(node, undefined, {
        transports: [transport],
        reconnectionDelay: 10,
        auth: (give) => {
          asked += 1;
          void held.then(() => give({ token }));
        },
      });
      await until("its transport is open", () => asked > 0);
      node.door.drain();
      letGo();
      await until("it has tried again", () => client.history.includes("connect_error:transport"));
      expect(client.active).toBe(true);
      expect(client.history).not.toContain("connect");
      expect(client.history.filter((what) => what.startsWith("connect_error"))).not.toContain(
        "connect_error:unavailable",
      );
      client.disconnect();
    },
  );

  it("those who are in stay until it stops, and are then told that it is a matter of the node", async () => {
    const client = cluster.client(node, await cluster.issuer.token(), { reconnection: false });
    await connected(client);
    node.door.drain();
    expect((await fetch(`${node.url}/readyz`)).status).toBe(503);
    expect((await fetch(`${node.url}/healthz`)).status).toBe(200);
    expect(client.connected).toBe(true);
    await node.stop();
    await until("it is out", () => !client.connected);
    expect(client.history).toEqual(["connect", "unauthorized:unavailable", "disconnect:transport close"]);
  });
});

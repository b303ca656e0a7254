/** What the app says reaches every node by the adapter, and nobody else can say it, though Redis is open to them. */
import { Redis } from "ioredis";
import type { Server } from "socket.io";
import { afterAll, beforeAll, expect, it } from "vitest";
import { until } from "../../infra/until.ts";
import { openHeard, sealPublished } from "../../realtime/sealed-messages.ts";
import {
  CLUSTER_SECRET,
  connected,
  startCluster,
  type TestClient,
  type TestCluster,
  type TestNode,
} from "../support/realtime-cluster.ts";

const NEXT_SECRET = "what the nodes of the test cluster will share";
/** What `io.disconnectSockets()` of the classic adapter publishes, and where. */
const REQUESTS = "socket.io-request#/#";
const EVERYBODY_OUT = JSON.stringify({ uid: "mallory", type: 4, opts: { rooms: [], except: [] }, close: true });

let cluster: TestCluster;
let redis: Redis;
let first: TestNode;
let second: TestNode;

beforeAll(async () => {
  cluster = await startCluster();
  redis = new Redis(cluster.redis.url);
  [first, second] = await Promise.all([cluster.startNode({}, speaking), cluster.startNode({}, speaking)]);
});
afterAll(async () => {
  redis.disconnect();
  await cluster.stop();
});

function speaking(io: Server): void {
  io.of("/other");
  io.on("connection", (socket) => {
    socket.on("say", (text: string) => io.emit("said", text));
    socket.on("send everybody away", () => io.disconnectSockets(true));
  });
}

/** What it has heard, in order. */
async function clientOn(node: TestNode): Promise<{ readonly client: TestClient; readonly heard: string[] }> {
  const client = cluster.client(node, await cluster.issuer.token());
  const heard: string[] = [];
  client.on("said", (text: string) => heard.push(text));
  await connected(client);
  return { client, heard };
}

const ignoredBy = (node: TestNode) => node.lines.filter((line) => line.includes("a message of the adapter")).length;

/** Speaks where it can be seen that what was published before has been heard, or passed over. */
async function heardAfterwards(speaker: TestClient, heard: readonly string[], text: string): Promise<void> {
  speaker.emit("say", text);
  await until("it is heard", () => heard.at(-1) === text);
}

/** Everything on the channel from now on, as bytes. */
async function overheard(
  pattern: string,
): Promise<{ readonly messages: [channel: string, bytes: Buffer][]; stop(): void }> {
  const ear = new Redis(cluster.redis.url);
  const messages: [string, Buffer][] = [];
  ear.on("pmessageBuffer", (_pattern, channel: Buffer, bytes: Buffer) => messages.push([channel.toString(), bytes]));
  await ear.psubscribe(pattern);
  return { messages, stop: () => ear.disconnect() };
}

it("what the app says on one node reaches the sockets of another, and so does that they are to go", async () => {
  const [speaker, listener] = await Promise.all([clientOn(first), clientOn(second)]);
  await heardAfterwards(speaker.client, listener.heard, "good morning");
  speaker.client.emit("send everybody away");
  await until("everybody has gone", () => !speaker.client.connected && !listener.client.connected);
});

it("whoever writes to Redis can neither speak as the app nor send anybody away; it is dropped, told and counted", async () => {
  const [speaker, listener] = await Promise.all([clientOn(first), clientOn(second)]);
  const spying = await overheard("socket.io#/#*");
  await heardAfterwards(speaker.client, listener.heard, "the password is out");
  const [said] = spying.messages;
  if (said === undefined) throw new Error("nothing was overheard");
  const [channel, bytes] = said;
  const before = await ignored(second);
  const altered = Buffer.from(bytes);
  altered.writeUInt8(altered.readUInt8(altered.length - 1) ^ 1, altered.length - 1);
  const forgeries: [string, string | Buffer][] = [
    [REQUESTS, EVERYBODY_OUT],
    [REQUESTS, ""],
    [REQUESTS, Buffer.concat([bytes.subarray(0, 49), Buffer.from(EVERYBODY_OUT)])],
    [channel, altered],
    // Once more as it was, and where it was not said.
    [channel, bytes],
    ["socket.io#/other#", bytes],
  ];
  for (const [where, what] of forgeries) await redis.publish(where, what);
  await heardAfterwards(speaker.client, listener.heard, "never mind");
  expect(listener.heard).toEqual(["the password is out", "never mind"]);
  expect([speaker.client.connected, listener.client.connected]).toEqual([true, true]);
  expect((await ignored(second)) - before).toBe(forgeries.length);
  expect(ignoredBy(second)).toBe(1);
  spying.stop();
});

async function ignored(node: TestNode): Promise<number> {
  const text = await (await fetch(`${node.url}/metrics`)).text();
  return Number(/^keycard_ignored_events_total\S* (\d+)/m.exec(text)?.[1]);
}

it("nodes hear each other while the cluster's secret is replaced", async () => {
  const [speaker, listener] = [new Redis(cluster.redis.url), new Redis(cluster.redis.url)];
  sealPublished(speaker, [NEXT_SECRET, CLUSTER_SECRET]);
  const dropped: unknown[] = [];
  openHeard(listener, [CLUSTER_SECRET, NEXT_SECRET], () => dropped.push("something"));
  const heard: string[] = [];
  listener.on("messageBuffer", (_channel: Buffer, message: Buffer) => heard.push(message.toString()));
  await listener.subscribe("somewhere");
  await speaker.publish("somewhere", "with the new one");
  await until("it is heard", () => heard.length > 0);
  expect([heard, dropped]).toEqual([["with the new one"], []]);
  speaker.disconnect();
  listener.disconnect();
});

it("a node that is told so hears those who are no nodes", async () => {
  const open = await cluster.startNode({ SEALED_ADAPTER: "off" }, speaking);
  const { client } = await clientOn(open);
  await redis.publish(REQUESTS, EVERYBODY_OUT);
  await until("it was sent away", () => !client.connected);
});

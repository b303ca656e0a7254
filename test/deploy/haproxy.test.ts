/** The proxy that is deployed, run as it is: HAProxy itself, TLS, three nodes behind it, and stock clients in front of it. */
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { request } from "node:https";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { ManagerOptions, SocketOptions } from "socket.io-client";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { SECURITY_EVENT_MEDIA_TYPE } from "#contract/revocation";
import { makeCertificates } from "../../infra/certificates.ts";
import {
  HAPROXY_CONFIG,
  obtainHaproxy,
  problemsOfHaproxy,
  type RunningProxy,
  startProxy,
} from "../../infra/haproxy.ts";
import { startNodeProcess } from "../../infra/node.ts";
import type { Part } from "../../infra/part.ts";
import { reservePort } from "../../infra/ports.ts";
import { until } from "../../infra/until.ts";
import {
  AUDIENCE,
  CLUSTER,
  CLUSTER_SECRET,
  connected,
  revocationOf,
  startCluster,
  type TestClient,
  type TestCluster,
  type TestNode,
} from "../support/realtime-cluster.ts";
import whereHandlers from "./where-handlers.ts";

const TRUSTING = { TRUSTED_PROXIES: "127.0.0.1" };
const NAMES = ["node-1", "node-2", "node-3"] as const;

let dir: string;
let binary: string;
let cluster: TestCluster;
let ca: string;
let pem: string;
let proxy: RunningProxy;
/** In this process, so that it can be looked into. */
let first: TestNode;
/** Processes of their own: one is killed, the other is what is left. */
let second: Part;
let third: Part;
let addressesOfNodes: readonly string[];
const lines: string[] = [];
/** The addresses by which the nodes know who asks. */
const addresses: string[] = [];

async function startNode(name: string): Promise<TestNode> {
  const node = await cluster.startNode({ NODE_NAME: name, ...TRUSTING }, whereHandlers);
  node.door.events.on("admitted", ({ address }) => addresses.push(address));
  await node.door.ready();
  return node;
}

async function startProcess(name: string): Promise<{ readonly part: Part; readonly port: number }> {
  const { port, release } = await reservePort();
  const settings = {
    ...{ CLUSTER, CLUSTER_SECRET, AUDIENCE, ISSUER: cluster.issuer.url, REDIS_URL: cluster.redis.url, ...TRUSTING },
    HANDLERS: join(import.meta.dirname, "where-handlers.ts"),
  };
  await release();
  return { part: await startNodeProcess({ name, port, settings }), port };
}

beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), "keycard-haproxy-"));
  binary = await obtainHaproxy();
  const certificates = await makeCertificates(dir);
  ca = await readFile(certificates.ca, "utf8");
  pem = join(dir, "tls.pem");
  await writeFile(pem, (await readFile(certificates.cert, "utf8")) + (await readFile(certificates.key, "utf8")));
  cluster = await startCluster();
  const [one, two, three] = await Promise.all([startNode("node-1"), startProcess("node-2"), startProcess("node-3")]);
  first = one;
  second = two.part;
  third = three.part;
  addressesOfNodes = [one, two, three].map(({ port }) => `127.0.0.1:${port}`);
  proxy = await startProxy({
    binary,
    tls: pem,
    nodes: addressesOfNodes,
    onLine: (line) => lines.push(line),
  });
});

afterAll(async () => {
  await Promise.all([second?.stop(), third?.stop()]);
  await cluster?.stop();
  await proxy?.stop();
  await rm(dir, { recursive: true, force: true });
});

/** A stock client that comes through the proxy. */
async function client(options: Partial<ManagerOptions & SocketOptions> = {}): Promise<TestClient> {
  const token = await cluster.issuer.token();
  return cluster.client({ url: proxy.url } as TestNode, token, { ca, reconnectionDelay: 20, ...options });
}

async function inside(options?: Partial<ManagerOptions & SocketOptions>): Promise<TestClient> {
  const socket = await client(options);
  await connected(socket);
  return socket;
}

const where = (socket: TestClient): Promise<string> => socket.timeout(30_000).emitWithAck("where");

/** More clients than one for each node, and as many as it takes for each of these to have somebody. */
async function everywhere(
  names: readonly string[],
  optionsOf: (index: number) => Partial<ManagerOptions & SocketOptions> = () => ({}),
): Promise<{ readonly sockets: readonly TestClient[]; readonly homes: readonly string[] }> {
  const sockets: TestClient[] = [];
  const homes: string[] = [];
  while (sockets.length < 9 || names.some((name) => !homes.includes(name))) {
    if (sockets.length > 60) throw new Error(`60 clients, and all of them on ${[...new Set(homes)].join(", ")}`);
    const three = await Promise.all([0, 1, 2].map((i) => inside(optionsOf(sockets.length + i))));
    sockets.push(...three);
    homes.push(...(await Promise.all(three.map(where))));
  }
  return { sockets, homes };
}

const eitherWay = (index: number) => ({ transports: [index % 2 ? "websocket" : "polling"] });

interface Answer {
  readonly status: number;
  readonly headers: Readonly<Record<string, string | string[] | undefined>>;
  readonly body: string;
}

interface Asking {
  readonly method?: string;
  readonly headers?: Record<string, string>;
  readonly body?: string;
  readonly localAddress?: string;
}

function ask(path: string, { method = "GET", headers = {}, body, localAddress }: Asking = {}): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const asking = request(`${proxy.url}${path}`, { ca, method, headers, ...(localAddress ? { localAddress } : {}) });
    asking.on("error", reject);
    asking.on("response", (response) => {
      let text = "";
      response.setEncoding("utf8").on("data", (chunk: string) => {
        text += chunk;
      });
      response.on("end", () => resolve({ status: response.statusCode ?? 0, headers: response.headers, body: text }));
    });
    asking.end(body);
  });
}

describe("the configuration", () => {
  const addresses = { NODE_1: "127.0.0.1:1", NODE_2: "127.0.0.1:2", NODE_3: "127.0.0.1:3" };

  test("is one that HAProxy has nothing to say against, with TLS and without", () => {
    expect(problemsOfHaproxy(binary, { ...addresses, TLS_PEM: pem })).toEqual([]);
    expect(problemsOfHaproxy(binary, addresses)).toEqual([]);
  });

  test("is judged by a check that can fail", () => {
    expect(problemsOfHaproxy(binary, { ...addresses, HTTP_BIND: "nowhere" })).not.toEqual([]);
    expect(problemsOfHaproxy(binary, { ...addresses, TLS_PEM: join(dir, "absent.pem") })).not.toEqual([]);
  });

  test("waits longer than Socket.IO is silent", async () => {
    const text = await readFile(HAPROXY_CONFIG, "utf8");
    const seconds = (name: string) => Number(new RegExp(`^ *timeout ${name} (\\d+)s$`, "m").exec(text)?.[1]);
    const { body } = await ask("/socket.io/?EIO=4&transport=polling");
    const { pingInterval, pingTimeout } = JSON.parse(body.slice(1)) as { pingInterval: number; pingTimeout: number };
    for (const name of ["client", "server"]) expect(seconds(name) * 1000).toBeGreaterThan(pingInterval * 2);
    expect(seconds("tunnel") * 1000).toBeGreaterThan(pingInterval + pingTimeout);
  });
});

describe("long-polling", () => {
  test.for([
    ["that keep cookies", true],
    ["that keep none", false],
  ] as const)("of clients %s stays on one node for as long as it lasts", async ([, withCredentials]) => {
    const { sockets, homes } = await everywhere(NAMES, () => ({ transports: ["polling"], withCredentials }));
    for (let times = 0; times < 3; times++) expect(await Promise.all(sockets.map(where))).toEqual(homes);
    for (const { history } of sockets) expect(history).toEqual(["connect"]);
    for (const socket of sockets) socket.disconnect();
  });
});

describe("WebSocket", () => {
  test.for([
    ["that keeps cookies", true],
    ["that keeps none", false],
  ] as const)("is reached from long-polling by a stock client %s", async ([, withCredentials]) => {
    const socket = await inside({ transports: ["polling", "websocket"], withCredentials });
    await until("it is upgraded", () => socket.io.engine.transport.name === "websocket");
    expect(await where(socket)).toMatch(/^node-/);
    expect(socket.history).toEqual(["connect"]);
    socket.disconnect();
  });

  test("alone is spread over all nodes", async () => {
    const { sockets, homes } = await everywhere(NAMES);
    expect(await Promise.all(sockets.map(where))).toEqual(homes);
    for (const socket of sockets) socket.disconnect();
  });
});

describe("the internet", () => {
  test.for(["/metrics", "/healthz", "/readyz", "/", "/socket.io", "//metrics", "/%6detrics", "/metrics?x=/socket.io/"])(
    "finds nothing at %s",
    async (path) => {
      const { status, body } = await ask(path);
      expect(status).toBe(404);
      expect(body).not.toContain("keycard_");
    },
  );

  test("cannot ask for metrics by a path that goes in and out again", async () => {
    const { status, body } = await ask("/socket.io/../metrics");
    expect(status).toBe(404);
    expect(body).not.toContain("keycard_");
  });

  test("can push an event that the issuer signed, and no other", async () => {
    const push = (body: string) =>
      ask("/events", { method: "POST", headers: { "content-type": SECURITY_EVENT_MEDIA_TYPE }, body });
    const event = revocationOf([{ kind: "user", sub: "u_nobody", generation: 1 }]);
    cluster.issuer.record(event);
    expect((await push(await cluster.issuer.set(event))).status).toBe(202);
    expect((await push("garbage")).status).toBe(400);
  });

  test.for(["/events", "/receipts", "/rehearsals", "/nodes"])(
    "can only POST to %s, and no more than a node would read",
    async (path) => {
      expect((await ask(path)).status).toBe(405);
      expect((await ask(path, { method: "POST", body: "x".repeat(16_385) })).status).toBe(413);
      // Said by the node: it has come through.
      expect((await ask(path, { method: "POST", body: "x" })).status).toBe(400);
    },
  );

  test("can use no other method on Socket.IO, nor send more than a node would read", async () => {
    expect((await ask("/socket.io/?EIO=4&transport=polling", { method: "PUT" })).status).toBe(405);
    expect(
      (await ask("/socket.io/?EIO=4&transport=polling", { method: "POST", body: "x".repeat(70_000) })).status,
    ).toBe(413);
  });

  test("is sent from plain HTTP to TLS", async () => {
    const response = await fetch(`${proxy.plainUrl}/socket.io/?EIO=4`, { redirect: "manual" });
    expect(response.status).toBe(308);
    expect(response.headers.get("location")).toMatch(/^https:/);
    expect((await ask("/")).headers["strict-transport-security"]).toBe("max-age=31536000");
  });

  test("reads no ticket and no token in the proxy's log", async () => {
    await ask("/socket.io/?EIO=4&transport=polling&ticket=hunter2&token=hunter3");
    await until("it is logged", () => lines.some((line) => / GET \/socket\.io\/$/.test(line)));
    expect(lines.filter((line) => /hunter/.test(line))).toEqual([]);
  });
});

describe("whose request it is", () => {
  test("the nodes hear from the proxy, whatever the client says of itself", async () => {
    addresses.length = 0;
    const forged = { "x-forwarded-for": "203.0.113.7", forwarded: "for=203.0.113.7" };
    const options = { extraHeaders: forged, localAddress: "127.0.0.9" } as Partial<ManagerOptions>;
    const { sockets } = await everywhere(["node-1"], () => options);
    expect(new Set(addresses)).toEqual(new Set(["127.0.0.9"]));
    for (const socket of sockets) socket.disconnect();
  });
});

describe("a node that", () => {
  test("drains leaves by its /readyz and keeps whom it has, and nobody is turned away meanwhile", async () => {
    const { sockets: before, homes } = await everywhere(["node-1"], eitherWay);
    first.door.drain();
    // At once, before the proxy can know: its 503 sends them on to the next.
    const during = await Promise.all(Array.from({ length: 18 }, (_, i) => inside(eitherWay(i))));
    expect(await Promise.all(during.map(where))).not.toContain("node-1");
    for (const { history } of during) expect(history).toEqual(["connect"]);
    await until("the proxy has noticed", async () => !(await proxy.isUp("node-1")));
    expect(await Promise.all(before.map(where))).toEqual(homes);
    for (const { history } of before) expect(history).toEqual(["connect"]);
    for (const socket of [...before, ...during]) socket.disconnect();
  });

  test("is killed loses its clients to the others, who let them in at their first attempt", async () => {
    const { sockets, homes } = await everywhere(["node-2"], eitherWay);
    await second.kill("SIGKILL");
    await until("they are back", () =>
      sockets.every(
        (socket, i) =>
          socket.connected &&
          (homes[i] !== "node-2" || socket.history.filter((what) => what === "connect").length === 2),
      ),
    );
    expect(new Set(await Promise.all(sockets.map(where)))).toEqual(new Set(["node-3"]));
    for (const { history } of sockets) expect(history.filter((what) => what.startsWith("connect_error"))).toEqual([]);
    for (const socket of sockets) socket.disconnect();
  });
});

describe("an address", () => {
  /** Resolves to what came back when the proxy has closed the connection. */
  function slowly(bytes: string): Promise<string> {
    return new Promise((resolve) => {
      let answer = "";
      const url = new URL(proxy.plainUrl);
      const socket = connect({ host: url.hostname, port: Number(url.port) }, () => socket.write(bytes));
      const drip = setInterval(() => socket.write("x"), 500);
      socket.setEncoding("latin1").on("data", (text: string) => {
        answer += text;
      });
      socket.on("error", () => {}); // "close" follows
      socket.on("close", () => {
        clearInterval(drip);
        resolve(answer);
      });
    });
  }

  test("that sends its request drop by drop is cut off, head and body", async () => {
    const head = "POST /events HTTP/1.1\r\nHost: x\r\nContent-Type: application/secevent+jwt\r\n";
    const answers = await Promise.all([slowly(`${head}X-Slow: `), slowly(`${head}Content-Length: 1000\r\n\r\n`)]);
    for (const answer of answers) expect(answer).toMatch(/^HTTP\/1\.1 408 /);
  });

  test("may keep only so many connections open", async () => {
    const few = await startProxy({
      binary,
      nodes: addressesOfNodes,
      settings: { MAX_CONNECTIONS_PER_ADDRESS: "5" },
    });
    const { hostname, port } = new URL(few.plainUrl);
    const states: ("open" | "closed")[] = [];
    const held = Array.from({ length: 8 }, (_, i) => {
      const socket = connect({ host: hostname, port: Number(port) });
      states[i] = "open";
      socket.on("error", () => {}); // "close" follows
      socket.on("close", () => {
        states[i] = "closed";
      });
      return socket;
    });
    await until("the others are closed", () => states.filter((state) => state === "closed").length === 3);
    for (const socket of held) socket.destroy();
    await few.stop();
  });
});

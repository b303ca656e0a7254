/** `keycard doctor`: sound where all is well; and each thing that can be wrong outside is found, named, and said how to mend. */
import { createServer, request as send } from "node:http";
import { type AddressInfo, connect } from "node:net";
import { Server } from "socket.io";
import { describe, expect, onTestFinished, test } from "vitest";
import { until } from "../../infra/until.ts";
import { newMachine } from "./machine.ts";
import { ADMIN, edge, stack } from "./people.ts";
import { startProxy } from "./proxy.ts";
import { APP_ORIGIN } from "./shared-stack.ts";

interface Finding {
  readonly check: string;
  readonly of?: string;
  readonly outcome: "pass" | "warn" | "fail";
  readonly says: string;
  readonly todo?: string;
  readonly skipped?: true;
  readonly measured?: Record<string, number>;
}

const [firstNode = { url: "" }] = stack.nodes;

async function examined(args: readonly string[] = [], env: Record<string, string> = {}) {
  const { code, stdout, stderr } = await newMachine({ ...ADMIN, ...env }).run(["doctor", "--json", ...args]);
  if (stdout === "") throw new Error(stderr);
  const { checks, failed, skipped } = JSON.parse(stdout) as { checks: Finding[]; failed: number; skipped: number };
  const found = (name: string) => checks.find(({ check, of }) => check === name || `${check} ${of}` === name);
  return { code, failed, skipped, checks, found };
}

/** A balancer that sends each request, and each upgrade, to the next node. */
async function roundRobin(): Promise<string> {
  let turn = 0;
  const next = () => new URL(stack.nodes[turn++ % stack.nodes.length]?.url ?? "");
  const server = createServer((incoming, outgoing) => {
    const { hostname, port } = next();
    const { method, url: path, headers } = incoming;
    const forwarded = send({ hostname, port, method, path, headers }, (answer) => {
      outgoing.writeHead(answer.statusCode ?? 0, answer.headers);
      answer.pipe(outgoing);
    });
    forwarded.on("error", () => outgoing.destroy());
    incoming.pipe(forwarded);
  });
  server.on("upgrade", (incoming, socket, head) => {
    const { hostname, port } = next();
    const lines = Object.entries(incoming.headers).map(([name, value]) => `${name}: ${value}`);
    const far = connect(Number(port), hostname, () => {
      far.write(`GET ${incoming.url} HTTP/1.1\r\n${lines.join("\r\n")}\r\n\r\n`);
      far.write(head);
      far.pipe(socket).pipe(far);
    });
    far.on("error", () => socket.destroy());
    socket.on("error", () => far.destroy());
  });
  return await listening(server);
}

async function listening(server: ReturnType<typeof createServer>): Promise<string> {
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  onTestFinished(() => {
    server.closeAllConnections();
    server.close();
  });
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}

test("finds nothing wrong with a sound deployment, and leaves nothing behind", async () => {
  const { code, checks, failed, skipped, found } = await examined(["--origin", APP_ORIGIN]);
  expect(checks.filter(({ outcome }) => outcome !== "pass")).toEqual([]);
  expect({ code, failed, skipped }).toEqual({ code: 0, failed: 0, skipped: 0 });
  const names = [
    "edge",
    "discovery",
    "keys",
    "cors",
    "credential",
    "cluster",
    "guest",
    "cookie",
    "clock",
    "node clock",
  ];
  const doors = ["websocket", "polling", "sticky", "refusals", "origins", "canary", "tokens", "proof", "cleanup"];
  expect([...new Set(checks.map(({ check }) => check))]).toEqual([...names, ...doors]);
  // One on each node and transport.
  expect(found("canary")?.measured).toMatchObject({
    sockets: 6,
    closed_ms: expect.any(Number),
    enforced_ms: expect.any(Number),
  });
  const { accounts } = await edge.accounts({ query: "keycard-doctor-" });
  expect(accounts).toEqual([]);
});

test("tells a person the same in sentences", async () => {
  const { code, stdout } = await newMachine(ADMIN).run(["doctor", "--realtime", firstNode.url]);
  expect({ code, stdout }).toMatchObject({ code: 0 });
  expect(stdout).toMatch(/^✓ canary +2 sockets closed after \d+ ms; answered after \d+ ms, enforced after \d+ ms\.$/m);
  expect(stdout).toMatch(/✓ Sound: nothing failed in \d+ checks\.\n$/);
});

describe("finds", () => {
  test("a page that cannot sign in or connect", async () => {
    const { code, found } = await examined(["--origin", "https://other.example", "--realtime", firstNode.url]);
    expect(code).toBe(1);
    expect(found("cors")).toMatchObject({ outcome: "fail", todo: expect.stringContaining("https://other.example") });
    expect(found("cookie")).toMatchObject({ outcome: "fail" });
    expect(found("origins")).toMatchObject({
      outcome: "fail",
      todo: expect.stringContaining("ALLOWED_ORIGINS of the nodes"),
    });
  });

  test("a balancer that is not sticky", async () => {
    const { code, found } = await examined(["--realtime", await roundRobin()]);
    expect(code).toBe(1);
    expect(found("websocket")).toMatchObject({ outcome: "pass" });
    expect(found("sticky")).toMatchObject({ outcome: "fail", todo: expect.stringContaining("sticky") });
  });

  test("a server that has no door, and where a revoked session's socket stays open", async () => {
    const http = createServer((_request, response) => void response.end("{}"));
    const io = new Server(http);
    onTestFinished(() => void io.close());
    const { code, found } = await examined(["--realtime", await listening(http)]);
    expect(code).toBe(1);
    expect(found("refusals")).toMatchObject({ outcome: "fail", says: "It lets in whoever shows nothing." });
    expect(found("canary")).toMatchObject({ outcome: "fail", says: "A revoked session's socket stayed open." });
    expect(found("tokens")).toMatchObject({ outcome: "fail" });
  });

  test("an edge under another name, and a cookie that is not as it was made", async () => {
    const { url } = await startProxy(({ path }) => {
      if (path !== "/login") return undefined;
      return {
        change: ({ "set-cookie": cookies, ...headers }) => ({
          ...headers,
          ...(cookies && { "set-cookie": cookies.map((each) => each.replace(/; Secure/i, "")) }),
        }),
      };
    });
    const { code, found } = await examined(["--realtime", firstNode.url], { KEYCARD_EDGE: url });
    expect(code).toBe(1);
    expect(found("discovery")).toMatchObject({
      outcome: "fail",
      says: expect.stringContaining(`It calls itself ${stack.edgeUrl}`),
    });
    expect(found("cookie")).toMatchObject({ outcome: "fail" });
  });

  test("a clock that is off, and keys that may not be kept", async () => {
    const anHourAgo = new Date(Date.now() - 3_600_000).toUTCString();
    const { url } = await startProxy(() => ({
      change: ({ "cache-control": _, ...headers }) => ({ ...headers, date: anHourAgo }),
    }));
    const { found } = await examined([url]);
    expect(found("clock")).toMatchObject({
      outcome: "fail",
      says: expect.stringMatching(/3[56]\d\d\.\d s behind ours/),
    });
    expect(found("keys")).toMatchObject({ outcome: "warn" });
  });

  test("an address where no edge is, and nobody's credential goes there", async () => {
    const seen: unknown[] = [];
    const url = await listening(
      createServer((request, response) => {
        seen.push(request.headers.authorization);
        response.writeHead(404).end("<html>");
      }),
    );
    const { code, found, skipped } = await examined([url]);
    expect(code).toBe(1);
    expect(found("edge")).toMatchObject({ outcome: "fail" });
    expect(found("canary")).toMatchObject({ skipped: true, todo: "Without the edge nothing more can be seen." });
    expect(skipped).toBeGreaterThan(5);
    expect(seen.filter((each) => each !== undefined)).toEqual([]);
  });

  test("that the credential may not do all of it, and does what it may", async () => {
    const { client_id, client_secret = "" } = await edge.createClient({ name: "doctor", scopes: ["revocations:read"] });
    const { access_token } = await edge.clientToken(client_id, client_secret);
    const { code, found } = await examined([], { KEYCARD_TOKEN: access_token });
    expect(code).toBe(0);
    expect(found("credential")).toMatchObject({
      outcome: "warn",
      todo: expect.stringContaining("accounts:write, revocations:write"),
    });
    expect(found("cluster local")).toMatchObject({ outcome: "pass" });
    expect(found("canary")).toMatchObject({ skipped: true });
  });
});

test("says where socket.io-client is not installed how to get it", async () => {
  const hook = `import { registerHooks } from "node:module";
    registerHooks({ resolve(name, context, next) { if (name === "socket.io-client") throw new Error("not installed"); return next(name, context); } });`;
  const absent = { NODE_OPTIONS: `--import=data:text/javascript,${encodeURIComponent(hook)}` };
  const { code, found } = await examined(["--realtime", firstNode.url], absent);
  expect(code).toBe(1);
  expect(found("websocket")).toMatchObject({
    outcome: "fail",
    todo: expect.stringContaining("npm install socket.io-client"),
  });
  expect(found("sticky")).toMatchObject({ outcome: "pass" });
});

test("puts its guest away when it is stopped in the middle", async () => {
  const running = newMachine(ADMIN).start(["doctor"]);
  await until("the guest is there", () => running.stdout.includes("guest"));
  running.kill("SIGINT");
  const { code, stdout } = await running.exited;
  expect(code).toBe(130);
  expect(stdout).toContain("The throw-away account is deleted.");
});

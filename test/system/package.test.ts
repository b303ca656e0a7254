/**
 * The package as a stranger meets it: packed, laid into an empty project beside nothing but what it asks for, and used
 * on the stranger's own Socket.IO server, from ES modules, from CommonJS and from TypeScript.
 */
import { execFile } from "node:child_process";
import { mkdir, mkdtemp, readFile, rm, symlink, writeFile } from "node:fs/promises";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type Child, startChild } from "../../infra/child.ts";
import { until } from "../../infra/until.ts";
import { connected, startCluster, type TestCluster, type TestNode } from "../support/realtime-cluster.ts";

const run = promisify(execFile);
const ROOT = join(import.meta.dirname, "..", "..");
/** What a stranger has besides: what the package asks for, and types to compile with. */
const INSTALLED = ["jose", "zod", "socket.io", "ioredis", "socket.io-client", "@types/node"];

const BODY = `
const http = createServer();
const io = new Server(http);
const door = protect(io, {
  redis: new Redis(process.env.REDIS, { lazyConnect: true }),
  clusterSecret: "what the nodes of the test cluster share",
  issuers: [{ issuer: process.env.ISSUER, audience: "keycard" }],
  cluster: "test",
});
http.on("request", (request, response) => {
  if (request.url.startsWith(io.path()) || door.receive(request, response)) return;
  response.writeHead(404).end();
});
io.on("connection", (socket) => {
  socket.on("whoami", (answer) => answer(socket.data.session.sub));
  socket.on("write", requireScope("chat.write", (answer) => answer("written")));
});
const { status } = new Refusal("token_expired");
http.listen(0, "127.0.0.1", () => door.ready().then(() => console.log("ready", http.address().port, status)));
process.on("SIGTERM", () => door.close().then(() => process.exit(0)));
`;

const FILES: Readonly<Record<string, string>> = {
  "package.json": JSON.stringify({ name: "stranger", private: true }),
  "server.mjs": `
import { createServer } from "node:http";
import { Redis } from "ioredis";
import { Server } from "socket.io";
import { Refusal } from "keycard/contract";
import { protect, requireScope } from "keycard/realtime";
${BODY}`,
  "server.cjs": `
const { createServer } = require("node:http");
const { Redis } = require("ioredis");
const { Server } = require("socket.io");
const { Refusal } = require("keycard/contract");
const { protect, requireScope } = require("keycard/realtime");
${BODY}`,
  "client.mjs": `
import { connect } from "keycard/client";
const socket = connect(process.env.NODE_URL, { edge: process.env.EDGE, refreshToken: "r1" });
socket.on("connect", async () => { console.log("ready", await socket.emitWithAck("whoami")); process.exit(0); });
`,
  "client.cjs": `
const { connect } = require("keycard/client");
const socket = connect(process.env.NODE_URL, { edge: process.env.EDGE, refreshToken: "r1" });
socket.on("connect", async () => { console.log("ready", await socket.emitWithAck("whoami")); process.exit(0); });
`,
  "app.mts": `
import { Redis } from "ioredis";
import { Server } from "socket.io";
import { connect } from "keycard/client";
import { type AccessTokenClaims, REFUSALS, type RefusalCode } from "keycard/contract";
import { type Door, protect, type ProtectedSocket, requireScope } from "keycard/realtime";

const io = new Server();
export const door: Door = protect(io, {
  redis: new Redis({ lazyConnect: true }),
  issuers: [{ issuer: "https://edge.test", audience: "keycard", algorithms: ["ES256"] }],
  cluster: "eu",
  clusterSecret: "what the nodes of the test cluster share",
  require: { allow: (session) => session.sub !== "nobody" },
});
io.on("connection", (socket: ProtectedSocket) => {
  const claims: AccessTokenClaims = socket.data.session;
  socket.on("post", requireScope("chat.write", (text: string) => text.length + claims.gen));
});
door.events.on("refused", ({ code }) => {
  const known: RefusalCode = code;
  console.log(REFUSALS[known].advice);
});
connect("https://node.test", { edge: "https://edge.test" }).on("signed-out", console.log);
// @ts-expect-error an issuer has an audience
protect(io, { redis: new Redis(), issuers: [{ issuer: "x" }], cluster: "eu", clusterSecret: "what the nodes of the test cluster share" });
// @ts-expect-error there is no such code
const wrong: RefusalCode = "nonsense";
console.log(wrong);
`,
  "app.cts": `
import { protect } from "keycard/realtime";
import contract = require("keycard/contract");
import type { ConnectOptions } from "keycard/client";
export const options: ConnectOptions = { edge: "https://edge.test" };
export const status: number = contract.REFUSALS.token_expired.status;
export const door: typeof protect = protect;
`,
};

let dir: string;
let tarball: { filename: string; files: { path: string }[] };
let cluster: TestCluster;
const children: Child[] = [];

beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), "keycard-package-"));
  const packed = await run("npm", ["pack", "--json", "--offline", "--pack-destination", dir], { cwd: ROOT });
  // What the build says comes before it.
  [tarball] = JSON.parse(packed.stdout.slice(packed.stdout.search(/^\[/m)));
  const modules = join(dir, "node_modules");
  await mkdir(join(modules, "keycard"), { recursive: true });
  await run("tar", ["-xzf", join(dir, tarball.filename), "-C", join(modules, "keycard"), "--strip-components=1"]);
  for (const name of INSTALLED) {
    await mkdir(dirname(join(modules, name)), { recursive: true });
    await symlink(join(ROOT, "node_modules", name), join(modules, name));
  }
  for (const [name, text] of Object.entries(FILES)) await writeFile(join(dir, name), text);
  cluster = await startCluster();
});

afterAll(async () => {
  for (const child of children) await child.stop();
  await cluster?.stop();
  await rm(dir, { recursive: true, force: true });
});

/** Runs a script of the stranger's until it says that it is ready, and resolves with what it says then. */
async function start(script: string, env: Record<string, string>): Promise<string[]> {
  const lines: string[] = [];
  const child = await startChild({
    command: process.execPath,
    args: [script],
    cwd: dir,
    env,
    onLine: (line) => lines.push(line),
  });
  children.push(child);
  const ready = await until("it is ready", () => {
    if (!child.running && !lines.some((line) => line.startsWith("ready"))) throw new Error(lines.join("\n"));
    return lines.find((line) => line.startsWith("ready"));
  });
  return ready.split(" ").slice(1);
}

describe("the package", () => {
  it("holds JavaScript, types, the protocol and nothing that is ours alone", () => {
    const paths = tarball.files.map(({ path }) => path);
    expect(paths).toEqual(
      expect.arrayContaining([
        "dist/realtime/protect.js",
        "dist/realtime/protect.d.ts",
        "dist/infra/cli/main.js",
        "LICENSE",
      ]),
    );
    const others = paths.filter((path) => !/^dist\/[\w/-]+(\.js|\.d\.ts)$|^package\.json$|\.md$|^LICENSE$/.test(path));
    expect(others).toEqual(["infra/cli/keycard.js"]);
  });

  it("asks for what it imports, and for nothing else but what the app has anyway", async () => {
    const manifest = JSON.parse(await readFile(join(dir, "node_modules", "keycard", "package.json"), "utf8"));
    const sources = await Promise.all(
      tarball.files
        .filter(({ path }) => path.endsWith(".js"))
        .map(({ path }) => readFile(join(dir, "node_modules", "keycard", path), "utf8")),
    );
    const imported = sources.flatMap((source) => [...source.matchAll(/^import .*? from "([^."][^"]*)"/gm)]);
    const named = new Set(imported.map(([, name = ""]) => name).filter((name) => !name.startsWith("node:")));
    expect([...named].sort()).toEqual(["ioredis", "jose", "socket.io-client", "zod"]);
    expect(Object.keys(manifest.dependencies)).toEqual(expect.arrayContaining(["jose", "zod"]));
    expect(Object.keys(manifest.peerDependencies).sort()).toEqual(["ioredis", "socket.io", "socket.io-client"]);
    expect(manifest.private).toBe(true);
  });
});

it("the command line runs as it is installed", async () => {
  const installed = join(dir, "node_modules", "keycard");
  const { bin, version } = JSON.parse(await readFile(join(installed, "package.json"), "utf8"));
  const keycard = (...args: string[]) => run(process.execPath, [join(installed, bin.keycard), ...args], { cwd: dir });
  expect((await keycard("--version")).stdout).toBe(`${version}\n`);
  expect((await keycard("help", "revoke", "user")).stdout).toContain("Throw a person out");
});

describe.each([["mjs"], ["cjs"]])("a stranger's server.%s", (kind) => {
  let node: TestNode;

  beforeAll(async () => {
    const [port, status] = await start(`server.${kind}`, { REDIS: cluster.redis.url, ISSUER: cluster.issuer.url });
    expect(status).toBe("401");
    node = { url: `http://127.0.0.1:${port}`, port: Number(port) } as TestNode;
  });

  it("lets in by a token, refuses without, and guards a handler by scope", async () => {
    const good = cluster.client(node, await cluster.issuer.token({ sub: "u_stranger", scope: "chat.write" }));
    await connected(good);
    expect(await good.emitWithAck("whoami")).toBe("u_stranger");
    expect(await good.emitWithAck("write")).toBe("written");
    const bad = cluster.client(node, undefined);
    await until("it is refused", () => bad.history.length > 0);
    expect(bad.history).toEqual(["connect_error:token_missing"]);
  });

  it("throws out whom the issuer revokes, with a receipt", async () => {
    const client = cluster.client(node, await cluster.issuer.token({ sid: `u_out.${kind}` }));
    await connected(client);
    const receipt = await cluster.revoke(node, [{ kind: "session", sid: `u_out.${kind}` }]);
    expect(receipt.pending).toEqual([]);
    await until("it is out", () => !client.connected);
    expect(client.history).toEqual(["connect", "unauthorized:session_revoked", "disconnect:io server disconnect"]);
  });

  it("is reached by the package's own client", async () => {
    const edge = createServer(async (_request, response) => {
      const access_token = await cluster.issuer.token({ sub: "u_client" });
      response.setHeader("content-type", "application/json");
      response.end(JSON.stringify({ access_token, expires_in: 300, refresh_token: "r2" }));
    });
    await new Promise<void>((resolve) => edge.listen(0, "127.0.0.1", resolve));
    const url = `http://127.0.0.1:${(edge.address() as AddressInfo).port}`;
    expect(await start(`client.${kind}`, { NODE_URL: node.url, EDGE: url })).toEqual(["u_client"]);
    edge.closeAllConnections();
    edge.close();
  });
});

it("a stranger's TypeScript compiles against its types, and what is wrong does not", async () => {
  const options = ["--noEmit", "--strict", "--module", "nodenext", "--target", "es2023", "--types", "node"];
  const tsc = join(ROOT, "node_modules", ".bin", "tsc");
  const { stdout } = await run(tsc, [...options, "app.mts", "app.cts"], { cwd: dir }).catch(
    (error: { stdout: string }) => error,
  );
  expect(stdout).toBe("");
});

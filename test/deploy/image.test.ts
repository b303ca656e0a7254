/**
 * The container image of the realtime server, without an engine: its Dockerfile's steps are carried out, what they make is looked at, and the
 * server is started from it, as a user who is not root, from files that cannot be written, and with nothing else to read.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { globSync } from "node:fs";
import { chmod, mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { reservePort } from "../../infra/ports.ts";
import { until } from "../../infra/until.ts";
import { buildImage, contextFiles, type Image, sizeOf } from "../support/image.ts";
import {
  AUDIENCE,
  CLUSTER,
  CLUSTER_SECRET,
  connected,
  startCluster,
  type TestCluster,
  type TestNode,
} from "../support/realtime-cluster.ts";

const ROOT = join(import.meta.dirname, "..", "..");
const DOCKERFILE = join(ROOT, "infra", "deploy", "realtime.Dockerfile");
const MAX_BYTES = 12 * 1024 * 1024;
/** Packages that are nothing but types. */
const TYPES = /node_modules\/(@types\/|undici-types$)/;
const NODE = "/usr/local/bin/node";

let dir: string;
let image: Image;
let files: string[];
let cluster: TestCluster;

const build = (dockerfile: string, into: string) =>
  buildImage({ dockerfile, context: ROOT, dir: into, baseFiles: { [NODE]: process.execPath } });

beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), "keycard-image-"));
  // Whoever the server runs as has to get in.
  await chmod(dir, 0o755);
  [image, cluster] = await Promise.all([build(DOCKERFILE, dir), startCluster()]);
  const entries = globSync("**/{.*,*}", { cwd: image.root, withFileTypes: true });
  files = entries
    .filter((entry) => !entry.isDirectory())
    .map((entry) => join(entry.parentPath, entry.name).slice(image.root.length));
  for (const entry of entries)
    await chmod(join(entry.parentPath, entry.name), entry.isDirectory() || entry.name === "node" ? 0o555 : 0o444);
  await chmod(image.root, 0o555);
});

afterAll(async () => {
  await cluster?.stop();
  await rm(dir, { recursive: true, force: true });
});

describe("the image", () => {
  test("is begun from exact versions, of Node the one that is tested", () => {
    const [node, base] = image.bases;
    expect(node).toBe(`node:${process.versions.node}-bookworm-slim`);
    expect(base).toMatch(/^gcr\.io\/distroless\/cc-debian12:nonroot(@sha256:[0-9a-f]{64})?$/);
  });

  test("holds the server's own sources and nothing else of ours", () => {
    const own = files.filter((path) => !path.startsWith("/app/node_modules/"));
    const sources = globSync(["edge/contract/*.ts", "realtime/*.ts"], { cwd: ROOT });
    const expected = ["LICENSE", "package.json", "package-lock.json", ...sources].map((path) => `/app/${path}`);
    expect(own.sort()).toEqual([NODE, ...expected].sort());
  });

  test("holds of packages what the lock file says that is needed in production, and no more", async () => {
    const lock = JSON.parse(await readFile(join(ROOT, "package-lock.json"), "utf8"));
    const needed = Object.entries(lock.packages as Record<string, { dev?: boolean; devOptional?: boolean }>)
      .filter(([path, { dev, devOptional }]) => path !== "" && !dev && !devOptional && !TYPES.test(path))
      .map(([path]) => path);
    const manifests = files.filter((path) => /node_modules\/(@[^/]+\/)?[^/]+\/package\.json$/.test(path));
    const present = manifests.map((path) => path.slice("/app/".length, -"/package.json".length));
    expect(present.sort()).toEqual(needed.sort());
    const { devDependencies } = JSON.parse(await readFile(join(ROOT, "package.json"), "utf8"));
    expect(Object.keys(devDependencies).filter((name) => present.includes(`node_modules/${name}`))).toEqual([]);
  });

  test("holds no types, maps, tests, links, configuration of npm, environment or key", () => {
    const strange =
      /\.(d\.ts|d\.[mc]ts|map|pem|key|env|test\.\w+)$|\/(\.env|\.npmrc|\.dev\.vars|test|tests|\.keycard)(\/|\.|$)/;
    expect(files.filter((path) => strange.test(path))).toEqual([]);
  });

  test("keeps every licence", () => {
    const packages = new Set(files.map((path) => /^.*node_modules\/(?:@[^/]+\/)?[^/]+(?=\/)/.exec(path)?.[0]));
    const licensed = globSync("node_modules/{*,@*/*}/{LICENSE,LICENCE,license}*", { cwd: ROOT }).map(
      (path) => `/app/${path}`,
    );
    const kept = licensed.filter((path) => packages.has(path.slice(0, path.lastIndexOf("/"))));
    expect(kept.length).toBeGreaterThan(30);
    expect(kept.filter((path) => !files.includes(path))).toEqual([]);
  });

  test("is small but for Node itself", async () => {
    const bytes = await sizeOf(files.filter((path) => path !== NODE).map((path) => join(image.root, path)));
    expect(bytes).toBeLessThan(MAX_BYTES);
  });

  test("runs as nobody, drains at SIGTERM, and is asked for its health without a shell", () => {
    expect(image.user).toBe("65532:65532");
    expect(image.stopSignal).toBe("SIGTERM");
    expect(image.entrypoint).toEqual([NODE, "realtime/main.ts"]);
    expect(image.healthcheck).toEqual([NODE, "realtime/probe.ts", "/healthz"]);
    expect(image.workdir).toBe("/app");
  });
});

describe("the builder is not sent", () => {
  test("a secret, state, or a test that lies about in the checkout", async () => {
    const context = await mkdtemp(join(tmpdir(), "keycard-context-"));
    const wanted = ["package.json", "realtime/main.ts", "edge/contract/refusal.ts"];
    const unwanted = [
      ".env",
      ".npmrc",
      ".dev.vars",
      ".keycard-secret",
      "edge/.dev.vars",
      "edge/worker.ts",
      "realtime/.env",
    ];
    unwanted.push(
      "realtime/key.pem",
      "realtime/client/connect.ts",
      "edge/contract/secret.json",
      "test/a.test.ts",
      "infra/secrets.ts",
    );
    for (const path of [...wanted, ...unwanted]) {
      await mkdir(join(context, path, ".."), { recursive: true });
      await writeFile(join(context, path), "");
    }
    await writeFile(join(context, ".dockerignore"), await readFile(join(ROOT, ".dockerignore")));
    expect([...(await contextFiles(context))].sort()).toEqual(wanted.sort());
    await rm(context, { recursive: true });
  });
});

describe("the interpreter refuses", () => {
  test.for([
    ["an instruction that it does not know", "FROM scratch AS a\nADD package.json ./\n", /not known: ADD/],
    ["a command that reaches out of its stage", "FROM scratch AS a\nRUN rm -rf /tmp/x\n", /absolute path/],
    ["to copy what is hidden", "FROM scratch AS a\nCOPY README.md ./\n", /finds nothing: README.md/],
    ["a command that fails", "FROM scratch AS a\nRUN exit 3\n", /Command failed/],
  ] as const)("%s", async ([, text, why]) => {
    const path = join(dir, "Dockerfile");
    await writeFile(path, text);
    await expect(build(path, join(dir, "refused"))).rejects.toThrow(why);
  });
});

describe("the server in it", () => {
  /** As the container would, with Node's own permissions in the place of a container's walls: read this tree, write nothing. */
  function start([program = "", ...args]: readonly string[], env: Record<string, string>): ChildProcess {
    const isRoot = process.getuid?.() === 0;
    const [uid, gid] = image.user.split(":").map(Number) as [number, number];
    return spawn(join(image.root, program), ["--permission", `--allow-fs-read=${image.root}/`, ...args], {
      cwd: join(image.root, image.workdir),
      env: { ...image.env, ...env },
      stdio: ["ignore", "pipe", "pipe"],
      ...(isRoot ? { uid, gid } : {}),
    });
  }

  function exitOf(child: ChildProcess): Promise<number | null> {
    return new Promise((resolve) => child.once("exit", (code) => resolve(code)));
  }

  test("starts, passes its health check, lets people in, and drains", async () => {
    const { port, release } = await reservePort();
    const settings = { CLUSTER, AUDIENCE, CLUSTER_SECRET, ISSUER: cluster.issuer.url, REDIS_URL: cluster.redis.url };
    const env = { PORT: String(port), NODE_NAME: "node-1", LEASE_SECONDS: "3", ...settings };
    const [node = "", script = ""] = image.healthcheck;
    const isHealthy = async (path = "/healthz") => (await exitOf(start([node, script, path], env))) === 0;
    await release();
    expect(await isHealthy()).toBe(false);
    const server = start(image.entrypoint, env);
    let said = "";
    for (const stream of [server.stdout, server.stderr]) stream?.on("data", (data) => (said += data));
    const exited = exitOf(server);
    try {
      await until("it is healthy", async () => {
        if (server.exitCode !== null) throw new Error(said);
        return isHealthy();
      });
      await until("it is ready", () => isHealthy("/readyz"));
      const client = cluster.client({ url: `http://127.0.0.1:${port}` } as TestNode, await cluster.issuer.token());
      await connected(client);
      server.kill("SIGTERM");
      expect(await exited).toBe(0);
      await until("it was sent elsewhere", () => client.history.includes("unauthorized:unavailable"));
      client.disconnect();
    } finally {
      server.kill("SIGKILL");
    }
  });

  test("cannot write, nor read what is not in the image", async () => {
    const attempt = `
      const { readFileSync, writeFileSync } = require("node:fs");
      const codeOf = (act) => { try { act(); return "done"; } catch (error) { return error.code; } };
      console.log(process.getuid() === 0 ? "root" : "somebody", codeOf(() => writeFileSync("realtime/x.ts", "")), codeOf(() => readFileSync("/etc/hostname")));`;
    const child = start([NODE, "-e", attempt], {});
    let said = "";
    child.stdout?.on("data", (data) => (said += data));
    await exitOf(child);
    expect(said.trim()).toBe("somebody ERR_ACCESS_DENIED ERR_ACCESS_DENIED");
  });
});

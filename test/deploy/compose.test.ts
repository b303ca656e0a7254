/** Compose on one host: the file by its schema and by what it promises, its Redis by running a real one with its settings and its health check. */
import { execFile } from "node:child_process";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { DCLinter } from "dclint";
import { Redis } from "ioredis";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { parse } from "yaml";
import { type Child, startChild } from "../../infra/child.ts";
import { redisUsers } from "../../infra/deploy/vault.ts";
import { HAPROXY_CONFIG } from "../../infra/haproxy.ts";
import { reservePort } from "../../infra/ports.ts";
import { obtainRedisServer } from "../../infra/redis.ts";
import { until } from "../../infra/until.ts";
import { readConfig } from "../../realtime/config.ts";
import { connected, startNodesOn, type TestNodes } from "../support/realtime-cluster.ts";

const run = promisify(execFile);
const FOLDER = join(import.meta.dirname, "..", "..", "infra", "deploy");
const COMPOSE = join(FOLDER, "compose.yaml");
const NODES = ["node-1", "node-2", "node-3"];

interface Service {
  readonly image: string;
  readonly user?: string;
  readonly read_only?: boolean;
  readonly privileged?: boolean;
  readonly cap_drop?: readonly string[];
  readonly cap_add?: readonly string[];
  readonly security_opt?: readonly string[];
  readonly pids_limit?: number;
  readonly ports?: readonly string[];
  readonly volumes?: readonly string[];
  readonly networks: readonly string[] | Readonly<Record<string, { readonly ipv4_address: string }>>;
  readonly secrets?: readonly string[];
  readonly environment?: Readonly<Record<string, string>>;
  readonly env_file?: readonly string[];
  readonly command?: readonly string[];
  readonly stop_grace_period?: string;
  readonly healthcheck?: { readonly test: string | readonly string[] };
  readonly deploy?: { readonly resources: { readonly limits: { readonly cpus: string; readonly memory: string } } };
}

interface Compose {
  readonly services: Readonly<Record<string, Service>>;
  readonly networks: Readonly<Record<string, { readonly internal?: boolean } | null>>;
  readonly secrets: Readonly<Record<string, { readonly file: string }>>;
}

let compose: Compose;

beforeAll(async () => {
  compose = parse(await readFile(COMPOSE, "utf8"), { merge: true, uniqueKeys: true }) as Compose;
});

const service = (name: string) => compose.services[name] as Service;

/** Its package names no types for this. */
interface Finding {
  readonly type: string;
  readonly rule: string;
  readonly message: string;
}

async function problemsOf(path: string): Promise<string[]> {
  const rules = {
    // The proxy is for the internet.
    "no-unbound-port-interfaces": 0,
  };
  const linter = new DCLinter({ rules, exclude: [], quiet: false, debug: false } as never);
  const results = (await linter.lintFiles([path], false)) as readonly { readonly messages: readonly Finding[] }[];
  const errors = results.flatMap(({ messages }) => messages).filter(({ type }) => type === "error");
  return errors.map(({ rule, message }) => `${rule}: ${message}`);
}

describe("the file", () => {
  test("is what compose's schema says", async () => {
    expect(await problemsOf(COMPOSE)).toEqual([]);
  });

  test("is judged by a judge that notices a member that is misspelt", async () => {
    const dir = await mkdtemp(join(tmpdir(), "keycard-compose-"));
    const wrong = join(dir, "compose.yaml");
    await writeFile(wrong, (await readFile(COMPOSE, "utf8")).replace("pids_limit: 64", "pid_limit: 64"));
    expect(await problemsOf(wrong)).not.toEqual([]);
    await rm(dir, { recursive: true });
  });

  test("gives no service a right that it does not need, and bounds each", () => {
    for (const [name, each] of Object.entries(compose.services)) {
      expect(each, name).toMatchObject({
        read_only: true,
        cap_drop: ["ALL"],
        security_opt: ["no-new-privileges:true"],
      });
      expect(each.cap_add, name).toBeUndefined();
      expect(each.privileged, name).toBeUndefined();
      expect(each.pids_limit, name).toBeGreaterThan(0);
      expect(Object.keys(each.deploy?.resources.limits ?? {}).sort(), name).toEqual(["cpus", "memory"]);
      expect(each.healthcheck?.test, name).toBeDefined();
      expect(each.image, name).toMatch(/^\$\{KEYCARD_IMAGE:\?|:\d+\.\d+\.\d+(-\w+)?$/);
      for (const volume of each.volumes ?? []) expect(volume, name).toMatch(/:ro$|^redis:/);
      // The image of the nodes says itself who it runs as.
      if (!NODES.includes(name)) expect(each.user, name).toMatch(/^(valkey|haproxy)$/);
    }
  });

  test("publishes the proxy alone, and keeps Redis where only nodes are", () => {
    const published = Object.entries(compose.services).filter(([, { ports }]) => ports !== undefined);
    expect(published.map(([name]) => name)).toEqual(["proxy"]);
    expect(service("proxy").ports?.map((port) => port.split(":").at(-1))).toEqual(["8080", "8443"]);
    expect(compose.networks.back?.internal).toBe(true);
    expect(service("redis").networks).toEqual(["back"]);
    expect(Object.keys(service("proxy").networks)).toEqual(["front"]);
    for (const name of NODES) expect(service(name).networks).toEqual(["front", "back"]);
  });
});

describe("a node", () => {
  test("is told settings that it takes, and secrets by files", async () => {
    const lines = (await readFile(join(FOLDER, "realtime.env"), "utf8"))
      .split("\n")
      .filter((line) => /^\w+=/.test(line));
    const settings = Object.fromEntries(
      lines.map((line) => [line.split("=", 1)[0], line.slice(line.indexOf("=") + 1)]),
    );
    for (const name of NODES) {
      const { environment = {}, env_file, secrets = [] } = service(name);
      expect(env_file).toEqual(["realtime.env"]);
      const { CLUSTER_SECRET_FILE = "", REDIS_URL_FILE = "", ...others } = environment;
      expect([CLUSTER_SECRET_FILE, REDIS_URL_FILE]).toEqual(secrets.map((secret) => `/run/secrets/${secret}`));
      const secret = { CLUSTER_SECRET: "a secret of thirty-two characters", REDIS_URL: "redis://keycard:x@redis:6379" };
      const config = readConfig({ ...settings, ...others, ...secret });
      expect(config.NODE_NAME).toBe(name);
      expect(Number.parseInt(service(name).stop_grace_period ?? "", 10)).toBeGreaterThan(config.DRAIN_SECONDS);
    }
  });

  test("is one that the proxy knows by its name, and believes the proxy alone", async () => {
    const proxy = await readFile(HAPROXY_CONFIG, "utf8");
    const servers = [...proxy.matchAll(/^ {2}server (\S+) "\$\{(\w+)\}"/gm)].map(([, name, variable]) => [
      name,
      variable,
    ]);
    expect(servers.map(([name]) => name)).toEqual(NODES);
    for (const [name, variable] of servers) expect(proxy).toContain(`presetenv ${variable} ${name}:3000\n`);
    const address = (service("proxy").networks as Record<string, { ipv4_address: string }>).front?.ipv4_address;
    for (const name of NODES) expect(service(name).environment?.TRUSTED_PROXIES).toBe(address);
  });

  test("finds every secret that is mounted among those that are declared", () => {
    for (const { secrets = [] } of Object.values(compose.services)) {
      for (const secret of secrets) expect(Object.keys(compose.secrets)).toContain(secret);
    }
  });
});

describe("its Redis", () => {
  const PASSWORD = "hunter2-and-some-more";
  let dir: string;
  let server: Child;
  let port: number;
  let nodes: TestNodes;

  beforeAll(async () => {
    dir = await mkdtemp(join(tmpdir(), "keycard-compose-redis-"));
    const acl = await readFile(join(FOLDER, "..", "redis.acl"), "utf8");
    await writeFile(join(dir, "redis.acl"), redisUsers(acl, PASSWORD));
    await writeFile(join(dir, "redis-password"), PASSWORD);
    const reserved = await reservePort();
    port = reserved.port;
    await reserved.release();
    const [, ...args] = service("redis").command ?? [];
    const inPlace = args.map((arg) =>
      arg
        .replace("/etc/valkey.conf", join(FOLDER, "redis.conf"))
        .replace("/run/secrets/redis_acl", join(dir, "redis.acl")),
    );
    server = await startChild({
      command: await obtainRedisServer(),
      argv0: "redis-server",
      args: [...inPlace, "--port", String(port), "--dir", dir, "--bind", "127.0.0.1"],
    });
    await until("it is healthy", () => isHealthy(PASSWORD));
    nodes = await startNodesOn({ REDIS_URL: `redis://keycard:${PASSWORD}@127.0.0.1:${port}` });
  });

  afterAll(async () => {
    await nodes?.stop();
    await server?.stop();
    await rm(dir, { recursive: true, force: true });
  });

  /** What the container's health check says. */
  async function isHealthy(password: string): Promise<boolean> {
    await writeFile(join(dir, "password-in-hand"), password);
    const check = String(service("redis").healthcheck?.test)
      .replaceAll("$$", "$")
      .replace("/run/secrets/redis_password", join(dir, "password-in-hand"))
      .replace("redis-cli", `redis-cli -p ${port}`);
    return run("/bin/sh", ["-c", check]).then(
      () => true,
      () => false,
    );
  }

  test("is all that a node needs", async () => {
    const node = await nodes.startNode();
    await node.door.ready();
    const client = nodes.client(node, await nodes.issuer.token());
    await connected(client);
    const receipt = await nodes.revoke(node, [{ kind: "everyone", cutoff: Math.floor(Date.now() / 1000) }]);
    expect(receipt.pending).toEqual([]);
    await until("it is out", () => !client.connected);
  });

  test("evicts nothing and has everything on disk", async () => {
    const redis = new Redis(`redis://keycard:${PASSWORD}@127.0.0.1:${port}`);
    expect(await redis.info("memory")).toContain("maxmemory_policy:noeviction");
    expect(await redis.info("persistence")).toContain("aof_enabled:1");
    redis.disconnect();
  });

  test("lets nobody in without the password, is not healthy for them, and lets a node do nothing else", async () => {
    expect(await isHealthy("wrong")).toBe(false);
    const stranger = new Redis(port, "127.0.0.1", { lazyConnect: true, retryStrategy: () => null });
    await expect(stranger.connect().then(() => stranger.info())).rejects.toThrow();
    stranger.disconnect();
    const redis = new Redis(`redis://keycard:${PASSWORD}@127.0.0.1:${port}`);
    await expect(redis.config("GET", "*")).rejects.toThrow(/NOPERM/);
    await expect(redis.flushall()).rejects.toThrow(/NOPERM/);
    await expect(redis.set("other", "1")).rejects.toThrow(/NOPERM/);
    redis.disconnect();
  });
});

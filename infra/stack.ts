/**
 * The whole of Keycard on this machine: Redis, the Worker in workerd, realtime nodes, each a process of its own that can
 * be killed and started again. Everything listens on the loopback only, and nothing outlives the process that started it.
 */
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import type { Exit } from "./child.ts";
import { startEdge } from "./edge.ts";
import { buildEdge } from "./edge-build.ts";
import { startNodeProcess } from "./node.ts";
import type { Part } from "./part.ts";
import { LOOPBACK, PortTaken, type ReservedPort, reservePort } from "./ports.ts";
import { obtainRedisServer, startRedis } from "./redis.ts";
import { keepSecrets, type Secrets } from "./secrets.ts";

export const CLUSTER = "local";
export const AUDIENCE = "keycard";

const ATTEMPTS = 3;

export interface StackOptions {
  /** Where all state lives; made if it does not exist. */
  readonly dir: string;
  /** How many realtime nodes; 3. */
  readonly nodes?: number;
  /** Preferred; another free one is taken if one is taken. Absent: any free one. */
  readonly ports?: { readonly edge?: number; readonly nodes?: readonly number[]; readonly redis?: number };
  /** A Redis that runs already; the stack then starts none. */
  readonly redisUrl?: string;
  readonly redisBinary?: string;
  readonly edgeSettings?: Readonly<Record<string, string>>;
  readonly nodeSettings?: Readonly<Record<string, string>>;
  readonly allowedOrigins?: readonly string[];
  onStep?(text: string): void;
  onLine?(process: string, line: string): void;
  /** A process ended, and nobody asked it to. */
  onExit?(process: string, exit: Exit): void;
}

export interface StackNode {
  readonly name: string;
  readonly url: string;
  readonly pid: number;
}

export interface Stack {
  readonly edgeUrl: string;
  readonly redisUrl: string;
  readonly adminToken: string;
  readonly nodes: readonly StackNode[];
  /** The processes by name, "edge", "redis" (if it is ours) and the nodes. */
  readonly pids: Readonly<Record<string, number>>;
  /** One more, ready. It follows Redis; the edge does not know it. */
  startNode(): Promise<StackNode>;
  /** "edge", "redis" or a node's name; SIGKILL by default. Resolves when it is gone. */
  kill(part: string, signal?: NodeJS.Signals): Promise<void>;
  /** Same port, same state, and from now on with these settings changed. Resolves when it is ready. */
  restart(part: string, changes?: Readonly<Record<string, string>>): Promise<void>;
  stop(): Promise<void>;
}

/** Starts everything and resolves when every part is ready; a start that fails leaves nothing running. */
export async function startStack(options: StackOptions): Promise<Stack> {
  await mkdir(options.dir, { recursive: true, mode: 0o700 });
  const secrets = await keepSecrets(options.dir);
  const bundle = buildEdge(bundleDir(options));
  // Awaited below, after Redis is there; a failure before that must not go unhandled.
  bundle.catch(() => {});
  for (let attempt = 1; ; attempt++) {
    const building = new Construction(options, secrets, bundle);
    try {
      return await building.stack();
    } catch (error) {
      await building.stop();
      // Between giving a port back and its process taking it, somebody else may: then all start on other ports.
      if (!(error instanceof PortTaken) || attempt === ATTEMPTS) throw error;
      options.onStep?.(`${error.message} Trying others.`);
    }
  }
}

class Construction {
  readonly #options: StackOptions;
  readonly #secrets: Secrets;
  readonly #bundle: Promise<void>;
  readonly #parts = new Map<string, Part>();
  /** What each part that has settings is started with, the next time too. */
  readonly #settings = new Map<string, Record<string, string>>();
  readonly #reserved: ReservedPort[] = [];
  readonly #nodes: StackNode[] = [];
  #edgeUrl = "";
  #redisUrl = "";

  constructor(options: StackOptions, secrets: Secrets, bundle: Promise<void>) {
    this.#options = options;
    this.#secrets = secrets;
    this.#bundle = bundle;
  }

  async stack(): Promise<Stack> {
    const { ports = {}, nodes: count = 3 } = this.#options;
    const edgePort = await this.#reserve(ports.edge);
    const nodePorts: ReservedPort[] = [];
    for (let index = 0; index < count; index++) nodePorts.push(await this.#reserve(ports.nodes?.[index]));
    this.#edgeUrl = urlOf(edgePort.port);
    this.#redisUrl = this.#options.redisUrl ?? (await this.#startRedis());
    await this.#startEdge(
      edgePort,
      nodePorts.map(({ port }) => urlOf(port)),
    );
    // All settle before one failure is told, so that stop() knows of every process.
    const started = await Promise.allSettled(nodePorts.map((port, i) => this.#startNode(`node-${i + 1}`, port)));
    for (const node of started) if (node.status === "rejected") throw node.reason;
    return this.#handle();
  }

  async stop(): Promise<void> {
    await Promise.all(this.#reserved.map((port) => port.release()));
    // Redis last: a node that drains gives its lease back.
    const parts = [...this.#parts].filter(([name]) => name !== "redis").map(([, part]) => part.stop());
    await Promise.all(parts);
    await this.#parts.get("redis")?.stop();
  }

  #handle(): Stack {
    const parts = this.#parts;
    return {
      edgeUrl: this.#edgeUrl,
      redisUrl: this.#redisUrl,
      adminToken: this.#secrets.adminToken,
      nodes: this.#nodes,
      get pids() {
        return Object.fromEntries([...parts].map(([name, part]) => [name, part.pid]));
      },
      startNode: async () => this.#startNode(`node-${this.#nodes.length + 1}`, await this.#reserve()),
      kill: (part, signal) => this.#part(part).kill(signal),
      restart: (part, changes = {}) => {
        Object.assign(this.#settings.get(part) ?? {}, changes);
        return this.#part(part).restart();
      },
      stop: () => this.stop(),
    };
  }

  #part(name: string): Part {
    const part = this.#parts.get(name);
    if (part === undefined) throw new Error(`The stack has no ${name}; it has ${[...this.#parts.keys()].join(", ")}.`);
    return part;
  }

  async #reserve(preferred?: number): Promise<ReservedPort> {
    const reserved = await reservePort(preferred);
    this.#reserved.push(reserved);
    return reserved;
  }

  async #startRedis(): Promise<string> {
    const { dir, ports, redisBinary, onStep } = this.#options;
    const binary = redisBinary ?? (await obtainRedisServer((text) => onStep?.(text)));
    const reserved = await this.#reserve(ports?.redis);
    await reserved.release();
    const redis = await startRedis({
      binary,
      dir: join(dir, "redis"),
      port: reserved.port,
      persist: true,
      ...this.#reports("redis"),
    });
    this.#parts.set("redis", redis);
    onStep?.(`Redis on ${redis.url}`);
    return redis.url;
  }

  async #startEdge(reserved: ReservedPort, endpoints: readonly string[]): Promise<void> {
    const { dir, edgeSettings, allowedOrigins = [], onStep } = this.#options;
    await this.#bundle;
    onStep?.("Worker built");
    const settings = {
      ISSUER: this.#edgeUrl,
      AUDIENCE,
      CLUSTERS: JSON.stringify([{ id: CLUSTER, endpoints }]),
      CLUSTER_SECRETS: JSON.stringify({ [CLUSTER]: this.#secrets.clusterSecret }),
      ALLOWED_ORIGINS: allowedOrigins.join(","),
      KEYCARD_SECRET: this.#secrets.keycardSecret,
      ADMIN_TOKEN: this.#secrets.adminToken,
      ...edgeSettings,
    };
    this.#settings.set("edge", settings);
    await reserved.release();
    const edge = await startEdge({
      bundleDir: bundleDir(this.#options),
      stateDir: join(dir, "edge-state"),
      port: reserved.port,
      settings,
      ...this.#reports("edge"),
    });
    this.#parts.set("edge", edge);
    onStep?.(`edge on ${this.#edgeUrl}`);
  }

  async #startNode(name: string, reserved: ReservedPort): Promise<StackNode> {
    const settings = {
      CLUSTER,
      CLUSTER_SECRET: this.#secrets.clusterSecret,
      AUDIENCE,
      ISSUER: this.#edgeUrl,
      REDIS_URL: this.#redisUrl,
      ALLOWED_ORIGINS: (this.#options.allowedOrigins ?? []).join(","),
      ...this.#options.nodeSettings,
    };
    this.#settings.set(name, settings);
    await reserved.release();
    const part = await startNodeProcess({ name, port: reserved.port, settings, ...this.#reports(name) });
    this.#parts.set(name, part);
    const node: StackNode = {
      name,
      url: urlOf(reserved.port),
      get pid() {
        return part.pid;
      },
    };
    this.#nodes.push(node);
    this.#nodes.sort((a, b) => a.name.localeCompare(b.name, "en", { numeric: true }));
    this.#options.onStep?.(`${name} on ${node.url}`);
    return node;
  }

  #reports(name: string): { onLine(line: string): void; onExit(exit: Exit): void } {
    return {
      onLine: (line) => this.#options.onLine?.(name, line),
      onExit: (exit) => this.#options.onExit?.(name, exit),
    };
  }
}

function bundleDir({ dir }: StackOptions): string {
  return join(dir, "edge-build");
}

function urlOf(port: number): string {
  return `http://${LOOPBACK}:${port}`;
}

/**
 * The world of a chaos run: the real Worker, clusters of real nodes each with a Redis of its own, and between any two of them
 * a link that can be broken. Links are named after the node and what it reaches, or who reaches it: `north-1:redis`.
 */
import { randomBytes } from "node:crypto";
import { cp, mkdir, rm } from "node:fs/promises";
import { join } from "node:path";
import { startEdge } from "../../infra/edge.ts";
import { startNodeProcess } from "../../infra/node.ts";
import type { Part } from "../../infra/part.ts";
import { LOOPBACK, type ReservedPort, reservePort } from "../../infra/ports.ts";
import { obtainRedisServer, type RedisProcess, startRedis } from "../../infra/redis.ts";
import { until } from "../../infra/until.ts";
import { type Link, linkTo } from "../support/link.ts";
import { setClock } from "./clock.ts";
import { buildChaosEdge, bundleIn } from "./edge-build.ts";
import { CLOCK_PATH, type ClockOrder } from "./edge-clock.ts";
import { historyFile, now, ofKind, readHistories, type Write } from "./history.ts";
import { isOfEdge, type PlantName } from "./plants.ts";

/** The ways from and to a node: clients reach it, it reaches its Redis and the edge, the edge reaches it. */
export const WAYS = ["front", "redis", "edge", "push"] as const;
export type Way = (typeof WAYS)[number];

export interface WorldNode {
  readonly name: string;
  readonly cluster: string;
  /** For clients, through a link. */
  readonly url: string;
  /** For the driver, through none. */
  readonly directUrl: string;
}

export interface WorldCluster {
  readonly id: string;
  readonly redisUrl: string;
  /** The name of its Redis, as a part. */
  readonly redis: string;
  readonly nodes: readonly WorldNode[];
}

export interface World {
  /** Where clients and administrators reach the edge: each through a link, "people:edge" and "admin:edge". */
  readonly urls: { readonly people: string; readonly admin: string };
  readonly adminToken: string;
  readonly clusters: readonly WorldCluster[];
  readonly nodes: readonly WorldNode[];
  /** Where everybody writes what they see. */
  readonly historyDir: string;
  readonly write: Write;
  link(name: string): Link;
  /** "edge", a node, or a cluster's Redis. */
  kill(part: string, signal?: NodeJS.Signals): Promise<void>;
  /** Resolves when it is ready. */
  restart(part: string): Promise<void>;
  isRunning(part: string): boolean;
  /** Resolves when every node that runs has written down all that it saw until now. */
  witnessed(): Promise<void>;
  /** Sets the wall clock of a node, or of the edge, off from the true time. */
  setClock(part: string, offMs: number): Promise<void>;
  /** Starts the edge and all nodes anew with a bug in one of them or none, as far as they are not as they should be already. */
  plant(plant: PlantName | undefined): Promise<void>;
  /** Takes a copy of all that a cluster's Redis holds, to which it can be thrown back. */
  snapshot(cluster: string): Promise<void>;
  /** What an asynchronous failover does: Redis is back with what it held at the snapshot, and the writes since are lost. */
  failOver(cluster: string): Promise<void>;
  stop(): Promise<void>;
}

export interface WorldOptions {
  /** Where all state lives. */
  readonly dir: string;
  /** Cluster → how many nodes. */
  readonly clusters: Readonly<Record<string, number>>;
  readonly edgeSettings?: Readonly<Record<string, string>>;
  readonly nodeSettings?: Readonly<Record<string, string>>;
  onStep?(text: string): void;
  onLine?(process: string, line: string): void;
}

const AUDIENCE = "keycard";
/** Longer than the passwords of everybody take that are being judged. */
const CLOCK_SET_WITHIN_MS = 10_000;
/** A run says nothing about how fast this machine is. */
const READY_WITHIN_MS = 120_000;
const EDGE_BACK_WITHIN_MS = 120_000;
const HANDLERS = join(import.meta.dirname, "handlers.ts");
/** Node reads them before the node's own source. */
const PRELOADED = ["clock.ts", "plants.ts"].map((name) => `--import=file://${join(import.meta.dirname, name)}`);

export async function startWorld(options: WorldOptions): Promise<World> {
  const making = new Making(options);
  try {
    return await making.world();
  } catch (error) {
    await making.stop();
    throw error;
  }
}

class Making {
  readonly #options: WorldOptions;
  readonly #historyDir: string;
  readonly #write: Write;
  readonly #adminToken = secret();
  readonly #parts = new Map<string, Part>();
  readonly #links = new Map<string, Link>();
  readonly #reserved: ReservedPort[] = [];
  readonly #redises = new Map<string, RedisProcess>();
  readonly #clusterSecrets: ReadonlyMap<string, string>;
  readonly #nodes: (WorldNode & { readonly port: ReservedPort })[] = [];
  readonly #clusters: WorldCluster[] = [];
  #edgePort = 0;
  #clockTurns = 0;
  #plantedInEdge: PlantName | undefined;
  #plantedInNodes: PlantName | undefined;

  constructor(options: WorldOptions) {
    this.#options = options;
    this.#historyDir = join(options.dir, "history");
    this.#write = historyFile(this.#historyDir, "driver");
    this.#clusterSecrets = new Map(Object.keys(options.clusters).map((id) => [id, secret()]));
  }

  async world(): Promise<World> {
    const { dir, clusters } = this.#options;
    await mkdir(dir, { recursive: true, mode: 0o700 });
    const bundled = buildChaosEdge(this.#edgeBuild);
    // Awaited below; a failure before that must not go unhandled.
    bundled.catch(() => {});
    const edgePort = await this.#reserve();
    this.#edgePort = edgePort.port;
    for (const who of ["people", "admin"]) await this.#link(`${who}:edge`, edgePort.port);
    const binary = await obtainRedisServer(this.#options.onStep);
    for (const [id, nodes] of Object.entries(clusters)) await this.#startCluster(id, nodes, binary);
    await bundled;
    await this.#startEdge(edgePort);
    await Promise.all(this.#nodes.map((node) => this.#startNode(node)));
    return this.#handle();
  }

  async stop(): Promise<void> {
    await Promise.all(this.#reserved.map((port) => port.release()));
    // A node that drains gives its lease back.
    await Promise.all([...this.#parts].map(([, part]) => part.stop()));
    await Promise.all([...this.#redises.values()].map((redis) => redis.stop()));
    await Promise.all([...this.#links.values()].map((link) => link.close()));
  }

  #handle(): World {
    return {
      urls: { people: this.#urlOf("people:edge"), admin: this.#urlOf("admin:edge") },
      adminToken: this.#adminToken,
      clusters: this.#clusters,
      nodes: this.#nodes,
      historyDir: this.#historyDir,
      write: this.#write,
      link: (name) => this.#linkOf(name),
      kill: (part, signal) => this.#kill(part, signal),
      restart: (part) => this.#part(part).restart(),
      isRunning: (part) => this.#part(part).running,
      witnessed: () => this.#witnessed(),
      setClock: (part, offMs) => this.#setClock(part, offMs),
      plant: (plant) => this.#plant(plant),
      snapshot: (cluster) => this.#snapshot(cluster),
      failOver: (cluster) => this.#failOver(cluster),
      stop: () => this.stop(),
    };
  }

  async #startCluster(id: string, count: number, binary: string): Promise<void> {
    const name = `${id}-redis`;
    const redis = await startRedis({ binary, dir: this.#redisDir(id), persist: true, ...this.#reports(name) });
    this.#redises.set(name, redis);
    const nodes: WorldNode[] = [];
    for (let index = 1; index <= count; index++) nodes.push(await this.#makeWays(id, `${id}-${index}`, redis.port));
    this.#clusters.push({ id, redisUrl: redis.url, redis: name, nodes });
    this.#options.onStep?.(`cluster ${id}: Redis on ${redis.url}`);
  }

  async #makeWays(cluster: string, name: string, redisPort: number): Promise<WorldNode> {
    const port = await this.#reserve();
    const ends: Record<Way, number> = { front: port.port, push: port.port, redis: redisPort, edge: this.#edgePort };
    for (const way of WAYS) await this.#link(`${name}:${way}`, ends[way]);
    const directUrl = `http://${LOOPBACK}:${port.port}`;
    const node = { name, cluster, url: this.#urlOf(`${name}:front`), directUrl, port };
    this.#nodes.push(node);
    return node;
  }

  async #startEdge(port: ReservedPort): Promise<void> {
    const { dir, edgeSettings } = this.#options;
    const endpointsOf = (nodes: readonly WorldNode[]) => nodes.map(({ name }) => this.#urlOf(`${name}:push`));
    const settings = {
      ISSUER: `http://${LOOPBACK}:${port.port}`,
      AUDIENCE,
      CLUSTERS: JSON.stringify(this.#clusters.map(({ id, nodes }) => ({ id, endpoints: endpointsOf(nodes) }))),
      CLUSTER_SECRETS: JSON.stringify(Object.fromEntries(this.#clusterSecrets)),
      KEYCARD_SECRET: secret(),
      ADMIN_TOKEN: this.#adminToken,
      ...edgeSettings,
    };
    await port.release();
    const bundleDir = bundleIn(this.#edgeBuild);
    const stateDir = join(dir, "edge-state");
    const edge = await startEdge({
      ...{ bundleDir, stateDir, port: port.port, settings, readyWithinMs: READY_WITHIN_MS },
      ...this.#reports("edge"),
    });
    this.#parts.set("edge", edge);
    this.#options.onStep?.(`edge on port ${port.port}`);
  }

  async #startNode(node: WorldNode & { readonly port: ReservedPort }, plant?: PlantName): Promise<void> {
    const { name, cluster, port } = node;
    const edge = this.#urlOf(`${name}:edge`);
    setClock(this.#clockOf(name), 0);
    const settings = {
      CLUSTER: cluster,
      CLUSTER_SECRET: this.#clusterSecrets.get(cluster) ?? "",
      AUDIENCE,
      ISSUER: `http://${LOOPBACK}:${this.#edgePort}`,
      JWKS_URL: `${edge}/.well-known/jwks.json`,
      FEED_URL: `${edge}/revocations`,
      REDIS_URL: `redis://${LOOPBACK}:${this.#linkOf(`${name}:redis`).port}`,
      HANDLERS,
      NODE_OPTIONS: PRELOADED.join(" "),
      CHAOS_HISTORY: this.#historyDir,
      CHAOS_CLOCK: this.#clockOf(name),
      ...(plant === undefined ? {} : { CHAOS_PLANT: plant }),
      ...this.#options.nodeSettings,
    };
    await port.release();
    this.#parts.set(
      name,
      await startNodeProcess({
        ...{ name, port: port.port, settings, readyWithinMs: READY_WITHIN_MS },
        ...this.#reports(name),
      }),
    );
  }

  async #plant(plant: PlantName | undefined): Promise<void> {
    const inEdge = plant !== undefined && isOfEdge(plant) ? plant : undefined;
    const inNodes = inEdge === undefined ? plant : undefined;
    if (inEdge !== this.#plantedInEdge) {
      await buildChaosEdge(this.#edgeBuild, inEdge);
      await this.#part("edge").restart();
    }
    if (inNodes !== this.#plantedInNodes) await Promise.all(this.#nodes.map((node) => this.#startAnew(node, inNodes)));
    this.#plantedInEdge = inEdge;
    this.#plantedInNodes = inNodes;
  }

  async #startAnew(node: WorldNode & { readonly port: ReservedPort }, plant: PlantName | undefined): Promise<void> {
    await this.#part(node.name).stop();
    this.#write({ kind: "down", part: node.name, expected: true });
    await this.#startNode(node, plant);
  }

  async #setClock(part: string, offMs: number): Promise<void> {
    const isRight = offMs === 0;
    if (!isRight) this.#write({ kind: "clock", node: part, offMs });
    if (part === "edge") await this.#setEdgeClock(offMs);
    else setClock(this.#clockOf(part), offMs);
    if (isRight) this.#write({ kind: "clock", node: part, offMs });
  }

  /** An edge that is away now has the true time when it is started again; one that is frozen learns it when it goes on. */
  async #setEdgeClock(offMs: number): Promise<void> {
    this.#clockTurns += 1;
    const body = JSON.stringify({ turn: this.#clockTurns, offMs } satisfies ClockOrder);
    const isSet = async () => {
      const signal = AbortSignal.timeout(CLOCK_SET_WITHIN_MS);
      const url = `http://${LOOPBACK}:${this.#edgePort}${CLOCK_PATH}`;
      return await fetch(url, { method: "POST", body, signal }).then(
        ({ ok }) => ok,
        () => false,
      );
    };
    if (offMs === 0) await until("the edge's clock is right", isSet, { withinMs: EDGE_BACK_WITHIN_MS });
    else await isSet();
  }

  async #witnessed(): Promise<void> {
    const since = now();
    const running = this.#nodes.filter(({ name }) => this.#part(name).running);
    await until("every node has written what it saw", () => {
      const awake = ofKind(readHistories(this.#historyDir), "awake");
      return running.every(({ name }) => awake.some((each) => each.node === name && each.until > since));
    });
  }

  async #kill(name: string, signal: NodeJS.Signals = "SIGKILL"): Promise<void> {
    const part = this.#part(name);
    if (!part.running) return;
    await part.kill(signal);
    if (!part.running) this.#write({ kind: "down", part: name, expected: true });
  }

  // Redis only ever adds to its file: a copy of it, torn as the end may be, is what it held then.
  async #snapshot(cluster: string): Promise<void> {
    await rm(this.#snapshotDir(cluster), { recursive: true, force: true });
    await cp(this.#redisDir(cluster), this.#snapshotDir(cluster), { recursive: true });
  }

  async #failOver(cluster: string): Promise<void> {
    const redis = this.#part(`${cluster}-redis`);
    await redis.kill("SIGKILL");
    await rm(this.#redisDir(cluster), { recursive: true, force: true });
    await cp(this.#snapshotDir(cluster), this.#redisDir(cluster), { recursive: true });
    this.#write({ kind: "forgot", cluster });
    await redis.restart();
  }

  #part(name: string): Part {
    const part = this.#parts.get(name) ?? this.#redises.get(name);
    if (part === undefined) throw new Error(`The world has no ${name}.`);
    return part;
  }

  #linkOf(name: string): Link {
    const link = this.#links.get(name);
    if (link === undefined) throw new Error(`The world has no link ${name}.`);
    return link;
  }

  #urlOf(link: string): string {
    return `http://${LOOPBACK}:${this.#linkOf(link).port}`;
  }

  async #link(name: string, port: number): Promise<void> {
    this.#links.set(name, await linkTo(port));
  }

  async #reserve(): Promise<ReservedPort> {
    const reserved = await reservePort();
    this.#reserved.push(reserved);
    return reserved;
  }

  #redisDir(cluster: string): string {
    return join(this.#options.dir, `${cluster}-redis`);
  }

  #snapshotDir(cluster: string): string {
    return join(this.#options.dir, `${cluster}-snapshot`);
  }

  get #edgeBuild(): string {
    return join(this.#options.dir, "edge-build");
  }

  #clockOf(node: string): string {
    return join(this.#options.dir, "clocks", node);
  }

  #reports(name: string) {
    return {
      onLine: (line: string) => this.#options.onLine?.(name, line),
      onExit: () => this.#write({ kind: "down", part: name, expected: false }),
    };
  }
}

function secret(): string {
  return randomBytes(32).toString("base64url");
}

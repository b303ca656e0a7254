/** Some processes that hold sockets, on a Redis of their own and with an issuer whose key we have. */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { obtainRedisServer, type RedisProcess, startRedis } from "../../infra/redis.ts";
import { until } from "../../infra/until.ts";
import type { ClosingNodeReady, ClosingNodeSettings, Kind } from "./closing-node.ts";
import { type BenchIssuer, startIssuer } from "./issuer.ts";
import { obtainPeers } from "./peers.ts";
import { type ServerProcess, startServerProcess } from "./server-process.ts";

export type ClosingNode = ServerProcess<ClosingNodeReady>;

export interface ClosingNodes {
  readonly issuer: BenchIssuer;
  readonly redis: RedisProcess;
  readonly nodes: readonly ClosingNode[];
  portOf(node: ClosingNode, kind: Kind): number;
  stop(): Promise<void>;
}

export interface ClosingNodesOptions {
  /** How many processes. */
  readonly count: number;
  readonly kinds: readonly Kind[];
  readonly keycard?: Readonly<Record<string, string>>;
  tell(text: string): void;
  /** Where a process reaches Redis, if not directly. */
  redisUrlOf?(index: number, port: number): Promise<string>;
}

/** After this long every node has seen every other one, and vouches for the list of those whose word is awaited. */
const SEES_ALL_MS = 30_000;

/** Resolves when each of them lets people in, and can say that a receipt is whole. */
export async function startClosingNodes({
  count,
  kinds,
  keycard = {},
  redisUrlOf,
  tell,
}: ClosingNodesOptions): Promise<ClosingNodes> {
  if (kinds.includes("streams")) await obtainPeers(tell);
  const dir = await mkdtemp(join(tmpdir(), "keycard-bench-"));
  const redis = await startRedis({ binary: await obtainRedisServer(), dir });
  const issuer = await startIssuer();
  const nodes: ClosingNode[] = [];
  const module = join(import.meta.dirname, "closing-node.ts");
  for (let index = 0; index < count; index++) {
    const redisUrl = (await redisUrlOf?.(index, redis.port)) ?? redis.url;
    const own = { ...issuer.settings, ...keycard, NODE_NAME: `node-${index + 1}` };
    const settings: ClosingNodeSettings = { kinds, redisUrl, keycard: own };
    nodes.push(await startServerProcess<ClosingNodeReady>(module, settings));
  }
  const portOf = (node: ClosingNode, kind: Kind) => node.ready.ports[kind] ?? 0;
  await Promise.all(nodes.map((node) => node.ask("untilReady")));
  const [first] = nodes;
  if (kinds.includes("keycard") && first !== undefined) {
    await untilWhole(issuer, portOf(first, "keycard"), count);
    await first.ask("pushedAt"); // those were not measured
  }
  return {
    issuer,
    redis,
    nodes,
    portOf,
    async stop() {
      await Promise.all(nodes.map((node) => node.stop()));
      await issuer.stop();
      await redis.stop();
      await rm(dir, { recursive: true, force: true });
    },
  };
}

/** Until a receipt names every node and waits for none. */
async function untilWhole(issuer: BenchIssuer, port: number, count: number): Promise<void> {
  const isWhole = async () => {
    const event = issuer.prepare([{ kind: "session", sid: "nobody" }]);
    issuer.tell(event);
    await issuer.push(port, await issuer.sign(event));
    const [receipt] = await issuer.receipts(port, [event.id]);
    return receipt?.pending.length === 0 && receipt.applied.length === count;
  };
  await until("a receipt is whole", isWhole, { withinMs: SEES_ALL_MS });
}

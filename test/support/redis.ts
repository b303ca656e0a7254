/** Redis as a node sees it: the users of `infra/redis.acl` with passwords, and links to the log with nothing on top. */
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { PEER, type TopologyServer } from "../../infra/redis-topology.ts";
import { readConfig } from "../../realtime/config.ts";
import { connectRedis, createLogLinks, type LogLinks, type LogLinksOptions } from "../../realtime/redis.ts";

const FILE = join(import.meta.dirname, "..", "..", "infra", "redis.acl");

export const PASSWORD = "nodes-know-it";

/** The file's `user` lines by name, each with a password after its `on`. */
export async function readUsers(): Promise<ReadonlyMap<string, string>> {
  const lines = (await readFile(FILE, "utf8")).split("\n").filter((line) => line.startsWith("user "));
  return new Map(
    lines.map((line) => {
      const name = line.split(" ")[1] as string;
      return [name, line.replace(" on ", ` on >${name === PEER.username ? PEER.password : PASSWORD} `)];
    }),
  );
}

/** What these servers had to deny to whom, of those that run. */
export async function deniedBy(servers: readonly TopologyServer[]): Promise<string[]> {
  const running = servers.filter((server) => server.running);
  const logs = await Promise.all(running.map(({ root }) => root.acl("LOG") as Promise<string[][]>));
  return logs.flat().map((entry) => entry.join(" "));
}

/** @param redis the settings that say where Redis is; not connected yet */
export function linksTo(redis: Readonly<Record<string, string>>, options: Partial<LogLinksOptions> = {}): LogLinks {
  const others = { CLUSTER: "links", CLUSTER_SECRET: "a secret of nobody in particular", ISSUER: "http://edge.test" };
  const client = connectRedis(readConfig({ ...others, ...redis }));
  return createLogLinks(client, { commandTimeoutMs: 2_000, retryMs: 50, onProblem() {}, ...options });
}

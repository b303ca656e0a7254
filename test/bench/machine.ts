/** What a figure was measured on: figures of two machines are not to be compared. */
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { cpus, loadavg, release, type } from "node:os";

export interface Machine {
  readonly date: string;
  readonly system: string;
  readonly cpu: string;
  readonly cores: number;
  /** Over the minute before: above the number of cores nothing that is measured holds. */
  readonly load: number;
  readonly versions: Readonly<Record<string, string>>;
}

const PACKAGES = ["socket.io", "socket.io-client", "@socket.io/redis-adapter", "ioredis", "jose", "hono", "workerd"];

export function thisMachine(): Machine {
  const { resolve } = createRequire(import.meta.url);
  const versionOf = (name: string) => {
    const main = resolve(name);
    const folder = main.slice(0, main.lastIndexOf(`node_modules/${name}/`));
    return String(JSON.parse(readFileSync(`${folder}node_modules/${name}/package.json`, "utf8")).version);
  };
  return {
    date: new Date().toISOString().slice(0, 10),
    system: `${type()} ${release().split("-")[0]}`,
    cpu: cpus()[0]?.model.trim() ?? "unknown",
    cores: cpus().length,
    load: Math.round((loadavg()[0] ?? 0) * 100) / 100,
    versions: {
      node: process.versions.node,
      ...Object.fromEntries(PACKAGES.map((name) => [name, versionOf(name)])),
    },
  };
}

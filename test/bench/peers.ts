/** Libraries that the product is compared with. They are nothing of it, so they are installed when they are first asked for. */
import { existsSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { startChild } from "../../infra/child.ts";

const HOME = join(import.meta.dirname, "peers");

/** Installs them where they are missing. @throws {Error} with what npm said last, where they cannot be had */
export async function obtainPeers(tell: (text: string) => void): Promise<void> {
  if (areInstalled()) return;
  tell("installing what it is compared with");
  // What they say of their own needs is Socket.IO and Hono, which are here, and frameworks that are not used.
  const args = ["ci", "--ignore-scripts", "--legacy-peer-deps", "--no-audit", "--no-fund"];
  const npm = await startChild({ command: "npm", args, cwd: HOME });
  const { code } = await npm.exited;
  if (code !== 0) throw new Error(`the peers cannot be installed: ${npm.lastLines.at(-1) ?? "npm said nothing"}`);
}

/** In these versions: who has measured before may have others. */
function areInstalled(): boolean {
  const { dependencies } = readPackage(HOME) as { dependencies: Readonly<Record<string, string>> };
  return Object.entries(dependencies).every(([name, version]) => {
    const folder = join(HOME, "node_modules", name);
    return existsSync(folder) && readPackage(folder).version === version;
  });
}

function readPackage(folder: string): { readonly version?: string; readonly dependencies?: unknown } {
  return JSON.parse(readFileSync(join(folder, "package.json"), "utf8"));
}

/** Where a peer is, for `import()`. */
export function peerPath(name: string): string {
  return createRequire(join(HOME, "package.json")).resolve(name);
}

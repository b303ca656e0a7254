/** Somebody who has just cloned the project: a copy of its files, and what `npm start` starts there. */
import { cp, mkdtemp, readFile, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type Child, startChild } from "../../infra/child.ts";
import { until } from "../../infra/until.ts";

const ROOT = join(import.meta.dirname, "..", "..");
const LEFT_BEHIND = new Set(["node_modules", ".git", ".keycard", "dist"]);

export interface Newcomer {
  /** The copy. */
  readonly dir: string;
  /** What `npm start` said. */
  readonly said: readonly string[];
  readonly edge: string;
  readonly nodes: readonly string[];
  readonly page: string;
  readonly redis: string;
  /** A secret of the stack, by the name of its file. */
  secret(name: "admin-token" | "cluster-secret"): Promise<string>;
  /** Ctrl-C. Resolves to what was said after it. */
  stop(): Promise<readonly string[]>;
}

/** @param command as the README has it */
export async function startAsNewcomer(command: string): Promise<Newcomer> {
  const dir = await copyOfProject();
  const said: string[] = [];
  const child = await startChild({
    command: "/bin/sh",
    args: ["-c", `exec ${command}`],
    cwd: dir,
    onLine: (line) => void said.push(line),
  });
  try {
    await until("it is ready", () => assertRuns(child) && said.some((line) => line.startsWith("Ready in")), {
      withinMs: 90_000,
    });
  } catch (error) {
    await child.stop();
    throw new Error(`${command} did not get ready:\n${said.join("\n")}`, { cause: error });
  }
  const told = (what: string) =>
    said
      .find((line) => line.startsWith(`  ${what} `))
      ?.slice(10)
      .trim() ?? "";
  return {
    dir,
    said,
    edge: told("edge"),
    nodes: told("nodes").split(/\s+/),
    page: told("page"),
    redis: told("redis"),
    secret: async (name) => (await readFile(join(dir, ".keycard", name), "utf8")).trim(),
    async stop() {
      const before = said.length;
      await child.stop(20_000);
      await rm(dir, { recursive: true, force: true });
      return said.slice(before);
    },
  };
}

function assertRuns(child: Child): true {
  if (!child.running) throw new Error("it ended");
  return true;
}

/** Without what is installed or made; what is installed is shared, and packages are found as they are when one is made. */
async function copyOfProject(): Promise<string> {
  const dir = await mkdtemp(join(tmpdir(), "keycard-newcomer-"));
  await cp(ROOT, dir, { recursive: true, filter: (path) => !LEFT_BEHIND.has(path.slice(ROOT.length + 1)) });
  await symlink(join(ROOT, "node_modules"), join(dir, "node_modules"));
  const manifest = JSON.parse(await readFile(join(dir, "package.json"), "utf8"));
  manifest.exports = {
    "./realtime": "./realtime/protect.ts",
    "./client": "./realtime/client/connect.ts",
    "./contract": "./snippets/contract.ts",
  };
  await writeFile(join(dir, "package.json"), JSON.stringify(manifest));
  return dir;
}

/**
 * The Worker as it would be deployed. Building it takes longer than starting everything else, so what was built from the same source is kept and
 * used again; whoever changes a file of the edge, or a package, gets another one.
 */
import { spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { cp, mkdir, mkdtemp, readdir, readFile, rename, rm, stat } from "node:fs/promises";
import { join, relative } from "node:path";

const ROOT = join(import.meta.dirname, "..");
const CONFIG = join(ROOT, "edge", "wrangler.jsonc");
const BUNDLER = join(import.meta.dirname, "edge-bundle.ts");
/** Besides the edge itself, what it is built from and by. */
const MATERIAL = ["infra/edge-bundle.ts", "infra/console-bundle.ts", "package-lock.json"];
/** What building itself writes there. */
const MADE = /(^|\/)(dist|\.wrangler|node_modules)(\/|$)|worker-configuration\.d\.ts$/;
const KEPT = join(ROOT, ".keycard", "edge-builds");
const KEEP = 3;

/** Bundles the Worker into a directory that is then the caller's own. @param config of another Worker than ours, which is not kept */
export async function buildEdge(bundleDir: string, config = CONFIG): Promise<void> {
  if (config !== CONFIG) return await bundle(bundleDir, config);
  const kept = join(KEPT, await sourceHash(ROOT));
  if (!(await isThere(kept))) await keep(kept);
  await cp(kept, bundleDir, { recursive: true });
}

async function keep(kept: string): Promise<void> {
  await mkdir(KEPT, { recursive: true });
  const fresh = await mkdtemp(join(KEPT, "new-"));
  try {
    await bundle(fresh, CONFIG);
    // Somebody else may have built the same meanwhile.
    await rename(fresh, kept).catch(async (error) => {
      if (!(await isThere(kept))) throw error;
    });
  } finally {
    await rm(fresh, { recursive: true, force: true });
  }
  await forgetOthers();
}

async function bundle(bundleDir: string, config: string): Promise<void> {
  await mkdir(bundleDir, { recursive: true, mode: 0o700 });
  const bundler = spawn(process.execPath, [BUNDLER, config, bundleDir], { stdio: ["ignore", "pipe", "pipe"] });
  let output = "";
  for (const stream of [bundler.stdout, bundler.stderr]) stream.on("data", (data) => (output += data));
  const code = await new Promise((resolve, reject) => bundler.once("error", reject).once("close", resolve));
  if (code !== 0) throw new Error(`The Worker could not be built:\n${output.trim()}`);
}

/** Names everything in a checkout that the Worker is made of. */
export async function sourceHash(root: string): Promise<string> {
  const entries = await readdir(join(root, "edge"), { recursive: true, withFileTypes: true });
  const inEdge = entries.filter((entry) => entry.isFile()).map(({ parentPath, name }) => join(parentPath, name));
  const names = [...inEdge.map((path) => relative(root, path)), ...MATERIAL].filter((name) => !MADE.test(name)).sort();
  const hash = createHash("sha256").update(process.version);
  for (const name of names) hash.update(`\0${name}\0`).update(await readFile(join(root, name)));
  return hash.digest("hex").slice(0, 32);
}

async function forgetOthers(): Promise<void> {
  const names = (await readdir(KEPT)).filter((name) => !name.startsWith("new-"));
  const aged = await Promise.all(names.map(async (name) => ({ name, at: (await stat(join(KEPT, name))).mtimeMs })));
  for (const { name } of aged.sort((a, b) => b.at - a.at).slice(KEEP)) {
    await rm(join(KEPT, name), { recursive: true, force: true });
  }
}

async function isThere(path: string): Promise<boolean> {
  return await stat(path).then(
    () => true,
    () => false,
  );
}

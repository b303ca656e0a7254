/**
 * `npm pack`: makes the JavaScript and the types that others install, in `dist/`. The sources run as they are here, but
 * Node strips no types below `node_modules`.
 *
 * The output is ES modules only: every Node that is still cared for can `require` them.
 */
import { spawnSync } from "node:child_process";
import { globSync } from "node:fs";
import { readFile, rm, writeFile } from "node:fs/promises";
import { dirname, join, relative } from "node:path";

const ROOT = join(import.meta.dirname, "..");
const DIST = join(ROOT, "dist");
const CONTRACT = join(DIST, "edge", "contract");
/** What the contract's files judge with: nobody else's business. */
const OWN_TOOLS = "shapes.js";
const SPECIFIER = /(\bfrom |\bimport\(|^import )"((?:#contract\/|\.)[^"]*)"/gm;

await rm(DIST, { recursive: true, force: true });
const tsc = join(ROOT, "node_modules", ".bin", "tsc");
const { status } = spawnSync(tsc, ["-p", join(import.meta.dirname, "package.tsconfig.json")], { stdio: "inherit" });
if (status !== 0) throw new Error("The package does not compile.");
for (const name of globSync("**/*.{js,d.ts}", { cwd: DIST })) {
  const path = join(DIST, name);
  await writeFile(path, installable(path, await readFile(path, "utf8")));
}
const words = globSync("*.js", { cwd: CONTRACT }).filter((name) => name !== OWN_TOOLS);
const everything = words
  .sort()
  .map((name) => `export * from "./edge/contract/${name}";\n`)
  .join("");
for (const name of ["contract.js", "contract.d.ts"]) await writeFile(join(DIST, name), everything);

/** Names no file that is not in the package, and nothing that only a resolver with our settings finds. */
function installable(path: string, source: string): string {
  return source.replace(SPECIFIER, (_all, before: string, specifier: string) => {
    const target = specifier.startsWith("#contract/")
      ? relative(dirname(path), join(CONTRACT, specifier.slice("#contract/".length)))
      : specifier;
    const dotted = target.startsWith(".") ? target : `./${target}`;
    return `${before}"${dotted.replace(/\.[jt]s$/, "")}.js"`;
  });
}

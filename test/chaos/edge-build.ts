/**
 * The Worker of a chaos run: the source of the repository, built as it would be deployed, but with a clock that can be set, and with a
 * bug where the checker is to be tried.
 */
import { cp, mkdir, readFile, rm, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { buildEdge } from "../../infra/edge-build.ts";
import { PLANTS, type PlantName, planted } from "./plants.ts";

const ROOT = join(import.meta.dirname, "..", "..");
const CLOCK = join(import.meta.dirname, "edge-clock.ts");
const ENTRY = "edge/worker.ts";

/** What makes the entry one with a clock that can be set. */
const WITH_CLOCK = [
  {
    file: ENTRY,
    instead: 'import { app } from "./app.ts";',
    put: 'import { withClock } from "./edge-clock.ts";\nimport { app } from "./app.ts";',
  },
  { file: ENTRY, instead: "{ fetch: app.fetch }", put: "{ fetch: withClock(app.fetch) }" },
];

/** @param dir where the source is copied to and the bundle is put; what was there goes */
export async function buildChaosEdge(dir: string, plant?: PlantName): Promise<void> {
  const source = join(dir, "source");
  await rm(dir, { recursive: true, force: true });
  await mkdir(source, { recursive: true, mode: 0o700 });
  for (const name of ["edge", "infra/console-bundle.ts", "package.json", "tsconfig.json"]) {
    await cp(join(ROOT, name), join(source, name), { recursive: true });
  }
  await symlink(join(ROOT, "node_modules"), join(source, "node_modules"), "dir");
  await cp(CLOCK, join(source, "edge", "edge-clock.ts"));
  for (const change of [...WITH_CLOCK, ...(plant === undefined ? [] : [PLANTS[plant]])]) {
    const path = join(source, change.file);
    await writeFile(path, planted(await readFile(path, "utf8"), change));
  }
  await buildEdge(join(dir, "bundle"), join(source, "edge", "wrangler.jsonc"));
}

export function bundleIn(dir: string): string {
  return join(dir, "bundle");
}

/**
 * Kubernetes manifests judged without a cluster: each object by the schema of its kind, and all of them by the compiler, which unlike the schemas
 * knows a member that there is not.
 */
import { execFile } from "node:child_process";
import { mkdtemp, readFile, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { parseAllDocuments } from "yaml";

const run = promisify(execFile);
const ROOT = join(import.meta.dirname, "..", "..");

export interface Manifest {
  readonly apiVersion: string;
  readonly kind: string;
  readonly metadata: { readonly name: string; readonly namespace?: string };
}

/** @throws {Error} where the YAML itself is wrong */
export async function readManifests(path: string): Promise<readonly Manifest[]> {
  return parseManifests(await readFile(path, "utf8"));
}

export function parseManifests(text: string): readonly Manifest[] {
  return parseAllDocuments(text, { uniqueKeys: true }).map((document) => {
    const [error] = document.errors;
    if (error !== undefined) throw error;
    return document.toJS() as Manifest;
  });
}

/** `apps/v1` → the module that has its kinds; the core group has no name. */
const moduleOf = ({ apiVersion }: Manifest) => `kubernetes-models/${apiVersion}`;

/** What the schemas of their kinds say of these. */
export async function brokenBySchema(manifests: readonly Manifest[]): Promise<string[]> {
  const problems: string[] = [];
  for (const manifest of manifests) {
    const kinds = (await import(moduleOf(manifest))) as Record<string, (new (data: object) => Model) | undefined>;
    const Kind = kinds[manifest.kind];
    if (Kind === undefined) throw new Error(`${manifest.apiVersion} has no ${manifest.kind}`);
    try {
      new Kind(manifest).validate();
    } catch (error) {
      problems.push(`${manifest.kind} ${manifest.metadata.name}: ${(error as Error).message}`);
    }
  }
  return problems;
}

interface Model {
  validate(): void;
}

/** What the compiler says of these as literals of their kinds' types. */
export async function brokenByTypes(manifests: readonly Manifest[]): Promise<string[]> {
  const dir = await mkdtemp(join(tmpdir(), "keycard-manifests-"));
  try {
    await symlink(join(ROOT, "node_modules"), join(dir, "node_modules"));
    await writeFile(join(dir, "package.json"), '{"type": "module"}');
    const literals = manifests.map(
      (manifest, i) =>
        `import type { I${manifest.kind} as Kind${i} } from "${moduleOf(manifest)}";\nexport const manifest${i}: Kind${i} = ${JSON.stringify(manifest, null, 1)};`,
    );
    await writeFile(join(dir, "manifests.ts"), literals.join("\n"));
    const options = ["--noEmit", "--strict", "--module", "nodenext", "--target", "es2023", "--skipLibCheck"];
    const tsc = join(ROOT, "node_modules", ".bin", "tsc");
    const { stdout } = await run(tsc, [...options, "--types", "", "manifests.ts"], { cwd: dir }).catch(
      (error: { stdout: string }) => error,
    );
    return stdout.split("\n").filter((line) => line.includes("error TS"));
  } finally {
    await rm(dir, { recursive: true, force: true });
  }
}

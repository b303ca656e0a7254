/**
 * Makes the console's files, which a browser loads, out of its modules in `edge/console/`, and puts them into one module that the
 * Worker imports: `edge/dist/console.js`. Wrangler runs this before it bundles the Worker (`build` in edge/wrangler.jsonc), so that
 * there is one thing to deploy and the console is always as new as the API behind it. `node infra/console-bundle.ts`.
 */
import { createHash } from "node:crypto";
import { mkdir, readFile, rename, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { build } from "esbuild";

const SOURCE = join(import.meta.dirname, "..", "edge", "console");
const DIST = join(import.meta.dirname, "..", "edge", "dist");

if (import.meta.main) await bundleConsole();

/** Builds `edge/dist/console.js`: by name, each file's text, media type and entity tag. */
export async function bundleConsole(): Promise<void> {
  const { outputFiles } = await build({
    entryPoints: [join(SOURCE, "console.ts"), join(SOURCE, "style.css")],
    outdir: SOURCE,
    bundle: true,
    minify: true,
    format: "esm",
    target: ["es2022"],
    legalComments: "none",
    write: false,
  });
  const textOf = (name: string) => outputFiles.find(({ path }) => path === join(SOURCE, name))?.text ?? "";
  const files = {
    "console.js": file("text/javascript; charset=utf-8", textOf("console.js")),
    "style.css": file("text/css; charset=utf-8", textOf("style.css")),
    "icon.svg": file("image/svg+xml", await readFile(join(SOURCE, "icon.svg"), "utf8")),
  };
  await replace("console.js", `export const CONSOLE_FILES = ${JSON.stringify(files)};\n`);
}

function file(type: string, body: string): { type: string; body: string; etag: string } {
  const hash = createHash("sha256").update(body).digest("base64url");
  return { type, body, etag: `"${hash.slice(0, 22)}"` };
}

/** In one step: several Workers may be built at the same time. */
async function replace(name: string, text: string): Promise<void> {
  await mkdir(DIST, { recursive: true });
  const fresh = join(DIST, `${name}.${process.pid}`);
  await writeFile(fresh, text);
  await rename(fresh, join(DIST, name));
}

/**
 * Builds the Worker as it would be deployed, and says how to run it. A short-lived process of its own, because wrangler
 * is large and only needed here: `node infra/edge-bundle.ts <wrangler.jsonc> <output directory>`.
 */
import { spawn } from "node:child_process";
import { writeFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { unstable_getMiniflareWorkerOptions, unstable_readConfig } from "wrangler";

const [configPath = "", outDir = ""] = process.argv.slice(2);
const built = bundle(configPath, outDir);
await writeFile(join(outDir, "options.json"), JSON.stringify(runtimeOptions(configPath)));
process.exitCode = await built;

function bundle(config: string, directory: string): Promise<number> {
  const packageFile = createRequire(import.meta.url).resolve("wrangler/package.json");
  const cli = join(packageFile, "..", "bin", "wrangler.js");
  const wrangler = spawn(process.execPath, [cli, "deploy", "--dry-run", "--config", config, "--outdir", directory], {
    // Where the configuration is: what it builds first is an npm script of its project.
    cwd: dirname(config),
    stdio: ["ignore", "inherit", "inherit"],
    // The banner asks the npm registry for a newer version.
    env: { ...process.env, WRANGLER_SEND_METRICS: "false", WRANGLER_HIDE_BANNER: "true", NO_COLOR: "1" },
  });
  return new Promise((resolve, reject) => {
    wrangler.once("error", reject);
    wrangler.once("exit", (code) => resolve(code ?? 1));
  });
}

/** Bindings, compatibility and Durable Object classes, as wrangler reads them from its file: nothing is written twice. */
function runtimeOptions(config: string): object {
  const { modulesRules: _, ...options } = unstable_getMiniflareWorkerOptions(config).workerOptions;
  // A .env or .dev.vars that lies about must not change what the stack runs: only what the configuration itself says.
  return { ...options, bindings: unstable_readConfig({ config }).vars };
}

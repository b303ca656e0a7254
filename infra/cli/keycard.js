#!/usr/bin/env node
/**
 * Where `keycard` begins, in a checkout and in an installed package. There the compiled command stands in `dist/`; here the sources run as they
 * are, for which Node has to be new enough.
 */
import { spawnSync } from "node:child_process";
import { existsSync } from "node:fs";
import module from "node:module";
import { fileURLToPath } from "node:url";

const source = new URL("./main.ts", import.meta.url);
const compiled = new URL("../../dist/infra/cli/main.js", import.meta.url);
const modules = fileURLToPath(new URL("../../node_modules/", import.meta.url));
const ownNode = `${modules}.bin/node`;

if (!existsSync(source)) await import(compiled.href);
else if (process.features.typescript) {
  // Types are stripped once, and not at every command.
  module.enableCompileCache(`${modules}.cache/keycard`);
  await import(source.href);
} else if (existsSync(ownNode)) {
  const { status } = spawnSync(ownNode, process.argv.slice(1), { stdio: "inherit" });
  process.exitCode = status ?? 1;
} else {
  console.error(`This is Node ${process.versions.node}; a checkout of Keycard needs 24. \`npm ci\` brings it.`);
  process.exitCode = 1;
}

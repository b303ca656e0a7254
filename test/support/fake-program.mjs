#!/usr/bin/env node
/**
 * A program that cannot be had here, because it needs an account, an engine or a cluster. Writes down how it was called and what it was told, and
 * answers as the real one does in what the deployment looks at. It remembers secrets that are put, and fails when it is told to.
 */
import { appendFileSync, existsSync, readFileSync, writeFileSync } from "node:fs";
import { basename, join } from "node:path";

const dir = process.env.FAKES;
const name = basename(process.argv[1]);
const args = process.argv.slice(2);
const said = args.join(" ");
const wantsInput = said.startsWith("secret put") || said.endsWith("--filename -");
const input = wantsInput ? readFileSync(0, "utf8") : undefined;
const { KEYCARD_IMAGE, KEYCARD_SECRETS } = process.env;
appendFileSync(join(dir, "calls"), `${JSON.stringify({ name, args, input, KEYCARD_IMAGE, KEYCARD_SECRETS })}\n`);

const failing = join(dir, "failing");
if (existsSync(failing) && `${name} ${said}`.startsWith(readFileSync(failing, "utf8"))) process.exit(3);

const secrets = join(dir, "secrets.json");
const known = existsSync(secrets) ? JSON.parse(readFileSync(secrets, "utf8")) : [];
if (name === "wrangler" && said.startsWith("secret list"))
  console.log(JSON.stringify(known.map((each) => ({ name: each, type: "secret_text" }))));
if (name === "wrangler" && said.startsWith("secret put")) writeFileSync(secrets, JSON.stringify([...known, args[2]]));
if (name === "kubectl" && said.includes("get secret") && !existsSync(join(dir, "has-secret"))) process.exit(1);

/**
 * What the documents show is true: every command in them is run on what `npm start` starts, in a copy of the project as `npm ci` leaves
 * it; every snippet is compiled and, where it can, run. What a block says of that, and whatever is not run, is judged by ../docs.test.ts.
 */
import { execFile } from "node:child_process";
import { chmod, mkdir, readFile, writeFile } from "node:fs/promises";
import { stripTypeScriptTypes } from "node:module";
import { join } from "node:path";
import { parseEnv, promisify } from "node:util";
import { chromium } from "playwright-core";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { obtainChromium } from "../../infra/browser.ts";
import { makeCertificates } from "../../infra/certificates.ts";
import { findExecutable, installPackage } from "../../infra/packages.ts";
import { readConfig } from "../../realtime/config.ts";
import { CHROMIUM_FLAGS, clientModule } from "../support/client-page.ts";
import { blocksIn, byPlace, isExcused } from "../support/doc-blocks.ts";
import { compile, execute, PLACES, type Snippet, type Substitutions, writeSnippets } from "../support/doc-snippets.ts";
import { type Newcomer, startAsNewcomer } from "../support/newcomer.ts";

const run = promisify(execFile);
const WITHIN_MS = 60_000;

const shells = blocksIn("sh");
const programs = blocksIn("ts", "js");
const programOf = (place: string) => programs.filter((block) => block.marks.has(place));

let here: Newcomer;
let env: Readonly<Record<string, string>>;
let snippets: readonly Snippet[];

beforeAll(async () => {
  here = await startAsNewcomer("npm start");
  env = { ...(await environment()), PATH: `${await programsOnPath()}:${process.env.PATH}` };
  snippets = await writeSnippets(here.dir, programs, substitutions());
});

/** Names in the documents are nobody's. */
function substitutions(): Substitutions {
  return [
    ["https://auth.example.com", here.edge],
    ["https://realtime.example.com", env.NODE ?? ""],
    ["https://app.example.com", here.page],
    ["ada@example.com", "ada"],
    ['cluster: "eu"', 'cluster: "local"'],
    ['login: "ada", password: "…"', `login: "${env.LOGIN}", password: "${env.PASSWORD}"`],
  ];
}

afterAll(async () => {
  const farewell = await here.stop();
  expect(farewell.join("\n")).toContain("Stopped.");
});

/** What a reader has in their shell by then, or puts in. */
async function environment(): Promise<Record<string, string>> {
  const admin = await here.secret("admin-token");
  const post = async (path: string, body: object, headers: Record<string, string> = {}) => {
    const json = { "content-type": "application/json", ...headers };
    const response = await fetch(here.edge + path, { method: "POST", headers: json, body: JSON.stringify(body) });
    return (await response.json()) as Record<string, string>;
  };
  const asAdmin = { authorization: `Bearer ${admin}`, prefer: "wait=10" };
  const target = { kind: "user", sub: "linus" };
  const { id = "" } = await post("/admin/revocations", { target, reason: "so that there is one" }, asAdmin);
  const { access_token = "" } = await post("/login", { login: "linus", password: "correct-horse-linus" });
  return {
    EDGE: here.edge,
    NODE: here.nodes[0] ?? "",
    NODES: here.nodes.join(),
    REDIS_URL: here.redis,
    CLUSTER_SECRET: await here.secret("cluster-secret"),
    ADMIN_TOKEN: admin,
    REVOCATION: id,
    SUB: "grace",
    LOGIN: "grace",
    PASSWORD: "correct-horse-grace",
    TOKEN: access_token,
    XDG_CONFIG_HOME: here.dir,
  };
}

/** A curl for which a refusal is a failure, and whatever the package installs as a command. */
async function programsOnPath(): Promise<string> {
  const dir = join(here.dir, ".bin");
  await mkdir(dir, { recursive: true });
  const script = async (name: string, command: string) => {
    await writeFile(join(dir, name), `#!/bin/sh\nexec ${command} "$@"\n`);
    await chmod(join(dir, name), 0o755);
  };
  await script("curl", `${await obtainCurl()} --fail-with-body --silent --show-error --max-time 30`);
  const { bin = {} } = JSON.parse(await readFile(join(here.dir, "package.json"), "utf8"));
  for (const [name, target] of Object.entries(bin)) await script(name, `node ${join(here.dir, String(target))}`);
  return `${dir}:${join(here.dir, "node_modules", ".bin")}`;
}

async function obtainCurl(): Promise<string> {
  const found = await findExecutable("curl");
  if (found !== undefined) return found;
  await installPackage({ apt: ["curl"], apk: ["curl"], dnf: ["curl"], brew: ["curl"] }, () => undefined);
  return (await findExecutable("curl")) ?? "curl";
}

test.for(byPlace(shells.filter((block) => !isExcused(block))))("%s runs", { timeout: WITHIN_MS }, async ([, block]) => {
  const script = substitutions().reduce((text, [from, to]) => text.replaceAll(from, to), block.code);
  const options = { cwd: here.dir, env: { ...process.env, ...env }, timeout: WITHIN_MS };
  const running = run("bash", ["-euo", "pipefail", "-c", script], options);
  // Whoever asks for a secret is given the administrator's.
  running.child.stdin?.end(`${env.ADMIN_TOKEN}\n`);
  const outcome = await running.then(
    () => "ran",
    (error: { stdout?: string; stderr?: string }) => `${error.stdout}${error.stderr}`,
  );
  expect(outcome).toBe("ran");
});

describe("the snippets", () => {
  test("say where they belong, and compile", { timeout: WITHIN_MS }, async () => {
    expect(snippets.filter(({ place }) => place === "").map(({ at }) => at)).toEqual([]);
    expect(await compile(here.dir)).toBe("");
  });

  const runnable = programs.filter(({ marks }) => !marks.has("page") && !marks.has("not-run"));
  test.concurrent.for(byPlace(runnable))("%s runs", { timeout: WITHIN_MS }, async ([at]) => {
    const { file = "", place = "" } = snippets.find((snippet) => snippet.at === at) ?? {};
    expect(Object.keys(PLACES)).toContain(place);
    // Nodes of another cluster have a database of their own.
    const redis = place === "server" ? env.REDIS_URL : `${env.REDIS_URL}/9`;
    await execute(here.dir, file, { ...env, REDIS_URL: redis ?? "" });
  });

  test("for a page connect in a real browser", { timeout: WITHIN_MS }, async () => {
    const browser = await chromium.launch({ executablePath: await obtainChromium(), args: CHROMIUM_FLAGS });
    // The demo's page, whose origin the edge allows; its policy is for its own scripts.
    const page = await (await browser.newContext({ bypassCSP: true })).newPage();
    await page.goto(`${here.page}/`);
    await page.addScriptTag({ type: "module", content: await clientModule("/socket.io.js") });
    await page.waitForFunction(() => "connect" in globalThis && "io" in globalThis);
    for (const { at, code } of snippets.filter(({ place }) => place === "page").reverse()) {
      const body = stripTypeScriptTypes(code.replaceAll(/^import .*;\n/gm, ""));
      const connected =
        "new Promise((resolve) => socket.connected ? resolve(true) : socket.once('connect', () => resolve(true)))";
      const outcome = await page.evaluate(
        `(async () => { const showLogin = () => {}; ${body}\nreturn await ${connected}; })()`,
      );
      expect(outcome, at).toBe(true);
    }
    await browser.close();
  });

  test("for a page are there", () => {
    expect(programOf("page").length).toBeGreaterThan(1);
    expect(programOf("server").length).toBeGreaterThan(1);
    expect(programOf("script").length).toBeGreaterThan(1);
  });
});

describe("data in the documents", () => {
  test.for(byPlace(blocksIn("env")))("%s are settings of a node", async ([, { code }]) => {
    const dir = join(here.dir, "certificates");
    await mkdir(dir, { recursive: true });
    const { ca, cert, key } = await makeCertificates(dir);
    const rest = { CLUSTER: "eu", CLUSTER_SECRET: "a secret of thirty-two characters", ISSUER: "https://edge.test" };
    for (const settings of code.trim().split(/\n\n/)) {
      const text = settings
        .replaceAll(/\/\S+\/ca\.pem/g, ca)
        .replaceAll(/\/\S+\/cert\.pem/g, cert)
        .replaceAll(/\/\S+\/key\.pem/g, key);
      expect(() => readConfig({ ...rest, ...parseEnv(text) }), settings).not.toThrow();
    }
  });
});

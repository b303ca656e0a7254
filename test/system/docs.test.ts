/**
 * What the documents show is true: every command in them is run on what `npm start` starts, in a copy of the project as `npm ci` leaves
 * it, every snippet is compiled and, where it can, run; and whatever is not run says why. How a block says so: support/doc-blocks.ts.
 */
import { execFile } from "node:child_process";
import { existsSync, globSync, readFileSync } from "node:fs";
import { chmod, mkdir, readFile, writeFile } from "node:fs/promises";
import { stripTypeScriptTypes } from "node:module";
import { dirname, join } from "node:path";
import { parseEnv, promisify } from "node:util";
import { chromium } from "playwright-core";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { parse as parseYaml } from "yaml";
import { obtainChromium } from "../../infra/browser.ts";
import { makeCertificates } from "../../infra/certificates.ts";
import { findExecutable, installPackage } from "../../infra/packages.ts";
import { readConfig } from "../../realtime/config.ts";
import { CHROMIUM_FLAGS, clientModule } from "../support/client-page.ts";
import { blocksOf, commandsOf, type DocBlock, indentedCode, mentionedCommands } from "../support/doc-blocks.ts";
import { compile, execute, PLACES, type Snippet, writeSnippets } from "../support/doc-snippets.ts";
import { type Newcomer, startAsNewcomer } from "../support/newcomer.ts";

const run = promisify(execFile);
const ROOT = join(import.meta.dirname, "..", "..");
const WITHIN_MS = 60_000;

const DOCS = ["README.md", "edge/contract/PROTOCOL.md", ...globSync("infra/**/*.md", { cwd: ROOT }).sort()];
/** Whose blocks are all run by another test. */
const RUN_ELSEWHERE: Readonly<Record<string, string>> = { "infra/MIGRATING.md": "test/realtime/migrating.test.ts" };

/** Commands that stand in sentences only → the file that runs them, or why none does. */
const MENTIONED: Readonly<Record<string, string>> = {
  "npm start": "test/system/docs.test.ts",
  "npm run check": ".ci/run",
  "npm run story": "test/system/story.test.ts",
  "npm run story -- --json": "prints what story.test.ts holds to its word",
  "npm run chaos": "test/chaos/chaos.test.ts",
  "npm run chaos -- --seed N --minutes M": "test/chaos/chaos.test.ts",
  "npm run bench -- refresh": "measures for a minute, on a machine that has nothing else to do",
  "npm run bench -- revoke": "measures for a minute, on a machine that has nothing else to do",
  "npm pack": "test/system/package.test.ts",
  "node realtime/main.ts": "what infra/node.ts starts, in every test of the whole",
  "redis-cli --cluster fix": "needs a cluster that somebody left half way through a move",
};

const texts = new Map(DOCS.map((file) => [file, readFileSync(join(ROOT, file), "utf8")]));
const blocks = [...texts].flatMap(([file, text]) => (file in RUN_ELSEWHERE ? [] : blocksOf(file, text)));
const inLanguages = (...languages: string[]) => blocks.filter(({ language }) => languages.includes(language));
const isExcused = ({ marks }: DocBlock) => marks.has("not-run") || marks.has("run-by");
const named = (some: readonly DocBlock[]) => some.map((block) => [block.at, block] as const);

const shells = inLanguages("sh");
const programs = inLanguages("ts", "js");
const programOf = (place: string) => programs.filter((block) => block.marks.has(place));

let here: Newcomer;
let env: Readonly<Record<string, string>>;
let snippets: readonly Snippet[];

beforeAll(async () => {
  here = await startAsNewcomer("npm start");
  env = { ...(await environment()), PATH: `${await programsOnPath()}:${process.env.PATH}` };
  snippets = await writeSnippets(here.dir, programs, [
    ["https://auth.example.com", here.edge],
    ["https://realtime.example.com", env.NODE ?? ""],
    ['cluster: "eu"', 'cluster: "local"'],
    ['login: "ada", password: "…"', `login: "${env.LOGIN}", password: "${env.PASSWORD}"`],
  ]);
});

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

describe("every block of the documents", () => {
  test("is in a language that is judged, or a picture", () => {
    const known = ["", "sh", "ts", "js", "json", "yaml", "env", "promql"];
    expect(blocks.filter(({ language }) => !known.includes(language)).map(({ at }) => at)).toEqual([]);
    // What looks like a command must say that it is one.
    const commands = inLanguages("").filter(({ code }) => /^\s*(\$ |(npm|npx|curl|node|keycard) )/m.test(code));
    expect(commands.map(({ at }) => at)).toEqual([]);
    expect([...texts].flatMap(([file, text]) => indentedCode(file, text))).toEqual([]);
  });

  test("that is not run says why, in words", () => {
    for (const { at, marks } of blocks) {
      const why = marks.get("not-run");
      if (why !== undefined) expect(why.split(" ").length, at).toBeGreaterThan(2);
    }
  });

  test.for(named(blocks.filter(({ marks }) => marks.has("run-by"))))("%s is run where it says", ([, block]) => {
    const files = (block.marks.get("run-by") ?? "").split(" ");
    const sources = files.map((file) => readFileSync(join(ROOT, file), "utf8"));
    for (const command of commandsOf(block.code)) {
      const words = command.split(" ");
      const start = words.slice(0, words[1] === "run" ? 3 : 2).join(" ");
      expect(
        sources.some((source) => source.includes(start)),
        `${start} in ${files.join(" or ")}`,
      ).toBe(true);
    }
  });

  test.for(Object.entries(RUN_ELSEWHERE))("of %s is run by %s", ([file, by]) => {
    expect(readFileSync(join(ROOT, by), "utf8")).toContain(file);
  });
});

test.for(named(shells.filter((block) => !isExcused(block))))("%s runs", { timeout: WITHIN_MS }, async ([, block]) => {
  const options = { cwd: here.dir, env: { ...process.env, ...env }, timeout: WITHIN_MS };
  const outcome = await run("bash", ["-euo", "pipefail", "-c", block.code], options).then(
    () => "ran",
    (error: { stdout?: string; stderr?: string }) => `${error.stdout}${error.stderr}`,
  );
  expect(outcome).toBe("ran");
});

describe("every command that stands in a sentence", () => {
  const shown = shells.flatMap(({ code }) => commandsOf(code));
  const mentioned = [...texts].flatMap(([file, text]) =>
    mentionedCommands(text).map((command) => [command, file] as const),
  );

  test.for(mentioned)("%s in %s is run by somebody", ([command]) => {
    if (shown.some((each) => each.startsWith(command))) return;
    const where = MENTIONED[command];
    expect(where, `${command} is in no block, and not in MENTIONED`).toBeDefined();
    if (where === undefined || !existsSync(join(ROOT, where))) expect(where?.split(" ").length).toBeGreaterThan(2);
    else expect(readFileSync(join(ROOT, where), "utf8")).toContain(nameOf(command));
  });

  /** Without who runs it, and without its arguments: `chaos` of `npm run chaos -- --seed 1`. */
  function nameOf(command: string): string {
    return command.replace(/^(npm run|npm|npx|node) /, "").split(" -- ")[0] ?? "";
  }

  test("and nothing is excused that no document says any more", () => {
    const all = mentioned.map(([command]) => command);
    expect(Object.keys(MENTIONED).filter((command) => !all.includes(command))).toEqual([]);
  });
});

describe("the snippets", () => {
  test("say where they belong, and compile", { timeout: WITHIN_MS }, async () => {
    expect(snippets.filter(({ place }) => place === "").map(({ at }) => at)).toEqual([]);
    expect(await compile(here.dir)).toBe("");
  });

  const runnable = programs.filter(({ marks }) => !marks.has("page") && !marks.has("not-run"));
  test.concurrent.for(named(runnable))("%s runs", { timeout: WITHIN_MS }, async ([at]) => {
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
  test.for(named(inLanguages("json")))("%s is JSON", ([, { code }]) => {
    expect(() => JSON.parse(code)).not.toThrow();
  });

  test.for(named(inLanguages("yaml")))("%s is YAML", ([, { code }]) => {
    expect(parseYaml(code)).toBeTypeOf("object");
  });

  test.for(named(inLanguages("env")))("%s are settings of a node", async ([, { code }]) => {
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

test("every link within the documents leads somewhere", () => {
  const anchors = new Map([...texts].map(([file, text]) => [file, anchorsOf(text)]));
  const broken = [...texts].flatMap(([file, text]) =>
    [...text.matchAll(/\]\((?!https?:)([^)\s]+)\)/g)].flatMap(([, link = ""]) => {
      const [path = "", anchor] = link.split("#");
      const target = path === "" ? file : join(dirname(file), path);
      if (!existsSync(join(ROOT, target))) return [`${file}: ${link}`];
      const has = anchor === undefined || anchors.get(target)?.has(anchor) !== false;
      return has ? [] : [`${file}: ${link}`];
    }),
  );
  expect(broken).toEqual([]);
});

/** As GitHub makes them of headings. */
function anchorsOf(text: string): Set<string> {
  const headings = [...text.matchAll(/^#+ (.+)$/gm)].map(([, heading = ""]) => heading);
  return new Set(
    headings.map((heading) =>
      heading
        .toLowerCase()
        .replaceAll(/[^\p{L}\p{N}\s_-]/gu, "")
        .replaceAll(" ", "-"),
    ),
  );
}

describe("the check notices", () => {
  test("what a block says of itself, and one that is not closed", () => {
    const text =
      '# x\n\n```sh run-by="a/b.ts c/d.ts"\nnpm ci \\\n  && npm start # now\n```\n\n```ts server\nlet x;\n```\n';
    const [shell, program] = blocksOf("a.md", text);
    expect(shell).toMatchObject({ at: "a.md:3", language: "sh", marks: new Map([["run-by", "a/b.ts c/d.ts"]]) });
    expect(commandsOf(shell?.code ?? "")).toEqual(["npm ci", "npm start"]);
    expect(program).toMatchObject({ at: "a.md:8", language: "ts", marks: new Map([["server", ""]]) });
    expect(() => blocksOf("a.md", "```sh\nnpm ci\n")).toThrow("a.md:1");
  });

  test("a command in a sentence, code by indentation, but neither of them in a block", () => {
    const text = "Say `npm start` or `npm run x`, not `nothing`.\n\n    npm ci\n\n```sh\n\n    `npm test`\n```\n";
    expect(mentionedCommands(text)).toEqual(["npm start", "npm run x"]);
    expect(indentedCode("a.md", text)).toEqual(["a.md:3"]);
  });
});

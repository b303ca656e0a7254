/** The walls of the house, and that each of them would be noticed if it fell. */
import { globSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { VERSION } from "#contract/version";
import { brokenImportRules, brokenTopLevel, type SourceTree } from "./support/architecture.ts";

/** Not written out in the planted text, so that this file does not break the rule itself. */
const LATER = "import";
const ROOT = join(import.meta.dirname, "..");

function sourceTree(): SourceTree {
  const paths = globSync("{edge,realtime,infra,test}/**/*.{ts,js,mjs}", { cwd: ROOT }).filter(
    (path) => !path.includes("node_modules") && !path.includes("/dist/") && !path.endsWith(".d.ts"),
  );
  return new Map(paths.map((path) => [path, readFileSync(join(ROOT, path), "utf8")]));
}

describe("the project", () => {
  test("keeps its import rules", () => {
    expect(brokenImportRules(sourceTree())).toEqual([]);
  });

  test("is looked at whole", () => {
    const paths = [...sourceTree().keys()];
    for (const entry of ["edge/worker.ts", "edge/contract/revocation.ts", "realtime/main.ts", "infra/stack.ts"]) {
      expect(paths).toContain(entry);
    }
  });

  test("has at its top level what belongs there and nothing else", () => {
    expect(brokenTopLevel(readdirSync(ROOT))).toEqual([]);
  });

  test("says everywhere that it is of one version", () => {
    const { version } = JSON.parse(readFileSync(join(ROOT, "package.json"), "utf8"));
    expect(VERSION).toBe(version);
  });
});

describe("the rules notice", () => {
  const house: readonly (readonly [string, string])[] = [
    ["edge/contract/refusal.ts", ""],
    ["edge/contract/access-token.ts", `import { jwtVerify } from "jose";\nimport { Refusal } from "./refusal.ts";`],
    ["edge/worker.ts", `export { app } from "./app.ts";\nimport { scrypt } from "node:crypto";`],
    ["edge/app.ts", `import { Hono } from "hono";\nimport { cors } from "hono/cors";\nimport "#contract/refusal";`],
    ["edge/account.ts", `import { DurableObject } from "cloudflare:workers";`],
    ["realtime/main.ts", `import { x } from "./server.ts";\nimport { readFile } from "node:fs/promises";`],
    ["realtime/server.ts", `import type { Refusal } from "#contract/refusal";\nimport { Server } from "socket.io";`],
    ["infra/stack.ts", `import { x } from "../realtime/server.ts";\nimport { Miniflare } from "miniflare";`],
    ["test/a.test.ts", `import { x } from "../infra/stack.ts";\nimport "../edge/worker.ts";`],
  ];
  const withFile = (path: string, source: string) => brokenImportRules(new Map([...house, [path, source]]));

  test("nothing in a house that is in order", () => {
    expect(brokenImportRules(new Map(house))).toEqual([]);
  });

  test.for([
    ["the contract importing a package", "edge/contract/x.ts", `import { z } from "zod";`],
    ["the contract importing Node", "edge/contract/x.ts", `import { scrypt } from "node:crypto";`],
    ["the contract importing the edge", "edge/contract/x.ts", `import { app } from "../app.ts";`],
    ["the edge importing realtime", "edge/x.ts", `import { x } from "../realtime/server.ts";`],
    ["the edge importing infra", "edge/routes/x.ts", `import { x } from "../../infra/stack.ts";`],
    ["the edge importing a test", "edge/x.ts", `import "../test/a.test.ts";`],
    ["the console importing a package", "edge/console/x.ts", `import { html } from "hono/html";`],
    ["the console importing the Worker", "edge/console/x.ts", `import { x } from "../audit/audit.ts";`],
    ["the Worker importing the console", "edge/routes/x.ts", `import { x } from "../console/console.ts";`],
    ["the client importing Node", "realtime/client/x.ts", `import { readFile } from "node:fs";`],
    ["the client importing the server", "realtime/client/x.ts", `import { protect } from "../protect.ts";`],
    ["the server importing the client", "realtime/x.ts", `import { connect } from "./client/connect.ts";`],
    ["the edge importing Node", "edge/x.ts", `import { readFile } from "node:fs";`],
    ["the edge importing realtime's packages", "edge/x.ts", `import { Redis } from "ioredis";`],
    ["the edge reaching the contract by its path", "edge/x.ts", `import { Refusal } from "./contract/refusal.ts";`],
    ["realtime importing the edge", "realtime/x.ts", `import { app } from "../edge/app.ts";`],
    ["realtime importing a type of the edge", "realtime/x.ts", `import type { App } from "../edge/app.ts";`],
    ["realtime importing the edge later", "realtime/x.ts", `const app = await ${LATER}("../edge/app.ts");`],
    ["realtime importing the edge over lines", "realtime/x.ts", `import {\n  app,\n} from "../edge/app.ts";`],
    ["realtime passing the edge on", "realtime/x.ts", `export * from "../edge/app.ts";`],
    ["realtime reaching the contract by its path", "realtime/x.ts", `import "../edge/contract/refusal.ts";`],
    ["realtime importing infra", "realtime/x.ts", `import { x } from "../infra/stack.ts";`],
    ["realtime importing a package of the tests", "realtime/x.ts", `import { test } from "vitest";`],
    ["infra importing a test", "infra/x.ts", `import "../test/a.test.ts";`],
    ["somebody importing the worker", "edge/x.ts", `import worker from "./worker.ts";`],
    ["somebody importing the process", "realtime/x.ts", `import "./main.ts";`],
    ["a contract file that is not there", "realtime/x.ts", `import "#contract/nothing";`],
    ["a circle of two", "edge/account.ts", `import "./app.ts"; \nimport "./session.ts";`, "./account.ts"],
    ["a file that imports itself", "realtime/x.ts", `import "./x.ts";`],
    ["a file named utils", "realtime/utils.ts", ""],
    ["a file named types", "edge/types.ts", ""],
    ["a barrel", "edge/routes/index.ts", ""],
    ["a folder named shared", "infra/shared/x.ts", ""],
    ["a test named helpers", "test/helpers.test.ts", ""],
  ] as const)("%s", ([, path, source, back]) => {
    const session = back === undefined ? [] : [["edge/session.ts", `import "${back}";`] as const];
    expect(brokenImportRules(new Map([...house, ...session, [path, source]])).length).toBe(1);
  });

  test("a circle through several files once, with its path", () => {
    const circle: SourceTree = new Map([
      ["realtime/a.ts", `import "./b.ts";`],
      ["realtime/b.ts", `import type { C } from "./c.ts";`],
      ["realtime/c.ts", `import "./a.ts";`],
    ]);
    expect(brokenImportRules(circle)).toEqual([
      "a circle: realtime/a.ts → realtime/b.ts → realtime/c.ts → realtime/a.ts",
    ]);
  });

  test("no import in a comment", () => {
    expect(withFile("realtime/x.ts", `// import "../edge/app.ts";\n/* import "../edge/app.ts"; */`)).toEqual([]);
  });

  test("what is too many and what is missing at the top level", () => {
    const good = ["edge", "infra", "realtime", "test", "LICENSE", "README.md"];
    const files = [...good, "package.json", "package-lock.json", "tsconfig.json", ".ci", ".gitignore", "node_modules"];
    expect(brokenTopLevel(files)).toEqual([]);
    expect(brokenTopLevel([...files, "src"])).toEqual(["src has no place at the top level"]);
    expect(brokenTopLevel(files.slice(1))).toEqual(["edge is missing at the top level"]);
  });
});

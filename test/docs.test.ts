/**
 * What can be said of the documents without running anything: every block says how it is run, every command in a sentence has its test or
 * its reason, data is well formed, links lead somewhere, and every claim of the threat model names a test. system/docs.test.ts runs them.
 */
import { existsSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { describe, expect, test } from "vitest";
import { parse as parseYaml } from "yaml";
import { asMeasured, DOCUMENTS as MEASURED } from "./bench/results.ts";
import {
  blocksIn,
  blocksOf,
  byPlace,
  commandsOf,
  DOCUMENTS,
  indentedCode,
  mentionedCommands,
  ROOT,
  RUN_ELSEWHERE,
} from "./support/doc-blocks.ts";
import { hasTest } from "./support/named-test.ts";

/** Commands that stand in sentences only → the file that runs them, or why none does. */
const MENTIONED: Readonly<Record<string, string>> = {
  "npm start": "test/system/docs.test.ts",
  "npm run check": ".ci/run",
  "npm run deploy": "test/deploy/deploy.test.ts",
  "wrangler deploy": "needs an account; infra/check-edge.ts runs it as a dry run",
  "wrangler secret put": "needs an account; test/deploy/deploy.test.ts sees what it is told",
  "npm run story": "test/system/story.test.ts",
  "npm run story -- --json": "prints what story.test.ts holds to its word",
  "npm run chaos": "test/chaos/chaos.test.ts",
  "npm run chaos -- --seed N --minutes M": "test/chaos/chaos.test.ts",
  "npm run bench": "measures for half an hour, on a machine that has nothing else to do",
  "npm run bench -- --save": "as long, and writes what the test below holds the documents to",
  "npm run bench -- bounds": "measures for five minutes, on a machine that has nothing else to do",
  "npm run bench -- handshake": "measures for two minutes, on a machine that has nothing else to do",
  "npm run bench -- index": "measures for a minute, on a machine that has nothing else to do",
  "npm run bench -- scale": "measures for four minutes, on a machine that has nothing else to do",
  "keycard help": "test/cli/help.test.ts",
  "keycard status": "test/cli/commands.test.ts",
  "keycard sessions LOGIN": "test/cli/commands.test.ts",
  "keycard audit --follow": "test/cli/commands.test.ts",
  "keycard audit --json": "test/cli/commands.test.ts",
  "keycard receipts": "test/cli/commands.test.ts",
  "keycard audit verify": "test/cli/commands.test.ts",
  "keycard receipts show <id>": "test/cli/revoke.test.ts",
  "keycard keys retire": "test/cli/commands.test.ts",
  "npm pack": "test/system/package.test.ts",
  "node realtime/main.ts": "what infra/node.ts starts, in every test of the whole",
  "redis-cli --cluster fix": "needs a cluster that somebody left half way through a move",
};

const blocks = blocksIn();

describe("every block of the documents", () => {
  test("is in a language that is judged, or a picture", () => {
    const known = ["", "sh", "ts", "js", "json", "yaml", "env", "promql"];
    expect(blocks.filter(({ language }) => !known.includes(language)).map(({ at }) => at)).toEqual([]);
    // What looks like a command must say that it is one.
    const commands = blocksIn("").filter(({ code }) => /^\s*(\$ |(npm|npx|curl|keycard) |node \S+\.[jt]s)/m.test(code));
    expect(commands.map(({ at }) => at)).toEqual([]);
    expect([...DOCUMENTS].flatMap(([file, text]) => indentedCode(file, text))).toEqual([]);
  });

  test("that is not run says why, in words", () => {
    for (const { at, marks } of blocks) {
      const why = marks.get("not-run");
      if (why !== undefined) expect(why.split(" ").length, at).toBeGreaterThan(2);
    }
  });

  test.for(byPlace(blocks.filter(({ marks }) => marks.has("run-by"))))("%s is run where it says", ([, block]) => {
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

describe("every command that stands in a sentence", () => {
  const shown = blocksIn("sh").flatMap(({ code }) => commandsOf(code));
  const mentioned = [...DOCUMENTS].flatMap(([file, text]) =>
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
    const [, keycards] = /^keycard (\S+)/.exec(command) ?? [];
    return keycards ?? command.replace(/^(npm run|npm|npx|node) /, "").split(" -- ")[0] ?? "";
  }

  test("and nothing is excused that no document says any more", () => {
    const all = mentioned.map(([command]) => command);
    expect(Object.keys(MENTIONED).filter((command) => !all.includes(command))).toEqual([]);
  });
});

test.for(MEASURED)("the figures of %s are those that were measured", (document) => {
  expect(readFileSync(join(ROOT, document), "utf8")).toBe(asMeasured(document));
});

test("every goal that was missed is said to be, with what stands in the way", () => {
  expect(readFileSync(join(ROOT, "README.md"), "utf8")).not.toContain("not looked into");
});

describe("data in the documents", () => {
  test.for(byPlace(blocksIn("json")))("%s is JSON", ([, { code }]) => {
    expect(() => JSON.parse(code)).not.toThrow();
  });

  test.for(byPlace(blocksIn("yaml")))("%s is YAML", ([, { code }]) => {
    expect(parseYaml(code)).toBeTypeOf("object");
  });
});

describe("every claim of the threat model", () => {
  const model = DOCUMENTS.get("infra/threat-model.md") ?? "";
  const claims = [...model.matchAll(/`([\w/-]+\.test\.ts)` › (.+?)(?=<br>| \||\)[ .,(]|\)$|\)\.|$)/gm)];

  test.for(claims.map(([, file = "", name = ""]) => [file, name] as const))("is shown by %s: %s", ([file, name]) => {
    expect(hasTest(readFileSync(join(ROOT, "test", file), "utf8"), name)).toBe(true);
  });

  test("is read as one", () => {
    expect(claims.length).toBe(model.split(" › ").length - 1);
    expect(claims.length).toBeGreaterThan(40);
  });
});

test("every link within the documents leads somewhere", () => {
  const anchors = new Map([...DOCUMENTS].map(([file, text]) => [file, anchorsOf(text)]));
  const broken = [...DOCUMENTS].flatMap(([file, text]) =>
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

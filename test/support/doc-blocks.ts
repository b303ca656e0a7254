/**
 * What the documents of the project show as code: fenced blocks with what their info string says about running them, and commands that
 * stand in a sentence. Everything behind the language is for the tests; no reader of the rendered page sees it.
 */

import { globSync, readFileSync } from "node:fs";
import { join } from "node:path";

export const ROOT = join(import.meta.dirname, "..", "..");

/** Every document of the project by its path. */
export const DOCUMENTS: ReadonlyMap<string, string> = new Map(
  ["README.md", "edge/contract/PROTOCOL.md", ...globSync("infra/**/*.md", { cwd: ROOT }).sort()].map((file) => [
    file,
    readFileSync(join(ROOT, file), "utf8"),
  ]),
);

/** Documents whose blocks are all run by another test. */
export const RUN_ELSEWHERE: Readonly<Record<string, string>> = {
  "infra/MIGRATING.md": "test/realtime/migrating.test.ts",
};

export interface DocBlock {
  /** Where it begins: `README.md:12`. */
  readonly at: string;
  readonly language: string;
  /** Words behind the language, and `name="value"`; a bare word has the value "". */
  readonly marks: ReadonlyMap<string, string>;
  readonly code: string;
}

/** Every block that is judged here, in these languages. */
export function blocksIn(...languages: string[]): DocBlock[] {
  const all = [...DOCUMENTS].flatMap(([file, text]) => (file in RUN_ELSEWHERE ? [] : blocksOf(file, text)));
  return languages.length === 0 ? all : all.filter(({ language }) => languages.includes(language));
}

/** For tests that are named after where a block begins. */
export function byPlace(blocks: readonly DocBlock[]): (readonly [at: string, block: DocBlock])[] {
  return blocks.map((block) => [block.at, block] as const);
}

/** Whether it says that it is not run here. */
export function isExcused({ marks }: DocBlock): boolean {
  return marks.has("not-run") || marks.has("run-by");
}

const FENCE = /^(\s*)```(\S*)\s*(.*)$/;
const MARK = /([\w-]+)(?:="([^"]*)")?/g;

/** @throws {Error} for a fence that is not closed */
export function blocksOf(file: string, text: string): DocBlock[] {
  const blocks: DocBlock[] = [];
  let open: { at: string; language: string; marks: DocBlock["marks"]; lines: string[] } | undefined;
  for (const [index, line] of text.split("\n").entries()) {
    const fence = FENCE.exec(line);
    if (open !== undefined && fence === null) open.lines.push(line);
    else if (open !== undefined) {
      const { lines, ...block } = open;
      blocks.push({ ...block, code: `${lines.join("\n")}\n` });
      open = undefined;
    } else if (fence !== null) {
      const [, , language = "", rest = ""] = fence;
      const marks = new Map([...rest.matchAll(MARK)].map(([, name = "", value = ""]) => [name, value]));
      open = { at: `${file}:${index + 1}`, language, marks, lines: [] };
    }
  }
  if (open !== undefined) throw new Error(`${open.at}: the block is not closed`);
  return blocks;
}

/** Lines that are code by their indentation: they cannot say how they are run. */
export function indentedCode(file: string, text: string): string[] {
  const lines = withoutBlocks(text).split("\n");
  return lines.flatMap((line, index) => {
    const isCode = /^ {4,}\S/.test(line) && (lines[index - 1] ?? "").trim() === "";
    return isCode ? [`${file}:${index + 1}`] : [];
  });
}

/** Programs whose name makes a code span a command. */
const COMMAND = /^(npm|npx|node|curl|keycard|docker|kubectl|wrangler|redis-cli|promtool) /;

/** Commands that stand in a sentence, as `npm start` does here. */
export function mentionedCommands(text: string): string[] {
  const spans = [...withoutBlocks(text).matchAll(/`([^`\n]+)`/g)].map(([, span = ""]) => span);
  return [...new Set(spans.filter((span) => COMMAND.test(span)))];
}

/** The commands of a shell block, one line each: continued lines joined, comments taken away, `&&` apart. */
export function commandsOf(code: string): string[] {
  return code
    .replaceAll(/\\\n\s*/g, "")
    .split("\n")
    .map((line) => line.replace(/(^|\s)#.*$/, "").trim())
    .flatMap((line) => line.split(" && "))
    .filter((command) => command !== "");
}

/** The text with every line of a block emptied, so that lines keep their numbers. */
function withoutBlocks(text: string): string {
  let isOpen = false;
  const lines = text.split("\n").map((line) => {
    const isFence = FENCE.test(line);
    const isInside = isOpen || isFence;
    if (isFence) isOpen = !isOpen;
    return isInside ? "" : line;
  });
  return lines.join("\n");
}

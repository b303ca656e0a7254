/**
 * What the documents of the project show as code: fenced blocks with what their info string says about running them, and commands that
 * stand in a sentence. Everything behind the language is for the tests; no reader of the rendered page sees it.
 */

export interface DocBlock {
  /** Where it begins: `README.md:12`. */
  readonly at: string;
  readonly language: string;
  /** Words behind the language, and `name="value"`; a bare word has the value "". */
  readonly marks: ReadonlyMap<string, string>;
  readonly code: string;
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

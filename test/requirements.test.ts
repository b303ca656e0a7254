/** The table of requirements, held against the tests that it names: a test that is renamed or goes takes its row with it. */
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { hasTest } from "./support/named-test.ts";

interface Row {
  readonly source: string;
  readonly file: string;
  readonly name: string;
}

const ROW = /^\| (?<source>[^|]+) \| [^|]+ \| `(?<file>[^`]+)`: (?<name>.+) \|$/;

function rowsOf(table: string): Row[] {
  const lines = table.split("\n").filter((line) => line.startsWith("| ") && !line.startsWith("| source"));
  return lines.map((line) => {
    const { source = "", file = "", name = "" } = ROW.exec(line)?.groups ?? {};
    if (source === "") throw new Error(`not a row: ${line}`);
    return { source, file, name };
  });
}

const rows = rowsOf(readFileSync(join(import.meta.dirname, "requirements.md"), "utf8"));

test("the table has rows, and none twice", () => {
  expect(rows.length).toBeGreaterThan(40);
  expect(new Set(rows.map(({ source, file, name }) => `${source} ${file} ${name}`)).size).toBe(rows.length);
});

test.for(rows.map(({ source, file, name }) => [source, file, name] as const))("%s: %s: %s", ([, file, name]) => {
  const path = join(import.meta.dirname, file);
  expect(existsSync(path)).toBe(true);
  expect(hasTest(readFileSync(path, "utf8"), name)).toBe(true);
});

describe("the check notices", () => {
  test.for([
    ["a test that is not there", 'test("another", () => {});'],
    ["a name in a comment", '// "the name"'],
    ["a test that is skipped", 'test.skip("the name", () => {});'],
  ] as const)("%s", ([, code]) => {
    expect(hasTest(code, "the name")).toBe(false);
  });

  test("none in a test that is there, alone or for several", () => {
    expect(hasTest('test("the name", () => {});', "the name")).toBe(true);
    expect(hasTest('test.for<[string]>([\n  ["a"],\n])(\n  "the name",\n  () => {});', "the name")).toBe(true);
  });
});

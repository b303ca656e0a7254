/** That the closing line of `npm test` cannot say less than what went wrong. */
import { expect, test } from "vitest";
import { countResults } from "./support/test-count.ts";

const file = (status: string, ...tests: string[]) => ({
  status,
  assertionResults: tests.map((each) => ({ status: each })),
});
const report = (...testResults: object[]) => JSON.stringify({ testResults });

test.for([
  ["all passed", report(file("passed", "passed", "passed")), 0, { passed: 2, failed: 0 }],
  ["one failed", report(file("failed", "passed", "failed")), 1, { passed: 1, failed: 1 }],
  ["a file that does not load", report(file("failed"), file("passed", "passed")), 1, { passed: 1, failed: 1 }],
  ["a hook that failed under passed tests", report(file("failed", "passed")), 1, { passed: 1, failed: 1 }],
  ["a hook that kept tests from running", report(file("failed", "skipped", "skipped")), 1, { passed: 0, failed: 2 }],
  ["a skipped test", report(file("passed", "passed", "skipped")), 0, { passed: 1, failed: 1 }],
  ["an error that nobody caught", report(file("passed", "passed")), 1, { passed: 1, failed: 1 }],
  ["no test at all", report(), 0, { passed: 0, failed: 1 }],
  ["no report at all", undefined, 0, { passed: 0, failed: 1 }],
] as const)("%s is counted", ([, text, exitCode, expected]) => {
  expect(countResults(text, exitCode)).toEqual(expected);
});

/** What a run of vitest amounts to, so that nothing that went wrong is left uncounted. */
export interface Count {
  readonly passed: number;
  readonly failed: number;
}

interface JsonReport {
  readonly testResults: readonly {
    readonly status: string;
    readonly assertionResults: readonly { readonly status: string }[];
  }[];
}

/** @param report vitest's JSON report, or undefined where it left none */
export function countResults(report: string | undefined, exitCode: number): Count {
  if (report === undefined) return { passed: 0, failed: 1 };
  let passed = 0;
  let failed = 0;
  for (const file of (JSON.parse(report) as JsonReport).testResults) {
    const passedHere = file.assertionResults.filter((result) => result.status === "passed").length;
    // A test that did not run proves nothing: skipped counts as failed.
    const failedHere = file.assertionResults.length - passedHere;
    passed += passedHere;
    // A file that does not load has no tests to count, yet it failed.
    failed += failedHere === 0 && file.status !== "passed" ? 1 : failedHere;
  }
  const silentFailure = failed === 0 && (passed === 0 || exitCode !== 0);
  return { passed, failed: silentFailure ? 1 : failed };
}

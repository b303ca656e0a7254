/**
 * Every suite of the project, one run. The contract is judged twice, in Node and in workerd, because both sides run it.
 * Everything waits more than it works, for leases to end, for scenes to be over, for pages to be drawn, and does so side by side.
 */
import { cloudflareTest } from "@cloudflare/vitest-plugin";
import { defineConfig } from "vitest/config";
import { BaseSequencer, type TestSpecification } from "vitest/node";

const SECOND = 1000;

/** What takes longest, and would be waited for alone if it came last. */
const FIRST = [
  "chaos/plants.test.ts",
  "browser/client.test.ts",
  "edge/model.test.ts",
  "chaos/chaos.test.ts",
  "realtime/attacks.test.ts",
  "deploy/deploy.test.ts",
  "edge/receipts.test.ts",
  "browser/console.test.ts",
  "browser/console-session.test.ts",
  "realtime/fuzz.test.ts",
  "system/docs.test.ts",
  "system/zero-downtime.test.ts",
  "system/attacks.test.ts",
  "system/package.test.ts",
];

class LongestFirst extends BaseSequencer {
  override async sort(files: TestSpecification[]): Promise<TestSpecification[]> {
    const place = ({ moduleId }: TestSpecification) => {
      const index = FIRST.findIndex((file) => moduleId.endsWith(`/test/${file}`));
      return index < 0 ? FIRST.length : index;
    };
    return (await super.sort(files)).toSorted((a, b) => place(a) - place(b));
  }
}

export default defineConfig({
  root: import.meta.dirname,
  cacheDir: "../node_modules/.vite",
  test: {
    allowOnly: false,
    // What passed has nothing to say; what failed shows all it printed.
    silent: "passed-only",
    // Vitest by itself leaves one of two cores idle, and most of it waits for leases to end.
    maxWorkers: 4,
    sequence: { sequencer: LongestFirst },
    projects: [
      {
        test: {
          name: "architecture",
          root: import.meta.dirname,
          include: ["architecture.test.ts", "docs.test.ts", "requirements.test.ts", "test-count.test.ts"],
        },
      },
      {
        test: {
          name: "contract-node",
          root: import.meta.dirname,
          include: ["contract/*.test.ts"],
        },
      },
      {
        plugins: [
          cloudflareTest({ miniflare: { compatibilityDate: "2026-09-01", compatibilityFlags: ["nodejs_compat"] } }),
        ],
        test: {
          name: "contract-workerd",
          root: import.meta.dirname,
          include: ["contract/*.test.ts"],
        },
      },
      "./edge/vitest.config.ts",
      {
        test: {
          name: "realtime",
          root: import.meta.dirname,
          include: ["realtime/*.test.ts"],
          testTimeout: 120 * SECOND,
          hookTimeout: 60 * SECOND,
        },
      },
      {
        test: {
          name: "system",
          root: import.meta.dirname,
          include: ["system/*.test.ts"],
          testTimeout: 120 * SECOND,
          hookTimeout: 120 * SECOND,
        },
      },
      {
        test: {
          name: "deploy",
          root: import.meta.dirname,
          include: ["deploy/*.test.ts"],
          testTimeout: 60 * SECOND,
          hookTimeout: 120 * SECOND,
        },
      },
      {
        test: {
          name: "chaos",
          root: import.meta.dirname,
          include: ["chaos/*.test.ts"],
          testTimeout: 180 * SECOND,
          hookTimeout: 120 * SECOND,
        },
      },
      {
        test: {
          name: "cli",
          root: import.meta.dirname,
          include: ["cli/*.test.ts"],
          globalSetup: ["cli/shared-stack.ts"],
          testTimeout: 60 * SECOND,
          hookTimeout: 120 * SECOND,
        },
      },
      {
        test: {
          name: "browser",
          root: import.meta.dirname,
          include: ["browser/*.test.ts"],
          testTimeout: 180 * SECOND,
          hookTimeout: 120 * SECOND,
        },
      },
    ],
  },
});

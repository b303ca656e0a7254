/**
 * Every suite of the project, one run. The contract is judged twice, in Node and in workerd, because both sides run it.
 * What mostly waits, for leases to end or for scenes to be over, does so side by side; what measures or shows comes last, one file at a time.
 */
import { cloudflareTest } from "@cloudflare/vitest-plugin";
import { defineConfig } from "vitest/config";

const SECOND = 1000;

export default defineConfig({
  root: import.meta.dirname,
  cacheDir: "../node_modules/.vite",
  test: {
    allowOnly: false,
    // What passed has nothing to say; what failed shows all it printed.
    silent: "passed-only",
    // Vitest by itself leaves one of two cores idle.
    maxWorkers: 2,
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
          testTimeout: 30 * SECOND,
          hookTimeout: 60 * SECOND,
          // They wait for leases to end more than they work.
          maxWorkers: 4,
          sequence: { groupOrder: 1 },
        },
      },
      {
        test: {
          name: "system",
          root: import.meta.dirname,
          include: ["system/*.test.ts"],
          fileParallelism: false,
          maxWorkers: 1,
          testTimeout: 120 * SECOND,
          hookTimeout: 120 * SECOND,
          sequence: { groupOrder: 2 },
        },
      },
      {
        test: {
          name: "deploy",
          root: import.meta.dirname,
          include: ["deploy/*.test.ts"],
          testTimeout: 60 * SECOND,
          hookTimeout: 120 * SECOND,
          maxWorkers: 2,
          sequence: { groupOrder: 5 },
        },
      },
      {
        test: {
          name: "chaos",
          root: import.meta.dirname,
          include: ["chaos/*.test.ts"],
          maxWorkers: 4,
          testTimeout: 180 * SECOND,
          hookTimeout: 120 * SECOND,
          sequence: { groupOrder: 1 },
        },
      },
      {
        test: {
          name: "cli",
          root: import.meta.dirname,
          include: ["cli/*.test.ts"],
          globalSetup: ["cli/shared-stack.ts"],
          // They wait for answers about as much as they work.
          maxWorkers: 3,
          testTimeout: 60 * SECOND,
          hookTimeout: 120 * SECOND,
          sequence: { groupOrder: 4 },
        },
      },
      {
        test: {
          name: "browser",
          root: import.meta.dirname,
          include: ["browser/*.test.ts"],
          fileParallelism: false,
          maxWorkers: 1,
          testTimeout: 180 * SECOND,
          hookTimeout: 120 * SECOND,
          sequence: { groupOrder: 3 },
        },
      },
    ],
  },
});

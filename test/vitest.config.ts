/**
 * Every suite of the project, one run. The contract is judged twice, in Node and in workerd, because both sides run it.
 * Everything waits more than it works, for leases to end, for scenes to be over, for pages to be drawn, and does so side by side.
 */
import { cloudflareTest } from "@cloudflare/vitest-plugin";
import { defineConfig } from "vitest/config";

const SECOND = 1000;

/** What starts the edge, its nodes and their Redis as processes. */
const WHOLE_STACKS = { maxWorkers: 3, sequence: { groupOrder: 2 } };

export default defineConfig({
  root: import.meta.dirname,
  cacheDir: "../node_modules/.vite",
  test: {
    allowOnly: false,
    // What passed has nothing to say; what failed shows all it printed.
    silent: "passed-only",
    // Vitest by itself leaves one of two cores idle.
    maxWorkers: 3,
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
          testTimeout: 120 * SECOND,
          hookTimeout: 120 * SECOND,
          ...WHOLE_STACKS,
        },
      },
      {
        test: {
          name: "deploy",
          root: import.meta.dirname,
          include: ["deploy/*.test.ts"],
          testTimeout: 60 * SECOND,
          hookTimeout: 120 * SECOND,
          ...WHOLE_STACKS,
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
          testTimeout: 60 * SECOND,
          hookTimeout: 120 * SECOND,
          ...WHOLE_STACKS,
        },
      },
      {
        test: {
          name: "browser",
          root: import.meta.dirname,
          include: ["browser/*.test.ts"],
          testTimeout: 180 * SECOND,
          hookTimeout: 120 * SECOND,
          ...WHOLE_STACKS,
        },
      },
    ],
  },
});

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

/** Files of one project share processes: loading all modules anew for each would take longer than most of them. */
function inNode(name: string, include: string[], more: ProjectConfig = {}) {
  return { test: { name, root: import.meta.dirname, include, isolate: false, ...more } };
}

interface ProjectConfig {
  readonly testTimeout?: number;
  readonly hookTimeout?: number;
  readonly globalSetup?: string[];
}

const CONTRACT = ["contract/*.test.ts"];

export default defineConfig({
  root: import.meta.dirname,
  cacheDir: "../node_modules/.vite",
  test: {
    allowOnly: false,
    // What passed has nothing to say; what failed shows all it printed.
    silent: "passed-only",
    // Vitest by itself leaves one of two cores idle, and most of it waits for leases to end.
    maxWorkers: 5,
    sequence: { sequencer: LongestFirst },
    projects: [
      inNode("architecture", ["architecture.test.ts", "docs.test.ts", "requirements.test.ts", "test-count.test.ts"]),
      inNode("contract-node", CONTRACT),
      {
        plugins: [
          cloudflareTest({ miniflare: { compatibilityDate: "2026-09-01", compatibilityFlags: ["nodejs_compat"] } }),
        ],
        test: { name: "contract-workerd", root: import.meta.dirname, include: CONTRACT },
      },
      "./edge/vitest.config.ts",
      inNode("realtime", ["realtime/*.test.ts"], { testTimeout: 120 * SECOND, hookTimeout: 60 * SECOND }),
      inNode("system", ["system/*.test.ts"], { testTimeout: 120 * SECOND, hookTimeout: 120 * SECOND }),
      inNode("deploy", ["deploy/*.test.ts"], { testTimeout: 60 * SECOND, hookTimeout: 120 * SECOND }),
      inNode("chaos", ["chaos/*.test.ts"], { testTimeout: 180 * SECOND, hookTimeout: 120 * SECOND }),
      inNode("cli", ["cli/*.test.ts"], {
        globalSetup: ["cli/shared-stack.ts"],
        ...{ testTimeout: 60 * SECOND, hookTimeout: 120 * SECOND },
      }),
      inNode("browser", ["browser/*.test.ts"], { testTimeout: 180 * SECOND, hookTimeout: 120 * SECOND }),
    ],
  },
});

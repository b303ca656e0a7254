/** The edge in real workerd, with the real configuration, its own storage, and real HTTP to clusters that can misbehave. */
import { join } from "node:path";
import { cloudflareTest } from "@cloudflare/vitest-plugin";
import { defineConfig } from "vitest/config";

export default defineConfig({
  cacheDir: "../../node_modules/.vite",
  plugins: [
    cloudflareTest(({ inject }) => ({
      wrangler: { configPath: join(import.meta.dirname, "../../edge/wrangler.jsonc") },
      miniflare: {
        bindings: {
          ISSUER: "https://keycard.test",
          KEYCARD_SECRET: "a secret that only the tests have, and nobody else",
          ADMIN_TOKEN: "an-admin-token-that-only-the-tests-have",
          ALLOWED_ORIGINS: "https://app.keycard.test, capacitor://localhost",
          CLUSTERS: JSON.stringify(clusters(inject<string>("clusterServer"))),
        },
      },
    })),
  ],
  test: {
    name: "edge",
    root: import.meta.dirname,
    include: ["*.test.ts"],
    globalSetup: ["cluster-server.ts"],
    silent: "passed-only",
  },
});

/** `north` has a node that is down, and that is asked first; `south` does as it is told. */
function clusters(server: string) {
  return [
    { id: "north", endpoints: [`${server}/down`, `${server}/north`] },
    { id: "south", endpoints: [`${server}/south`] },
  ];
}

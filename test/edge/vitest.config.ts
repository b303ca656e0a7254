/** The edge in real workerd, with the real configuration, its own storage, and real HTTP to clusters that can misbehave. */
import { join } from "node:path";
import { cloudflareTest } from "@cloudflare/vitest-plugin";
import { defineConfig } from "vitest/config";
import { bundleConsole } from "../../infra/console-bundle.ts";
import { CLUSTER_SECRETS } from "./cluster-secrets.ts";

// Wrangler does it before it bundles the Worker; here nobody bundles.
await bundleConsole();

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
          TRUSTED_ISSUERS: JSON.stringify(trustedIssuers(inject<string>("issuerServer"))),
          TRUSTED_TRANSMITTERS: JSON.stringify(trustedTransmitters(inject<string>("issuerServer"))),
          // A trail and a log can be filled here.
          STORAGE_MAX_MEGABYTES: "30",
          CLUSTERS: JSON.stringify(clusters(inject<string>("clusterServer"))),
          CLUSTER_SECRETS: JSON.stringify(CLUSTER_SECRETS),
        },
      },
    })),
  ],
  test: {
    name: "edge",
    root: import.meta.dirname,
    include: ["*.test.ts"],
    globalSetup: ["cluster-server.ts", "issuer-server.ts"],
    silent: "passed-only",
    // A busy machine is no failure: what hangs is still found.
    testTimeout: 90_000,
    hookTimeout: 60_000,
  },
});

/** `welcome` is given an account for everybody it vouches for. */
function trustedIssuers(server: string) {
  return [
    { issuer: `${server}/welcome`, audience: "the app at the issuer", scope: "chat:read", create: true },
    { issuer: `${server}/members`, audience: "the app at the issuer", create: false },
  ];
}

/** `ours` may name the people of one tenant only. */
function trustedTransmitters(server: string) {
  return [
    { issuer: `${server}/transmitter`, audience: "the edge", jwks_uri: `${server}/transmitter/jwks` },
    { issuer: `${server}/bound`, audience: "the edge", jwks_uri: `${server}/bound/jwks`, tenant: "ours" },
  ];
}

/** `north` has a node that is down, and that is asked first; `south` does as it is told. */
function clusters(server: string) {
  return [
    { id: "north", endpoints: [`${server}/down`, `${server}/north`] },
    { id: "south", endpoints: [`${server}/south`] },
  ];
}

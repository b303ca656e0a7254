/** What is deployed as staging and production is the Worker that is tested, with addresses of its own and nothing left out. */
import { appendFile, cp, mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, onTestFinished, test } from "vitest";
import { type Unstable_Config, unstable_readConfig } from "wrangler";
import { readConfig } from "../../edge/config.ts";
import { sourceHash } from "../../infra/edge-build.ts";

const ROOT = join(import.meta.dirname, "..", "..");
const CONFIG = join(ROOT, "edge", "wrangler.jsonc");
const ENVIRONMENTS = ["staging", "production"] as const;
const SECRETS = {
  KEYCARD_SECRET: "a secret of more than thirty-two characters",
  ADMIN_TOKEN: "another one of more than thirty-two characters",
  CLUSTER_SECRETS: JSON.stringify({ eu: "what the nodes of this cluster and the edge share" }),
};

const configOf = (env?: string): Unstable_Config =>
  unstable_readConfig({ config: CONFIG, ...(env === undefined ? {} : { env }) });
const limitsOf = ({ ratelimits }: Unstable_Config) => ratelimits.map(({ name, simple }) => ({ name, simple }));

describe.each(ENVIRONMENTS)("%s", (name) => {
  const tested = configOf();
  const deployed = configOf(name);

  test("has every Durable Object, migration and limit that the tests have", () => {
    expect(deployed.durable_objects.bindings).toEqual(tested.durable_objects.bindings);
    expect(deployed.migrations).toEqual(tested.migrations);
    expect(limitsOf(deployed)).toEqual(limitsOf(tested));
    expect(deployed.compatibility_date).toBe(tested.compatibility_date);
    expect(deployed.compatibility_flags).toEqual(tested.compatibility_flags);
    expect(deployed.observability).toEqual(tested.observability);
    expect(deployed.name).toBe(`keycard-${name}`);
  });

  test("has settings that the Worker takes, beside secrets that stand nowhere", () => {
    const config = readConfig({ ...deployed.vars, ...SECRETS });
    expect(config.clusters.map(({ id }) => id)).toEqual(["eu"]);
    expect(deployed.routes).toEqual([{ pattern: new URL(config.issuer).host, custom_domain: true }]);
    for (const secret of Object.keys(SECRETS)) expect(deployed.vars).not.toHaveProperty(secret);
  });
});

test("no two environments share an address, a name or a counter", () => {
  const all = [configOf(), ...ENVIRONMENTS.map((name) => configOf(name))];
  const counters = all.flatMap(({ ratelimits }) => ratelimits.map(({ namespace_id }) => namespace_id));
  expect(new Set(counters).size).toBe(counters.length);
  expect(new Set(all.map(({ name }) => name)).size).toBe(all.length);
  expect(new Set(all.map(({ vars }) => vars.ISSUER)).size).toBe(all.length);
});

describe("what was built before is used again", () => {
  async function checkout(): Promise<string> {
    const root = await mkdtemp(join(tmpdir(), "keycard-build-"));
    onTestFinished(() => rm(root, { recursive: true, force: true }));
    for (const name of ["edge", "infra/edge-bundle.ts", "infra/console-bundle.ts", "package-lock.json"]) {
      await cp(join(ROOT, name), join(root, name), { recursive: true });
    }
    return root;
  }

  test("while nothing that it is made of has changed", async () => {
    const root = await checkout();
    const before = await sourceHash(root);
    await mkdir(join(root, "edge", "dist"), { recursive: true });
    await writeFile(join(root, "edge", "dist", "console.js"), "what building writes");
    expect(await sourceHash(root)).toBe(before);
    expect(await sourceHash(await checkout())).toBe(before);
  });

  test.for(["edge/worker.ts", "edge/console/style.css", "edge/wrangler.jsonc", "package-lock.json"])(
    "and not when %s has changed",
    async (name) => {
      const root = await checkout();
      const before = await sourceHash(root);
      await appendFile(join(root, name), "\n");
      expect(await sourceHash(root)).not.toBe(before);
    },
  );
});

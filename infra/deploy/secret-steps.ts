/** Secrets: which are missing at the edge and beside the nodes, where each comes from, and how it gets there without being seen on the way. */
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { z } from "zod";
import { type DeployOptions, typedSecret, WrongUsage } from "./options.ts";
import { ask, ProgramFailed, run } from "./program.ts";
import { type EdgeSettings, ROOT, WRANGLER_CONFIG } from "./settings.ts";
import { openVault, redisUsers, type SecretName, strongSecret, type Vault } from "./vault.ts";

const listed = z.array(z.object({ name: z.string() }));

/** Where the secrets of a deployment are on this machine; not in the repository. */
export const vaultDir = (env: string) => join(ROOT, ".keycard", "deploy", env);
export const clusterVaultDir = (env: string, cluster: string) => join(vaultDir(env), cluster);
const atEdge = (env: string) => ["--config", WRANGLER_CONFIG, "--env", env] as const;

/** Puts what the edge does not have yet. Whatever it has stays: nobody can read it back, and a new one would sign everybody out. */
export async function putEdgeSecrets(options: DeployOptions, { clusters }: EdgeSettings): Promise<void> {
  const there = await secretsAtEdge(options.env);
  const vault = await openVault(vaultDir(options.env));
  const put = async (name: string, input: string) => {
    await run({ command: "wrangler", args: ["secret", "put", name, ...atEdge(options.env)], input });
    console.log(`    ${name} is at the edge.`);
  };
  if (!there.has("KEYCARD_SECRET")) await put("KEYCARD_SECRET", await kept(vault, "keycard-secret", options));
  if (!there.has("ADMIN_TOKEN")) await put("ADMIN_TOKEN", await kept(vault, "admin-token", options));
  const secrets = await clusterSecrets(options, clusters, there.has("CLUSTER_SECRETS"));
  if (secrets !== undefined) await put("CLUSTER_SECRETS", JSON.stringify(secrets));
  console.log(
    `    They are kept in ${vault.dir}: the only copies outside of Cloudflare. Put them where your secrets are.`,
  );
}

/** @throws {ProgramFailed} when the edge does not tell */
async function secretsAtEdge(env: string): Promise<ReadonlySet<string>> {
  const { code, stdout } = await ask({
    command: "wrangler",
    args: ["secret", "list", ...atEdge(env), "--format", "json"],
  });
  if (code !== 0) throw new ProgramFailed("wrangler cannot say which secrets the edge has.");
  return new Set(listed.parse(JSON.parse(stdout)).map(({ name }) => name));
}

/** The secret of every cluster, made where there is none; undefined when the edge has them all. */
async function clusterSecrets(
  options: DeployOptions,
  clusters: EdgeSettings["clusters"],
  isAtEdge: boolean,
): Promise<Readonly<Record<string, string>> | undefined> {
  const vaults = await Promise.all(
    clusters.map(async ({ id }) => [id, await openVault(clusterVaultDir(options.env, id))] as const),
  );
  const known = await Promise.all(vaults.map(([, vault]) => vault.read("cluster-secret")));
  if (isAtEdge && known.every((secret) => secret !== undefined)) return undefined;
  if (isAtEdge && options.realtime === "by-hand") return undefined;
  if (isAtEdge && known.every((secret) => secret === undefined)) {
    throw new WrongUsage(
      `The edge has CLUSTER_SECRETS, and this machine does not: put each cluster's secret into ${vaults.map(([, vault]) => vault.path("cluster-secret")).join(", ")}.`,
    );
  }
  const secrets: Record<string, string> = {};
  for (const [id, vault] of vaults) secrets[id] = await kept(vault, "cluster-secret", options);
  return secrets;
}

/** The one that is kept, or a new one: typed, or made. */
async function kept(vault: Vault, name: SecretName, { yes }: DeployOptions): Promise<string> {
  const known = await vault.read(name);
  if (known !== undefined) return known;
  if (!yes && !process.stdin.isTTY) {
    throw new WrongUsage(
      `${name} is missing, and nobody is here to ask: --yes makes it, or put it into ${vault.path(name)}.`,
    );
  }
  const typed = yes ? "" : await typedSecret(`${name} is missing. Paste it, or press Enter to have a strong one made:`);
  return await vault.keep(name, typed === "" ? strongSecret() : typed);
}

/** Whatever the containers of one host mount. @throws {WrongUsage} when there is no certificate */
export async function makeHostSecrets(options: DeployOptions, cluster: string): Promise<Vault> {
  const vault = await openVault(clusterVaultDir(options.env, cluster));
  const password = (await vault.read("redis-password")) ?? (await vault.keep("redis-password", strongSecret()));
  if ((await vault.read("redis-url")) === undefined)
    await vault.keep("redis-url", `redis://keycard:${password}@redis:6379`);
  if ((await vault.read("redis.acl")) === undefined) {
    const acl = await readFile(join(ROOT, "infra", "redis.acl"), "utf8");
    await vault.keep("redis.acl", redisUsers(acl, password));
  }
  await kept(vault, "cluster-secret", options);
  if ((await vault.read("tls.pem")) === undefined) {
    throw new WrongUsage(
      `There is no certificate for the proxy: put it and its key, one after the other in PEM, into ${vault.path("tls.pem")}.`,
    );
  }
  return vault;
}

/** The Secret of the nodes as kubectl takes it on standard input. @throws {WrongUsage} when nobody has said where Redis is */
export async function kubernetesSecret(options: DeployOptions, cluster: string, namespace: string): Promise<string> {
  const vault = await openVault(clusterVaultDir(options.env, cluster));
  const redis = (await vault.read("redis-url")) ?? (await typedRedisUrl(vault, options));
  return JSON.stringify({
    apiVersion: "v1",
    kind: "Secret",
    metadata: { name: "keycard-realtime", namespace },
    type: "Opaque",
    stringData: { "cluster-secret": await kept(vault, "cluster-secret", options), "redis-url": redis },
  });
}

async function typedRedisUrl(vault: Vault, { yes }: DeployOptions): Promise<string> {
  const typed =
    yes || !process.stdin.isTTY ? "" : await typedSecret("Where is Redis? rediss://keycard:password@host:6379");
  if (/^rediss?:\/\/.+/.test(typed)) return await vault.keep("redis-url", typed);
  throw new WrongUsage(`Where is Redis? Put rediss://keycard:password@host:6379 into ${vault.path("redis-url")}.`);
}

/** What stands in the files that a deployment is made from, judged before anything is touched. */
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { parseAllDocuments } from "yaml";
import { z } from "zod";
import type { DeployOptions } from "./options.ts";

export const ROOT = join(import.meta.dirname, "..", "..");
export const WRANGLER_CONFIG = "edge/wrangler.jsonc";
export const COMPOSE_FILE = "infra/deploy/compose.yaml";
export const MANIFESTS = "infra/deploy/kubernetes";
const REALTIME_ENV = "infra/deploy/realtime.env";
const EXAMPLE = /\bexample\.(com|net|org)\b/;

/** Of the environment that is deployed. */
export interface EdgeSettings {
  readonly issuer: string;
  readonly clusters: readonly { readonly id: string; readonly endpoints: readonly string[] }[];
  readonly origins: readonly string[];
}

const environments = z.object({
  env: z.record(
    z.string(),
    z.object({ vars: z.object({ ISSUER: z.string(), CLUSTERS: z.string(), ALLOWED_ORIGINS: z.string() }) }),
  ),
});
const clusterList = z.array(z.object({ id: z.string(), endpoints: z.array(z.string()) }));

/** @throws {Error} when the environment is not there */
export async function edgeSettings(env: string): Promise<EdgeSettings> {
  const text = await readFile(join(ROOT, WRANGLER_CONFIG), "utf8");
  // YAML is a superset of JSON but for the comments, which begin with // here.
  const [document] = parseAllDocuments(text.replace(/^\s*\/\/.*$/gm, ""));
  const { vars } = environments.parse(document?.toJS()).env[env] ?? {};
  if (vars === undefined) throw new Error(`${WRANGLER_CONFIG} has no environment ${env}.`);
  return {
    issuer: vars.ISSUER,
    clusters: clusterList.parse(JSON.parse(vars.CLUSTERS)),
    origins: vars.ALLOWED_ORIGINS.split(",").filter((origin) => origin !== ""),
  };
}

/** What the nodes are told, besides secrets; nothing where they run by hand. */
export async function realtimeSettings(where: DeployOptions["realtime"]): Promise<Readonly<Record<string, string>>> {
  if (where === "by-hand") return {};
  if (where === "kubernetes") {
    const text = await readFile(join(ROOT, MANIFESTS, "settings.yaml"), "utf8");
    return parseAllDocuments(text)[0]?.toJS().data ?? {};
  }
  const lines = (await readFile(join(ROOT, REALTIME_ENV), "utf8")).split("\n").filter((line) => /^\w+=/.test(line));
  return Object.fromEntries(lines.map((line) => [line.split("=", 1)[0] ?? "", line.slice(line.indexOf("=") + 1)]));
}

/** One sentence for each thing that would go wrong; empty when nothing would. */
export async function wrongSettings({ env, realtime, image }: DeployOptions): Promise<string[]> {
  const edge = await edgeSettings(env);
  const told = await realtimeSettings(realtime);
  const ids = edge.clusters.map(({ id }) => id);
  const file = realtime === "kubernetes" ? `${MANIFESTS}/settings.yaml` : REALTIME_ENV;
  const ingress = realtime === "kubernetes" ? await readFile(join(ROOT, MANIFESTS, "ingress.yaml"), "utf8") : "";
  const rows: readonly (readonly [boolean, string])[] = [
    [
      EXAMPLE.test(JSON.stringify(edge)),
      `${WRANGLER_CONFIG}: the environment ${env} still has addresses of example.com.`,
    ],
    [EXAMPLE.test(JSON.stringify(told)), `${file}: still has addresses of example.com.`],
    [
      EXAMPLE.test(ingress.replace(/^\s*#.*$/gm, "")),
      `${MANIFESTS}/ingress.yaml: still has an address of example.com.`,
    ],
    [EXAMPLE.test(image), "--image: still one of example.com."],
    [told.ISSUER !== undefined && told.ISSUER !== edge.issuer, `${file}: ISSUER is not the edge's, ${edge.issuer}.`],
    [
      told.CLUSTER !== undefined && !ids.includes(told.CLUSTER),
      `${file}: CLUSTER is none of the edge's: ${ids.join(", ")}.`,
    ],
  ];
  return rows.filter(([isWrong]) => isWrong).map(([, sentence]) => sentence);
}

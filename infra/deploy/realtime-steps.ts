/** The nodes, restarted one after the other: each next one only when the one before is ready. */
import { createHash } from "node:crypto";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { parseAllDocuments } from "yaml";
import type { DeployOptions } from "./options.ts";
import { ask, type Program, run } from "./program.ts";
import { kubernetesSecret, makeHostSecrets } from "./secret-steps.ts";
import { COMPOSE_FILE, MANIFESTS, ROOT } from "./settings.ts";

const NAMESPACE = "keycard";
const DEPLOYMENT = "deployment/keycard-realtime";
/** In this order; a container that has not changed is left as it is. */
const SERVICES = ["redis", "node-1", "node-2", "node-3", "proxy"] as const;
const ROLLOUT_WITHIN = "15m";

export function composeUp(service: string, env: Readonly<Record<string, string>>): Program {
  return {
    command: "docker",
    args: ["compose", "--file", COMPOSE_FILE, "up", "--detach", "--no-deps", "--wait", service],
    env,
  };
}

export async function rollCompose(options: DeployOptions, cluster: string): Promise<void> {
  const vault = await makeHostSecrets(options, cluster);
  const env = { KEYCARD_IMAGE: options.image, KEYCARD_SECRETS: vault.dir };
  for (const service of SERVICES) await run(composeUp(service, env));
}

export function kubectl(options: DeployOptions, args: readonly string[], input?: string): Program {
  const context = options.context === undefined ? [] : ["--context", options.context];
  return { command: "kubectl", args: [...context, ...args], ...(input === undefined ? {} : { input }) };
}

export async function rollKubernetes(options: DeployOptions, cluster: string): Promise<void> {
  const apply = (file: string) => run(kubectl(options, ["apply", "--filename", `${MANIFESTS}/${file}`]));
  await apply("namespace.yaml");
  const secret = kubectl(options, ["--namespace", NAMESPACE, "get", "secret", "keycard-realtime", "--output", "name"]);
  if ((await ask(secret)).code !== 0) {
    await run(kubectl(options, ["apply", "--filename", "-"], await kubernetesSecret(options, cluster, NAMESPACE)));
  }
  for (const file of ["settings.yaml", "network.yaml", "ingress.yaml"]) await apply(file);
  await run(kubectl(options, ["apply", "--filename", "-"], await stampedManifests(options.image)));
  const wait = ["--namespace", NAMESPACE, "rollout", "status", DEPLOYMENT, "--timeout", ROLLOUT_WITHIN];
  await run(kubectl(options, wait));
}

/** `realtime.yaml` with the image that is deployed, and with a stamp that changes with the settings, so that a change of them alone rolls the pods. */
export async function stampedManifests(image: string): Promise<string> {
  const text = await readFile(join(ROOT, MANIFESTS, "realtime.yaml"), "utf8");
  const settings = await readFile(join(ROOT, MANIFESTS, "settings.yaml"));
  const documents = parseAllDocuments(text);
  const deployment = documents.find((document) => document.get("kind") === "Deployment");
  if (deployment === undefined) throw new Error("realtime.yaml has no Deployment.");
  deployment.setIn(["spec", "template", "spec", "containers", 0, "image"], image);
  const stamp = createHash("sha256").update(settings).digest("hex").slice(0, 16);
  deployment.setIn(["spec", "template", "metadata", "annotations", "keycard/settings"], stamp);
  return documents.map((document) => JSON.stringify(document.toJS())).join("\n---\n");
}

/** How to go back to what ran before. */
export function rollback({ realtime }: DeployOptions): string {
  if (realtime === "kubernetes") return `kubectl --namespace ${NAMESPACE} rollout undo ${DEPLOYMENT}`;
  if (realtime === "compose") return "npm run deploy -- --again, with the image of before";
  return "start the version of before in the place of this one, one node after the other";
}

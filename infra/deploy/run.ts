/**
 * `npm run deploy`: the edge and the nodes, step by step, each with its reason. One that fails says what it was and what to do, and the next run
 * goes on there. With `--dry-run` nothing is started, asked or written.
 */
import { join } from "node:path";
import { type DeployOptions, readOptions, USAGE, WrongUsage } from "./options.ts";
import { type Program, ProgramFailed, run, shown } from "./program.ts";
import { openProgress, type Progress } from "./progress.ts";
import { composeUp, kubectl, rollback, rollCompose, rollKubernetes } from "./realtime-steps.ts";
import { clusterVaultDir, putEdgeSecrets, vaultDir } from "./secret-steps.ts";
import {
  type EdgeSettings,
  edgeSettings,
  MANIFESTS,
  ROOT,
  realtimeSettings,
  WRANGLER_CONFIG,
  wrongSettings,
} from "./settings.ts";
import { openVault } from "./vault.ts";

const DOCKERFILE = "infra/deploy/realtime.Dockerfile";
const DOCTOR = join(ROOT, "infra", "cli", "keycard.js");

interface Step {
  readonly name: string;
  readonly why: string;
  /** What a dry run tells. */
  readonly commands: readonly string[];
  /** Whether a run that goes on may leave it out. The others are quick, or do nothing the second time. */
  readonly once: boolean;
  perform(): Promise<void>;
}

process.chdir(ROOT);
try {
  const options = await readOptions(process.argv.slice(2));
  if (options === undefined) console.log(USAGE);
  else await deploy(options);
} catch (error) {
  if (!(error instanceof WrongUsage || error instanceof ProgramFailed)) throw error;
  console.error(`\n${error.message}`);
  if (error instanceof WrongUsage) console.error("`npm run deploy -- --help` tells how.");
  process.exitCode = 1;
}

async function deploy(options: DeployOptions): Promise<void> {
  const wrong = await wrongSettings(options);
  console.log(
    `Keycard, ${options.env}, nodes ${options.realtime}${options.dryRun ? ": a dry run, nothing is touched" : ""}\n`,
  );
  for (const sentence of wrong) console.error(`  ${sentence}`);
  if (wrong.length > 0 && !options.dryRun) throw new WrongUsage("Nothing was done: mend these first.");
  const steps = await stepsFor(options);
  if (options.dryRun) return tell(steps);
  const progress = await openProgress(join(vaultDir(options.env), "progress.json"), choicesOf(options));
  if (options.again) await progress.forget();
  for (const [index, step] of steps.entries()) await perform(step, `${index + 1}/${steps.length}`, options, progress);
  await progress.forget();
  console.log(`\nDeployed. To go back: ${rollback(options)}.`);
}

function choicesOf({ env, realtime, image, context }: DeployOptions): object {
  return { env, realtime, image, context };
}

function tell(steps: readonly Step[]): void {
  for (const [index, { name, why, commands }] of steps.entries()) {
    console.log(`${index + 1}/${steps.length} ${name}\n    ${why}`);
    for (const command of commands) console.log(`    $ ${command}`);
  }
}

async function perform(step: Step, place: string, { realtime }: DeployOptions, progress: Progress): Promise<void> {
  if (step.once && progress.isDone(step.name)) {
    console.log(`${place} ${step.name}: done before, for this very state of the checkout`);
    return;
  }
  console.log(`${place} ${step.name}\n    ${step.why}`);
  try {
    await step.perform();
    await progress.note(step.name);
  } catch (error) {
    if (!(error instanceof Error)) throw error;
    const after =
      step.name === "nodes" && realtime !== "by-hand" ? " Nodes that were not reached still run as before." : "";
    const sentence = `${step.name} failed: ${error.message}${after} The same command goes on here.`;
    throw error instanceof WrongUsage ? new WrongUsage(sentence) : new ProgramFailed(sentence);
  }
}

async function stepsFor(options: DeployOptions): Promise<readonly Step[]> {
  const edge = await edgeSettings(options.env);
  const { CLUSTER = "" } = await realtimeSettings(options.realtime);
  return [
    ...(options.checked ? [] : [checkStep()]),
    ...(options.realtime === "compose" ? [imageStep(options)] : []),
    edgeStep(options),
    secretsStep(options, edge),
    nodesStep(options, CLUSTER),
    doctorStep(options, edge),
  ];
}

/** A step that is one program. */
function one(name: string, why: string, program: Program): Step {
  return { name, why, commands: [shown(program)], once: true, perform: () => run(program) };
}

function checkStep(): Step {
  const why = "Format, lint, types, architecture, and whether the Worker could be deployed.";
  return one("check", why, { command: "npm", args: ["run", "check"] });
}

function imageStep({ image }: DeployOptions): Step {
  const why = "The image of the nodes, built on this host.";
  return one("image", why, { command: "docker", args: ["build", "--file", DOCKERFILE, "--tag", image, "."] });
}

function edgeStep({ env }: DeployOptions): Step {
  const why =
    "The Worker and its Durable Objects. The edge comes first: it takes what nodes of before say, and of after.";
  return one("edge", why, { command: "wrangler", args: ["deploy", "--config", WRANGLER_CONFIG, "--env", env] });
}

function secretsStep(options: DeployOptions, edge: EdgeSettings): Step {
  const put = (name: string) =>
    `wrangler secret put ${name} --config ${WRANGLER_CONFIG} --env ${options.env}   # if missing, from standard input`;
  return {
    name: "secrets",
    why: "Those that the edge does not have yet. Until then it answers 503 to everybody.",
    commands: ["KEYCARD_SECRET", "ADMIN_TOKEN", "CLUSTER_SECRETS"].map(put),
    once: false,
    perform: () => putEdgeSecrets(options, edge),
  };
}

function nodesStep(options: DeployOptions, cluster: string): Step {
  const name = "nodes";
  if (options.realtime === "compose") {
    const why =
      "One after the other: each sends its people to the others, and the next waits until it is ready. What has not changed is left alone.";
    const commands = ["redis", "node-1", "node-2", "node-3", "proxy"].map((service) => shown(composeUp(service, {})));
    return { name, why, commands, once: false, perform: () => rollCompose(options, cluster) };
  }
  if (options.realtime === "kubernetes") {
    const why = "A pod more, and one less when that one is ready, until all are new.";
    const apply = ["namespace.yaml", "settings.yaml", "network.yaml", "ingress.yaml"].map(
      (file) => `${MANIFESTS}/${file}`,
    );
    const commands = [
      ...apply.map((file) => shown(kubectl(options, ["apply", "--filename", file]))),
      `${shown(kubectl(options, ["apply", "--filename", "-"]))}   # realtime.yaml with ${options.image}, and the secret if there is none`,
      shown(kubectl(options, ["--namespace", "keycard", "rollout", "status", "deployment/keycard-realtime"])),
    ];
    return { name, why, commands, once: false, perform: () => rollKubernetes(options, cluster) };
  }
  const why = "By hand, on each host, one after the other, the next when `/readyz` of the one before is 200 again:";
  const commands = [
    "npm ci --omit=dev",
    `CLUSTER_SECRET_FILE=… REDIS_URL_FILE=… CLUSTER=… ISSUER=… NODE_NAME=… node realtime/main.ts   # SIGTERM to the one of before; secrets: ${clusterVaultDir(options.env, "<cluster>")}`,
  ];
  return {
    name,
    why,
    commands,
    once: false,
    perform: async () => {
      for (const command of commands) console.log(`    $ ${command}`);
    },
  };
}

function doctorStep({ env }: DeployOptions, { issuer, clusters, origins }: EdgeSettings): Step {
  const endpoints = clusters.flatMap((cluster) => cluster.endpoints);
  const args = [
    issuer,
    ...endpoints.flatMap((url) => ["--realtime", url]),
    ...origins.flatMap((origin) => ["--origin", origin]),
  ];
  return {
    name: "doctor",
    why: "The whole from outside, as its users meet it, down to a canary that is thrown out.",
    commands: [`keycard doctor ${args.join(" ")}`],
    once: false,
    async perform() {
      const token = await (await openVault(vaultDir(env))).read("admin-token");
      // Without it the outside alone is examined.
      const credential = token === undefined ? {} : { KEYCARD_TOKEN: token, KEYCARD_EDGE: issuer };
      await run({ command: process.execPath, args: [DOCTOR, "doctor", ...args], env: credential });
    },
  };
}

/** What `npm run deploy` is told, by arguments or, at a terminal, by answers. */
import { createInterface } from "node:readline/promises";
import { parseArgs } from "node:util";

export const ENVIRONMENTS = ["staging", "production"] as const;
export const REALTIME = ["compose", "kubernetes", "by-hand"] as const;

export interface DeployOptions {
  readonly env: (typeof ENVIRONMENTS)[number];
  readonly realtime: (typeof REALTIME)[number];
  readonly image: string;
  /** Of kubectl; its current one unless given. */
  readonly context: string | undefined;
  readonly dryRun: boolean;
  /** Secrets that are missing are made without asking. */
  readonly yes: boolean;
  readonly checked: boolean;
  readonly again: boolean;
}

export const USAGE = `Usage: npm run deploy -- [options]

Deploys the edge and the realtime nodes: checks, deploys the Worker, puts the secrets that are missing, restarts the nodes one after the other,
and examines what has come of it. One that broke off goes on where it was.

  --env staging|production                  which environment of edge/wrangler.jsonc
  --realtime compose|kubernetes|by-hand     where the nodes run: this host's Docker, a cluster, or what you do yourself, told step by step
  --image NAME:VERSION                      the image of the nodes; for compose it is built here
  --context NAME                            of kubectl
  --dry-run                                 tells every step, does none
  --yes                                     makes the secrets that are missing without asking
  --checked                                 \`npm run check\` has passed for this commit, as in a pipeline
  --again                                   from the beginning, whatever was done before`;

/** Somebody has to choose, or chose what there is not. */
export class WrongUsage extends Error {
  override readonly name = "WrongUsage";
}

/** @returns undefined when it was only asked for help */
export async function readOptions(args: readonly string[]): Promise<DeployOptions | undefined> {
  const { values } = parsed(args);
  if (values.help) return undefined;
  const env = await choose("--env", "Which environment?", ENVIRONMENTS, values.env);
  const realtime = await choose("--realtime", "Where do the nodes run?", REALTIME, values.realtime);
  const image =
    values.image ?? (realtime === "by-hand" ? "" : await answer("--image", "Which image, name and version?"));
  if (realtime !== "by-hand" && !/^[\w./:-]+:[\w.-]+(@sha256:[0-9a-f]{64})?$/.test(image)) {
    throw new WrongUsage("--image: a name and a version, as registry.example.com/keycard-realtime:1.0.0.");
  }
  return {
    ...{ env, realtime, image, context: values.context },
    dryRun: values["dry-run"] ?? false,
    yes: values.yes ?? false,
    checked: values.checked ?? false,
    again: values.again ?? false,
  };
}

function parsed(args: readonly string[]) {
  try {
    const text = { type: "string" } as const;
    const flag = { type: "boolean" } as const;
    const options = {
      env: text,
      realtime: text,
      image: text,
      context: text,
      "dry-run": flag,
      yes: flag,
      checked: flag,
      again: flag,
    };
    return parseArgs({ args: [...args], options: { ...options, help: { type: "boolean", short: "h" } } });
  } catch (error) {
    throw new WrongUsage(error instanceof Error ? error.message : String(error));
  }
}

async function choose<T extends string>(
  option: string,
  question: string,
  from: readonly T[],
  given?: string,
): Promise<T> {
  const chosen = given ?? (await answer(option, `${question} (${from.join(", ")})`));
  const found = from.find((each) => each === chosen);
  if (found === undefined) throw new WrongUsage(`${option}: one of ${from.join(", ")}.`);
  return found;
}

/** What somebody at the terminal types. @throws {WrongUsage} where nobody is there */
async function answer(option: string, question: string): Promise<string> {
  if (!process.stdin.isTTY) throw new WrongUsage(`${option} is missing, and nobody is here to ask. ${question}`);
  const terminal = createInterface({ input: process.stdin, output: process.stdout });
  try {
    return (await terminal.question(`  ${question} `)).trim();
  } finally {
    terminal.close();
  }
}

/** A secret, typed without being shown; empty when nothing was typed. */
export async function typedSecret(question: string): Promise<string> {
  const { stdin, stdout } = process;
  stdout.write(`  ${question} `);
  const terminal = createInterface({ input: stdin, terminal: true });
  try {
    return (await terminal.question("")).trim();
  } finally {
    terminal.close();
    stdout.write("\n");
  }
}

/**
 * `npm run deploy` in a checkout of its own, whose settings somebody has filled in. What needs an account, an engine or a cluster (wrangler, docker,
 * kubectl) and what takes minutes (npm run check) is a stand-in on PATH that writes down what it was told; so is the doctor where there is no deployment to examine. Everything else is real.
 */
import { execFile, spawn } from "node:child_process";
import { chmod, copyFile, cp, mkdir, mkdtemp, readdir, readFile, rm, stat, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { delimiter, join } from "node:path";
import { promisify } from "node:util";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { parseAllDocuments } from "yaml";
import { readConfig as readEdgeConfig } from "../../edge/config.ts";
import { readConfig } from "../../realtime/config.ts";

import { startTestStack, type TestStack } from "../support/test-stack.ts";

const ROOT = join(import.meta.dirname, "..", "..");
const FAKE = join(import.meta.dirname, "..", "support", "fake-program.sh");
const IMAGE = "registry.acme.dev/keycard-realtime:1.2.3";
/** Writes down what it is asked to examine, and with what. */
const DOCTOR = `import { writeFileSync } from "node:fs";
const { KEYCARD_TOKEN, KEYCARD_EDGE } = process.env;
writeFileSync(process.env.FAKES + "/doctor", JSON.stringify({ args: process.argv.slice(2), KEYCARD_TOKEN, KEYCARD_EDGE }));
`;
const COMPOSE = ["--env", "production", "--realtime", "compose", "--image", IMAGE];
const BY_HAND = ["--env", "production", "--realtime", "by-hand", "--yes"];
const APP = "http://app.localhost:4000";
const KUBERNETES = ["--env", "production", "--realtime", "kubernetes", "--image", IMAGE, "--context", "acme"];

let templates: string;
let dir: string;
let checkout: string;
let fakes: string;
let vault: string;

/** A checkout as it is cloned, and one in which somebody has put his own addresses in the place of example.com's. */
beforeAll(async () => {
  templates = await mkdtemp(join(tmpdir(), "keycard-deploy-"));
  const cloned = join(templates, "cloned");
  await mkdir(cloned);
  for (const name of ["edge", "infra", "package.json", "tsconfig.json", ".gitignore"]) {
    await cp(join(ROOT, name), join(cloned, name), { recursive: true });
  }
  // The true one would examine a deployment that there is not.
  await rm(join(cloned, "infra", "cli"), { recursive: true, force: true });
  await mkdir(join(cloned, "infra", "cli"));
  await writeFile(join(cloned, "infra", "cli", "keycard.js"), DOCTOR);
  await symlink(join(ROOT, "node_modules"), join(cloned, "node_modules"));
  const filled = join(templates, "filled");
  await cp(cloned, filled, { recursive: true, verbatimSymlinks: true });
  const folder = join(filled, "infra", "deploy");
  const names = (await readdir(folder, { recursive: true })).filter((name) => /\.(env|yaml)$/.test(name));
  for (const path of [join(filled, "edge", "wrangler.jsonc"), ...names.map((name) => join(folder, name))]) {
    await writeFile(path, (await readFile(path, "utf8")).replaceAll("example.com", "acme.dev"));
  }
  const git = ["-C", filled, "-c", "user.name=x", "-c", "user.email=x@acme.dev", "-c", "init.defaultBranch=main"];
  for (const args of [
    ["init", "-q"],
    ["add", "-A"],
    ["commit", "-q", "-m", "ours"],
  ]) {
    await promisify(execFile)("git", [...git, ...args]);
  }
});

beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), "keycard-deploy-"));
  checkout = join(dir, "checkout");
  fakes = join(dir, "fakes");
  vault = join(checkout, ".keycard", "deploy", "production");
  await mkdir(fakes);
  for (const name of ["npm", "wrangler", "docker", "kubectl"]) {
    await copyFile(FAKE, join(fakes, name));
    await chmod(join(fakes, name), 0o755);
  }
  await take("filled");
});

afterEach(() => rm(dir, { recursive: true, force: true }));
afterAll(() => rm(templates, { recursive: true, force: true }));

async function take(template: "cloned" | "filled"): Promise<void> {
  await rm(checkout, { recursive: true, force: true });
  await cp(join(templates, template), checkout, { recursive: true, verbatimSymlinks: true });
}

interface Ended {
  readonly code: number | null;
  readonly said: string;
}

function started(command: string, args: readonly string[], env: Record<string, string> = {}): Promise<Ended> {
  const child = spawn(command, args, {
    cwd: checkout,
    env: { ...process.env, ...env },
    stdio: ["ignore", "pipe", "pipe"],
  });
  let said = "";
  for (const stream of [child.stdout, child.stderr])
    stream.setEncoding("utf8").on("data", (text: string) => (said += text));
  return new Promise((resolve, reject) => {
    child.once("error", reject);
    child.once("close", (code) => resolve({ code, said }));
  });
}

const deploy = (...args: string[]) =>
  started(process.execPath, [join(checkout, "infra", "deploy", "run.ts"), ...args], {
    FAKES: fakes,
    PATH: [fakes, process.env.PATH].join(delimiter),
  });

interface Call {
  readonly words: readonly string[];
  readonly input: string;
  readonly image: string;
  readonly secrets: string;
}

/** What the stand-ins were told since the last time. */
async function calls(): Promise<readonly Call[]> {
  const path = join(fakes, "calls");
  const text = await readFile(path, "utf8").catch(() => "");
  await rm(path, { force: true });
  return text
    .split("\u001d")
    .slice(0, -1)
    .map((call) => {
      const [words = "", input = "", image = "", secrets = ""] = call.split("\u001e");
      return { words: words.split("\u001f"), input, image, secrets };
    });
}

const typed = (all: readonly Call[]) => all.map(({ words }) => words.join(" "));
const failAt = (beginning: string) => writeFile(join(fakes, "failing"), beginning);
const giveCertificate = async () => {
  await mkdir(join(vault, "eu"), { recursive: true });
  await writeFile(join(vault, "eu", "tls.pem"), "a certificate and its key");
};

const UP = "docker compose --file infra/deploy/compose.yaml up --detach --no-deps --wait";
const EDGE = "--config edge/wrangler.jsonc --env production";

describe("before anything is touched", () => {
  test("a dry run tells every step and its reason, starts nothing and writes nothing", async () => {
    const { code, said } = await deploy(...COMPOSE, "--dry-run");
    expect(code).toBe(0);
    for (const step of ["1/6 check", "2/6 image", "3/6 edge", "4/6 secrets", "5/6 nodes", "6/6 doctor"])
      expect(said).toContain(step);
    expect(said).toContain(`$ wrangler deploy ${EDGE}`);
    expect(said).toContain(`$ ${UP} node-2`);
    expect(await calls()).toEqual([]);
    await expect(stat(join(checkout, ".keycard"))).rejects.toThrow("ENOENT");
  });

  test("settings that are still the example's, or contradict each other, are named", async () => {
    await take("cloned");
    const { code, said } = await deploy(...COMPOSE, "--yes");
    expect(code).toBe(1);
    expect(said).toContain("edge/wrangler.jsonc: the environment production still has addresses of example.com.");
    expect(said).toContain("infra/deploy/realtime.env: still has addresses of example.com.");
    await take("filled");
    const settings = join(checkout, "infra", "deploy", "realtime.env");
    await writeFile(settings, (await readFile(settings, "utf8")).replace("CLUSTER=eu", "CLUSTER=us"));
    expect((await deploy(...COMPOSE, "--yes")).said).toContain("CLUSTER is none of the edge's: eu.");
    expect(await calls()).toEqual([]);
  });

  test("whatever is missing, or is not known, is refused and named", async () => {
    const refusals: readonly (readonly [string[], string])[] = [
      [[], "--env is missing, and nobody is here to ask."],
      [["--env", "nowhere"], "--env: one of staging, production."],
      [["--env", "production", "--realtime", "compose", "--image", "latest"], "--image: a name and a version"],
      [["--nonsense"], "Unknown option '--nonsense'"],
    ];
    for (const [args, why] of refusals) {
      const { code, said } = await deploy(...args);
      expect([code, said]).toEqual([1, expect.stringContaining(why)]);
    }
    expect(await calls()).toEqual([]);
  });

  test("help tells every option", async () => {
    const { code, said } = await deploy("--help");
    expect(code).toBe(0);
    for (const option of [
      "--env",
      "--realtime",
      "--image",
      "--context",
      "--dry-run",
      "--yes",
      "--checked",
      "--again",
    ]) {
      expect(said).toContain(option);
    }
  });
});

describe("a first deployment to one host", () => {
  test("checks, deploys the edge, puts its secrets, and starts one node after the other", async () => {
    await giveCertificate();
    const { code, said } = await deploy(...COMPOSE, "--yes");
    expect([code, said]).toEqual([0, expect.stringContaining("Deployed.")]);
    const all = await calls();
    expect(typed(all)).toEqual([
      "npm run check",
      `docker build --file infra/deploy/realtime.Dockerfile --tag ${IMAGE} .`,
      `wrangler deploy ${EDGE}`,
      `wrangler secret list ${EDGE} --format json`,
      `wrangler secret put KEYCARD_SECRET ${EDGE}`,
      `wrangler secret put ADMIN_TOKEN ${EDGE}`,
      `wrangler secret put CLUSTER_SECRETS ${EDGE}`,
      ...["redis", "node-1", "node-2", "node-3", "proxy"].map((service) => `${UP} ${service}`),
    ]);
    const put = Object.fromEntries(
      all.filter(({ input }) => input !== "").map(({ words, input }) => [words[3], input]),
    );
    const edge = readEdgeConfig({
      ISSUER: "https://auth.acme.dev",
      CLUSTERS: '[{"id":"eu","endpoints":["https://x.dev"]}]',
      ...put,
    });
    // The nodes are given by files what they take, and what the edge has been told of them.
    const up = all.at(-1);
    expect([up?.image, up?.secrets]).toEqual([IMAGE, join(vault, "eu")]);
    const file = (name: string) => join(vault, "eu", name);
    const node = readConfig({
      CLUSTER: "eu",
      ISSUER: edge.issuer,
      CLUSTER_SECRET_FILE: file("cluster-secret"),
      REDIS_URL_FILE: file("redis-url"),
    });
    expect(edge.clusters[0]?.secrets).toEqual(node.CLUSTER_SECRET);
    expect(new URL(node.REDIS_URL ?? "").host).toBe("redis:6379");
    // The whole is examined from outside, with the root credential, which is in no argument.
    const doctor = JSON.parse(await readFile(join(fakes, "doctor"), "utf8"));
    const places = [
      "https://auth.acme.dev",
      "--realtime",
      "https://realtime.acme.dev",
      "--origin",
      "https://app.acme.dev",
    ];
    expect(doctor).toEqual({
      args: ["doctor", ...places],
      KEYCARD_TOKEN: put.ADMIN_TOKEN,
      KEYCARD_EDGE: "https://auth.acme.dev",
    });
    // A strong secret each, that nobody has seen: neither in what was typed nor in what was printed.
    const secrets = [
      put.KEYCARD_SECRET,
      put.ADMIN_TOKEN,
      node.CLUSTER_SECRET[0],
      new URL(node.REDIS_URL ?? "").password,
    ];
    expect(new Set(secrets).size).toBe(4);
    for (const secret of secrets) {
      expect(secret).toMatch(/^[\w-]{43}$/);
      expect(said).not.toContain(secret);
      expect(typed(all).join("\n")).not.toContain(secret);
    }
  });

  test("keeps its secrets where nobody else gets, each readable to who needs it", async () => {
    await giveCertificate();
    await deploy(...COMPOSE, "--yes");
    const modeOf = async (...path: string[]) => ((await stat(join(vault, ...path))).mode & 0o777).toString(8);
    expect([await modeOf(), await modeOf("eu")]).toEqual(["700", "700"]);
    expect([await modeOf("keycard-secret"), await modeOf("admin-token")]).toEqual(["600", "600"]);
    for (const name of ["cluster-secret", "redis-url", "redis-password", "redis.acl"])
      expect(await modeOf("eu", name)).toBe("444");
    const { said } = await started("git", ["status", "--porcelain"]);
    expect(said).toBe("");
  });

  test("stops before the nodes when there is no certificate, says where it belongs, and goes on from there", async () => {
    const { code, said } = await deploy(...COMPOSE, "--yes");
    expect(code).toBe(1);
    expect(said).toContain(
      `nodes failed: There is no certificate for the proxy: put it and its key, one after the other in PEM, into ${join(vault, "eu", "tls.pem")}.`,
    );
    expect(typed(await calls()).filter((line) => line.startsWith("docker compose"))).toEqual([]);
    await giveCertificate();
    const again = await deploy(...COMPOSE, "--yes");
    expect([again.code, again.said]).toEqual([0, expect.stringContaining("check: done before")]);
    expect(typed(await calls())[0]).toBe(`wrangler secret list ${EDGE} --format json`);
  });

  test("makes no secret when nobody is here to ask and nobody has said yes", async () => {
    const { code, said } = await deploy(...COMPOSE);
    expect([code, said]).toEqual([1, expect.stringContaining("keycard-secret is missing, and nobody is here to ask")]);
    expect(typed(await calls()).filter((line) => line.includes("secret put"))).toEqual([]);
  });
});

describe("a deployment that follows", () => {
  test("puts no secret again, and uses the same ones", async () => {
    await giveCertificate();
    await deploy(...COMPOSE, "--yes");
    const before = await readFile(join(vault, "eu", "cluster-secret"), "utf8");
    await calls();
    expect((await deploy(...COMPOSE, "--checked")).code).toBe(0);
    const lines = typed(await calls());
    expect(lines.filter((line) => line.includes("secret put"))).toEqual([]);
    expect(lines).not.toContain("npm run check");
    expect(await readFile(join(vault, "eu", "cluster-secret"), "utf8")).toBe(before);
  });

  test("tells the edge of a cluster that is new, beside those that it had", async () => {
    await giveCertificate();
    await deploy(...COMPOSE, "--yes");
    await calls();
    const config = join(checkout, "edge", "wrangler.jsonc");
    const two = String.raw`[{\"id\": \"eu\", \"endpoints\": [\"https://realtime.acme.dev\"]}, {\"id\": \"us\", \"endpoints\": [\"https://us.acme.dev\"]}]`;
    const one = String.raw`[{\"id\": \"eu\", \"endpoints\": [\"https://realtime.acme.dev\"]}]`;
    await writeFile(config, (await readFile(config, "utf8")).replace(one, two));
    expect((await deploy(...COMPOSE, "--yes")).code).toBe(0);
    const put = (await calls()).find(({ words }) => words.includes("CLUSTER_SECRETS"));
    const secrets = JSON.parse(put?.input ?? "{}");
    expect(Object.keys(secrets)).toEqual(["eu", "us"]);
    expect(secrets.eu).toBe((await readFile(join(vault, "eu", "cluster-secret"), "utf8")).trim());
  });

  test("of somebody else's machine asks for the cluster's secret instead of making another", async () => {
    await giveCertificate();
    await writeFile(join(fakes, "secrets"), "KEYCARD_SECRET\nADMIN_TOKEN\nCLUSTER_SECRETS\n");
    const { code, said } = await deploy(...COMPOSE, "--yes");
    expect([code, said]).toEqual([
      1,
      expect.stringContaining("The edge has CLUSTER_SECRETS, and this machine does not"),
    ]);
  });
});

describe("a step that fails", () => {
  test.for([
    ["npm run check", "check"],
    ["wrangler deploy", "edge"],
    ["wrangler secret list", "secrets"],
    [`${UP} node-2`, "nodes"],
  ] as const)("%s stops it there, and the next run goes on there", async ([beginning, step]) => {
    await giveCertificate();
    await failAt(beginning);
    const { code, said } = await deploy(...COMPOSE, "--yes");
    expect([code, said]).toEqual([1, expect.stringContaining(`${step} failed: `)]);
    const before = typed(await calls());
    expect(before.at(-1)).toContain(beginning);
    await rm(join(fakes, "failing"));
    expect((await deploy(...COMPOSE, "--yes")).code).toBe(0);
    const after = typed(await calls());
    expect(after.some((line) => line.startsWith(beginning))).toBe(true);
    const slow = /^(npm run check|docker build|wrangler deploy)/;
    for (const line of before.slice(0, -1).filter((each) => slow.test(each))) expect(after).not.toContain(line);
  });

  test("is done anew from the beginning when anything has changed meanwhile, or it is asked for", async () => {
    await giveCertificate();
    await failAt("wrangler deploy");
    await deploy(...COMPOSE, "--yes");
    await calls();
    await rm(join(fakes, "failing"));
    await failAt(`${UP} node-1`);
    await deploy(...COMPOSE, "--yes", "--again");
    expect(typed(await calls())).toContain("npm run check");
    await writeFile(
      join(checkout, "infra", "deploy", "realtime.env"),
      `${await readFile(join(checkout, "infra", "deploy", "realtime.env"), "utf8")}# changed\n`,
    );
    await deploy(...COMPOSE, "--yes");
    expect(typed(await calls())).toContain("npm run check");
  });

  test("says so when a program is not on this machine", async () => {
    await rm(join(fakes, "wrangler"));
    const path = [fakes, "/usr/bin", "/bin"].join(delimiter);
    const script = join(checkout, "infra", "deploy", "run.ts");
    const { code, said } = await started(process.execPath, [script, ...COMPOSE, "--yes"], { FAKES: fakes, PATH: path });
    expect([code, said]).toEqual([1, expect.stringContaining("edge failed: There is no `wrangler` on this machine.")]);
  });
});

describe("a deployment to Kubernetes", () => {
  beforeEach(() => mkdir(join(vault, "eu"), { recursive: true }));

  test("asks where Redis is before it starts any pod", async () => {
    const { code, said } = await deploy(...KUBERNETES, "--yes");
    expect([code, said]).toEqual([1, expect.stringContaining(join(vault, "eu", "redis-url"))]);
    expect(typed(await calls()).some((line) => line.includes("rollout"))).toBe(false);
  });

  test("applies everything, the secret on standard input alone, and waits until the pods are new", async () => {
    await writeFile(join(vault, "eu", "redis-url"), "rediss://keycard:hunter2@redis.acme.dev:6379");
    const { code, said } = await deploy(...KUBERNETES, "--yes");
    expect([code, said]).toEqual([
      0,
      expect.stringContaining("kubectl --namespace keycard rollout undo deployment/keycard-realtime"),
    ]);
    const all = (await calls()).filter(({ words }) => words[0] === "kubectl");
    expect(all.every(({ words }) => words[1] === "--context" && words[2] === "acme")).toBe(true);
    expect(all.map(({ words }) => words.slice(3).join(" "))).toEqual([
      "apply --filename infra/deploy/kubernetes/namespace.yaml",
      "--namespace keycard get secret keycard-realtime --output name",
      "apply --filename -",
      ...["settings", "network", "ingress"].map((name) => `apply --filename infra/deploy/kubernetes/${name}.yaml`),
      "apply --filename -",
      "--namespace keycard rollout status deployment/keycard-realtime --timeout 15m",
    ]);
    const [secret, manifests] = all.flatMap(({ input }) => (input === "" ? [] : [input]));
    const { metadata, stringData } = JSON.parse(secret ?? "{}");
    expect(metadata).toEqual({ name: "keycard-realtime", namespace: "keycard" });
    const node = readConfig({
      CLUSTER: "eu",
      ISSUER: "https://auth.acme.dev",
      CLUSTER_SECRET: stringData["cluster-secret"],
      REDIS_URL: stringData["redis-url"],
    });
    expect(node.REDIS_URL).toContain("hunter2");
    for (const hidden of ["hunter2", node.CLUSTER_SECRET[0]]) {
      expect(said).not.toContain(hidden);
      expect(typed(all).join("\n")).not.toContain(hidden);
    }
    const documents = parseAllDocuments(manifests ?? "").map((document) => document.toJS());
    const pods = documents.find(({ kind }) => kind === "Deployment").spec.template;
    expect(pods.spec.containers[0].image).toBe(IMAGE);
    expect(pods.metadata.annotations["keycard/settings"]).toMatch(/^[0-9a-f]{16}$/);
    expect(documents.map(({ kind }) => kind).sort()).toEqual([
      "Deployment",
      "HorizontalPodAutoscaler",
      "PodDisruptionBudget",
      "Service",
    ]);
  });

  test("leaves a secret that is there, and rolls the pods when the settings alone have changed", async () => {
    await writeFile(join(fakes, "has-secret"), "");
    await writeFile(join(vault, "eu", "redis-url"), "rediss://keycard:hunter2@redis.acme.dev:6379");
    const stampOf = async () => {
      const inputs = (await calls()).flatMap(({ words, input }) =>
        words[0] === "kubectl" && input !== "" ? [input] : [],
      );
      expect(inputs).toHaveLength(1);
      return /"keycard\/settings":"(\w+)"/.exec(inputs[0] ?? "")?.[1];
    };
    await deploy(...KUBERNETES, "--yes");
    const before = await stampOf();
    const settings = join(checkout, "infra", "deploy", "kubernetes", "settings.yaml");
    await writeFile(settings, (await readFile(settings, "utf8")).replace("LOG_LEVEL: info", "LOG_LEVEL: warn"));
    await deploy(...KUBERNETES, "--yes");
    expect(await stampOf()).not.toBe(before);
  });
});

describe("the examination at the end", () => {
  let there: TestStack;
  beforeAll(async () => {
    there = await startTestStack({}, { allowedOrigins: [APP] });
  });
  afterAll(() => there?.stop());

  /** The settings of the stack that runs here, and the command line that is no stand-in. */
  async function takeRunning(endpoint: string): Promise<void> {
    const config = join(checkout, "edge", "wrangler.jsonc");
    const places = {
      "https://auth.acme.dev": there.stack.edgeUrl,
      "https://realtime.acme.dev": endpoint,
      "https://app.acme.dev": APP,
    };
    let text = await readFile(config, "utf8");
    for (const [example, place] of Object.entries(places)) text = text.replaceAll(example, place);
    await writeFile(config, text);
    await cp(join(ROOT, "infra", "cli"), join(checkout, "infra", "cli"), { recursive: true });
    await mkdir(vault, { recursive: true });
    await writeFile(join(vault, "admin-token"), there.stack.adminToken);
  }

  test("finds a running deployment sound, down to a canary that is thrown out", async () => {
    await takeRunning(there.stack.nodes[0]?.url ?? "");
    const { code, said } = await deploy(...BY_HAND);
    expect([code, said]).toEqual([0, expect.stringMatching(/✓ canary +2 sockets closed after [\s\S]*Deployed\./)]);
    expect(said).not.toContain(there.stack.adminToken);
  });

  test("stops the deployment when nobody gets in, and says where", async () => {
    await takeRunning("http://127.0.0.1:9");
    const { code, said } = await deploy(...BY_HAND);
    expect([code, said]).toEqual([1, expect.stringMatching(/✗ [\s\S]*127\.0\.0\.1:9[\s\S]*doctor failed: /)]);
  });
});

describe("where the nodes run by hand", () => {
  test("it deploys the edge, and says what to run", async () => {
    const { code, said } = await deploy(...BY_HAND);
    expect(code).toBe(0);
    expect(said).toContain("node realtime/main.ts");
    expect(new Set((await calls()).map(({ words }) => words[0]))).toEqual(new Set(["npm", "wrangler"]));
  });
});

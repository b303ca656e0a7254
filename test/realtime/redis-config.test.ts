/** The settings that say where Redis is: what goes together, what does not, and that no value is ever shown. */
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type Certificates, makeCertificates } from "../../infra/certificates.ts";
import { readConfig } from "../../realtime/config.ts";

const SECRET = "a secret of thirty-two characters";
const others = { CLUSTER: "c", CLUSTER_SECRET: SECRET, ISSUER: "https://edge.test" };
let dir: string;
let files: Certificates;

beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), "keycard-config-"));
  files = await makeCertificates(dir);
  await writeFile(join(dir, "nonsense.pem"), "hunter2");
});

afterAll(() => rm(dir, { recursive: true, force: true }));

/** What is wrong, a line for each. */
function problemsOf(settings: Record<string, string>): string[] {
  try {
    readConfig({ ...others, ...settings });
    return [];
  } catch (error) {
    const [, ...lines] = (error as Error).message.split("\n");
    return lines.map((line) => line.trim());
  }
}

describe("where Redis is", () => {
  it.each([
    ["one server", { REDIS_URL: "redis://127.0.0.1:6379/2" }],
    ["sentinels", { REDIS_SENTINELS: "a:26379, b:26379,[::1]:26379", REDIS_MASTER: "m" }],
    ["sentinels behind TLS with a user", { REDIS_SENTINELS: "a:1", REDIS_URL: "rediss://me:p%40ss@_/1" }],
    ["a cluster", { REDIS_CLUSTER: "a:6379,b:6379" }],
    ["a cluster with a user", { REDIS_CLUSTER: "a:6379", REDIS_URL: "redis://me:hunter2@_" }],
  ])("can be %s", (_what, settings) => {
    expect(problemsOf(settings)).toEqual([]);
  });

  it("is read as it will be used", () => {
    const config = readConfig({ ...others, REDIS_SENTINELS: "a:26379, [::1]:26380" });
    expect(config.REDIS_SENTINELS).toEqual([
      { host: "a", port: 26_379 },
      { host: "::1", port: 26_380 },
    ]);
    expect(config.REDIS_MASTER).toBe("mymaster");
  });

  it.each([
    [{}, ["REDIS_URL: missing, and so are REDIS_SENTINELS and REDIS_CLUSTER"]],
    [{ REDIS_URL: "redis://_" }, ["REDIS_URL: names no server"]],
    [{ REDIS_SENTINELS: "a:1", REDIS_CLUSTER: "b:1" }, ["REDIS_CLUSTER: not together with REDIS_SENTINELS"]],
    [
      { REDIS_CLUSTER: "a:1", REDIS_URL: "redis://me:hunter2@b:6379" },
      ["REDIS_URL: its host must be _ beside REDIS_SENTINELS or REDIS_CLUSTER"],
    ],
    [{ REDIS_CLUSTER: "a:1", REDIS_URL: "redis://_/1" }, ["REDIS_URL: a cluster has no database but 0"]],
    [
      { REDIS_CLUSTER: "a:1,hunter2,c:99999" },
      ["REDIS_CLUSTER.1: must be host:port", "REDIS_CLUSTER.2: must be host:port"],
    ],
    [
      { REDIS_URL: "redis://me:%hunter2@a" },
      ["REDIS_URL: its path must be the number of a database, its user and password percent-encoded"],
    ],
  ])("%j is refused, and its values are not repeated", (settings, problems) => {
    expect(problemsOf(settings)).toEqual(problems);
  });

  it("names every problem at once", () => {
    const settings = { REDIS_CLUSTER: "a", REDIS_SENTINELS: "b", REDIS_WAIT_REPLICAS: "9", CLUSTER_SECRET: "hunter2" };
    const problems = problemsOf(settings);
    expect(problems.map((problem) => problem.split(":")[0])).toEqual([
      "CLUSTER_SECRET.0",
      "REDIS_SENTINELS.0",
      "REDIS_CLUSTER.0",
      "REDIS_WAIT_REPLICAS",
      "REDIS_CLUSTER",
    ]);
    expect(problems.join()).not.toContain("hunter2");
  });
});

describe("the files for TLS", () => {
  const url = { REDIS_URL: "rediss://a:6379" };

  it("are read when they are named", () => {
    const { ca, cert, key } = files;
    const config = readConfig({ ...others, ...url, REDIS_CA: ca, REDIS_CERT: cert, REDIS_KEY: key });
    expect(config.REDIS_CA).toContain("BEGIN CERTIFICATE");
    expect(config.REDIS_KEY).toContain("PRIVATE KEY");
  });

  it("are refused when they are not there or something else", () => {
    const nonsense = join(dir, "nonsense.pem");
    expect(problemsOf({ ...url, REDIS_CA: "/nowhere", REDIS_CERT: nonsense, REDIS_KEY: files.cert })).toEqual([
      "REDIS_CA: must be the path of a certificate in PEM",
      "REDIS_CERT: must be the path of a certificate in PEM",
      "REDIS_KEY: must be the path of a private key in PEM without a passphrase",
    ]);
  });

  it("are refused without TLS, and a certificate without its key", () => {
    expect(problemsOf({ REDIS_URL: "redis://a", REDIS_CA: files.ca })).toEqual([
      "REDIS_CA: only with rediss: in REDIS_URL",
    ]);
    expect(problemsOf({ ...url, REDIS_CERT: files.cert })).toEqual([
      "REDIS_CERT, REDIS_KEY: not one without the other",
    ]);
  });
});

describe("the secret of the cluster", () => {
  it("is one, or two while it is being replaced", () => {
    const secretsOf = (CLUSTER_SECRET: string) =>
      readConfig({ ...others, REDIS_URL: "redis://a", CLUSTER_SECRET }).CLUSTER_SECRET;
    expect(secretsOf(SECRET)).toEqual([SECRET]);
    expect(secretsOf(`${SECRET}!,${SECRET}`)).toEqual([`${SECRET}!`, SECRET]);
    const three = problemsOf({ REDIS_URL: "redis://a", CLUSTER_SECRET: [1, 2, 3].map(() => SECRET).join() });
    expect(three).toHaveLength(1);
    expect(problemsOf({ REDIS_URL: "redis://a", CLUSTER_SECRET: "" })).toHaveLength(1);
  });
});

describe("a secret in a file", () => {
  const written = async (name: string, text: string) => {
    const path = join(dir, name);
    await writeFile(path, text);
    return path;
  };

  it("is read without the line's end", async () => {
    const secrets = { CLUSTER_SECRET_FILE: await written("cluster-secret", `${SECRET}\n`) };
    const redis = { REDIS_URL_FILE: await written("redis-url", "redis://me:hunter2@redis:6379\n") };
    const config = readConfig({ CLUSTER: "c", ISSUER: "https://edge.test", ...secrets, ...redis });
    expect(config.CLUSTER_SECRET).toEqual([SECRET]);
    expect(config.REDIS_URL).toBe("redis://me:hunter2@redis:6379");
  });

  it("is judged as any other, and not shown", async () => {
    expect(problemsOf({ REDIS_URL_FILE: await written("wrong-url", "hunter2") })).toEqual(["REDIS_URL: Invalid URL"]);
  });

  it("cannot be missing, nor given twice", async () => {
    const twice = await written("twice", SECRET);
    expect(problemsOf({ REDIS_URL: "redis://redis", CLUSTER_SECRET_FILE: twice })).toEqual([
      "CLUSTER_SECRET_FILE: not together with CLUSTER_SECRET",
    ]);
    expect(problemsOf({ REDIS_URL_FILE: join(dir, "absent") })).toEqual([
      "REDIS_URL_FILE: must be the path of a file that can be read",
      "REDIS_URL: missing, and so are REDIS_SENTINELS and REDIS_CLUSTER",
    ]);
  });
});

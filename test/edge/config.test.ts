/** The settings: every problem is named at once, none of the values is. */
import { createExecutionContext } from "cloudflare:test";
import { env } from "cloudflare:workers";
import { expect, test, vi } from "vitest";
import { Refusal } from "#contract/refusal";
import { app } from "../../edge/app.ts";
import { readConfig } from "../../edge/config.ts";
import { ISSUER, refusal } from "./edge.ts";

const SECRET = "a secret of thirty-two characters, at the least";
const GOOD = { ISSUER, KEYCARD_SECRET: SECRET };
const CLUSTERS = '[{"id":"eu","endpoints":["https://eu.test"]},{"id":"us","endpoints":["https://us.test"]}]';

function problemsOf(settings: object): string {
  try {
    readConfig(settings);
  } catch (error) {
    if (error instanceof Refusal && error.code === "unavailable") return error.detail ?? "";
    throw error;
  }
  return "";
}

test("two settings are enough", () => {
  const config = readConfig(GOOD);
  expect(config).toMatchObject({
    issuer: ISSUER,
    audience: "keycard",
    algorithm: "RS256",
    accessTokenTtlSeconds: 300,
    keyRotationDays: 30,
    auditRetentionDays: 365,
    clusters: [],
    secret: [SECRET],
    adminToken: undefined,
  });
  expect(Object.isFrozen(config)).toBe(true);
});

test.for([
  ["ISSUER", "keycard.test", "ISSUER"],
  ["ISSUER", "https://keycard.test/", "ISSUER"],
  ["ISSUER", "https://user:pass@keycard.test", "ISSUER"],
  ["ISSUER", undefined, "ISSUER"],
  ["KEYCARD_SECRET", undefined, "KEYCARD_SECRET"],
  ["KEYCARD_SECRET", "short", "KEYCARD_SECRET"],
  ["KEYCARD_SECRET_PREVIOUS", "short", "KEYCARD_SECRET_PREVIOUS"],
  ["KEYCARD_SECRET_PREVIOUS", SECRET, "KEYCARD_SECRET_PREVIOUS"],
  ["ADMIN_TOKEN", "short", "ADMIN_TOKEN"],
  ["ADMIN_TOKEN", SECRET, "ADMIN_TOKEN: the same as KEYCARD_SECRET"],
  ["AUDIENCE", "https://keycard.test", "AUDIENCE: the same as ISSUER"],
  ["ACCESS_TOKEN_ALG", "HS256", "ACCESS_TOKEN_ALG"],
  ["ACCESS_TOKEN_TTL_SECONDS", "0", "ACCESS_TOKEN_TTL_SECONDS"],
  ["ACCESS_TOKEN_TTL_SECONDS", "7200", "ACCESS_TOKEN_TTL_SECONDS"],
  ["ACCESS_TOKEN_TTL_SECONDS", "five minutes", "ACCESS_TOKEN_TTL_SECONDS"],
  ["ACCESS_TOKEN_TTL_SECONDS", "1e2", "ACCESS_TOKEN_TTL_SECONDS"],
  ["KEY_ROTATION_DAYS", "0", "KEY_ROTATION_DAYS"],
  ["KEY_ROTATION_DAYS", "0.5", "KEY_ROTATION_DAYS"],
  ["AUDIT_RETENTION_DAYS", "-1", "AUDIT_RETENTION_DAYS"],
  ["SESSIONS_PER_ACCOUNT", "0", "SESSIONS_PER_ACCOUNT"],
  ["CLUSTERS", "eu=https://eu.test", "CLUSTERS: not JSON"],
  ["CLUSTERS", "{}", "CLUSTERS"],
  ["CLUSTERS", '[{"id":"eu","endpoints":[]}]', "CLUSTERS.0.endpoints"],
  ["CLUSTERS", '[{"id":"eu","endpoints":["ftp://eu.test"]}]', "CLUSTERS.0.endpoints.0"],
  ["CLUSTERS", '[{"id":"eu","endpoints":["https://eu.test"],"key":"x"}]', "CLUSTERS.0"],
  [
    "CLUSTERS",
    '[{"id":"eu","endpoints":["https://a.test"]},{"id":"eu","endpoints":["https://b.test"]}]',
    "CLUSTERS: every cluster needs an id of its own",
  ],
  ["ALLOWED_ORIGINS", "*", "ALLOWED_ORIGINS"],
  ["ALLOWED_ORIGINS", "https://app.test/path", "ALLOWED_ORIGINS"],
  ["TRUSTED_ISSUERS", '[{"issuer":"https://id.test"}]', "TRUSTED_ISSUERS.0"],
] as const)("%s = %j is named", ([name, value, named]) => {
  expect(problemsOf({ ...GOOD, [name]: value })).toContain(named);
});

test("a cluster has its secret, or the one of before as well", () => {
  const CLUSTER_SECRETS = JSON.stringify({ eu: SECRET, us: [SECRET, `${SECRET}, the old one`] });
  expect(readConfig({ ...GOOD, CLUSTERS, CLUSTER_SECRETS }).clusters).toEqual([
    { id: "eu", endpoints: ["https://eu.test"], secrets: [SECRET] },
    { id: "us", endpoints: ["https://us.test"], secrets: [SECRET, `${SECRET}, the old one`] },
  ]);
});

test.for<[string, string | undefined, string]>([
  ["no secrets", undefined, "for CLUSTERS.0, CLUSTERS.1"],
  ["a secret of one cluster only", JSON.stringify({ us: SECRET }), "for CLUSTERS.0"],
  ["a short secret", JSON.stringify({ eu: SECRET, us: "hunter2" }), "for CLUSTERS.1"],
  ["a short secret of before", JSON.stringify({ eu: [SECRET, "hunter2"], us: SECRET }), "for CLUSTERS.0"],
  ["the same secret twice", JSON.stringify({ eu: [SECRET, SECRET], us: SECRET }), "for CLUSTERS.0"],
  ["three secrets", JSON.stringify({ eu: [SECRET, `${SECRET}2`, `${SECRET}3`], us: SECRET }), "for CLUSTERS.0"],
  ["the secret of no cluster", JSON.stringify({ eu: SECRET, us: SECRET, hunter2: SECRET }), "names something"],
  ["a name and a secret changed about", JSON.stringify({ [SECRET]: "eu", us: SECRET }), "for CLUSTERS.0, and names"],
  [
    "the secret of what every object has",
    JSON.stringify({ eu: SECRET, us: SECRET, toString: SECRET }),
    "names something",
  ],
  ["no JSON", "eu=hunter2", "not JSON"],
  ["a list", JSON.stringify([SECRET]), "CLUSTER_SECRETS"],
])("CLUSTER_SECRETS with %s is wrong, and shows no secret", ([, CLUSTER_SECRETS, named]) => {
  const problems = problemsOf({ ...GOOD, CLUSTERS, CLUSTER_SECRETS });
  expect(problems).toContain("CLUSTER_SECRETS: ");
  expect(problems).toContain(named);
  for (const value of ["hunter2", SECRET]) expect(problems).not.toContain(value);
});

test("what is wrong with the secrets of clusters is named beside everything else", () => {
  const problems = problemsOf({ ...GOOD, CLUSTERS, CLUSTER_SECRETS: "{}", KEY_ROTATION_DAYS: "0" });
  expect(problems).toMatch(/KEY_ROTATION_DAYS: .*CLUSTER_SECRETS: /);
});

test("all problems are named at once, and no value is", () => {
  const secrets = {
    KEYCARD_SECRET: "hunter2",
    ADMIN_TOKEN: "swordfish",
    CLUSTERS: '[{"id":"eu","password":"s3cret"}]',
  };
  const problems = problemsOf({ ...secrets, ISSUER: "https://user:letmein@keycard.test", KEY_ROTATION_DAYS: "soon" });
  expect(problemsOf({ ...GOOD, KEYCARD_SECRET_PREVIOUS: SECRET, KEY_ROTATION_DAYS: "soon" })).toMatch(
    /KEY_ROTATION_DAYS.*KEYCARD_SECRET_PREVIOUS: the same/,
  );
  for (const name of [...Object.keys(secrets), "ISSUER", "KEY_ROTATION_DAYS"]) expect(problems).toContain(name);
  for (const value of ["hunter2", "swordfish", "s3cret", "password", "letmein", "soon"]) {
    expect(problems).not.toContain(value);
  }
});

test("a Worker with wrong settings answers 503 to everything, names them in the log and nowhere else", async () => {
  const log = vi.spyOn(console, "error").mockImplementation(() => undefined);
  const settings = { ...env, CLUSTERS: "eu=https://eu.test", KEY_ROTATION_DAYS: "soon" } as unknown as Env;
  for (const path of ["/healthz", "/login", "/.well-known/jwks.json"]) {
    const response = await app.fetch(new Request(ISSUER + path), settings, createExecutionContext());
    expect(response.status).toBe(503);
    expect(await response.clone().text()).not.toContain("CLUSTERS");
    expect(await refusal(response)).toBe("unavailable");
  }
  const lines = log.mock.calls.flat().join("\n");
  expect(lines).toContain("CLUSTERS: not JSON");
  expect(lines).toContain("KEY_ROTATION_DAYS");
  log.mockRestore();
});

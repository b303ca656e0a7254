/**
 * The settings: strings of the environment in, one frozen object out, judged once and with every problem named at once.
 * Values are never repeated in an error, because some are secrets. This is the only place that reads settings.
 */
import { z } from "zod";
import { SIGNATURE_ALGORITHMS, type SignatureAlgorithm } from "#contract/access-token";
import { type ClusterSecrets, MIN_CLUSTER_SECRET } from "#contract/cluster";
import { Refusal } from "#contract/refusal";
import type { Secrets } from "./subkeys.ts";

export interface ClusterConfig {
  readonly id: string;
  /** Base URLs of its nodes, or of a balancer in front of them. Any one will do. */
  readonly endpoints: readonly string[];
  /** What its nodes prove themselves with. */
  readonly secrets: ClusterSecrets;
}

/** An issuer whose ID tokens open sessions here (RFC 8693). */
export interface TrustedIssuer {
  /** `iss` of its tokens. */
  readonly issuer: string;
  /** `aud`: what the issuer calls the application. */
  readonly audience: string;
  /** Where its keys are; by default where its discovery document says. */
  readonly jwks_uri?: string | undefined;
  readonly algorithms: readonly string[];
  /** The tenant of its people: of accounts that are made, and the only one whose accounts it opens. */
  readonly tenant?: string | undefined;
  /** What accounts that are made may do. */
  readonly scope?: string | undefined;
  /** Whether somebody who comes for the first time gets an account. */
  readonly create: boolean;
}

/** A transmitter of security events (SSF 1.0) whose `session-revoked` ends sessions here. */
export interface TrustedTransmitter {
  /** `iss` of its events. */
  readonly issuer: string;
  /** `aud`: what it calls us. */
  readonly audience: string;
  readonly jwks_uri: string;
  readonly algorithms: readonly string[];
  /** The only tenant whose people it can name; absent: all. */
  readonly tenant?: string | undefined;
}

export interface Config {
  /** `iss` of every token: a URL without a slash at the end. */
  readonly issuer: string;
  readonly audience: string;
  readonly clientId: string;
  readonly algorithm: SignatureAlgorithm;
  readonly accessTokenTtlSeconds: number;
  /** How long the token before the current one still gets the current one. */
  readonly refreshGraceSeconds: number;
  readonly sessionIdleSeconds: number;
  readonly sessionMaxSeconds: number;
  /** Living sessions that one account may have. */
  readonly sessionsPerAccount: number;
  readonly trustedIssuers: readonly TrustedIssuer[];
  readonly trustedTransmitters: readonly TrustedTransmitter[];
  readonly clusters: readonly ClusterConfig[];
  /** Origins besides the edge's own whose pages may use the cookie. */
  readonly allowedOrigins: readonly string[];
  readonly secret: Secrets;
  /** How long a signing key signs before its successor takes over. */
  readonly keyRotationDays: number;
  /** How long the audit trail keeps a record. */
  readonly auditRetentionDays: number;
  /** From which on the log, or the trail, lets go of its oldest before their time. */
  readonly storageMaxMegabytes: number;
  /** Absent: nobody is an administrator. */
  readonly adminToken: string | undefined;
}

/** RFC 7518 section 3.1 and RFC 8037: signatures that only their issuer can make. */
const FOREIGN_ALGORITHMS = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA"] as const;

const name = z.string().regex(/^[\x21-\x7e]{1,128}$/, "1 to 128 printable characters without spaces");
const secret = z.string().min(32, "at least 32 characters").max(4096, "at most 4096 characters");

const scope = z
  .string()
  .max(1024)
  .regex(/^[\x21\x23-\x5b\x5d-\x7e]+( [\x21\x23-\x5b\x5d-\x7e]+)*$/, "scopes separated by single spaces");

const baseUrl = z.string().refine(isBaseUrl, "an http or https URL without a slash at the end, query or fragment");

const clusters = z
  .array(z.strictObject({ id: name, endpoints: z.array(baseUrl).min(1).max(16) }))
  .max(64)
  .refine((list) => new Set(list.map(({ id }) => id)).size === list.length, "every cluster needs an id of its own");

const clusterSecret = z.string().min(MIN_CLUSTER_SECRET).max(4096);
const clusterSecretList = z.union([
  clusterSecret.transform((current): ClusterSecrets => [current]),
  z.tuple([clusterSecret, clusterSecret]).refine(([current, previous]) => current !== previous),
]);
/** One that is wrong counts as missing, and is told by its cluster: what stands there as a name may be a secret as well. */
const clusterSecrets = z
  .record(z.string(), clusterSecretList.optional().catch(undefined))
  .transform((secrets) => new Map(Object.entries(secrets)));

const trustedIssuers = z
  .array(
    z.strictObject({
      // Some issuers end in a slash, and `iss` is compared letter by letter.
      issuer: z
        .string()
        .max(512)
        .refine((text) => isBaseUrl(text.replace(/\/$/, "")), "an http or https URL"),
      audience: z.string().min(1).max(256),
      jwks_uri: z
        .url({ protocol: /^https?$/ })
        .max(1024)
        .optional(),
      algorithms: z.array(z.enum(FOREIGN_ALGORITHMS)).min(1).default(["RS256", "ES256", "EdDSA"]),
      tenant: name.optional(),
      scope: scope.optional(),
      create: z.boolean(),
    }),
  )
  .max(64)
  .refine((list) => new Set(list.map(({ issuer }) => issuer)).size === list.length, "every issuer may be named once");

const trustedTransmitters = z
  .array(
    z.strictObject({
      issuer: z.string().min(1).max(512),
      audience: z.string().min(1).max(256),
      jwks_uri: z.url({ protocol: /^https?$/ }).max(1024),
      algorithms: z.array(z.enum(FOREIGN_ALGORITHMS)).min(1).default(["RS256", "ES256", "EdDSA"]),
      tenant: name.optional(),
    }),
  )
  .max(64)
  .refine((list) => new Set(list.map(({ issuer }) => issuer)).size === list.length, "every issuer may be named once");

const origin = z.string().regex(/^[a-z][a-z0-9+.-]*:\/\/[^/\s?#]+$/, "origins, separated by commas");

const settings = z
  .object({
    ISSUER: baseUrl,
    AUDIENCE: name.default("keycard"),
    CLIENT_ID: name.default("keycard"),
    ACCESS_TOKEN_ALG: z.enum(SIGNATURE_ALGORITHMS).default("RS256"),
    ACCESS_TOKEN_TTL_SECONDS: wholeNumber(5, 3600).default(300),
    REFRESH_GRACE_SECONDS: wholeNumber(0, 300).default(30),
    SESSION_IDLE_SECONDS: wholeNumber(60, 31_536_000).default(1_209_600),
    SESSION_MAX_SECONDS: wholeNumber(60, 31_536_000).default(2_592_000),
    // An event names no more targets than 50, and lowering the limit must end the rest with one.
    SESSIONS_PER_ACCOUNT: wholeNumber(1, 50).default(20),
    TRUSTED_TRANSMITTERS: z.string().max(65_536).transform(jsonText).pipe(trustedTransmitters).default([]),
    TRUSTED_ISSUERS: z.string().max(65_536).transform(jsonText).pipe(trustedIssuers).default([]),
    CLUSTERS: z.string().max(65_536).transform(jsonText).pipe(clusters).default([]),
    CLUSTER_SECRETS: z.string().max(1_048_576).transform(jsonText).pipe(clusterSecrets).default(new Map()),
    ALLOWED_ORIGINS: z.string().max(8192).transform(commaSeparated).pipe(z.array(origin).max(64)).default([]),
    KEYCARD_SECRET: secret,
    KEYCARD_SECRET_PREVIOUS: secret.optional(),
    KEY_ROTATION_DAYS: wholeNumber(1, 3650).default(30),
    AUDIT_RETENTION_DAYS: wholeNumber(1, 3650).default(365),
    // Of the 10 GB that an object can hold, so that there is time to let go of something.
    STORAGE_MAX_MEGABYTES: wholeNumber(10, 9000).default(8000),
    ADMIN_TOKEN: secret.optional(),
  })
  .refine((s) => s.KEYCARD_SECRET_PREVIOUS !== s.KEYCARD_SECRET, {
    path: ["KEYCARD_SECRET_PREVIOUS"],
    error: "the same as KEYCARD_SECRET",
    when: hasSecret,
  })
  .refine((s) => s.AUDIENCE !== s.ISSUER, {
    path: ["AUDIENCE"],
    error: "the same as ISSUER, which is the audience of administrators",
    when: hasIssuer,
  })
  .refine((s) => s.ADMIN_TOKEN !== s.KEYCARD_SECRET, {
    path: ["ADMIN_TOKEN"],
    error: "the same as KEYCARD_SECRET",
    when: hasSecret,
  })
  .refine((s) => wrongSecrets(s).length === 0, {
    path: ["CLUSTER_SECRETS"],
    error: ({ input }) => wrongSecrets(input as ClusterSettings).join(", and "),
    when: hasClusters,
  });

interface ClusterSettings {
  readonly CLUSTERS: z.output<typeof clusters>;
  readonly CLUSTER_SECRETS: z.output<typeof clusterSecrets>;
}

/** What is wrong with them, the clusters told by their places. */
function wrongSecrets({ CLUSTERS, CLUSTER_SECRETS }: ClusterSettings): string[] {
  const needy = CLUSTERS.flatMap(({ id }, index) =>
    CLUSTER_SECRETS.get(id) === undefined ? [`CLUSTERS.${index}`] : [],
  );
  const strange = [...CLUSTER_SECRETS.keys()].some((name) => CLUSTERS.every(({ id }) => id !== name));
  const form = `at least ${MIN_CLUSTER_SECRET} characters, or such a secret and another one, the one of before`;
  return [
    ...(needy.length > 0 ? [`needs ${form}, for ${needy.join(", ")}`] : []),
    ...(strange ? ["names something that is no cluster"] : []),
  ];
}

/** Judged beside the other rules, not after them: all problems are named at once. */
function hasSecret({ value }: z.core.ParsePayload): boolean {
  return typeof value === "object" && value !== null && "KEYCARD_SECRET" in value && value.KEYCARD_SECRET !== undefined;
}

function hasIssuer({ value }: z.core.ParsePayload): boolean {
  return typeof value === "object" && value !== null && "ISSUER" in value && value.ISSUER !== undefined;
}

function hasClusters({ value, issues }: z.core.ParsePayload): boolean {
  const wrong = issues.some(({ path }) => path?.[0] === "CLUSTERS" || path?.[0] === "CLUSTER_SECRETS");
  return !wrong && typeof value === "object" && value !== null && "CLUSTERS" in value && "CLUSTER_SECRETS" in value;
}

const judged = new WeakMap<object, Config | Refusal>();

/**
 * @param env the Worker's environment: variables and secrets beside the bindings
 * @throws {Refusal} `unavailable`, whose detail names every setting that is wrong, and none of the values
 */
export function readConfig(env: object): Config {
  let verdict = judged.get(env);
  if (verdict === undefined) {
    verdict = judge(env);
    judged.set(env, verdict);
  }
  if (verdict instanceof Refusal) throw verdict;
  return verdict;
}

function judge(env: object): Config | Refusal {
  const parsed = settings.safeParse(env);
  if (!parsed.success) {
    const problems = parsed.error.issues.map((issue) => `${issue.path.join(".")}: ${problem(issue)}`);
    return new Refusal("unavailable", { detail: `the settings are wrong: ${problems.join("; ")}` });
  }
  const s = parsed.data;
  const before = s.KEYCARD_SECRET_PREVIOUS;
  const secrets: Secrets = before === undefined ? [s.KEYCARD_SECRET] : [s.KEYCARD_SECRET, before];
  return Object.freeze({
    issuer: s.ISSUER,
    audience: s.AUDIENCE,
    clientId: s.CLIENT_ID,
    algorithm: s.ACCESS_TOKEN_ALG,
    accessTokenTtlSeconds: s.ACCESS_TOKEN_TTL_SECONDS,
    refreshGraceSeconds: s.REFRESH_GRACE_SECONDS,
    sessionIdleSeconds: s.SESSION_IDLE_SECONDS,
    sessionMaxSeconds: s.SESSION_MAX_SECONDS,
    sessionsPerAccount: s.SESSIONS_PER_ACCOUNT,
    trustedIssuers: s.TRUSTED_ISSUERS,
    trustedTransmitters: s.TRUSTED_TRANSMITTERS,
    clusters: s.CLUSTERS.flatMap((cluster) => {
      const secrets = s.CLUSTER_SECRETS.get(cluster.id);
      return secrets === undefined ? [] : [{ ...cluster, secrets }];
    }),
    allowedOrigins: s.ALLOWED_ORIGINS,
    secret: secrets,
    keyRotationDays: s.KEY_ROTATION_DAYS,
    auditRetentionDays: s.AUDIT_RETENTION_DAYS,
    storageMaxMegabytes: s.STORAGE_MAX_MEGABYTES,
    adminToken: s.ADMIN_TOKEN,
  });
}

/** zod's own messages never show the value, but a key that it does not know may be one that was mistyped into. */
function problem(issue: z.core.$ZodIssue): string {
  return issue.code === "unrecognized_keys" ? "has a member that is not known" : issue.message;
}

/** As text or, from a hand-written configuration, as a number. */
function wholeNumber(least: number, most: number) {
  return z
    .union([z.string().regex(/^\d{1,10}$/), z.number()], `a whole number from ${least} to ${most}`)
    .transform(Number)
    .pipe(z.number().int().min(least, `at least ${least}`).max(most, `at most ${most}`));
}

function jsonText(text: string, context: z.RefinementCtx): unknown {
  try {
    return JSON.parse(text);
  } catch {
    // The parser's message quotes the text.
    context.addIssue({ code: "custom", message: "not JSON" });
    return z.NEVER;
  }
}

function commaSeparated(text: string): string[] {
  return text
    .split(",")
    .map((part) => part.trim())
    .filter((part) => part !== "");
}

function isBaseUrl(text: string): boolean {
  const url = URL.parse(text);
  if (url === null || text.endsWith("/")) return false;
  return /^https?:$/.test(url.protocol) && url.search === "" && url.hash === "" && url.username === "";
}

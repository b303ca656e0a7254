/**
 * The settings: strings of the environment in, one frozen object out, judged once and with every problem named at once.
 * Values are never repeated in an error, because some are secrets. This is the only place that reads settings.
 */
import { z } from "zod";
import { SIGNATURE_ALGORITHMS, type SignatureAlgorithm } from "#contract/access-token";
import { Refusal } from "#contract/refusal";

export interface ClusterConfig {
  readonly id: string;
  /** Base URLs of its nodes, or of a balancer in front of them. Any one will do. */
  readonly endpoints: readonly string[];
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
  readonly clusters: readonly ClusterConfig[];
  /** Origins besides the edge's own whose pages may use the cookie. */
  readonly allowedOrigins: readonly string[];
  readonly secret: string;
  /** Absent: nobody is an administrator. */
  readonly adminToken: string | undefined;
}

const name = z.string().regex(/^[\x21-\x7e]{1,128}$/, "1 to 128 printable characters without spaces");
const secret = z.string().min(32, "at least 32 characters").max(4096, "at most 4096 characters");

const baseUrl = z.string().refine(isBaseUrl, "an http or https URL without a slash at the end, query or fragment");

const clusters = z
  .array(z.strictObject({ id: name, endpoints: z.array(baseUrl).min(1).max(16) }))
  .max(64)
  .refine((list) => new Set(list.map(({ id }) => id)).size === list.length, "every cluster needs an id of its own");

const origin = z.string().regex(/^[a-z][a-z0-9+.-]*:\/\/[^/\s?#]+$/, "origins, separated by commas");

const settings = z.object({
  ISSUER: baseUrl,
  AUDIENCE: name.default("keycard"),
  CLIENT_ID: name.default("keycard"),
  ACCESS_TOKEN_ALG: z.enum(SIGNATURE_ALGORITHMS).default("RS256"),
  ACCESS_TOKEN_TTL_SECONDS: seconds(5, 3600).default(300),
  REFRESH_GRACE_SECONDS: seconds(0, 300).default(30),
  SESSION_IDLE_SECONDS: seconds(60, 31_536_000).default(1_209_600),
  SESSION_MAX_SECONDS: seconds(60, 31_536_000).default(2_592_000),
  CLUSTERS: z.string().max(65_536).transform(jsonText).pipe(clusters).default([]),
  ALLOWED_ORIGINS: z.string().max(8192).transform(commaSeparated).pipe(z.array(origin).max(64)).default([]),
  KEYCARD_SECRET: secret,
  ADMIN_TOKEN: secret.optional(),
});

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
  return Object.freeze({
    issuer: s.ISSUER,
    audience: s.AUDIENCE,
    clientId: s.CLIENT_ID,
    algorithm: s.ACCESS_TOKEN_ALG,
    accessTokenTtlSeconds: s.ACCESS_TOKEN_TTL_SECONDS,
    refreshGraceSeconds: s.REFRESH_GRACE_SECONDS,
    sessionIdleSeconds: s.SESSION_IDLE_SECONDS,
    sessionMaxSeconds: s.SESSION_MAX_SECONDS,
    clusters: s.CLUSTERS,
    allowedOrigins: s.ALLOWED_ORIGINS,
    secret: s.KEYCARD_SECRET,
    adminToken: s.ADMIN_TOKEN,
  });
}

/** zod's own messages never show the value, but a key that it does not know may be one that was mistyped into. */
function problem(issue: z.core.$ZodIssue): string {
  return issue.code === "unrecognized_keys" ? "has a member that is not known" : issue.message;
}

/** A whole number of seconds, as text or, from a hand-written configuration, as a number. */
function seconds(least: number, most: number) {
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

/** The settings of a node, from its environment, judged once at start with every problem named. */
import { createPrivateKey, randomUUID, X509Certificate } from "node:crypto";
import { readFileSync } from "node:fs";
import { z } from "zod";
import { SIGNATURE_ALGORITHMS } from "#contract/access-token";
import { type ClusterSecrets, MIN_CLUSTER_SECRET } from "#contract/cluster";

/** Stands in REDIS_URL where a host would, when others are named beside it. */
const NO_HOST = "_";
const TLS_FILES = ["REDIS_CA", "REDIS_CERT", "REDIS_KEY"] as const;
/** What may be given as the path of a file as well, under this name and `_FILE`: an environment is shown by many tools. */
const SECRETS = ["CLUSTER_SECRET", "REDIS_URL", "REDIS_SENTINEL_PASSWORD"] as const;

const list = z
  .string()
  .default("")
  .transform((text) =>
    text
      .split(",")
      .map((item) => item.trim())
      .filter((item) => item !== ""),
  );

const seconds = (fallback: number) => z.coerce.number().int().min(1).max(86_400).default(fallback);

const addresses = list.pipe(
  z.array(
    z
      .string()
      .regex(/^(\[[\da-f:.]+\]|[\w.-]+):\d{1,5}$/i, "must be host:port")
      .transform((text) => ({ host: text.replace(/:\d+$/, "").replace(/[[\]]/g, ""), port: Number(/\d+$/.exec(text)) }))
      .refine(({ port }) => port > 0 && port < 65_536, "must be host:port"),
  ),
);

const redisUrl = z.url({ protocol: /^rediss?$/ }).refine((text) => {
  if (!URL.canParse(text)) return true; // said already
  const { pathname, username, password } = new URL(text);
  return /^\/?\d{0,3}$/.test(pathname) && [username, password].every(isPercentEncoded);
}, "its path must be the number of a database, its user and password percent-encoded");

/** The text of the file that is named, if it is what it has to be. */
const pemFile = (what: string, parse: (text: string) => unknown) =>
  z.string().transform((path, context) => {
    try {
      const text = readFileSync(path, "utf8");
      parse(text);
      return text;
    } catch {
      context.addIssue({ code: "custom", message: `must be the path of ${what}` });
      return z.NEVER;
    }
  });
const certificateFile = pemFile("a certificate in PEM", (text) => new X509Certificate(text)).optional();
const keyFile = pemFile("a private key in PEM without a passphrase", createPrivateKey).optional();

const environment = z.object({
  /** 0 takes a free port. */
  PORT: z.coerce.number().int().min(0).max(65_535).default(3000),
  HOST: z.string().min(1).default("0.0.0.0"),
  /** A port of their own for the metrics, which are then nowhere else; 0 takes a free one. */
  METRICS_PORT: z.coerce.number().int().min(0).max(65_535).optional(),
  /** Where that port is; HOST unless given. */
  METRICS_HOST: z.string().min(1).optional(),
  /** Unique in the cluster. */
  NODE_NAME: z
    .string()
    .regex(/^[\w.-]{1,64}$/)
    .default(randomUUID),
  CLUSTER: z.string().min(1).max(64),
  /** What the edge and the nodes of this cluster know: the secret in use and, while it is being replaced, the one before. */
  CLUSTER_SECRET: list
    .pipe(z.array(z.string().min(MIN_CLUSTER_SECRET)).min(1).max(2))
    .transform((secrets) => secrets as unknown as ClusterSecrets),
  /** One server; beside sentinels or a cluster only TLS, user, password and database: `rediss://user:password@_`. */
  REDIS_URL: redisUrl.optional(),
  /** `host:port`, separated by commas, in place of a server. */
  REDIS_SENTINELS: addresses,
  /** What the sentinels call the master. */
  REDIS_MASTER: z.string().min(1).default("mymaster"),
  REDIS_SENTINEL_PASSWORD: z.string().min(1).optional(),
  /** Some servers of a Redis Cluster, `host:port`, separated by commas, in place of a server. */
  REDIS_CLUSTER: addresses,
  /** Paths of PEM files: who signs the servers' certificates, if nobody whom Node knows; and what to show them. */
  REDIS_CA: certificateFile,
  REDIS_CERT: certificateFile,
  REDIS_KEY: keyFile,
  /** How many replicas have to confirm a heartbeat and an event: 1 or more with sentinels, or a failover can lose them. */
  REDIS_WAIT_REPLICAS: z.coerce.number().int().min(0).max(5).default(0),
  /** The edge: the `iss` of its tokens. */
  ISSUER: z.url({ protocol: /^https?$/ }),
  AUDIENCE: z.string().min(1).default("keycard"),
  /** Where the edge's keys are, if not at the usual place below the issuer. */
  JWKS_URL: z.url({ protocol: /^https?$/ }).optional(),
  /** Where its feed of revocations is, if not at the usual place below the issuer. */
  FEED_URL: z.url({ protocol: /^https?$/ }).optional(),
  ALGORITHMS: list.pipe(z.array(z.enum(SIGNATURE_ALGORITHMS))),
  /** Origins of the pages that may connect, separated by commas; none means no browser. */
  ALLOWED_ORIGINS: list.pipe(z.array(z.union([z.url({ protocol: /^https?$/ }), z.literal("*")]))),
  /** A module whose default export is called with the Socket.IO server and the door. */
  HANDLERS: z.string().optional(),
  LOG_LEVEL: z.enum(["fatal", "error", "warn", "info", "debug", "silent"]).default("info"),
  LEASE_SECONDS: seconds(5),
  /** How long a node that reaches neither Redis nor the edge keeps the sockets that it has. */
  FENCED_KEEP_SECONDS: z.coerce.number().int().min(0).max(86_400).default(0),
  /** Lets clients connect without a token and show it within this time, in the event `authenticate`; 0 is off. */
  LOBBY_SECONDS: z.coerce.number().int().min(0).max(60).default(0),
  /** How long before its token's end a socket is told. */
  EXPIRY_LEAD_SECONDS: seconds(30),
  /** A cookie that holds an access token, believed only from ALLOWED_ORIGINS; none unless given. */
  TOKEN_COOKIE: z
    .string()
    .regex(/^[\w!#$%&'*+.^`|~-]{1,64}$/)
    .optional(),
  /** Whether a single-use ticket in the query is accepted. */
  QUERY_TICKET: z.enum(["on", "off"]).default("off"),
  /** Whether an access token in the query is accepted: it ends up in the logs of proxies. */
  QUERY_TOKEN: z.enum(["on", "off"]).default("off"),
  /** Proxies whose `X-Forwarded-For` is believed: addresses and networks, separated by commas. */
  TRUSTED_PROXIES: list.pipe(z.array(z.union([z.ipv4(), z.ipv6(), z.cidrv4(), z.cidrv6()]))),
  /** Off where others than nodes speak on the adapter's channels, as `@socket.io/redis-emitter` does: then so can whoever writes to Redis. */
  SEALED_ADAPTER: z.enum(["on", "off"]).default("on"),
  /** On where handlers read more of `socket.request` later than in their `connection` listeners: it is then kept whole. */
  KEEP_REQUEST: z.enum(["on", "off"]).default("off"),
  /** How long open sockets are given to go elsewhere when the node stops. */
  DRAIN_SECONDS: seconds(10),
});

export type Config = Readonly<z.infer<typeof environment>>;

/** @throws {Error} one line for each setting that is wrong; values are not repeated, they may be secret */
export function readConfig(environ: NodeJS.ProcessEnv): Config {
  const { env, unread } = withSecretFiles(environ);
  const parsed = environment.safeParse(env);
  const wrong = parsed.error?.issues.map((issue) => `${issue.path.join(".")}: ${issue.message}`) ?? [];
  const problems = [...unread, ...wrong, ...conflictsIn(env)];
  if (parsed.success && problems.length === 0) return Object.freeze(parsed.data);
  throw new Error(`These settings are missing or wrong:\n${problems.map((problem) => `  ${problem}`).join("\n")}`);
}

/** The environment with what stands in files, and what is wrong with those. */
function withSecretFiles(environ: NodeJS.ProcessEnv): { readonly env: NodeJS.ProcessEnv; readonly unread: string[] } {
  const env = { ...environ };
  const unread: string[] = [];
  for (const name of SECRETS) {
    const path = environ[`${name}_FILE`];
    if (path === undefined) continue;
    if (environ[name] !== undefined) unread.push(`${name}_FILE: not together with ${name}`);
    try {
      env[name] = readFileSync(path, "utf8").trim();
    } catch {
      unread.push(`${name}_FILE: must be the path of a file that can be read`);
    }
  }
  return { env, unread };
}

/** What no setting says alone: whether it goes with the others. */
function conflictsIn(env: NodeJS.ProcessEnv): string[] {
  const { REDIS_URL, REDIS_SENTINELS = "", REDIS_CLUSTER = "", REDIS_CERT, REDIS_KEY } = env;
  const url = REDIS_URL !== undefined && URL.canParse(REDIS_URL) ? new URL(REDIS_URL) : undefined;
  const isMany = REDIS_SENTINELS !== "" || REDIS_CLUSTER !== "";
  const namesNone = url?.hostname === NO_HOST;
  const isTls = url?.protocol === "rediss:";
  const rows: readonly (readonly [boolean, string])[] = [
    [REDIS_URL === undefined && !isMany, "REDIS_URL: missing, and so are REDIS_SENTINELS and REDIS_CLUSTER"],
    [REDIS_SENTINELS !== "" && REDIS_CLUSTER !== "", "REDIS_CLUSTER: not together with REDIS_SENTINELS"],
    [namesNone && !isMany, "REDIS_URL: names no server"],
    [
      url !== undefined && !namesNone && isMany,
      "REDIS_URL: its host must be _ beside REDIS_SENTINELS or REDIS_CLUSTER",
    ],
    [REDIS_CLUSTER !== "" && /[1-9]/.test(url?.pathname ?? ""), "REDIS_URL: a cluster has no database but 0"],
    ...TLS_FILES.map((name) => [env[name] !== undefined && !isTls, `${name}: only with rediss: in REDIS_URL`] as const),
    [env.METRICS_HOST !== undefined && env.METRICS_PORT === undefined, "METRICS_HOST: only with METRICS_PORT"],
    [
      env.METRICS_PORT !== undefined && env.METRICS_PORT !== "0" && env.METRICS_PORT === (env.PORT ?? "3000"),
      "METRICS_PORT: the same as PORT",
    ],
    [(REDIS_CERT === undefined) !== (REDIS_KEY === undefined), "REDIS_CERT, REDIS_KEY: not one without the other"],
  ];
  return rows.filter(([isBroken]) => isBroken).map(([, problem]) => problem);
}

function isPercentEncoded(text: string): boolean {
  try {
    decodeURIComponent(text);
    return true;
  } catch {
    return false; // a % that begins nothing
  }
}

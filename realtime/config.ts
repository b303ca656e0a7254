/** The settings of a node, from its environment, judged once at start with every problem named. */
import { z } from "zod";
import { SIGNATURE_ALGORITHMS } from "#contract/access-token";

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

const environment = z.object({
  /** 0 takes a free port. */
  PORT: z.coerce.number().int().min(0).max(65_535).default(3000),
  HOST: z.string().min(1).default("0.0.0.0"),
  /** Unique in the cluster. */
  NODE_NAME: z
    .string()
    .regex(/^[\w.-]{1,64}$/)
    .optional(),
  CLUSTER: z.string().min(1).max(64),
  REDIS_URL: z.url({ protocol: /^rediss?$/ }),
  /** The edge: the `iss` of its tokens. */
  ISSUER: z.url({ protocol: /^https?$/ }),
  AUDIENCE: z.string().min(1).default("keycard"),
  /** Where the edge's keys are, if not at the usual place below the issuer. */
  JWKS_URL: z.url({ protocol: /^https?$/ }).optional(),
  ALGORITHMS: list.pipe(z.array(z.enum(SIGNATURE_ALGORITHMS))),
  /** Origins of the pages that may connect, separated by commas; none means no browser. */
  ALLOWED_ORIGINS: list.pipe(z.array(z.union([z.url({ protocol: /^https?$/ }), z.literal("*")]))),
  /** A module whose default export is called with the Socket.IO server and the door. */
  HANDLERS: z.string().optional(),
  LOG_LEVEL: z.enum(["fatal", "error", "warn", "info", "debug", "silent"]).default("info"),
  LEASE_SECONDS: seconds(5),
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
  /** How long open sockets are given to go elsewhere when the node stops. */
  DRAIN_SECONDS: seconds(10),
});

export type Config = Readonly<z.infer<typeof environment>>;

/** @throws {Error} one line for each setting that is wrong; values are not repeated, they may be secret */
export function readConfig(env: NodeJS.ProcessEnv): Config {
  const parsed = environment.safeParse(env);
  if (parsed.success) return Object.freeze(parsed.data);
  const problems = parsed.error.issues.map((issue) => `  ${issue.path.join(".")}: ${issue.message}`);
  throw new Error(`These settings are missing or wrong:\n${problems.join("\n")}`);
}

/**
 * The shapes of what the edge answers, for the document that describes it. Answers are made from types, not from these; a test calls
 * every operation and holds the two against each other.
 */
import { z } from "zod";
import { REFUSALS, type RefusalCode } from "#contract/refusal";
import { AUDIT_TYPES } from "../audit/audit.ts";
import { ADMIN_SCOPES } from "../clients/admin-scope.ts";

const seconds = z.int().describe("Seconds since the epoch.");
const milliseconds = z.int().describe("Milliseconds since the epoch.");
const text = z.string();

export const tokens = z.object({
  access_token: text,
  token_type: z.literal("Bearer"),
  expires_in: z.int(),
  scope: text.optional(),
  refresh_token: text.optional().describe("Absent for a browser, which has it in a cookie."),
  refresh_token_expires_in: z.int().optional(),
  sid: text.optional(),
  sub: text.optional(),
  issued_token_type: text.optional().describe("After a token exchange, RFC 8693."),
});

export const ticket = z.object({ ticket: text, expires_in: z.int() });

const origin = z.object({
  address: text.optional(),
  country: text.optional(),
  region: text.optional(),
  city: text.optional(),
});

const session = z.object({
  sid: text,
  device: text.nullable(),
  user_agent: text.nullable(),
  origin,
  method: z.enum(["password", "token_exchange", "backend"]),
  scope: text.nullable(),
  created_at: seconds,
  last_used_at: seconds,
  idle_expires_at: seconds,
  absolute_expires_at: seconds,
  expires_at: seconds,
});
export const sessions = z.object({ sessions: z.array(session.extend({ current: z.boolean() })) });

const link = z.object({ issuer: text, subject: text });
export const newAccount = z.object({
  sub: text,
  login: text.optional(),
  link: link.optional(),
  tid: text.optional(),
  scope: text.optional(),
});
export const account = z.object({
  sub: text,
  login: text.optional(),
  tid: text.optional(),
  scope: text.optional(),
  generation: z.int(),
  disabled: z.boolean(),
  disabled_until: seconds.optional(),
  links: z.array(link),
  sessions: z.array(session),
  revocation: text.optional(),
});
export const accountPage = z.object({
  accounts: z.array(
    account
      .pick({ sub: true, login: true, tid: true, disabled: true, disabled_until: true })
      .extend({ created_at: seconds.optional().describe("Absent where it was made before this was kept.") }),
  ),
  next: text.optional().describe("The `after` of the next page."),
});
export const deletedAccount = z.object({ revocation: text });

const actor = z.object({ kind: z.enum(["user", "admin", "client", "account", "system"]), id: text });
const target = z.discriminatedUnion("kind", [
  z.object({ kind: z.literal("token"), jti: text }),
  z.object({ kind: z.literal("session"), sid: text }),
  z.object({ kind: z.literal("user"), sub: text, generation: z.int() }),
  z.object({ kind: z.literal("subject"), sub: text, cutoff: seconds }),
  z.object({ kind: z.literal("tenant"), tid: text, cutoff: seconds }),
  z.object({ kind: z.literal("key"), kid: text }),
  z.object({ kind: z.literal("everyone"), cutoff: seconds }),
]);
const clusterLine = z.object({
  cluster: text,
  delivered_at: milliseconds.optional(),
  attempts: z.int(),
  last_error: text.optional(),
  expected: z.array(text),
  applied: z.array(z.object({ node: text, applied_at: milliseconds, closed: z.int() })),
  pending: z.array(text),
  fenced: z
    .array(z.object({ node: text, fenced_at: milliseconds }))
    .describe("Nodes that gave no word, but whose lease is over, and their sockets with it."),
  expired: z.literal(true).optional().describe("No token that it hits is alive any more, whoever is still pending."),
  enforced_at: milliseconds.optional(),
});
const receipt = z.object({
  id: text,
  target: target.optional(),
  reason: text,
  actor: actor.optional(),
  request: text.optional().describe("`X-Request-Id` of the call that it was decided in."),
  batch: text.optional().describe("The bulk revocation that it is a part of."),
  code: z.enum(["token_revoked", "session_revoked", "refresh_reused"]),
  mode: z.enum(["disconnect", "reauthenticate"]),
  margin: z.int().optional(),
  seq: z.int().optional(),
  created_at: milliseconds,
  state: z.enum(["pending", "delivered", "enforced", "no_clusters"]),
  enforced_at: milliseconds.optional(),
  clusters: z.array(clusterLine),
  closed: z.int(),
  proof: text
    .optional()
    .describe("Once enforced: a JWT `typ: revocation-receipt+jwt` with the receipt, by a key of `purpose` events."),
});
const bulkReceipt = z.object({
  id: text,
  reason: text,
  actor: actor.optional(),
  request: text.optional(),
  created_at: milliseconds,
  state: z.enum(["pending", "decided", "delivered", "enforced"]),
  users: z.int(),
  revoked: z.int(),
  not_found: z.int(),
  remaining: z.int(),
  clusters: z.array(z.object({ cluster: text, delivered: z.int() })),
});
const rehearsal = z.object({
  dry_run: z.literal(true),
  target: z.looseObject({ kind: text }),
  sessions: z.int().nullable().describe("Null where nobody counts them without going through every account."),
  sockets: z.int().nullable().describe("In all clusters; null when one could not be asked."),
  clusters: z.array(
    z.object({
      cluster: text,
      sockets: z.int().nullable(),
      sessions: z.int().nullable().describe("With a socket open; approximate when there are many."),
      silent: z.array(text).describe("Nodes that did not answer in time."),
    }),
  ),
});
export const revocation = { accepted: receipt, rehearsed: rehearsal, bulk: bulkReceipt };
export const anyReceipt = z.union([receipt, bulkReceipt]);
export const receiptPage = z.object({
  receipts: z.array(z.union([receipt.omit({ proof: true }), bulkReceipt])),
  next: text.optional().describe("The `after` of the next page."),
});

export const feedPage = text.describe("A JWT `typ: revocations+jwt`, signed for the cluster that asks.");

const redis = z
  .object({ reachable: z.boolean() })
  .optional()
  .describe("Absent where nobody of the cluster could be asked.");
const silent = z.array(text).describe("Nodes that may be alive and were not heard.");
const unasked = text.optional().describe("Why nobody of the cluster could be asked.");
const listedSocket = z.object({
  id: text,
  sid: text,
  nsp: text,
  transport: text,
  connected_at: seconds,
  expires_at: seconds.describe("When its token ends, seconds since the epoch."),
});
export const sockets = z.object({
  sub: text,
  at: milliseconds,
  sockets: z.int().nullable().describe("In all clusters; null when one could not be asked."),
  clusters: z.array(
    z.object({
      cluster: text,
      sockets: z.int().nullable(),
      nodes: z.array(z.object({ node: text, sockets: z.int(), listed: z.array(listedSocket) })),
      silent,
      redis,
      error: unasked,
    }),
  ),
});
export const latency = z.object({
  since: milliseconds,
  until: milliseconds,
  step: z.int().describe("Seconds."),
  buckets: z.array(
    z.object({
      at: milliseconds.describe("When it begins. Steps in which nothing was decided that is enforced are left out."),
      count: z.int(),
      expired: z.int().describe("Of these, enforced only because no token was alive any more."),
      p50: z.int().describe("Milliseconds, at most 9 % too much; as the next."),
      p90: z.int(),
      max: z.int().describe("Milliseconds."),
    }),
  ),
});
export const status = z.object({
  at: milliseconds,
  version: text,
  log: z.object({ head: z.int(), open: z.int(), oldest_open_at: milliseconds.optional() }),
  clusters: z.array(
    z.object({
      cluster: text,
      endpoints: z
        .array(z.object({ origin: text, reachable: z.boolean().optional(), error: text.optional() }))
        .describe("In the order in which they were tried; the last ones may not have been needed."),
      undelivered: z.int().describe("Counted to 10,000."),
      oldest_undelivered_at: milliseconds.optional(),
      last_delivered_at: milliseconds.optional(),
      last_error: text.optional().describe("Of the delivery that waits the longest."),
      open_receipts: z.int().describe("Counted to 10,000."),
      redis,
      nodes: z.array(
        z.object({
          node: text,
          boot: text,
          version: text,
          started_at: milliseconds,
          ready: z.boolean(),
          link: z.enum(["redis", "feed", "none"]),
          lease_ms: z.int(),
          applied: z.int().describe("Every event of the log up to here."),
          sockets: z.int(),
          gap: z.boolean(),
          unsettled: z.int(),
          log_silence_ms: z.int().nullable(),
        }),
      ),
      silent,
      error: unasked,
    }),
  ),
});
export const metrics = text.regex(/^# HELP /).describe("The text exposition format, version 0.0.4.");

export const client = z.object({
  client_id: text,
  name: text,
  scopes: z.array(z.enum(ADMIN_SCOPES)),
  tid: text.optional(),
  authentication: z.enum(["client_secret", "private_key_jwt"]),
  disabled: z.boolean(),
  created_at: milliseconds,
  client_secret: text.optional().describe("Shown once, when the client is made."),
});

export const principal = z.object({
  kind: z.enum(["root", "client", "account"]),
  id: text.describe("`root`, a client_id or a sub."),
  scopes: z.array(z.enum(ADMIN_SCOPES)),
  tid: text.optional().describe("The one tenant that it reaches."),
  name: text.optional().describe("Of a client."),
  login: text.optional().describe("Of an account."),
  sid: text.optional().describe("Of an account: the session that the token is of."),
});

export const key = z.object({
  kid: text,
  alg: text,
  purpose: z.enum(["access", "events"]),
  state: z.enum(["next", "current", "retiring", "gone"]),
  created_at: milliseconds,
  current_at: milliseconds.optional(),
  rotates_at: milliseconds.optional(),
  retiring_at: milliseconds.optional(),
  gone_at: milliseconds.optional(),
  reason: text.optional(),
});
export const keys = z.object({ keys: z.array(key), revocation: text.optional() });

const auditRecord = z.object({
  position: z.int(),
  recorded_at: milliseconds,
  hash: text,
  id: text,
  at: milliseconds,
  type: z.enum(AUDIT_TYPES),
  actor,
  sub: text.optional(),
  sid: text.optional(),
  tid: text.optional(),
  revocation: text.optional(),
  client: text.optional(),
  kid: text.optional(),
  reason: text.optional(),
  receipt: text.optional().describe("The proof of a revocation that was enforced."),
  from: origin.extend({ user_agent: text.optional() }).optional(),
  request: text.optional(),
});
export const auditPage = z.object({ records: z.array(auditRecord), next: z.int().optional() });
export const auditVerification = z.looseObject({ intact: z.boolean(), checked: z.int() });

export const stream = z.object({
  stream_id: text,
  iss: text,
  aud: text,
  events_supported: z.array(text),
  events_requested: z.array(text),
  events_delivered: z.array(text),
  delivery: z.object({ method: text, endpoint_url: text }),
  description: text.optional(),
});
export const streamStatus = z.object({ stream_id: text, status: z.literal("enabled"), reason: text.optional() });
export const poll = z.object({ sets: z.record(text, text), moreAvailable: z.boolean() });

export const jwkSet = z.object({ keys: z.array(z.looseObject({ kty: text, kid: text, alg: text, use: text })) });
export const metadata = z.looseObject({ issuer: text });
export const health = z.object({ status: z.literal("ok") });
export const introspection = z.union([
  z.looseObject({ active: z.literal(true), iss: text, sub: text }),
  z.object({ active: z.literal(false) }),
]);

const codes = Object.keys(REFUSALS) as [RefusalCode, ...RefusalCode[]];
export const problem = z.object({
  type: text,
  title: text,
  status: z.int(),
  code: z.enum(codes),
  advice: z.enum(["login", "refresh", "retry", "wait", "fix"]),
  retry_after: z.int().optional(),
  errors: z.array(z.object({ member: text, problem: text })).optional(),
});
export const oauthProblem = z.object({ error: text, error_description: text.optional() });
export const setProblem = z.object({ err: text, description: text });

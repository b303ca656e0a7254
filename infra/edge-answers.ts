/**
 * What an edge answers, as those read it who talk to one: judged, because anything can stand behind an address. Members that are
 * not known are kept, so that a newer edge is understood and `--json` shows all there is.
 *
 * Times in names that end in `_at` are seconds since the epoch in sessions and accounts, and milliseconds everywhere else.
 */
import { z } from "zod";

const text = z.string();
const count = z.number().int();
const moment = z.number();

export const nothing = z.looseObject({});
export const health = z.looseObject({ status: z.literal("ok") });
/** RFC 8414 section 2. */
export const metadata = z.looseObject({ issuer: text, token_endpoint: text, jwks_uri: text });

export const tokens = z.looseObject({
  access_token: text,
  token_type: z.literal("Bearer"),
  /** Seconds. */
  expires_in: count,
  refresh_token: text,
  sid: text,
  sub: text,
  scope: text.optional(),
});
export type Tokens = z.output<typeof tokens>;

/** Of a client: without a session, and so without a refresh token. */
export const clientTokens = z.looseObject({ access_token: text, expires_in: count, scope: text.optional() });

export const me = z.looseObject({
  kind: text,
  id: text,
  scopes: z.array(text),
  tid: text.optional(),
  /** Of a person. */
  login: text.optional(),
  /** Of a client. */
  name: text.optional(),
});
export type Me = z.output<typeof me>;

const link = z.looseObject({ issuer: text, subject: text });
export const newAccount = z.looseObject({
  sub: text,
  login: text.optional(),
  tid: text.optional(),
  scope: text.optional(),
});
export const session = z.looseObject({
  sid: text,
  device: text.nullable(),
  user_agent: text.nullable(),
  origin: z.looseObject({ address: text.optional(), country: text.optional(), city: text.optional() }),
  method: text,
  scope: text.nullable(),
  created_at: moment,
  last_used_at: moment,
  expires_at: moment,
});
export type Session = z.output<typeof session>;
export const account = z.looseObject({
  sub: text,
  login: text.optional(),
  tid: text.optional(),
  scope: text.optional(),
  generation: count,
  disabled: z.boolean(),
  disabled_until: moment.optional(),
  links: z.array(link),
  sessions: z.array(session),
  revocation: text.optional(),
});
export type Account = z.output<typeof account>;
export const deletedAccount = z.looseObject({ revocation: text });

export const accountPage = z.looseObject({
  accounts: z.array(
    z.looseObject({
      sub: text,
      login: text.optional(),
      tid: text.optional(),
      disabled: z.boolean(),
      disabled_until: moment.optional(),
      created_at: moment.optional(),
    }),
  ),
  next: text.optional(),
});
export type AccountPage = z.output<typeof accountPage>;

const redis = z.looseObject({ reachable: z.boolean() });
export const sockets = z.looseObject({
  sub: text,
  /** In all clusters; null when one could not be asked. */
  sockets: count.nullable(),
  clusters: z.array(
    z.looseObject({
      cluster: text,
      sockets: count.nullable(),
      nodes: z.array(
        z.looseObject({
          node: text,
          sockets: count,
          listed: z.array(
            z.looseObject({
              id: text,
              sid: text.optional(),
              nsp: text,
              transport: text,
              connected_at: moment,
              expires_at: moment.optional(),
            }),
          ),
        }),
      ),
      silent: z.array(text),
      redis: redis.optional(),
      error: text.optional(),
    }),
  ),
});
export type Sockets = z.output<typeof sockets>;

const clusterLine = z.looseObject({
  cluster: text,
  delivered_at: moment.optional(),
  attempts: count,
  last_error: text.optional(),
  expected: z.array(text),
  applied: z.array(z.looseObject({ node: text, applied_at: moment, closed: count })),
  pending: z.array(text),
  fenced: z.array(z.looseObject({ node: text, fenced_at: moment })),
  expired: z.boolean().optional(),
  enforced_at: moment.optional(),
});
export type ClusterLine = z.output<typeof clusterLine>;
export const target = z.looseObject({ kind: text });
export type Target = z.output<typeof target>;
export const receipt = z.looseObject({
  id: text,
  target: target.optional(),
  reason: text,
  actor: z.looseObject({ kind: text, id: text }).optional(),
  code: text,
  mode: text.optional(),
  margin: count.optional(),
  seq: count.optional(),
  created_at: moment,
  state: z.enum(["pending", "delivered", "enforced", "no_clusters"]),
  enforced_at: moment.optional(),
  clusters: z.array(clusterLine),
  closed: count,
  proof: text.optional(),
});
export type Receipt = z.output<typeof receipt>;
export const bulkReceipt = z.looseObject({
  id: text,
  reason: text,
  created_at: moment,
  state: z.enum(["pending", "decided", "delivered", "enforced"]),
  users: count,
  revoked: count,
  not_found: count,
  remaining: count,
  clusters: z.array(z.looseObject({ cluster: text, delivered: count })),
});
export type BulkReceipt = z.output<typeof bulkReceipt>;
export const anyReceipt = z.union([receipt, bulkReceipt]);
export const receiptPage = z.looseObject({ receipts: z.array(anyReceipt), next: text.optional() });
export type ReceiptPage = z.output<typeof receiptPage>;
export const rehearsal = z.looseObject({
  dry_run: z.literal(true),
  target,
  sessions: count.nullable(),
  sockets: count.nullable(),
  clusters: z.array(
    z.looseObject({ cluster: text, sockets: count.nullable(), sessions: count.nullable(), silent: z.array(text) }),
  ),
});
export type Rehearsal = z.output<typeof rehearsal>;

export const client = z.looseObject({
  client_id: text,
  name: text,
  scopes: z.array(text),
  tid: text.optional(),
  authentication: text,
  disabled: z.boolean(),
  created_at: moment,
  client_secret: text.optional(),
});
export type Client = z.output<typeof client>;

export const key = z.looseObject({
  kid: text,
  alg: text,
  purpose: text,
  state: text,
  created_at: moment,
  rotates_at: moment.optional(),
  gone_at: moment.optional(),
  reason: text.optional(),
});
export type Key = z.output<typeof key>;
export const keys = z.looseObject({ keys: z.array(key), revocation: text.optional() });

export const auditRecord = z.looseObject({
  position: count,
  at: moment,
  type: text,
  actor: z.looseObject({ kind: text, id: text }),
  sub: text.optional(),
  sid: text.optional(),
  tid: text.optional(),
  revocation: text.optional(),
  client: text.optional(),
  kid: text.optional(),
  reason: text.optional(),
  from: z.looseObject({ address: text.optional(), country: text.optional() }).optional(),
});
export type AuditRecord = z.output<typeof auditRecord>;
export const auditPage = z.looseObject({ records: z.array(auditRecord), next: count.optional() });
const chainLink = z.looseObject({ position: count, hash: text });
export const auditVerification = z.looseObject({
  intact: z.boolean(),
  checked: count,
  anchor: chainLink,
  head: chainLink,
  next: count.optional(),
  broken: z.looseObject({ position: count, problem: text }).optional(),
});
export type AuditVerification = z.output<typeof auditVerification>;

export const status = z.looseObject({
  at: moment,
  version: text,
  log: z.looseObject({ head: count, open: count }),
  clusters: z.array(
    z.looseObject({
      cluster: text,
      endpoints: z.array(z.looseObject({ origin: text, reachable: z.boolean().optional(), error: text.optional() })),
      undelivered: count,
      oldest_undelivered_at: moment.optional(),
      last_delivered_at: moment.optional(),
      last_error: text.optional(),
      open_receipts: count,
      error: text.optional(),
      redis: redis.optional(),
      nodes: z.array(
        z.looseObject({
          node: text,
          boot: text,
          version: text,
          started_at: moment,
          ready: z.boolean(),
          link: text,
          lease_ms: z.number(),
          applied: count,
          sockets: count,
          gap: z.boolean(),
          unsettled: count,
          log_silence_ms: z.number().nullable(),
        }),
      ),
      silent: z.array(text),
    }),
  ),
});
export type Status = z.output<typeof status>;

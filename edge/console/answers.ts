/** What the edge's operator API answers, as far as the console looks at it: PROTOCOL, "The edge". */
import type { RefusalCode } from "#contract/refusal";

export type Scope =
  | "revocations:write"
  | "revocations:read"
  | "sessions:read"
  | "sessions:write"
  | "accounts:read"
  | "accounts:write"
  | "audit:read"
  | "keys:write"
  | "clients:write";

/** `GET /admin/me` */
export interface Me {
  readonly kind: "root" | "client" | "account";
  readonly id: string;
  readonly scopes: readonly Scope[];
  /** Absent: every tenant. */
  readonly tid?: string;
  readonly login?: string;
  readonly sid?: string;
}

/** A line of `GET /admin/accounts?query=` */
export interface AccountLine {
  readonly sub: string;
  readonly login?: string;
  readonly tid?: string;
  readonly disabled: boolean;
  readonly disabled_until?: number;
  /** Seconds; absent for an account that is older than the directory. */
  readonly created_at?: number;
}

export interface AccountPage {
  readonly accounts: readonly AccountLine[];
  readonly next?: string;
}

/** One sign-in; times in seconds. */
export interface Session {
  readonly sid: string;
  readonly device?: string | null;
  readonly user_agent?: string | null;
  readonly origin?: {
    readonly address?: string;
    readonly country?: string;
    readonly region?: string;
    readonly city?: string;
  };
  readonly method: string;
  readonly scope?: string | null;
  readonly created_at: number;
  readonly last_used_at: number;
  readonly expires_at: number;
}

/** `GET /admin/accounts/:sub` */
export interface Account {
  readonly sub: string;
  readonly login?: string;
  readonly tid?: string;
  readonly scope?: string;
  readonly generation: number;
  readonly disabled: boolean;
  readonly disabled_until?: number;
  readonly links: readonly { readonly issuer: string; readonly subject: string }[];
  readonly sessions: readonly Session[];
  /** Of the revocation that a change brought with it. */
  readonly revocation?: string;
}

/** `GET /admin/accounts/:sub/sockets`; times in seconds. Null is what nobody could count. */
export interface Sockets {
  readonly sockets: number | null;
  readonly clusters: readonly SocketCluster[];
}

export interface SocketCluster {
  readonly cluster: string;
  readonly sockets: number | null;
  /** `sockets` are all, `listed` the first so many. */
  readonly nodes: readonly {
    readonly node: string;
    readonly sockets: number;
    readonly listed: readonly LiveSocket[];
  }[];
  readonly silent: readonly string[];
  readonly redis?: { readonly reachable: boolean };
  readonly error?: string;
}

export interface LiveSocket {
  readonly id: string;
  readonly sid: string;
  readonly nsp: string;
  readonly transport: string;
  readonly connected_at: number;
  readonly expires_at: number;
}

/** As an administrator names it. */
export type Target =
  | { readonly kind: "token"; readonly jti: string }
  | { readonly kind: "token"; readonly token: string }
  | { readonly kind: "session"; readonly sid: string }
  | { readonly kind: "user"; readonly sub: string }
  | { readonly kind: "user"; readonly login: string }
  | { readonly kind: "tenant"; readonly tid: string }
  | { readonly kind: "key"; readonly kid: string }
  | { readonly kind: "everyone" };

export interface RevocationRequest {
  readonly target: Target;
  readonly reason: string;
  readonly mode?: "disconnect" | "reauthenticate";
  /** Seconds, with `reauthenticate`. */
  readonly margin?: number;
  readonly except?: string;
  readonly dry_run?: boolean;
}

/** What a dry run counts; null is what nobody could count. */
export interface Preview {
  readonly sessions: number | null;
  readonly sockets: number | null;
  readonly clusters: readonly {
    readonly cluster: string;
    readonly sockets: number | null;
    readonly sessions: number | null;
    readonly silent: readonly string[];
  }[];
}

/** Times in milliseconds. */
export interface Receipt {
  readonly id: string;
  readonly target?: {
    readonly kind: string;
    readonly sub?: string;
    readonly sid?: string;
    readonly tid?: string;
    readonly jti?: string;
    readonly kid?: string;
  };
  readonly reason: string;
  readonly actor?: { readonly kind: string; readonly id: string };
  readonly code: RefusalCode;
  readonly mode: "disconnect" | "reauthenticate";
  readonly margin?: number;
  readonly seq?: number;
  readonly created_at: number;
  readonly state: "pending" | "delivered" | "enforced" | "no_clusters";
  readonly enforced_at?: number;
  readonly clusters: readonly ClusterReceipt[];
  readonly closed: number;
  readonly proof?: string;
  /** `X-Request-Id` of the call that decided it. */
  readonly request?: string;
  /** The bulk revocation that it is a part of. */
  readonly batch?: string;
}

export interface ClusterReceipt {
  readonly cluster: string;
  readonly delivered_at?: number;
  readonly attempts: number;
  readonly last_error?: string;
  readonly expected: readonly string[];
  readonly applied: readonly { readonly node: string; readonly applied_at: number; readonly closed: number }[];
  readonly pending: readonly string[];
  readonly fenced: readonly { readonly node: string; readonly fenced_at: number }[];
  readonly enforced_at?: number;
  readonly expired?: true;
}

/** Many people in one call; `GET /admin/revocations/blk_…` */
export interface BulkReceipt {
  readonly id: string;
  readonly reason: string;
  readonly created_at: number;
  readonly state: "pending" | "decided" | "delivered" | "enforced";
  readonly users: number;
  readonly revoked: number;
  readonly not_found: number;
  readonly remaining: number;
  readonly clusters: readonly { readonly cluster: string; readonly delivered: number }[];
}

/** `GET /admin/revocations`, the newest first. */
export interface RevocationPage {
  readonly receipts: readonly (Receipt | BulkReceipt)[];
  readonly next?: string;
}

/** Times in milliseconds. */
export interface AuditRecord {
  readonly position: number;
  readonly recorded_at: number;
  readonly hash: string;
  readonly id: string;
  readonly at: number;
  readonly type: string;
  readonly actor: { readonly kind: string; readonly id: string };
  readonly sub?: string;
  readonly sid?: string;
  readonly tid?: string;
  readonly revocation?: string;
  readonly client?: string;
  readonly kid?: string;
  readonly reason?: string;
  readonly receipt?: string;
  readonly from?: { readonly address?: string; readonly country?: string; readonly user_agent?: string };
  readonly request?: string;
}

export interface AuditPage {
  readonly records: readonly AuditRecord[];
  readonly next?: number;
}

/** `GET /admin/audit/verify` */
export interface Verification {
  readonly intact: boolean;
  readonly checked: number;
  readonly anchor: { readonly position: number; readonly hash: string };
  readonly head: { readonly position: number; readonly hash: string };
  readonly next?: number;
  readonly broken?: { readonly position: number; readonly problem: string };
}

/** `GET /admin/status`; times in milliseconds. */
export interface Status {
  readonly at: number;
  readonly version: string;
  readonly log: { readonly head: number; readonly open: number };
  readonly clusters: readonly ClusterStatus[];
}

export interface ClusterStatus {
  readonly cluster: string;
  readonly endpoints: readonly { readonly origin: string; readonly reachable?: boolean; readonly error?: string }[];
  readonly undelivered: number;
  readonly oldest_undelivered_at?: number;
  readonly last_delivered_at?: number;
  /** Of the delivery that is stuck. */
  readonly last_error?: string;
  readonly open_receipts: number;
  readonly error?: string;
  readonly redis?: { readonly reachable: boolean };
  readonly nodes: readonly NodeStatus[];
  readonly silent: readonly string[];
}

export interface NodeStatus {
  readonly node: string;
  readonly boot: string;
  readonly version: string;
  readonly started_at: number;
  readonly ready: boolean;
  readonly link: "redis" | "feed" | "none";
  readonly lease_ms: number;
  /** Everything up to this number of the log is applied. */
  readonly applied: number;
  readonly sockets: number;
  readonly gap: boolean;
  readonly unsettled: number;
  readonly log_silence_ms: number | null;
}

/** `GET /admin/latency`: from the decision to `enforced`, of receipts that are; times and durations in milliseconds. */
export interface Latency {
  readonly since: number;
  readonly until: number;
  /** Seconds. */
  readonly step: number;
  /** Those in which there was a revocation. */
  readonly buckets: readonly LatencyBucket[];
}

export interface LatencyBucket {
  readonly at: number;
  readonly count: number;
  /** Of them only because every token had ended. */
  readonly expired: number;
  readonly p50: number;
  readonly p90: number;
  readonly max: number;
}

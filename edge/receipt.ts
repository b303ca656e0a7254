/** What an operator is shown of a revocation: who has taken it, which nodes have applied it, how many sockets it closed. */
import type {
  ClusterReceipt,
  NodeReceipt,
  RevocationCode,
  RevocationManner,
  RevocationTarget,
} from "#contract/revocation";
import type { AuditActor } from "./audit.ts";

/** What the log knows of one event and one cluster. Times in milliseconds since the epoch. */
export interface ClusterState {
  readonly cluster: string;
  readonly delivered_at?: number;
  readonly attempts: number;
  readonly last_error?: string;
  readonly receipt?: ClusterReceipt;
}

export interface Receipt {
  readonly id: string;
  readonly target: RevocationTarget | undefined;
  readonly reason: string;
  /** Who decided, where it was not the account's own holder. */
  readonly actor?: AuditActor;
  readonly code: RevocationCode;
  readonly mode: "disconnect" | "reauthenticate";
  /** Seconds, with `reauthenticate`. */
  readonly margin?: number;
  /** Absent for a moment when the decision is stored and the log could not be reached yet. */
  readonly seq?: number;
  /** When it was decided, milliseconds. */
  readonly created_at: number;
  /**
   * `pending` until every cluster has taken it, then `delivered`, `applied` once every node that held a lease applied it.
   * `no_clusters` where none is configured: it holds at the edge, and no socket was closed.
   */
  readonly state: "pending" | "delivered" | "applied" | "no_clusters";
  readonly clusters: readonly ClusterLine[];
  /** Sockets closed, by all nodes. */
  readonly closed: number;
}

interface ClusterLine extends Omit<ClusterState, "receipt"> {
  readonly expected: readonly string[];
  readonly applied: readonly NodeReceipt[];
  readonly pending: readonly string[];
}

interface Revoked extends RevocationManner {
  readonly id: string;
  readonly actor?: AuditActor;
  readonly targets: readonly RevocationTarget[];
  readonly reason: string;
  readonly code: RevocationCode;
  readonly seq?: number;
  readonly decided_at: number;
}

export function receiptOf(revoked: Revoked, clusters: readonly ClusterState[]): Receipt {
  const lines = clusters.map(lineOf);
  return {
    id: revoked.id,
    target: revoked.targets[0],
    reason: revoked.reason,
    ...(revoked.actor === undefined ? {} : { actor: revoked.actor }),
    code: revoked.code,
    mode: revoked.mode ?? "disconnect",
    ...(revoked.margin === undefined ? {} : { margin: revoked.margin }),
    ...(revoked.seq === undefined ? {} : { seq: revoked.seq }),
    created_at: revoked.decided_at,
    state: stateOf(revoked, clusters),
    clusters: lines,
    closed: lines.flatMap(({ applied }) => applied).reduce((sum, { closed }) => sum + closed, 0),
  };
}

function stateOf(revoked: Revoked, clusters: readonly ClusterState[]): Receipt["state"] {
  if (revoked.seq === undefined || clusters.some(({ delivered_at }) => delivered_at === undefined)) return "pending";
  // Nobody was told, so that nobody applied it.
  if (clusters.length === 0) return "no_clusters";
  return clusters.every(({ receipt }) => receipt?.pending.length === 0) ? "applied" : "delivered";
}

function lineOf({ receipt, ...state }: ClusterState): ClusterLine {
  const { expected = [], applied = [], pending = [] } = receipt ?? {};
  return { ...state, expected, applied, pending };
}

/** What an operator is shown of a revocation: who has taken it, which nodes have enforced it, how many sockets it closed. */
import type { ClusterReceipt, FencedNode, NodeReceipt } from "#contract/cluster";
import type { RevocationCode, RevocationManner, RevocationTarget } from "#contract/revocation";
import type { AuditActor } from "../audit/audit.ts";

/** What is known of the nodes of one cluster. Every node that is expected is in one of the other three. */
export interface Enforcement {
  readonly expected: readonly string[];
  readonly applied: readonly NodeReceipt[];
  readonly pending: readonly string[];
  readonly fenced: readonly FencedNode[];
  /** No token that it hits is alive any more, and no socket outlives its token: whoever is still pending has nothing left to close. */
  readonly expired?: true;
}

/** What the log knows of one event and one cluster. Times in milliseconds since the epoch. */
export interface DeliveryState {
  readonly cluster: string;
  /** Until a receipt is enforced, of the last time that the cluster took it. */
  readonly delivered_at?: number;
  readonly attempts: number;
  readonly last_error?: string;
}

export interface ClusterLine extends DeliveryState, Enforcement {
  /** When the log learnt that no node of the cluster is pending, milliseconds. */
  readonly enforced_at?: number;
}

/** A node that lived by the feed while the event did; one entry for each run of its process. */
export interface FeedNode {
  readonly node: string;
  /** When the last of its leases is over, milliseconds since the epoch. */
  readonly until: number;
  readonly word?: Omit<NodeReceipt, "node">;
}

/** What both sides say of the nodes of a cluster. */
export interface Testimony {
  /** What the cluster answered last. */
  readonly receipt?: Omit<ClusterReceipt, "id">;
  readonly feed: readonly FeedNode[];
}

export interface Receipt {
  readonly id: string;
  readonly target: RevocationTarget | undefined;
  readonly reason: string;
  /** Who decided, where it was not the account's own holder. */
  readonly actor?: AuditActor;
  /** `X-Request-Id` of the call that it was decided in. */
  readonly request?: string;
  /** The bulk revocation that it is a part of. */
  readonly batch?: string;
  readonly code: RevocationCode;
  readonly mode: "disconnect" | "reauthenticate";
  /** Seconds, with `reauthenticate`. */
  readonly margin?: number;
  /** Absent for a moment when the decision is stored and the log could not be reached yet. */
  readonly seq?: number;
  /** When it was decided, milliseconds. */
  readonly created_at: number;
  /**
   * `pending` until every cluster has taken it, then `delivered`, `enforced` once no node of any cluster is left that could hold a socket
   * that it hits. `no_clusters` where none is configured: it holds at the edge, and no socket was closed.
   */
  readonly state: "pending" | "delivered" | "enforced" | "no_clusters";
  /** When the log learnt that the last cluster had enforced it, milliseconds. */
  readonly enforced_at?: number;
  readonly clusters: readonly ClusterLine[];
  /** Sockets closed, by all nodes. */
  readonly closed: number;
  /** This receipt, without this member, signed by the edge for keeping. */
  readonly proof?: string;
}

interface Revoked extends RevocationManner {
  readonly id: string;
  readonly actor?: AuditActor;
  readonly request?: string;
  readonly batch?: string;
  readonly targets: readonly RevocationTarget[];
  readonly reason: string;
  readonly code: RevocationCode;
  readonly seq?: number;
  readonly decided_at: number;
}

/** Of a token that was being signed meanwhile, and of the clocks. */
const MARGIN_SECONDS = 60;

/** The line of a cluster that nobody has turned to yet. */
export function untold(cluster: string): ClusterLine {
  return { cluster, attempts: 0, expected: [], applied: [], pending: [], fenced: [] };
}

/** @param end of what is over; absent while there is more to learn */
export function receiptOf(
  revoked: Revoked,
  clusters: readonly ClusterLine[],
  end?: { readonly enforced_at?: number },
): Receipt {
  return {
    id: revoked.id,
    target: revoked.targets[0],
    reason: revoked.reason,
    ...(revoked.actor === undefined ? {} : { actor: revoked.actor }),
    ...(revoked.request === undefined ? {} : { request: revoked.request }),
    ...(revoked.batch === undefined ? {} : { batch: revoked.batch }),
    code: revoked.code,
    mode: revoked.mode ?? "disconnect",
    ...(revoked.margin === undefined ? {} : { margin: revoked.margin }),
    ...(revoked.seq === undefined ? {} : { seq: revoked.seq }),
    created_at: revoked.decided_at,
    state: stateOf(revoked, clusters, end !== undefined),
    ...end,
    clusters,
    closed: closedBy(clusters),
  };
}

function stateOf(revoked: Revoked, clusters: readonly ClusterLine[], over: boolean): Receipt["state"] {
  if (revoked.seq === undefined) return "pending";
  // Nobody was told, so that nobody enforced it.
  if (clusters.length === 0) return "no_clusters";
  if (over) return "enforced";
  return clusters.some(({ delivered_at }) => delivered_at === undefined) ? "pending" : "delivered";
}

/** Whether nothing is left to wait for. */
export function isFinal({ state }: Pick<Receipt, "state">): boolean {
  return state === "enforced" || state === "no_clusters";
}

/** For the audit trail: how many did it, and what it came to. */
export function summaryOf({ clusters, closed }: Receipt): string {
  const count = (nodes: keyof Pick<Enforcement, "applied" | "fenced" | "pending">) =>
    clusters.reduce((sum, line) => sum + line[nodes].length, 0);
  return [
    `${counted(count("applied"), "node")} of ${counted(clusters.length, "cluster")}`,
    `${counted(closed, "socket")} closed`,
    ...(count("fenced") > 0 ? [`${counted(count("fenced"), "node")} fenced`] : []),
    ...(count("pending") > 0 ? [`${counted(count("pending"), "node")} never heard of until it expired`] : []),
  ].join(", ");
}

function counted(count: number, what: string): string {
  return `${count} ${what}${count === 1 ? "" : "s"}`;
}

function closedBy(clusters: readonly ClusterLine[]): number {
  return clusters.flatMap(({ applied }) => applied).reduce((sum, { closed }) => sum + closed, 0);
}

/** Whether no token that an event hits can be alive, margins considered. `expiresAt` in seconds, `now` in milliseconds. */
export function isExpired(expiresAt: number, now: number): boolean {
  return expiredAt(expiresAt) <= now;
}

/** From when on it is, milliseconds. `expiresAt` in seconds. */
export function expiredAt(expiresAt: number): number {
  return (expiresAt + MARGIN_SECONDS) * 1000;
}

/** What came of an event at one cluster, and whether that is the end of it. `now` in milliseconds. */
export function judge(
  { receipt, feed }: Testimony,
  event: { readonly taken: boolean; readonly expires_at: number },
  now: number,
): { readonly enforcement: Enforcement; readonly complete: boolean } {
  const fates = fatesOf({ ...(receipt && { receipt }), feed }, now);
  const nodes = [...fates];
  const pending = nodes.flatMap(([node, fate]) => (fate === "pending" ? [node] : []));
  const enforcement = {
    expected: [...new Set([...(receipt?.expected ?? []), ...feed.map(({ node }) => node)])],
    applied: nodes.flatMap(([node, fate]) => (isWord(fate) ? [{ node, ...fate }] : [])),
    pending,
    fenced: nodes.flatMap(([node, fate]) => (isFence(fate) ? [{ node, ...fate }] : [])),
  };
  if (event.taken && receipt !== undefined && pending.length === 0) return { enforcement, complete: true };
  const expired = isExpired(event.expires_at, now);
  return { enforcement: { ...enforcement, ...(expired && { expired }) }, complete: expired };
}

type Word = Omit<NodeReceipt, "node">;
type Fence = Omit<FencedNode, "node">;
type Fate = "pending" | Word | Fence;

/** By node. One that is in the cluster's receipt and in the feed is one node. */
function fatesOf({ receipt, feed }: Testimony, now: number): Map<string, Fate> {
  const fates = fatesAtCluster(receipt);
  for (const node of new Set(feed.map((each) => each.node))) {
    const runs = feed.filter((each) => each.node === node);
    fates.set(node, fateWithFeed(fates.get(node), runs, now));
  }
  return fates;
}

function fatesAtCluster(receipt: Testimony["receipt"]): Map<string, Fate> {
  const { expected = [], pending = [], fenced = [], applied = [] } = receipt ?? {};
  return new Map<string, Fate>([
    // A cluster that leaves somebody out has not said that nobody is pending.
    ...[...expected, ...pending].map((node) => [node, "pending"] as const),
    ...fenced.map(({ node, fenced_at }) => [node, { fenced_at }] as const),
    ...applied.map(({ node, applied_at, closed }) => [node, { applied_at, closed }] as const),
  ]);
}

function fateWithFeed(atCluster: Fate | undefined, runs: readonly FeedNode[], now: number): Fate {
  const silent = runs.filter(({ word }) => word === undefined);
  // As long as it lives by the feed it goes on without Redis, whatever Redis says of it.
  if (silent.some(({ until }) => until > now)) return "pending";
  if (atCluster !== undefined && isWord(atCluster)) return atCluster;
  if (silent.length === 0) return wordOf(runs);
  // It may have gone back to Redis, where it is waited for.
  if (atCluster === "pending") return atCluster;
  return { fenced_at: Math.max(atCluster?.fenced_at ?? 0, ...silent.map(({ until }) => until)) };
}

function wordOf(runs: readonly FeedNode[]): Word {
  const words = runs.flatMap(({ word }) => (word === undefined ? [] : [word]));
  return {
    applied_at: Math.max(...words.map(({ applied_at }) => applied_at)),
    closed: words.reduce((sum, { closed }) => sum + closed, 0),
  };
}

function isWord(fate: Fate): fate is Word {
  return typeof fate === "object" && "applied_at" in fate;
}

function isFence(fate: Fate): fate is Fence {
  return typeof fate === "object" && "fenced_at" in fate;
}

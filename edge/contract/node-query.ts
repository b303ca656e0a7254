/**
 * What the edge asks all nodes of a cluster about themselves, for operators: how each is, and which sockets of somebody each holds. Any
 * node can be asked; it asks the others over Redis. Nothing is done, and nothing here says whether a revocation is enforced.
 *
 * Every node seals its own words with the cluster's secret, and so does the one that brings them: whoever can write to Redis can keep a
 * node from being heard, which then shows as silent, but cannot speak for it.
 */
import type { JWTVerifyGetKey } from "jose";
import { type SigningKey, signTyped, type TokenRules, verifyJwt } from "./access-token.ts";
import { type ClusterSecrets, FRESH_SECONDS, MAX_NODES, signShared, verifyShared } from "./cluster.ts";
import { Refusal } from "./refusal.ts";
import { isCount, isName, isRecord } from "./shapes.ts";

/** The `typ` of the token with which the edge asks. */
export const NODE_QUERY_TYPE = "node-query+jwt";
/** The `typ` of what a cluster answers. */
export const NODE_ANSWERS_TYPE = "node-answers+jwt";
/** Sockets that one node lists. */
export const MAX_LISTED_BY_NODE = 100;
/** Sockets that one answer lists. */
export const MAX_LISTED = 1_000;

/** What is asked: how the nodes are, or which sockets of a person they hold. */
export type NodeQuestion = { readonly about: "status" } | { readonly about: "sockets"; readonly sub: string };

/** How one run of a node's process is. Times in milliseconds since the epoch. */
export interface NodeStatus {
  readonly node: string;
  readonly boot: string;
  readonly version: string;
  readonly started_at: number;
  /** Whether it lets people in. */
  readonly ready: boolean;
  /** By what it is told of revocations. */
  readonly link: "redis" | "feed" | "none";
  /** Until it is fenced unless it hears something. */
  readonly lease_ms: number;
  /** Every event of the asking edge up to here is applied, and the sockets that it covers are closed. */
  readonly applied: number;
  /** Sockets that are in, of every issuer. */
  readonly sockets: number;
  /** Whether an event is known to be missing. */
  readonly gap: boolean;
  /** Events that cannot be judged yet. */
  readonly unsettled: number;
  /** Since the last good heartbeat to Redis; null before the first. */
  readonly log_silence_ms: number | null;
}

/** A socket that is open. Seconds since the epoch. */
export interface ListedSocket {
  readonly id: string;
  readonly sid: string;
  readonly nsp: string;
  readonly transport: string;
  readonly connected_at: number;
  /** When its token ends. */
  readonly expires_at: number;
}

/** Which sockets of a person one run of a node's process holds. */
export interface NodeSockets {
  readonly node: string;
  readonly boot: string;
  /** All of them. */
  readonly sockets: number;
  /** Some of them, where they are many. */
  readonly listed: readonly ListedSocket[];
}

/** What all nodes said that were heard in time. */
export interface NodeAnswers<T> {
  readonly answers: readonly T[];
  /** Nodes that hold a lease, or held one a moment ago, and were not heard. */
  readonly silent: readonly string[];
  /** Whether Redis could be used. Where it could not, only the node that was asked has answered. */
  readonly redis: boolean;
}

export type NodeAnswer<Q extends NodeQuestion> = Q extends { about: "status" } ? NodeStatus : NodeSockets;

/** @param envelope `issuedAt` in seconds since the epoch */
export function signNodeQuery(
  question: NodeQuestion,
  envelope: { readonly issuer: string; readonly audience: string; readonly issuedAt: number; readonly nonce: string },
  key: SigningKey,
): Promise<string> {
  const { issuer: iss, audience: aud, issuedAt: iat, nonce: jti } = envelope;
  return signTyped(NODE_QUERY_TYPE, { iss, aud, iat, exp: iat + FRESH_SECONDS, jti, question }, key);
}

/** @throws {Refusal} as `verifyJwt`; `request_malformed` for a question that this version does not understand */
export async function verifyNodeQuery(
  token: unknown,
  keys: JWTVerifyGetKey,
  rules: TokenRules,
  now: Date = new Date(),
): Promise<{ readonly question: NodeQuestion; readonly nonce: string }> {
  const { payload } = await verifyJwt(token, keys, { ...rules, typ: NODE_QUERY_TYPE }, now);
  if (!isName(payload.jti)) throw malformed("a node query");
  return { question: questionIn(payload.question), nonce: payload.jti };
}

function questionIn(value: unknown): NodeQuestion {
  const { about, sub } = isRecord(value) ? value : {};
  if (about === "status") return { about };
  if (about === "sockets" && isName(sub)) return { about, sub };
  throw malformed("a node query about something unknown");
}

/** @param envelope which node of which cluster brings it to which edge, in answer to which query; `now` in seconds */
export function signNodeAnswers<T>(
  { answers, silent, redis }: NodeAnswers<T>,
  envelope: { readonly cluster: string; readonly node: string; readonly issuer: string; readonly nonce: string },
  secrets: ClusterSecrets,
  now: number,
): Promise<string> {
  const { cluster: iss, node: sub, issuer: aud, nonce: jti } = envelope;
  return signShared(NODE_ANSWERS_TYPE, { iss, sub, aud, jti, answers, silent, redis }, secrets, now);
}

/**
 * Judges a cluster's answer.
 *
 * @throws {Refusal} `token_invalid`; `request_malformed`
 */
export async function verifyNodeAnswers<Q extends NodeQuestion>(
  token: string,
  question: Q,
  asked: { readonly cluster: string; readonly issuer: string; readonly nonce: string },
  secrets: ClusterSecrets,
  now: Date = new Date(),
): Promise<NodeAnswers<NodeAnswer<Q>>> {
  const rules = { issuer: asked.cluster, audience: asked.issuer };
  const { jti, answers, silent, redis } = await verifyShared(NODE_ANSWERS_TYPE, token, rules, secrets, now);
  if (jti !== asked.nonce) throw new Refusal("token_invalid", { detail: "an answer to another query" });
  if (!isShort(answers) || !isShort(silent) || !silent.every(isName) || typeof redis !== "boolean") {
    throw malformed("the answers of nodes");
  }
  return { answers: answers.map((answer) => readNodeAnswer(answer, question)), silent, redis };
}

/**
 * Reads what one node says.
 *
 * @throws {Refusal} `request_malformed` when it answers something else
 */
export function readNodeAnswer<Q extends NodeQuestion>(value: unknown, { about }: Q): NodeAnswer<Q> {
  const answer = about === "status" ? statusIn(value) : socketsIn(value);
  // The question says which of the two it is.
  return answer as NodeAnswer<Q>;
}

function statusIn(value: unknown): NodeStatus {
  if (!isRecord(value)) throw malformed("a node's status");
  const { node, boot, version, started_at, ready, link, lease_ms, applied, sockets, gap } = value;
  const { unsettled, log_silence_ms } = value;
  const named = isName(node) && isName(boot) && isName(version);
  const counted =
    isCount(started_at) && isCount(lease_ms) && isCount(applied) && isCount(sockets) && isCount(unsettled);
  if (!named || !counted || typeof ready !== "boolean" || typeof gap !== "boolean") throw malformed("a node's status");
  if (link !== "redis" && link !== "feed" && link !== "none") throw malformed("a node's link");
  if (log_silence_ms !== null && !isCount(log_silence_ms)) throw malformed("a node's silence");
  const rest = { lease_ms, applied, sockets, gap, unsettled, log_silence_ms };
  return { node, boot, version, started_at, ready, link, ...rest };
}

function socketsIn(value: unknown): NodeSockets {
  if (!isRecord(value) || !isName(value.node) || !isName(value.boot) || !isCount(value.sockets)) {
    throw malformed("a node's sockets");
  }
  const { node, boot, sockets, listed } = value;
  if (!Array.isArray(listed) || listed.length > MAX_LISTED_BY_NODE) throw malformed("a node's sockets");
  return { node, boot, sockets, listed: listed.map(socketIn) };
}

function socketIn(value: unknown): ListedSocket {
  if (!isRecord(value)) throw malformed("a socket");
  const { id, sid, nsp, transport, connected_at, expires_at } = value;
  const named = isName(id) && isName(sid) && isName(nsp) && isName(transport);
  if (!named || !isCount(connected_at) || !isCount(expires_at)) throw malformed("a socket");
  return { id, sid, nsp, transport, connected_at, expires_at };
}

/** No more than there are nodes in a cluster. */
function isShort(value: unknown): value is unknown[] {
  return Array.isArray(value) && value.length <= MAX_NODES;
}

function malformed(detail: string): Refusal {
  return new Refusal("request_malformed", { detail });
}

/**
 * One realtime cluster as the edge sees it over HTTPS: it takes events (RFC 8935) and says which nodes applied them. Its nodes
 * share one Redis, so that any of them will do; they are tried in turn, the one that answered last first.
 */
import { z } from "zod";
import { type ClusterReceipt, JWT_MEDIA_TYPE, MAX_NODES, verifyReceipts } from "#contract/cluster";
import { type NodeAnswer, type NodeAnswers, type NodeQuestion, verifyNodeAnswers } from "#contract/node-query";
import { toRefusal } from "#contract/refusal";
import { REHEARSAL_MEDIA_TYPE, type Rehearsal, SECURITY_EVENT_MEDIA_TYPE } from "#contract/revocation";
import { parseJson, readAtMost } from "../bounded-body.ts";
import type { ClusterConfig } from "../config.ts";

const TIMEOUT_MS = 5_000;
/** How long one node is waited for before the next is tried as well. */
const HEDGE_MS = 250;
const MAX_ANSWER_BYTES = 256 * 1024;
/** The contract takes no more. */
const MAX_ANSWERS_BYTES = 4 * 1024 * 1024;
/** A node gives the others a second, and Redis two. */
const NODES_TIMEOUT_MS = 4_000;
/** Somebody looks on: after this long no further endpoint is tried. */
const ALL_ENDPOINTS_MS = 8_000;
const MAX_ERROR_LENGTH = 300;

/** `refused` is about this event and repeating it at once is no use; `later` is about the cluster. */
export type Push =
  | { readonly taken: true }
  | { readonly taken: false; readonly reason: "refused" | "later"; readonly error: string };

const nodeName = z.string().min(1).max(256);
const rehearsal = z.object({
  sockets: z.int().nonnegative(),
  sessions: z.int().nonnegative(),
  silent: z.array(nodeName).max(MAX_NODES),
});
/** A question that has been signed, and what its answer must repeat. */
export interface SignedQuestion {
  readonly token: string;
  readonly nonce: string;
  readonly issuer: string;
}

/** A base URL that was tried, and what came of it. */
export interface TriedEndpoint {
  readonly origin: string;
  /** Whether it answered anything at all. */
  readonly reachable: boolean;
  /** Why what it answered is of no use. */
  readonly error?: string;
}

export interface Asked<T> {
  /** Undefined when nobody of the cluster could be asked. */
  readonly said: T | undefined;
  /** In this order. */
  readonly tried: readonly TriedEndpoint[];
}

/** `too_large`: fewer should be asked for at once. */
export type ReceiptsAnswer =
  | { readonly receipts: readonly ClusterReceipt[] }
  | { readonly reason: "too_large" | "later"; readonly error: string };

/** RFC 8935 section 2.4. */
const deliveryError = z.object({ err: z.string().max(64), description: z.string().optional() });

export class Cluster {
  readonly id: string;
  readonly #endpoints: readonly string[];
  readonly #secrets: ClusterConfig["secrets"];
  /** Index of the endpoint that answered last. */
  #preferred = 0;

  constructor({ id, endpoints, secrets }: ClusterConfig) {
    this.id = id;
    this.#endpoints = endpoints;
    this.#secrets = secrets;
  }

  /**
   * Hands an event over. A node that does not answer at once is not waited for: the next is tried beside it, and the first
   * that takes the event counts. That two take it does no harm. Never throws.
   */
  async push(set: string): Promise<Push> {
    const open = new Set<Promise<Attempt>>();
    const failed: Attempt[] = [];
    for (const [index, endpoint] of this.#inTurn()) {
      open.add(attempt(index, endpoint, set));
      if (await this.#settle(open, failed, HEDGE_MS)) return { taken: true };
    }
    while (open.size > 0) if (await this.#settle(open, failed)) return { taken: true };
    // Another node may know a key that this one has not fetched yet: only all of them refuse an event.
    const reason = failed.every(({ result }) => result.status === 400) ? "refused" : "later";
    const errors = failed.map(({ endpoint, result }) => `${endpoint}: ${failure(result)}`);
    return { taken: false, reason, error: errors.join("; ").slice(0, MAX_ERROR_LENGTH) };
  }

  /** Waits for one attempt to end, or for the patience to. @returns whether the event was taken */
  async #settle(open: Set<Promise<Attempt>>, failed: Attempt[], patienceMs?: number): Promise<boolean> {
    const ended = [...open].map(async (promise) => ({ promise, attempt: await promise }));
    const patience = patienceMs === undefined ? [] : [scheduler.wait(patienceMs).then(() => undefined)];
    const first = await Promise.race([...ended, ...patience]);
    if (first === undefined) return false;
    open.delete(first.promise);
    if (first.attempt.result.status !== 202) {
      failed.push(first.attempt);
      return false;
    }
    this.#preferred = first.attempt.index;
    return true;
  }

  /**
   * Asks which nodes applied events, and lets the cluster wait until all have or `waitMs` are over. What no node of the cluster has
   * sealed is no answer. Never throws.
   */
  async receipts({ token, nonce, issuer }: SignedQuestion, waitMs: number): Promise<ReceiptsAnswer> {
    const request = {
      method: "POST",
      headers: { "content-type": JWT_MEDIA_TYPE, accept: JWT_MEDIA_TYPE },
      body: token,
    };
    const errors: string[] = [];
    for (const [index, endpoint] of this.#inTurn()) {
      const url = `${endpoint}/receipts?wait=${Math.floor(waitMs)}`;
      const result = await exchange(url, request, waitMs + TIMEOUT_MS / 2, MAX_ANSWERS_BYTES);
      const receipts = await judged(result, "receipts", (text) =>
        verifyReceipts(text, { cluster: this.id, issuer, nonce }, this.#secrets),
      );
      if (typeof receipts !== "string") {
        this.#preferred = index;
        return { receipts };
      }
      errors.push(`${endpoint}: ${receipts}`);
      // The others would say as much.
      if (isTooLarge(result)) return { reason: "too_large", error: errors.join("; ").slice(0, MAX_ERROR_LENGTH) };
    }
    return { reason: "later", error: errors.join("; ").slice(0, MAX_ERROR_LENGTH) };
  }

  /**
   * Asks all nodes about themselves. What no node of the cluster has sealed is no answer. Never throws.
   *
   * @returns what they say, or why nobody could be asked; and which endpoints were tried for it
   */
  async nodes<Q extends NodeQuestion>(
    question: Q,
    { token, nonce, issuer }: SignedQuestion,
  ): Promise<Asked<NodeAnswers<NodeAnswer<Q>>>> {
    const headers = { "content-type": JWT_MEDIA_TYPE, accept: JWT_MEDIA_TYPE };
    const request = { method: "POST", headers, body: token };
    const tried: TriedEndpoint[] = [];
    const until = Date.now() + ALL_ENDPOINTS_MS;
    for (const [index, origin] of this.#inTurn()) {
      if (Date.now() > until) break;
      const result = await exchange(`${origin}/nodes`, request, NODES_TIMEOUT_MS, MAX_ANSWERS_BYTES);
      const said = await judged(result, "answers", (text) =>
        verifyNodeAnswers(text, question, { cluster: this.id, issuer, nonce }, this.#secrets),
      );
      const reachable = result.status !== 0;
      if (typeof said !== "string") {
        this.#preferred = index;
        return { said, tried: [...tried, { origin, reachable }] };
      }
      tried.push({ origin, reachable, error: said.slice(0, MAX_ERROR_LENGTH) });
    }
    return { said: undefined, tried };
  }

  /** Asks whom a revocation would hit. Undefined when no node of the cluster can say. Never throws. */
  async rehearse(question: string): Promise<Rehearsal | undefined> {
    const headers = { "content-type": REHEARSAL_MEDIA_TYPE, accept: "application/json" };
    for (const [, endpoint] of this.#inTurn()) {
      const result = await exchange(`${endpoint}/rehearsals`, { method: "POST", headers, body: question }, TIMEOUT_MS);
      const parsed = rehearsal.safeParse(jsonOf(result));
      if (result.status === 200 && parsed.success) return parsed.data;
    }
    return undefined;
  }

  #inTurn(): (readonly [index: number, endpoint: string])[] {
    const all = this.#endpoints.map((endpoint, index) => [index, endpoint] as const);
    return [...all.slice(this.#preferred), ...all.slice(0, this.#preferred)];
  }
}

/** @returns what the cluster says, or what went wrong */
async function judged<T extends object>(
  result: Exchange,
  what: string,
  verify: (text: string) => Promise<T>,
): Promise<T | string> {
  if (result.status !== 200 || result.body === undefined) return failure(result);
  try {
    return await verify(new TextDecoder().decode(result.body));
  } catch (error) {
    const { code, detail } = toRefusal(error);
    return `the ${what} are not good: ${detail ?? code}`;
  }
}

interface Attempt {
  readonly index: number;
  readonly endpoint: string;
  readonly result: Exchange;
}

async function attempt(index: number, endpoint: string, set: string): Promise<Attempt> {
  const headers = { "content-type": SECURITY_EVENT_MEDIA_TYPE, accept: "application/json" };
  const result = await exchange(`${endpoint}/events`, { method: "POST", headers, body: set }, TIMEOUT_MS);
  return { index, endpoint, result };
}

interface Exchange {
  /** 0 when no answer came. */
  readonly status: number;
  /** Undefined when it is too large, or did not come. */
  readonly body: Uint8Array | undefined;
  readonly error?: string;
}

/** One request within bounds of size and time. Never throws, and follows no redirect. */
export async function exchange(
  url: string,
  init: RequestInit,
  timeoutMs: number,
  maxBytes: number = MAX_ANSWER_BYTES,
): Promise<Exchange> {
  try {
    // A redirect is not followed: it would carry the event, or the bearer token, to somebody who is not configured.
    const response = await fetch(url, { ...init, redirect: "manual", signal: AbortSignal.timeout(timeoutMs) });
    return { status: response.status, body: await readAtMost(response.body, maxBytes) };
  } catch (error) {
    return { status: 0, body: undefined, error: error instanceof Error ? error.message : "no answer" };
  }
}

/** What went wrong, for the operator: what the receiver says of it (RFC 8935 section 2.4), or the status. */
export function failure(result: Exchange): string {
  const said = deliveryError.safeParse(jsonOf(result));
  if (said.success) return `HTTP ${result.status} ${said.data.err} ${said.data.description ?? ""}`.trim();
  return result.error ?? (isTooLarge(result) ? "the answer is too large" : `HTTP ${result.status}`);
}

function isTooLarge({ status, body }: Exchange): boolean {
  return status === 200 && body === undefined;
}

function jsonOf({ body }: Exchange): unknown {
  return body && parseJson(body);
}

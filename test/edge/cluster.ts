/** The tests' end of the clusters: tell one how to behave, see what it was sent; and its nodes, as they ask for the feed. */
import { createLocalJWKSet, type JSONWebKeySet } from "jose";
import { expect, inject, vi } from "vitest";
import { type FeedPage, type FeedQuery, signFeedQuery, verifyFeedPage } from "#contract/cluster";
import { SECRETS } from "./cluster-secrets.ts";
import { bearer, call, ISSUER, ok } from "./edge.ts";

declare module "vitest" {
  interface ProvidedContext {
    clusterServer: string;
  }
}

export interface Manner {
  events: "take" | "later" | "refuse" | "elsewhere" | "never";
  receipts: "applied" | "pending" | "fenced" | "nonsense" | "forged" | "stale" | "later" | "never";
  /** What it says of its nodes. */
  nodes: "all" | "one without Redis" | "forged" | "stale" | "nonsense" | "later";
}

export interface ClusterLife {
  /** The Security Event Tokens that it took, in order of arrival. */
  readonly sets: readonly string[];
  /** The questions for receipts; `at` in milliseconds, by the clock of the cluster. */
  readonly queries: readonly { query: string; ids: readonly string[]; waitMs: number; at: number }[];
}

export type Node = Pick<FeedQuery, "cluster" | "node" | "boot">;

export const GOOD: Manner = { events: "take", receipts: "applied", nodes: "all" };

/** @param flush empties its Redis first */
export async function behave(cluster: string, manner: Partial<Manner> & { flush?: boolean }): Promise<void> {
  await fetch(await controlOf(cluster), { method: "PUT", body: JSON.stringify(manner) });
}

export async function lifeOf(cluster: string): Promise<ClusterLife> {
  return await (await fetch(await controlOf(cluster))).json();
}

/** A cluster knows the edge of this file by its keys. */
async function controlOf(cluster: string): Promise<string> {
  const { keys } = await ok<{ keys: { kid: string }[] }>(await call("GET", "/.well-known/jwks.json"));
  return `${inject("clusterServer")}/${cluster}?${new URLSearchParams(keys.map(({ kid }) => ["edge", kid]))}`;
}

/** Questions for the receipt of one event. */
export async function questionsAbout(cluster: string, id: string): Promise<ClusterLife["queries"]> {
  return (await lifeOf(cluster)).queries.filter(({ ids }) => ids.includes(id));
}

/** A node of a cluster of the tests, in a run of its own. */
export function aNode(cluster: keyof typeof SECRETS, node: string = crypto.randomUUID()): Node {
  return { cluster, node, boot: crypto.randomUUID() };
}

/** What it shows when it asks. */
export async function queryToken(node: Node, more: Partial<FeedQuery> = {}): Promise<string> {
  const query = { nonce: crypto.randomUUID(), ...node, ...more };
  const secret = SECRETS[node.cluster as keyof typeof SECRETS];
  return await signFeedQuery(query, ISSUER, [secret], Math.floor(Date.now() / 1000));
}

/** Asks for the feed, and judges the page as a node does. */
export async function feed(node: Node, query = "", lease?: FeedQuery["lease"]): Promise<FeedPage> {
  const nonce = crypto.randomUUID();
  const token = await queryToken(node, { nonce, ...(lease && { lease }) });
  const response = await call("GET", `/revocations${query}`, undefined, bearer(token));
  expect(response.status).toBe(200);
  return await verifyFeedPage(await jwtIn(response), nonce, await edgeKeys(), rulesFor(node.cluster), new Date());
}

/** A body that is a JWT: to workerd that is no text. */
export async function jwtIn(response: Response): Promise<string> {
  return new TextDecoder().decode(await response.arrayBuffer());
}

export async function edgeKeys() {
  return createLocalJWKSet(await ok<JSONWebKeySet>(await call("GET", "/.well-known/jwks.json")));
}

export function rulesFor(audience: string) {
  return { issuer: ISSUER, audience, algorithms: ["RS256"] as const, clockSkewSeconds: 5 };
}

export async function until<T>(check: () => Promise<T>): Promise<T> {
  return await vi.waitFor(check, { timeout: 60_000, interval: 50 });
}

/** The tests' end of the clusters: tell one how to behave, see what it was sent. */
import { inject } from "vitest";

declare module "vitest" {
  interface ProvidedContext {
    clusterServer: string;
  }
}

export interface Manner {
  events: "take" | "later" | "refuse" | "elsewhere";
  receipts: "applied" | "pending" | "unknown" | "nonsense";
}

export interface ClusterLife {
  /** The Security Event Tokens that it took, in order of arrival. */
  readonly sets: readonly string[];
  readonly queries: readonly { id: string; authorization: string | undefined; wait: string | null }[];
}

export async function behave(cluster: string, manner: Partial<Manner>): Promise<void> {
  await fetch(`${inject("clusterServer")}/${cluster}`, { method: "PUT", body: JSON.stringify(manner) });
}

export async function lifeOf(cluster: string): Promise<ClusterLife> {
  return await (await fetch(`${inject("clusterServer")}/${cluster}`)).json();
}

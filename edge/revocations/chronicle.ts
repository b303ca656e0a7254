/**
 * What becomes of each revocation, told twice: as a line of the log that names it and the call that it was decided in, and as counts
 * that a scrape finds again. Whoever follows one id finds every step here, from the decision to the last cluster that enforced it.
 */
import type { RevocationEvent } from "#contract/revocation";
import type { MetricFamily } from "../exposition.ts";
import { logEvent, logFailure } from "../log.ts";
import { Counters, type Labels } from "./counters.ts";
import { Latencies } from "./latencies.ts";
import type { Enforcement } from "./receipt.ts";

/** A revocation as far as it is told. */
export type Told = Pick<RevocationEvent, "id" | "seq" | "decided_at" | "request">;

const REVOCATIONS = "keycard_edge_revocations_total";
const DELIVERIES = "keycard_edge_deliveries_total";
const DELIVERY_SECONDS = "keycard_edge_delivery_seconds";
const LOST = "keycard_edge_lost_events_total";
const QUESTIONS = "keycard_edge_receipt_questions_total";
const ENFORCED = "keycard_edge_enforced_total";
const CLOSED = "keycard_edge_closed_sockets_total";
const CODES: readonly RevocationEvent["code"][] = ["token_revoked", "session_revoked", "refresh_reused"];
const REVOCATION_SECONDS = "keycard_edge_revocation_seconds";

export class Chronicle {
  readonly #counters: Counters;
  readonly latencies: Latencies;

  constructor(sql: SqlStorage) {
    this.#counters = new Counters(sql);
    this.latencies = new Latencies(sql);
  }

  decided(event: Told & Pick<RevocationEvent, "targets" | "code">): void {
    const [target] = event.targets;
    logEvent("revocation decided", { ...named(event), target: target?.kind, code: event.code });
    this.#counters.add(REVOCATIONS, { code: event.code });
  }

  /** A cluster has taken it. Times in milliseconds. */
  delivered(cluster: string, event: Told, now: number): void {
    const afterMs = now - event.decided_at;
    logEvent("revocation delivered", { ...named(event), cluster, afterMs });
    this.#counters.add(DELIVERIES, { cluster, outcome: "taken" });
    this.#counters.observe(DELIVERY_SECONDS, afterMs, { cluster });
  }

  /** A cluster did not take it this time. */
  undelivered(cluster: string): void {
    this.#counters.add(DELIVERIES, { cluster, outcome: "failed" });
  }

  /** A cluster had taken it, and knows nothing of it any more. */
  lost(cluster: string, event: Told): void {
    logFailure("a cluster has lost a revocation, which is delivered again", { ...named(event), cluster });
    this.#counters.add(LOST, { cluster });
  }

  /** A cluster was asked for receipts. */
  asked(cluster: string, outcome: "answered" | "failed"): void {
    this.#counters.add(QUESTIONS, { cluster, outcome });
  }

  /** No node of the cluster is left that could hold a socket which it hits. */
  enforcedBy(cluster: string, event: Told, { applied, fenced, expired }: Enforcement, now: number): void {
    const closed = applied.reduce((sum, node) => sum + node.closed, 0);
    const nodes = { applied: applied.length, fenced: fenced.length, expired };
    const afterMs = now - event.decided_at;
    logEvent("revocation enforced by a cluster", { ...named(event), cluster, ...nodes, closed, afterMs });
    this.#counters.add(ENFORCED, { cluster, how: expired === true ? "expired" : "applied" });
    if (closed > 0) this.#counters.add(CLOSED, { cluster }, closed);
  }

  /** By every cluster; `expired` where only because no token was alive any more. */
  enforced(event: Told, now: number, expired: boolean): void {
    const afterMs = now - event.decided_at;
    this.latencies.add(event.decided_at, now, expired);
    logEvent("revocation enforced", { ...named(event), afterMs });
    this.#counters.observe(REVOCATION_SECONDS, afterMs);
  }

  /** All that was counted, and what could have been. @param clusters those that are configured */
  families(clusters: readonly string[]): readonly MetricFamily[] {
    const perCluster = (label?: string, ...values: string[]) =>
      clusters.flatMap((cluster) =>
        label === undefined ? [{ cluster }] : values.map((value) => ({ cluster, [label]: value })),
      );
    const counter = (name: string, help: string, expected: readonly Labels[]) =>
      this.#counters.counter(name, help, expected);
    const histogram = (name: string, help: string) => this.#counters.histogram(name, help);
    return [
      counter(
        REVOCATIONS,
        "Revocations decided, by code.",
        CODES.map((code) => ({ code })),
      ),
      counter(
        DELIVERIES,
        "Attempts to bring an event to a cluster, by outcome: taken or failed.",
        perCluster("outcome", "taken", "failed"),
      ),
      histogram(DELIVERY_SECONDS, "Time from the decision to a cluster having taken the event."),
      counter(LOST, "Events that a cluster had taken and lost.", perCluster()),
      counter(
        QUESTIONS,
        "Questions to a cluster for receipts, by outcome: answered or failed.",
        perCluster("outcome", "answered", "failed"),
      ),
      counter(
        ENFORCED,
        "Revocations enforced by a cluster: applied by its nodes, or expired with some of them never heard of.",
        perCluster("how", "applied", "expired"),
      ),
      counter(CLOSED, "Sockets closed by revocations, as the receipts say.", perCluster()),
      histogram(REVOCATION_SECONDS, "Time from the decision to the last cluster having enforced it."),
    ];
  }
}

/** By which a line is found: the revocation's own name, and the call's. */
function named({ id, seq, request }: Told) {
  return { revocation: id, seq, request };
}

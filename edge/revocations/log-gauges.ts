/** How the log stands at this moment, as a scrape reads it. */
import type { MetricFamily, Sample } from "../exposition.ts";
import { type ClusterStanding, type LogStatus, MAX_COUNTED } from "./log-status.ts";

/** @param unsent entries that the log owes to the audit trail @param use bytes; `now` in milliseconds */
export function logGauges(
  { head, open, oldest_open_at, clusters }: LogStatus,
  unsent: number,
  use: { readonly bytes: number; readonly most: number },
  now: number,
): readonly MetricFamily[] {
  const perCluster = (value: (standing: ClusterStanding) => number): Sample[] =>
    clusters.map((standing) => ({ labels: { cluster: standing.cluster }, value: value(standing) }));
  return [
    gauge("keycard_edge_log_head", "The number of the last event.", head),
    gauge("keycard_edge_open_receipts", `Receipts that are not enforced yet; at most ${MAX_COUNTED}.`, open),
    gauge(
      "keycard_edge_oldest_open_receipt_seconds",
      "Time since the oldest of them was decided; 0 without one.",
      age(oldest_open_at, now),
    ),
    {
      ...{ name: "keycard_edge_undelivered", type: "gauge" },
      help: `Events that a cluster has not taken; at most ${MAX_COUNTED}.`,
      samples: perCluster(({ undelivered }) => undelivered),
    },
    {
      ...{ name: "keycard_edge_oldest_undelivered_seconds", type: "gauge" },
      help: "Time since the oldest of them was decided; 0 without one.",
      samples: perCluster(({ oldest_undelivered_at }) => age(oldest_undelivered_at, now)),
    },
    {
      ...{ name: "keycard_edge_feed_nodes", type: "gauge" },
      help: "Nodes that live by the feed, without their Redis.",
      samples: perCluster(({ by_feed }) => by_feed.length),
    },
    gauge("keycard_edge_audit_unsent", "Entries that the log owes to the audit trail.", unsent),
    gauge("keycard_edge_log_bytes", "What the revocation log holds.", use.bytes),
    gauge(
      "keycard_edge_storage_max_bytes",
      "From which on the log, or the trail, lets go of its oldest early.",
      use.most,
    ),
  ];
}

/** One figure. */
export function gauge(name: string, help: string, value: number): MetricFamily {
  return { name, type: "gauge", help, samples: [{ labels: {}, value }] };
}

/** Seconds; a clock that was set back makes it 0. */
function age(since: number | undefined, now: number): number {
  return since === undefined ? 0 : Math.max(0, now - since) / 1000;
}

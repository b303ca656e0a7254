/** What happens at the door as Prometheus metrics. Names and labels are few and fixed: no person, token or address is in one. */
import { Counter, Gauge, Histogram, Registry } from "prom-client";
import type { Door } from "./protect.ts";

export interface Metrics {
  /** The text exposition format of everything. */
  text(): Promise<string>;
  readonly contentType: string;
}

const SECONDS = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30];

export function createMetrics(door: Door): Metrics {
  const registry = new Registry();
  const registers = [registry];
  registry.setDefaultLabels({ node: door.node });
  const handshakes = new Counter({
    name: "keycard_handshakes_total",
    help: "Handshakes judged, by outcome: admitted, or the code of the refusal.",
    labelNames: ["outcome"],
    registers,
  });
  const judging = new Histogram({
    name: "keycard_handshake_seconds",
    help: "Time from the handshake to its being let in: verification, revocation check and rules.",
    buckets: SECONDS,
    registers,
  });
  const renewals = new Counter({ name: "keycard_renewals_total", help: "Sockets renewed in place.", registers });
  const expired = new Counter({
    name: "keycard_expired_total",
    help: "Sockets closed at their token's end.",
    registers,
  });
  const revocations = new Counter({
    name: "keycard_revocations_total",
    help: "Revocations applied by this node, by code.",
    labelNames: ["code"],
    registers,
  });
  const closed = new Counter({
    name: "keycard_revoked_sockets_total",
    help: "Sockets closed by revocations.",
    registers,
  });
  const latency = new Histogram({
    name: "keycard_revocation_seconds",
    help: "Time from the decision at the edge to this node's last socket of it closed; two clocks.",
    buckets: SECONDS,
    registers,
  });
  const ignored = new Counter({
    name: "keycard_ignored_events_total",
    help: "Things in Redis that no trusted issuer had signed or no node of the cluster sealed.",
    registers,
  });
  const fenced = new Counter({ name: "keycard_fenced_total", help: "Times that the node was cut off.", registers });
  const problems = new Counter({ name: "keycard_problems_total", help: "Links and keys that failed.", registers });
  for (const [name, help, value] of GAUGES) {
    new Gauge({
      name,
      help,
      registers,
      collect() {
        this.set(Number(value(door) ?? Number.NaN));
      },
    });
  }

  door.events.on("admitted", ({ tookMs }) => {
    handshakes.inc({ outcome: "admitted" });
    judging.observe(tookMs / 1000);
  });
  door.events.on("refused", ({ code }) => handshakes.inc({ outcome: code }));
  door.events.on("renewed", () => renewals.inc());
  door.events.on("expired", ({ sockets }) => expired.inc(sockets));
  door.events.on("revoked", (event) => {
    revocations.inc({ code: event.code });
    closed.inc(event.closed);
    latency.observe(Math.max(0, event.afterMs) / 1000);
  });
  door.events.on("ignored", () => ignored.inc());
  door.events.on("fenced", () => fenced.inc());
  door.events.on("problem", () => problems.inc());
  return { text: () => registry.metrics(), contentType: registry.contentType };
}

const GAUGES: readonly (readonly [name: string, help: string, value: (door: Door) => unknown])[] = [
  ["keycard_sockets", "Sockets that are in.", (door) => door.health().sockets],
  ["keycard_index_entries", "Live revocations in the index.", (door) => door.health().revocations],
  ["keycard_ready", "1 when the node lets people in.", (door) => Number(door.health().ready)],
  ["keycard_lease_seconds", "Time until the node is fenced unless it hears something.", (door) => leaseSeconds(door)],
  ["keycard_link_redis", "1 while revocations come through Redis.", (door) => Number(door.health().link === "redis")],
  ["keycard_link_feed", "1 while only the edge's feed brings them.", (door) => Number(door.health().link === "feed")],
  ["keycard_log_gap", "1 while an event is known to be missing.", (door) => Number(door.health().gap)],
  ["keycard_log_unsettled", "Events that cannot be judged yet.", (door) => door.health().unsettled],
  ["keycard_peers", "Nodes of the cluster whose heartbeat is seen, this one included.", (door) => door.health().peers],
  ["keycard_log_silence_seconds", "Time since the last good heartbeat to Redis.", (door) => silenceSeconds(door)],
];

function leaseSeconds(door: Door): number {
  return Number(door.health().lease_ms) / 1000;
}

function silenceSeconds(door: Door): number | undefined {
  const { log_silence_ms } = door.health();
  return typeof log_silence_ms === "number" ? log_silence_ms / 1000 : undefined;
}

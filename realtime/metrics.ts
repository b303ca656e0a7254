/**
 * What happens at the door as Prometheus metrics, and the answer to whoever scrapes them. Names and labels are few and fixed: no person,
 * token or address is in one. infra/observability.md says what each means.
 */
import type { IncomingMessage, ServerResponse } from "node:http";
import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from "prom-client";
import type { Server } from "socket.io";
import type { RefusalCode } from "#contract/refusal";
import type { Door, DoorEvents } from "./protect.ts";

export interface Metrics {
  /** Counts what happens at this door from here on. */
  watch(door: Door, io: Server): void;
  /** A connection to Redis was made, or ended or could not be made. */
  connection(connection: RedisConnection, outcome: "made" | "lost"): void;
  /** The text exposition format of everything. */
  text(): Promise<string>;
  /** Answers `GET /metrics`; returns false for every other request. */
  receive(request: IncomingMessage, response: ServerResponse): boolean;
}

/** `adapter` carries the app's own messages. */
type RedisConnection = DoorEvents["connection"][0]["connection"] | "adapter";

const SECONDS = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30];
/** Refusals that something is watched for. */
const LIKELY: readonly RefusalCode[] = ["unavailable", "token_invalid", "token_expired", "session_revoked"];
const CODES: readonly RefusalCode[] = ["token_revoked", "session_revoked", "refresh_reused"];
const WAYS: readonly DoorEvents["applied"][0]["way"][] = ["push", "bell", "stream", "feed"];
/** Of those that the app names one by one; such as are made by a pattern count together. */
const MAX_NAMESPACES = 50;

/** @param about what runs here */
export function createMetrics(about: { readonly version: string }, onProblem: (error: unknown) => void): Metrics {
  const registry = new Registry();
  const registers = [registry];
  collectDefaultMetrics({ register: registry });
  const build = { name: "keycard_build_info", help: "What runs here; always 1.", labelNames: ["version", "nodejs"] };
  new Gauge({ ...build, registers }).set({ version: about.version, nodejs: process.versions.node }, 1);
  const connections = new Counter({
    name: "keycard_redis_connections_total",
    help: "Connections to Redis by outcome: made, or lost (ended, or could not be made).",
    labelNames: ["connection", "outcome"],
    registers,
  });
  for (const connection of ["commands", "bell", "adapter", "sentinel"] satisfies RedisConnection[]) {
    for (const outcome of ["made", "lost"]) connections.inc({ connection, outcome }, 0);
  }
  const connection: Metrics["connection"] = (connection, outcome) => connections.inc({ connection, outcome });
  const text = () => registry.metrics();

  return {
    watch(door, io) {
      registry.setDefaultLabels({ node: door.node, cluster: door.health().cluster });
      for (const count of [countSockets, countRevocations, countFailures]) count(door, registers);
      door.events.on("connection", (event) => connection(event.connection, event.outcome));
      showGauges(door, registers);
      showNamespaces(io, registers);
    },
    connection,
    text,
    receive(request, response) {
      if (request.url?.split("?")[0] !== "/metrics" || request.method !== "GET") return false;
      text().then(
        (body) => response.writeHead(200, { "content-type": registry.contentType }).end(body),
        (error: unknown) => {
          onProblem(error);
          response.writeHead(500, { "content-length": "0" }).end();
        },
      );
      return true;
    },
  };
}

/** Makes what counts, in these registries. */
function makers(registers: Registry[]) {
  return {
    counter: (name: string, help: string) => new Counter({ name, help, registers }),
    /** @param values of its label that are there from the start: what comes into being at 1 is no rise to whoever scrapes */
    counterBy(label: string, values: readonly string[], name: string, help: string) {
      const counter = new Counter({ name, help, labelNames: [label], registers });
      for (const value of values) counter.inc({ [label]: value }, 0);
      return counter;
    },
    histogram: (name: string, help: string) => new Histogram({ name, help, buckets: SECONDS, registers }),
  };
}

function countSockets({ events }: Door, registers: Registry[]): void {
  const { counter, counterBy, histogram } = makers(registers);
  const handshakes = counterBy(
    "outcome",
    ["admitted", ...LIKELY],
    "keycard_handshakes_total",
    "Handshakes judged, by outcome: admitted, or the code of the refusal.",
  );
  const judging = histogram(
    "keycard_handshake_seconds",
    "Time from the handshake to its being let in: verification, revocation check and rules.",
  );
  const renewals = counter("keycard_renewals_total", "Sockets renewed in place.");
  const expired = counter("keycard_expired_total", "Sockets closed at their token's end.");
  events.on("admitted", ({ tookMs }) => {
    handshakes.inc({ outcome: "admitted" });
    judging.observe(tookMs / 1000);
  });
  events.on("refused", ({ code }) => handshakes.inc({ outcome: code }));
  events.on("renewed", () => renewals.inc());
  events.on("expired", ({ sockets }) => expired.inc(sockets));
}

function countRevocations({ events }: Door, registers: Registry[]): void {
  const { counter, counterBy, histogram } = makers(registers);
  const applied = counterBy(
    "way",
    WAYS,
    "keycard_events_total",
    "Revocations by the way that brought them first: push, bell, stream or feed.",
  );
  const help = "Revocations carried out by this node, by code.";
  const revocations = counterBy("code", CODES, "keycard_revocations_total", help);
  const closed = counter("keycard_revoked_sockets_total", "Sockets closed by revocations.");
  const latency = histogram(
    "keycard_revocation_seconds",
    "Time from the decision at the edge to this node's last socket of it closed; two clocks.",
  );
  events.on("applied", ({ way }) => applied.inc({ way }));
  events.on("revoked", (event) => {
    revocations.inc({ code: event.code });
    closed.inc(event.closed);
    latency.observe(Math.max(0, event.afterMs) / 1000);
  });
}

function countFailures({ events }: Door, registers: Registry[]): void {
  const { counter, counterBy } = makers(registers);
  const ignored = counter(
    "keycard_ignored_events_total",
    "Things in Redis that no trusted issuer had signed or no node of the cluster sealed.",
  );
  const fenced = counter("keycard_fenced_total", "Times that the node was cut off.");
  const problems = counter(
    "keycard_problems_total",
    "Failures that the log told of: each when it began, and once a minute while it went on.",
  );
  const feeds = counterBy(
    "outcome",
    ["answered", "failed"],
    "keycard_feed_requests_total",
    "Questions to an edge's feed, by outcome: answered or failed.",
  );
  events.on("ignored", () => ignored.inc());
  events.on("fenced", () => fenced.inc());
  events.on("problem", () => problems.inc());
  events.on("feed", ({ outcome }) => feeds.inc({ outcome }));
}

const GAUGES: readonly (readonly [name: string, help: string, value: (door: Door) => unknown])[] = [
  ["keycard_sockets", "Sockets that are in.", (door) => door.health().sockets],
  ["keycard_index_entries", "Live revocations in the index.", (door) => door.health().revocations],
  [
    "keycard_closing_revocations",
    "Revocations that are applied and whose sockets are not all closed, margins included.",
    (door) => door.health().closing,
  ],
  [
    "keycard_unwritten_receipts",
    "Words about revocations that could not be written to Redis yet.",
    (door) => door.health().unwritten,
  ],
  ["keycard_ready", "1 when the node lets people in.", (door) => Number(door.health().ready)],
  ["keycard_draining", "1 while the node is being stopped.", (door) => Number(door.health().draining)],
  ["keycard_lease_seconds", "Time until the node is fenced unless it hears something.", (door) => leaseSeconds(door)],
  ["keycard_link_redis", "1 while revocations come through Redis.", (door) => Number(door.health().link === "redis")],
  ["keycard_link_feed", "1 while only the edge's feed brings them.", (door) => Number(door.health().link === "feed")],
  ["keycard_log_gap", "1 while an event is known to be missing.", (door) => Number(door.health().gap)],
  ["keycard_log_unsettled", "Events that cannot be judged yet.", (door) => door.health().unsettled],
  ["keycard_peers", "Nodes of the cluster whose heartbeat is seen, this one included.", (door) => door.health().peers],
  ["keycard_log_silence_seconds", "Time since the last good heartbeat to Redis.", (door) => silenceSeconds(door)],
];

function showGauges(door: Door, registers: Registry[]): void {
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
}

function leaseSeconds(door: Door): number {
  return Number(door.health().lease_ms) / 1000;
}

function silenceSeconds(door: Door): number | undefined {
  const { log_silence_ms } = door.health();
  return typeof log_silence_ms === "number" ? log_silence_ms / 1000 : undefined;
}

function showNamespaces(io: Server, registers: Registry[]): void {
  new Gauge({
    name: "keycard_namespace_sockets",
    help: "Sockets that are connected, those in the lobby included, by namespace; all that were made by a pattern as one.",
    labelNames: ["namespace"],
    registers,
    collect() {
      this.reset();
      const made = new Set([...(io as unknown as Inside).parentNsps.values()].flatMap(({ children }) => [...children]));
      let named = 0;
      for (const [name, nsp] of io._nsps) {
        const isNamed = !made.has(nsp) && ++named <= MAX_NAMESPACES;
        this.inc({ namespace: isNamed ? name : "others" }, nsp.sockets.size);
      }
    },
  });
}

/** What Socket.IO has and its types do not show: namespaces that were made by a pattern. */
interface Inside {
  readonly parentNsps: ReadonlyMap<unknown, { readonly children: ReadonlySet<unknown> }>;
}

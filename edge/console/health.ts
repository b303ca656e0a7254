/** How the clusters are, asked of their nodes every few seconds, and how long revocations have taken. */
import type { ClusterStatus, NodeStatus, Status } from "./answers.ts";
import type { Desk } from "./desk.ts";
import { type Content, element, fill, refill } from "./dom.ts";
import { latencySection } from "./latency.ts";
import { loading } from "./loading.ts";
import { spark } from "./spark.ts";
import { table } from "./table.ts";
import { chip, counted, distance, grouped, lasting } from "./wording.ts";

const EVERY_MS = 5_000;

export function health(desk: Desk): HTMLElement {
  desk.title("Health");
  if (desk.me.tid !== undefined) {
    const text = `Clusters serve every tenant, and you look after ${desk.me.tid}. Their health is for administrators of all tenants.`;
    return element("section", { className: "panel" }, element("p", { className: "empty", textContent: text }));
  }
  const summary = element("div", { className: "figures" });
  const place = element("div", { className: "stack" });
  const parts = new Map<string, ReturnType<typeof clusterPart>>();
  const content = element("div", { className: "stack" }, element("section", { className: "panel" }, summary), place);
  const { notice } = loading(desk, content, {
    load: (signal) => desk.api.status(signal),
    show(status) {
      refill(summary, ...figures(status));
      for (const cluster of status.clusters) {
        const part = parts.get(cluster.cluster) ?? clusterPart();
        parts.set(cluster.cluster, part);
        part.show(cluster, status);
      }
      if (place.childElementCount !== parts.size) fill(place, ...[...parts.values()].map(({ element }) => element));
    },
    everyMs: EVERY_MS,
  });
  return element("div", { className: "stack" }, notice, content, latencySection(desk));
}

function figures({ clusters, log, version }: Status): HTMLElement[] {
  const nodes = clusters.flatMap(({ nodes }) => nodes);
  const ready = nodes.filter(({ ready }) => ready).length;
  const silent = clusters.reduce((sum, { silent }) => sum + silent.length, 0);
  const sockets = clusters.reduce((sum, cluster) => sum + socketsOf(cluster), 0);
  const figure = (strong: string, text: string) =>
    element("p", {}, element("strong", {}, strong), element("span", {}, text));
  return [
    figure(grouped(sockets), "sockets open"),
    figure(`${ready} of ${nodes.length + silent}`, "nodes ready"),
    figure(grouped(log.head), "the log's last number"),
    figure(grouped(log.open), `receipts not enforced yet, edge ${version}`),
  ];
}

function clusterPart() {
  const head = element("h2", { className: "name" });
  const words = element("div", { className: "words" });
  const heads = { now: 0 };
  const sockets = spark("sockets");
  const nodes = table<NodeStatus>(
    "Nodes",
    [
      { name: "Node", isHead: true, cell: ({ node, version }) => [node, element("small", {}, version)] },
      { name: "State", cell: ({ ready }) => (ready ? chip("ready", "good") : chip("not ready", "bad")) },
      { name: "Link", cell: ({ link }) => linkChip(link) },
      { name: "Lease", isNumber: true, cell: ({ lease_ms }) => lasting(lease_ms) },
      { name: "Lag", isNumber: true, cell: (node) => lagText(node, heads.now) },
      {
        name: "Log silent",
        isNumber: true,
        cell: ({ log_silence_ms }) => (log_silence_ms === null ? "–" : lasting(log_silence_ms)),
      },
      { name: "Sockets", isNumber: true, cell: ({ sockets }) => grouped(sockets) },
      { name: "Up", isNumber: true, cell: ({ started_at }) => distance(started_at).replace(" ago", "") },
    ],
    ({ node, boot }) => `${node} ${boot}`,
    "No node of this cluster has answered.",
    "even",
  );
  return {
    element: element(
      "section",
      { className: "panel" },
      element("div", { className: "section-head" }, head, sockets.element),
      words,
      nodes.element,
    ),
    show(status: ClusterStatus, { at, log }: Status) {
      heads.now = log.head;
      if (status.nodes.length > 0) sockets.add(at, socketsOf(status));
      refill(head, status.cluster, " ", clusterChip(status));
      refill(words, ...clusterWords(status));
      nodes.show(status.nodes);
    },
  };
}

function socketsOf({ nodes }: ClusterStatus): number {
  return nodes.reduce((sum, { sockets }) => sum + sockets, 0);
}

function linkChip(link: NodeStatus["link"]): HTMLElement {
  if (link === "redis") return chip("Redis", "good");
  return link === "feed" ? chip("feed", "warn") : chip("none", "bad");
}

function lagText({ applied, gap, unsettled }: NodeStatus, head: number): Content {
  const behind = Math.max(0, head - applied);
  if (gap) return element("span", { className: "warn-text", textContent: `gap, ${behind} behind` });
  if (behind === 0) return unsettled > 0 ? `${unsettled} unsettled` : "0";
  return `${behind} behind`;
}

function clusterChip({ nodes, silent, error, redis }: ClusterStatus): HTMLElement {
  if (error !== undefined || nodes.length === 0) return chip("cannot be asked", "bad");
  if (redis?.reachable === false) return chip("Redis away", "warn");
  const isWell = silent.length === 0 && nodes.every(({ ready, link }) => ready && link === "redis");
  return isWell ? chip("well", "good") : chip("look at its nodes", "warn");
}

function clusterWords(status: ClusterStatus): Content[] {
  const { endpoints, undelivered, oldest_undelivered_at, last_delivered_at, last_error, open_receipts, silent, error } =
    status;
  const caution = (text: string) => element("p", { className: "stale", textContent: text });
  const since = oldest_undelivered_at === undefined ? "" : `, the oldest of ${distance(oldest_undelivered_at)}`;
  const reached = endpoints.map(({ origin, reachable }) =>
    element("span", {}, origin, reachable === undefined ? "" : reachable ? " reached" : " not reached"),
  );
  return [
    error !== undefined && caution(`Nobody there could be asked: ${error}`),
    undelivered > 0 && caution(`${counted(undelivered, "revocation")} not delivered${since}. ${last_error ?? ""}`),
    silent.length > 0 && caution(`No answer from ${silent.join(", ")}.`),
    element(
      "p",
      { className: "muted small endpoints" },
      `Open receipts: ${grouped(open_receipts)}. Last delivery: ${last_delivered_at === undefined ? "none" : distance(last_delivered_at)}. `,
      "Endpoints: ",
      ...reached.flatMap((each, index) => (index === 0 ? [each] : [", ", each])),
    ),
  ];
}

/** `keycard status`: every cluster and every node, as they answer now. */
import type { Status } from "../../edge-answers.ts";
import { troublesOf } from "../cluster-troubles.ts";
import { command } from "../command.ts";
import { EXIT } from "../failure.ts";
import { aligned, type Row } from "../output.ts";
import { bold, counted, cyan, dim, green, red, Text, t, yellow } from "../text.ts";
import { distance, duration } from "../times.ts";

type Cluster = Status["clusters"][number];
type Node = Cluster["nodes"][number];

export const statusCommands = [
  command({
    name: "status",
    summary: "show every cluster and node: ready, lag, lease, Redis",
    args: [],
    options: {},
    about: [
      "Exit code 1 when something is wrong: a cluster that cannot be asked or does not take events, a node that is silent or not ready.",
      "lag is how many events a node has yet to apply; lease is how long it may go on without being told anything.",
    ],
    examples: [
      ["keycard status", ""],
      ["watch -c keycard status", "again and again"],
    ],
    scopes: ["revocations:read"],
    async run(invocation) {
      const { output, json } = invocation;
      const { edge, name, edgeUrl } = await invocation.desk();
      const status = await edge.status();
      if (json) output.json(status);
      else output.lines(statusLines(status, `${name}, ${edgeUrl}`));
      return status.clusters.some((cluster) => troublesOf(cluster).length > 0) ? EXIT.failed : EXIT.ok;
    },
  }),
];

export function statusLines({ at, version, log, clusters }: Status, name: string): Text[] {
  const open = log.open === 0 ? "every receipt is enforced" : `${counted(log.open, "receipt")} not enforced yet`;
  return [
    t`${bold("edge")}  ${name}  ${dim(`version ${version}`)}`,
    t`      ${counted(log.head, "event")} decided; ${open}`,
    ...(clusters.length === 0
      ? [Text.of(""), t`${yellow("!")} No cluster is configured: revocations hold at the edge alone.`]
      : []),
    ...clusters.flatMap((cluster) => ["", ...clusterLines(cluster, log.head, at)]).map(Text.of),
  ];
}

function clusterLines(cluster: Cluster, head: number, at: number): Text[] {
  const { nodes, redis, last_delivered_at, silent } = cluster;
  const troubles = troublesOf(cluster);
  const link =
    redis === undefined
      ? dim("Redis not asked")
      : redis.reachable
        ? t`Redis ${green("reachable")}`
        : t`Redis ${red("away")}`;
  const sockets = nodes.reduce((sum, node) => sum + node.sockets, 0);
  const delivered =
    last_delivered_at === undefined ? "" : dim(`  last event delivered ${distance(last_delivered_at, at)}`);
  const mark = troubles.length === 0 ? green("✓") : red("✗");
  const rows = nodes.map((node) => nodeRow(node, head, at));
  const heads = ["", "node", "state", "link", "lag", "lease", "log", "sockets", "up", "version"].map((word) =>
    dim(word),
  );
  return [
    t`${mark} ${bold(cluster.cluster)}  ${link}  ${counted(nodes.length, "node")}, ${counted(sockets, "socket")}${delivered}`,
    ...(nodes.length === 0 ? [] : aligned([heads, ...rows])),
    ...silent.map((node) => t`  ${red("✗")} ${node}  gave no answer`),
    ...troubles.map((trouble) => t`  ${red("!")} ${trouble}`),
  ];
}

function nodeRow(
  { node, ready, link, applied, lease_ms, sockets, started_at, version, log_silence_ms, gap }: Node,
  head: number,
  at: number,
): Row {
  const lag = Math.max(0, head - applied);
  return [
    ready ? t`  ${green("✓")}` : t`  ${red("✗")}`,
    node,
    ready ? green("ready") : red("not ready"),
    link === "redis" ? link : link === "feed" ? cyan(link) : red(link),
    gap ? red(t`${lag}, a gap`) : lag === 0 ? "0" : yellow(lag),
    lease_ms > 0 ? duration(lease_ms) : red("over"),
    log_silence_ms === null ? dim("none") : t`${duration(log_silence_ms)} ago`,
    String(sockets),
    duration(at - started_at),
    dim(version),
  ];
}

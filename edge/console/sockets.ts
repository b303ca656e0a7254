/** A person's live sockets as the nodes hold them right now: by cluster (a region), then by node. */
import type { LiveSocket, Session, SocketCluster, Sockets } from "./answers.ts";
import { type Content, element, fill, refill } from "./dom.ts";
import { table } from "./table.ts";
import { chip, counted, distance, grouped } from "./wording.ts";

/** What a person or their app called the device. */
export function deviceName({ device, user_agent }: Session): string {
  return device || agentName(user_agent ?? "") || "unnamed device";
}

/** The best known word of a user agent; the whole of it is shown as well. */
function agentName(agent: string): string | undefined {
  return /\b(Edg|Firefox|Chrome|Safari|curl|okhttp|node)\b/.exec(agent)?.[1];
}

interface Row extends LiveSocket {
  readonly node: string;
}

/** @param deviceOf what the session's device is called */
export function liveSockets(deviceOf: (sid: string) => string): { element: HTMLElement; show(sockets: Sockets): void } {
  const place = element("div", { className: "stack" });
  const parts = new Map<string, ReturnType<typeof clusterPart>>();
  return {
    element: place,
    show({ clusters }) {
      for (const cluster of clusters) {
        const part = parts.get(cluster.cluster) ?? clusterPart(deviceOf);
        parts.set(cluster.cluster, part);
        part.show(cluster);
      }
      if (place.childElementCount !== parts.size) fill(place, ...[...parts.values()].map(({ element }) => element));
      if (clusters.length === 0)
        fill(place, element("p", { className: "empty" }, "No cluster is configured at this edge."));
    },
  };
}

function clusterPart(deviceOf: (sid: string) => string) {
  const head = element("h3");
  const words = element("div", { className: "words" });
  const rows = table<Row>(
    "Sockets",
    [
      { name: "Node", isHead: true, cell: ({ node }) => node },
      { name: "Session", cell: ({ sid }) => deviceOf(sid) },
      { name: "Namespace", cell: ({ nsp }) => nsp },
      { name: "Transport", cell: ({ transport }) => transport },
      { name: "Connected", cell: ({ connected_at }) => distance(connected_at * 1000) },
      { name: "Token ends", cell: ({ expires_at }) => distance(expires_at * 1000) },
    ],
    ({ node, id }) => `${node} ${id}`,
    "No live sockets here.",
    "even",
  );
  return {
    element: element("section", { className: "cluster" }, head, words, rows.element),
    show(cluster: SocketCluster) {
      const { sockets, nodes } = cluster;
      const listed = nodes.flatMap(({ node, listed }) => listed.map((socket) => ({ node, ...socket })));
      refill(
        head,
        cluster.cluster,
        " ",
        sockets === null ? chip("not asked", "bad") : chip(counted(sockets, "socket"), "plain"),
      );
      refill(words, ...cautions(cluster, listed.length));
      rows.element.hidden = sockets === null;
      rows.show(listed);
    },
  };
}

function cautions({ sockets, silent, redis, error }: SocketCluster, listed: number): Content[] {
  const caution = (text: string) => element("p", { className: "stale", textContent: text });
  return [
    error !== undefined && caution(`Nobody there could be asked: ${error}`),
    redis?.reachable === false && caution("Its Redis is away: only the node that was asked has answered."),
    silent.length > 0 && caution(`No answer from ${silent.join(", ")}.`),
    sockets !== null && sockets > listed && caution(`The first ${listed} of ${grouped(sockets)} are listed.`),
  ];
}

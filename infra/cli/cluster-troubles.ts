/** What is wrong with a cluster, as its nodes and the edge tell it: for whoever looks at the status, and for the doctor. */
import type { Status } from "../edge-answers.ts";
import { counted } from "./text.ts";
import { distance } from "./times.ts";

type Cluster = Status["clusters"][number];

/** In sentences; none where all is well. */
export function troublesOf({
  error,
  undelivered,
  oldest_undelivered_at,
  last_error,
  redis,
  nodes,
  silent,
  endpoints,
}: Cluster): string[] {
  const unreachable = endpoints.filter(({ reachable }) => reachable === false);
  const fenced = nodes.filter(({ ready }) => !ready).map(({ node }) => node);
  const unsettled = nodes.filter(({ unsettled }) => unsettled > 0).map(({ node }) => node);
  const waiting = oldest_undelivered_at === undefined ? "" : `, the oldest ${distance(oldest_undelivered_at)}`;
  return [
    ...(error === undefined ? [] : [`No node of it could be asked: ${error}.`]),
    ...(undelivered === 0
      ? []
      : [
          `${counted(undelivered, "event")} not delivered${waiting}${last_error === undefined ? "" : `: ${last_error}`}.`,
        ]),
    ...(redis?.reachable === false ? ["Its nodes cannot reach Redis: they live by the edge's feed."] : []),
    ...(fenced.length === 0 ? [] : [`Not ready, and letting nobody in: ${fenced.join(", ")}.`]),
    ...(unsettled.length === 0
      ? []
      : [`Events that cannot be judged at ${unsettled.join(", ")}: the signer's key is not known there.`]),
    ...(silent.length === 0 ? [] : [`No answer from ${silent.join(", ")}.`]),
    ...unreachable.map(
      ({ origin, error: why }) => `${origin} cannot be reached${why === undefined ? "" : `: ${why}`}.`,
    ),
  ];
}

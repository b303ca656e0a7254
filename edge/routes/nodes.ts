/** For operators: how the log and every node of every cluster is just now, and where a person's sockets are. */
import { type NodeAnswer, type NodeAnswers, type NodeQuestion, signNodeQuery } from "#contract/node-query";
import { VERSION } from "#contract/version";
import type { ClusterConfig } from "../config.ts";
import { randomName } from "../identifiers.ts";
import { signingKey } from "../keys/issuer.ts";
import { ask } from "../outcome.ts";
import { type Asked, Cluster } from "../revocations/cluster.ts";
import { revocationLog } from "../revocations/cutoffs.ts";
import type { ClusterStanding } from "../revocations/log-status.ts";
import { subjectInPath } from "./account.ts";
import { demandAdministrator, demandAllTenants } from "./administrator.ts";
import type { Exchange } from "./request.ts";

/** An isolate remembers which endpoint of a cluster answered last. */
const clusters = new WeakMap<ClusterConfig, Cluster>();

/** `GET /admin/status` */
export async function showStatus(c: Exchange): Promise<Response> {
  demandAllTenants(await demandAdministrator(c, "revocations:read"));
  const [{ clusters: standings, ...log }, asked] = await Promise.all([
    ask(revocationLog(c.env).status()),
    askEverywhere(c, { about: "status" }),
  ]);
  const shown = asked.map(({ cluster, ...said }) => {
    const standing = standings.find((each) => each.cluster === cluster);
    return { cluster, ...said, ...(standing && withFeed(standing, said)) };
  });
  return c.json({ at: Date.now(), version: VERSION, log, clusters: shown });
}

/** `GET /admin/accounts/:sub/sockets` */
export async function showSockets(c: Exchange): Promise<Response> {
  const principal = await demandAdministrator(c, "sessions:read");
  const sub = subjectInPath(c);
  // Whether there is such an account, for whoever asks, is the account's to say.
  await ask(c.env.ACCOUNT.getByName(sub).summary(principal.tid));
  const asked = await askEverywhere(c, { about: "sockets", sub });
  const shown = asked.map(({ endpoints: _, nodes, ...said }) => {
    const holding = nodes.filter(({ sockets }) => sockets > 0).map(({ boot: __, ...node }) => node);
    return { ...said, sockets: said.error === undefined ? sum(holding) : null, nodes: holding };
  });
  const known = shown.map(({ sockets }) => sockets);
  const sockets = known.includes(null) ? null : shown.reduce((all, each) => all + (each.sockets ?? 0), 0);
  return c.json({ sub, at: Date.now(), sockets, clusters: shown });
}

/** What a cluster says, as both answers show it. */
interface ClusterView<Q extends NodeQuestion> {
  readonly cluster: string;
  readonly endpoints: readonly { readonly origin: string; readonly reachable?: boolean; readonly error?: string }[];
  readonly redis?: { readonly reachable: boolean };
  readonly nodes: readonly NodeAnswer<Q>[];
  readonly silent: readonly string[];
  /** Nobody could be asked. */
  readonly error?: string;
}

/** All clusters at once, so that one that is away keeps nobody waiting for the others. */
async function askEverywhere<Q extends NodeQuestion>(c: Exchange, question: Q): Promise<ClusterView<Q>[]> {
  const { issuer, clusters: configured } = c.var.config;
  const key = await signingKey(c.env);
  const issuedAt = Math.floor(Date.now() / 1000);
  return await Promise.all(
    configured.map(async (config) => {
      const envelope = { issuer, audience: config.id, issuedAt, nonce: randomName(128) };
      const cluster = clusters.get(config) ?? new Cluster(config);
      clusters.set(config, cluster);
      const token = await signNodeQuery(question, envelope, key);
      return viewOf(config, await cluster.nodes(question, { token, ...envelope }));
    }),
  );
}

function viewOf<Q extends NodeQuestion>(
  { id, endpoints }: ClusterConfig,
  { said, tried }: Asked<NodeAnswers<NodeAnswer<Q>>>,
): ClusterView<Q> {
  const untried = endpoints.filter((endpoint) => tried.every(({ origin }) => origin !== endpoint));
  const error = tried.map((each) => `${each.origin}: ${each.error}`).join("; ");
  return {
    cluster: id,
    endpoints: [...tried, ...untried.map((origin) => ({ origin }))],
    ...(said === undefined ? { error } : { redis: { reachable: said.redis } }),
    nodes: said?.answers ?? [],
    silent: said?.silent ?? [],
  };
}

/** Nodes that live by the feed have lost Redis, so that the one that was asked may not know of them. */
function withFeed(
  { by_feed, ...standing }: ClusterStanding,
  { nodes, silent }: Pick<ClusterView<{ about: "status" }>, "nodes" | "silent">,
) {
  const unheard = by_feed.filter((name) => nodes.every(({ node }) => node !== name));
  return { ...standing, silent: [...new Set([...silent, ...unheard])].sort() };
}

function sum(nodes: readonly { readonly sockets: number }[]): number {
  return nodes.reduce((all, { sockets }) => all + sockets, 0);
}

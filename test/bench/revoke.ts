/**
 * How long it takes until somebody is out who has a socket on each of N nodes. Asked for in three ways: a call of the edge's API; an event that one node
 * has just been pushed, as the edge pushes it; and `io.in(room).disconnectSockets(true)` on one node, over each of Socket.IO's adapters for Redis. The
 * first two are signed, durable and accounted for, and are done when the receipt is whole; the third is none of that.
 *
 * The second and the third begin in the same process, when it has the request or makes the call: what leads there is in neither. Servers have the same
 * settings and handlers, and one Redis that writes nothing to disk; the API's own stack has another one, which does. Clients are raw, in a process of
 * their own; those that are idle, on Keycard's side of four nodes, in two more. All clocks are the machine's monotonic one.
 */
import type { Bench, Row } from "./bench.ts";
import { ADAPTERS, type AdapterName } from "./closing-node.ts";
import { type Distribution, distributionOf, ratioOf, type Spread, spreadText } from "./distribution.ts";
import { inTurns, type Turns } from "./in-turns.ts";
import { type Crowd, startCrowd } from "./leavers.ts";
import { type EdgeSide, startEdgeSide } from "./revoke-by-api.ts";
import { type Closing, type Stage, startStage } from "./revoke-stage.ts";

const NODES = [1, 4, 8];
const TURNS: Turns = { rounds: 60, warmUpRounds: 10 };
const IDLE = { nodes: 4, sockets: [0, 1_000, 20_000], turns: { rounds: 60, warmUpRounds: 5 } };
const GOAL_RATIO = 1;
/** More than this beside the curve's begin is no flat curve. */
const FLAT_RATIO = 1.25;

const WAYS = ["api", "event", "receipt", ...ADAPTERS, "hop"] as const;
type Way = (typeof WAYS)[number];

interface Figures {
  readonly nodes: number;
  /** Milliseconds until the last socket was closed. */
  readonly closed: Readonly<Record<Way, Distribution>>;
  /** Until the receipt was whole, too. */
  readonly whole: { readonly api: Distribution; readonly event: Distribution };
  readonly best_adapter: AdapterName;
  /** Over the best adapter, round by round. */
  readonly event_ratio: { readonly closed: Spread; readonly whole: Spread };
}

interface IdleFigures {
  readonly idle: number;
  readonly event: Distribution;
  /** Over `disconnectSockets` with nobody idle beside it, in the same rounds. */
  readonly ratio: Spread;
}

interface Revoke {
  readonly by_nodes: readonly Figures[];
  readonly by_idle: readonly IdleFigures[];
}

export const REVOKE: Bench = {
  about: "revocation to last closed socket and whole receipt, beside disconnectSockets over three adapters",
  async run(tell) {
    const by_nodes: Figures[] = [];
    for (const nodes of NODES) by_nodes.push(await measureWays(nodes, tell));
    const result: Revoke = { by_nodes, by_idle: await measureIdle(tell) };
    return { result, rows: rowsOf(result), print: () => print(result) };
  },
};

async function measureWays(nodes: number, tell: (text: string) => void): Promise<Figures> {
  tell(`${nodes} nodes are started`);
  const [edge, stage] = [await startEdgeSide(nodes), await startStage(nodes, ADAPTERS, tell)];
  try {
    tell(`${nodes} nodes: ${TURNS.rounds} rounds`);
    const samples = await inTurns(WAYS, TURNS, (way, round) => measure(way, round, edge, stage));
    await stage.checkReceipts();
    return figuresOf(nodes, samples);
  } finally {
    await Promise.all([edge.stop(), stage.stop()]);
  }
}

function measure(way: Way, round: number, edge: EdgeSide, stage: Stage): Promise<Closing> {
  if (way === "api") return edge.revoke(stage.crowd, `round ${round}`);
  // When the receipt is whole is seen in rounds of its own, because looking slows it down.
  if (way === "event" || way === "receipt") return stage.byEvent(way === "receipt");
  return way === "hop" ? stage.hop() : stage.byRoom(way);
}

function figuresOf(nodes: number, samples: Readonly<Record<Way, readonly Closing[]>>): Figures {
  const closed = (way: Way) => samples[way].map(({ closedMs }) => closedMs);
  const whole = (way: Way) => samples[way].map(({ wholeMs }) => wholeMs);
  const medians = ADAPTERS.map((adapter) => [distributionOf(closed(adapter)).p50, adapter] as const);
  const [, best] = medians.reduce((a, b) => (b[0] < a[0] ? b : a));
  return {
    nodes,
    closed: Object.fromEntries(WAYS.map((way) => [way, distributionOf(closed(way))])) as Record<Way, Distribution>,
    whole: { api: distributionOf(whole("api")), event: distributionOf(whole("receipt")) },
    best_adapter: best,
    event_ratio: {
      closed: ratioOf(closed("event"), closed(best)),
      whole: ratioOf(whole("receipt"), closed(best)),
    },
  };
}

/** The same nodes with more and more idle sockets on them. */
async function measureIdle(tell: (text: string) => void): Promise<IdleFigures[]> {
  const stage = await startStage(IDLE.nodes, ["classic"], tell);
  const idle = [await startCrowd(), await startCrowd()];
  try {
    const figures: IdleFigures[] = [];
    let open = 0;
    for (const sockets of IDLE.sockets) {
      tell(`${sockets} idle sockets`);
      await openIdle(stage, idle, sockets - open);
      open = sockets;
      const samples = await inTurns(["event", "classic"] as const, IDLE.turns, (way, round) =>
        measure(way, round, NO_EDGE, stage),
      );
      const [event, classic] = [samples.event, samples.classic].map((all) => all.map(({ closedMs }) => closedMs));
      figures.push({ idle: sockets, event: distributionOf(event ?? []), ratio: ratioOf(event ?? [], classic ?? []) });
    }
    await stage.checkReceipts();
    return figures;
  } finally {
    await Promise.all([...idle.map((crowd) => crowd.stop()), stage.stop()]);
  }
}

const NO_EDGE: EdgeSide = { revoke: () => Promise.reject(new Error("there is no edge")), stop: async () => undefined };
/** Of one idle person. */
const SOCKETS_EACH = 10;

async function openIdle({ running }: Stage, crowds: readonly Crowd[], count: number): Promise<void> {
  const { issuer, nodes, portOf } = running;
  const people = Array.from({ length: Math.ceil(count / SOCKETS_EACH) }, (_, i) =>
    issuer.token({ sub: `u_idle_${count}_${i}` }),
  );
  const tokens = await Promise.all(people);
  const ports = nodes.map((node) => portOf(node, "keycard"));
  const clients = Array.from({ length: count }, (_, i) => ({
    port: ports[i % ports.length] ?? 0,
    token: tokens[Math.floor(i / SOCKETS_EACH)],
  }));
  const opening = crowds.map((crowd, which) =>
    crowd.open(
      `idle ${count}`,
      clients.filter((_, i) => i % crowds.length === which),
    ),
  );
  await Promise.all(opening);
}

function rowsOf({ by_nodes, by_idle }: Revoke): Row[] {
  const rows = by_nodes.map(({ nodes, closed, whole, best_adapter, event_ratio }): Row => {
    const isMet = event_ratio.whole.median <= GOAL_RATIO;
    return {
      work: `${nodes === 1 ? "one node" : `${nodes} nodes`}, a socket on each: from the node that has the event to the last closed and the receipt whole, over the best adapter's \`disconnectSockets\``,
      goal: `≤ ${GOAL_RATIO}x`,
      measured: `${spreadText(event_ratio.whole)}x of ${best_adapter} (closed ${spreadText(event_ratio.closed)}x); p50 ${whole.event.p50} ms, with the call of the API before it ${whole.api.p50} ms; one hop of Redis ${closed.hop.p50} ms`,
      met: isMet,
      ...(isMet ? {} : { because: WHY_NOT }),
    };
  });
  const [begin] = by_idle;
  const steepest = Math.max(...by_idle.map(({ ratio }) => ratio.median / (begin?.ratio.median ?? Number.NaN)));
  const idleRow: Row = {
    work: `the same on ${IDLE.nodes} nodes with ${IDLE.sockets.join(", ")} idle sockets around it`,
    goal: "flat",
    measured: by_idle.map(({ idle, event }) => `${idle}: p50 ${event.p50} ms`).join("; "),
    met: steepest <= FLAT_RATIO,
  };
  return [...rows, idleRow];
}

const WHY_NOT =
  "each node checks a signature before it closes anybody and leaves a sealed word after it, over one more hop to Redis: of a node's processor time for an event, signature and word are the largest part";

function print({ by_nodes, by_idle }: Revoke): void {
  const line = (label: string, { p50, p99, max }: Distribution) =>
    console.log(`  ${label.padEnd(58)}${[p50, p99, max].map((ms) => ms.toFixed(2).padStart(9)).join("")}`);
  for (const { nodes, closed, whole, best_adapter, event_ratio } of by_nodes) {
    console.log(`\n${nodes} nodes, one socket on each; milliseconds, ${TURNS.rounds} rounds\n`);
    console.log(`  ${"".padEnd(58)}${["p50", "p99", "max"].map((title) => title.padStart(9)).join("")}`);
    line("API call to last socket closed", closed.api);
    line("  to the receipt, as the API tells it", whole.api);
    line("node has the event to last socket closed", closed.event);
    line("  to the whole receipt", whole.event);
    for (const adapter of ADAPTERS) line(`disconnectSockets, ${adapter} adapter`, closed[adapter]);
    line("one hop of Redis", closed.hop);
    const { closed: toClosed, whole: toWhole } = event_ratio;
    console.log(`\n  event over ${best_adapter}: closed ${spreadText(toClosed)}, whole ${spreadText(toWhole)}`);
  }
  console.log(`\n${IDLE.nodes} nodes and idle sockets: node has the event to last socket closed; milliseconds\n`);
  for (const { idle, event, ratio } of by_idle) {
    line(`${idle} idle sockets`, event);
    console.log(`    ${spreadText(ratio)} times as long as disconnectSockets with nobody idle beside it`);
  }
}

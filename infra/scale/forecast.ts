/** What sizes that nobody runs on one machine would need, and what gives way first. */
import { monthlyBill } from "./bill.ts";
import { type Forecast, type Habits, simulate, type UnitCosts } from "./model.ts";

export const EVERY_SIZE = [100_000, 1_000_000, 10_000_000] as const;

const WEEK = 604_800;
/** Of one person with one socket, at the busiest hour, which is taken for three times the mean. */
export const PEOPLE: Habits = {
  // The network changes, the lid is closed.
  handshakes: 1 / 1_800,
  // Tokens live 300 s, and are renewed 30 s before.
  renewals: 1 / 270,
  logins: 3 / WEEK,
  revocations: 3 / WEEK,
};
/** As many as were measured at once on one. */
const MOST_SOCKETS = 20_000;
/** What is left is for the app, for a neighbour's sockets when a node dies, and for bursts. */
const MOST_BUSY = 0.5;
const NODES_PER_CLUSTER = 50;
const PLAYED = { seconds: 20, seed: 7 };

export interface Need {
  readonly sockets: number;
  readonly nodes: number;
  readonly clusters: number;
  readonly forecast: Forecast;
  readonly redis_commands_each: number;
  readonly edge_requests: number;
  readonly dollars: number;
  readonly dearest: string;
}

/** The fewest nodes that are not too busy, and everything besides. */
export function needOf(costs: UnitCosts, sockets: number, habits: Habits): Need {
  let nodes = Math.ceil(sockets / MOST_SOCKETS);
  let forecast = simulate(costs, { sockets, nodes, habits, ...PLAYED });
  while (forecast.node.busy > MOST_BUSY) {
    nodes = Math.ceil(nodes * 1.1);
    forecast = simulate(costs, { sockets, nodes, habits, ...PLAYED });
  }
  const clusters = Math.ceil(nodes / NODES_PER_CLUSTER);
  // One that fails is borne by the others.
  nodes = Math.max(nodes + clusters, 3);
  const { dollars, most } = monthlyBill(costs, meanOf(habits), sockets, nodes);
  return {
    ...{ sockets, nodes, clusters, forecast, dollars, dearest: most },
    redis_commands_each: Math.round(forecast.redis_commands_per_second / clusters),
    edge_requests: Math.round(sockets * (habits.renewals + habits.logins + habits.revocations)),
  };
}

/** A bill is for the whole month. Who is signed in renews around the clock. */
function meanOf({ handshakes, renewals, logins, revocations }: Habits): Habits {
  return { handshakes, renewals, logins: logins / 3, revocations: revocations / 3 };
}

/** For people, in Markdown. */
export function forecastTable(costs: UnitCosts, sizes: readonly number[], habits: Habits): string {
  const titles = [
    "sockets",
    "nodes",
    "of a core, each",
    "memory, each",
    "clusters",
    "Redis, each",
    "edge",
    "the log",
    "a month at the edge",
  ];
  const rows = sizes.map((size) => {
    const { nodes, clusters, forecast, redis_commands_each, edge_requests, dollars, dearest } = needOf(
      costs,
      size,
      habits,
    );
    const { node, log } = forecast;
    return [
      size.toLocaleString("en"),
      String(nodes),
      `${(node.busy * 100).toFixed(0)} %`,
      `${node.megabytes} MB`,
      String(clusters),
      `${redis_commands_each.toLocaleString("en")} commands/s`,
      `${edge_requests.toLocaleString("en")} requests/s`,
      `${log.revocations_per_second.toFixed(1)}/s, ${(log.busy * 100).toFixed(0)} % busy`,
      `$${Math.round(dollars).toLocaleString("en")}, most of it for ${dearest}`,
    ];
  });
  return [titles, titles.map(() => "---"), ...rows].map((cells) => `| ${cells.join(" | ")} |`).join("\n");
}

/** What the edge costs a month at Cloudflare's list price for Workers Paid (developers.cloudflare.com, November 2026), and what is more than it includes. */
import type { Habits, UnitCosts } from "./model.ts";

const MONTH_SECONDS = 30 * 86_400;
const MILLION = 1e6;

/** Dollars. The first are included in the five dollars a month. */
const PRICES = {
  plan: 5,
  requests: { included: 10 * MILLION, perMillion: 0.3 },
  cpuMs: { included: 30 * MILLION, perMillion: 0.02 },
  objectRequests: { included: MILLION, perMillion: 0.15 },
  gigabyteSeconds: { included: 400_000, perMillion: 12.5 },
  rowsWritten: { included: 50 * MILLION, perMillion: 1 },
} as const;
type Metered = Exclude<keyof typeof PRICES, "plan">;
const IN_WORDS: Readonly<Record<Metered, string>> = {
  requests: "requests",
  cpuMs: "processor time",
  objectRequests: "calls of objects",
  gigabyteSeconds: "objects that are awake",
  rowsWritten: "rows written",
};

/** Of one operation: calls of Durable Objects, rows they write, counted with two clusters, and how long objects are kept awake for it. */
const USE = {
  refresh: { objectRequests: 1, rowsWritten: 1, objectMs: 3 },
  login: { objectRequests: 3, rowsWritten: 6, objectMs: 10 },
  revocation: { objectRequests: 8, rowsWritten: 63, objectMs: 100 },
} as const;
/** An object has 128 MB to itself as far as the bill is concerned. */
const OBJECT_GIGABYTES = 0.128;

export interface Bill {
  readonly dollars: number;
  /** What most of it is for. */
  readonly most: string;
}

/** @param nodes whose doors ask for key sets, every five minutes each */
export function monthlyBill({ edge }: UnitCosts, habits: Habits, sockets: number, nodes: number): Bill {
  const perSecond = {
    refresh: sockets * habits.renewals,
    login: sockets * habits.logins,
    revocation: sockets * habits.revocations,
  };
  const cpuMs = { refresh: edge.refresh_us / 1e3, login: edge.login_us / 1e3, revocation: edge.revocation_us / 1e3 };
  const used: Record<Metered, number> = {
    requests: (nodes / 300) * MONTH_SECONDS,
    ...{ cpuMs: 0, objectRequests: 0, gigabyteSeconds: 0, rowsWritten: 0 },
  };
  for (const kind of Object.keys(USE) as (keyof typeof USE)[]) {
    const count = perSecond[kind] * MONTH_SECONDS;
    const { objectRequests, rowsWritten, objectMs } = USE[kind];
    used.requests += count;
    used.cpuMs += count * cpuMs[kind];
    used.objectRequests += count * objectRequests;
    used.rowsWritten += count * rowsWritten;
    used.gigabyteSeconds += (count * objectMs * OBJECT_GIGABYTES) / 1e3;
  }
  const names = Object.keys(used) as Metered[];
  const price = (name: Metered): number => {
    const { included, perMillion } = PRICES[name];
    return (Math.max(0, used[name] - included) / MILLION) * perMillion;
  };
  const most = names.reduce((dearest, name) => (price(name) > price(dearest) ? name : dearest));
  const dollars = names.reduce((sum, name) => sum + price(name), PRICES.plan as number);
  return { dollars, most: price(most) > 0 ? IN_WORDS[most] : "the plan" };
}

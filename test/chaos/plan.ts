/**
 * What will be done to a world, and when: a function of the seed and nothing else. Whom a deed hits is said by number, since who is
 * logged in by then is not known yet. How the deeds fall among what everybody else is doing at that moment is up to the
 * machine: the plan of a seed is always the same, its run never quite.
 */
import type { Direction } from "../support/link.ts";
import { Random } from "../support/random.ts";

/** What there is to break and whom to revoke. */
export interface Stage {
  readonly clusters: readonly string[];
  readonly nodesPerCluster: number;
  readonly persons: number;
  readonly tenants: number;
  readonly clients: number;
}

export type Fault =
  /** SIGKILL, and a new start when it is over. */
  | { readonly kind: "kill"; readonly part: string }
  /** SIGTERM: the node drains; a new start when it is over. */
  | { readonly kind: "drain"; readonly part: string }
  /** SIGSTOP. */
  | { readonly kind: "freeze"; readonly part: string }
  | { readonly kind: "cut"; readonly links: readonly string[] }
  /** Half-open. `late` lets what was held arrive in the end, instead of breaking the connections. */
  | {
      readonly kind: "stall";
      readonly links: readonly string[];
      readonly direction: Direction;
      readonly late: boolean;
    }
  | {
      readonly kind: "delay";
      readonly links: readonly string[];
      readonly direction: Direction;
      readonly ms: number;
    }
  /** Everything that Redis holds is gone. */
  | { readonly kind: "flush"; readonly cluster: string }
  /** Redis comes back as it was at the beginning of the fault. */
  | { readonly kind: "failover"; readonly cluster: string }
  /** Of a node or of the edge. */
  | { readonly kind: "clock"; readonly node: string; readonly offMs: number }
  /** Redis' clock was ahead for a moment: what it numbers from here on has a time of the future. */
  | { readonly kind: "ahead"; readonly cluster: string }
  /** Events of before come again, in any order: pushed, put into the stream, or spoiled. */
  | { readonly kind: "replay"; readonly cluster: string; readonly how: "push" | "stream" | "garbage" };

/** Numbers are of clients, persons and tenants. */
export type Revoking =
  | { readonly kind: "token"; readonly client: number; readonly margin?: number }
  | { readonly kind: "session"; readonly client: number }
  | { readonly kind: "logout"; readonly client: number }
  | { readonly kind: "user"; readonly person: number; readonly byLogin: boolean; readonly margin?: number }
  | { readonly kind: "others"; readonly client: number }
  | { readonly kind: "bulk"; readonly persons: readonly number[] }
  | { readonly kind: "tenant"; readonly tenant: number; readonly margin?: number }
  | { readonly kind: "everyone" }
  /** Whoever signed the client's token: every token of that key. */
  | { readonly kind: "key"; readonly client: number }
  /** Sessions that had begun some seconds before. */
  | {
      readonly kind: "past";
      readonly of: "user" | "tenant" | "everyone";
      readonly number: number;
      readonly ago: number;
    };

export type Deed =
  | { readonly at: number; readonly does: "break"; readonly fault: Fault; readonly forMs: number }
  | { readonly at: number; readonly does: "revoke"; readonly revoking: Revoking };

export interface Plan {
  readonly seed: number;
  readonly seconds: number;
  /** By time, milliseconds from the beginning. */
  readonly deeds: readonly Deed[];
}

/** How often each kind of fault is dealt, from a deck that is dealt out before it is shuffled again. */
const FAULTS: Readonly<Record<string, number>> = {
  "kill node": 2,
  "kill redis": 1,
  "kill edge": 1,
  "freeze node": 3,
  "freeze redis": 1,
  "freeze edge": 1,
  drain: 1,
  cut: 2,
  stall: 3,
  delay: 2,
  isolate: 3,
  flush: 1,
  failover: 1,
  step: 1,
  "step edge": 1,
  leap: 1,
  ahead: 1,
  replay: 2,
};
const REVOKINGS: Readonly<Record<Revoking["kind"], number>> = {
  token: 3,
  session: 4,
  logout: 1,
  user: 3,
  others: 1,
  bulk: 1,
  tenant: 1,
  everyone: 1,
  key: 1,
  past: 2,
};
const BETWEEN_FAULTS_MS = { from: 300, to: 2_200 };
const BETWEEN_REVOCATIONS_MS = { from: 300, to: 1_600 };
/** Longer and shorter than a lease. */
const FAULT_MS = { from: 400, to: 7_000 };
/** A restart takes about a second; afterwards people come back before the next blow. */
const RECOVERY_MS = 2_500;
/** Everybody has logged in by then. */
const BEGIN_MS = 500;
/** What a node's clock may be off, and the edge's: both together are within the skew that nodes reckon with. */
const STEP_MS = 3_000;
const EDGE_STEP_MS = 1_500;
const LEAP_MS = { from: 60_000, to: 3_600_000 };
const DELAY_MS = { from: 5, to: 900 };
const DIRECTIONS: readonly Direction[] = ["there", "back", "both"];
const LINKS_OF_NODE = ["front", "redis", "edge", "push"] as const;

export function planOf(seed: number, seconds: number, stage: Stage): Plan {
  // Each draws for itself, so that a longer run of a seed begins as a shorter one does.
  const faults = new Planner(new Random(seed), seconds * 1_000, stage).faults();
  const revocations = new Planner(new Random(~seed), seconds * 1_000, stage).revocations();
  const deeds = [...faults, ...revocations].sort((a, b) => a.at - b.at);
  return { seed, seconds, deeds };
}

class Planner {
  readonly #random: Random;
  readonly #endMs: number;
  readonly #stage: Stage;
  /** What is broken already → until when: a process or a link is broken in one way at a time. */
  readonly #busy = new Map<string, number>();

  constructor(random: Random, endMs: number, stage: Stage) {
    this.#random = random;
    this.#endMs = endMs;
    this.#stage = stage;
  }

  faults(): Deed[] {
    const deeds: Deed[] = [];
    const deck = this.#deck(FAULTS);
    for (let at = BEGIN_MS; at < this.#endMs; at += this.#between(BETWEEN_FAULTS_MS)) {
      const kind = deck();
      // Longer now and then: a lease, a token and a retry have to run out in the middle of a fault too.
      const forMs = Math.min(this.#between(FAULT_MS) * this.#random.pick([1, 1, 1, 2]), this.#endMs - at);
      const fault = this.#fault(kind, at, forMs);
      if (fault !== undefined) deeds.push({ at, does: "break", fault, forMs });
    }
    return deeds;
  }

  revocations(): Deed[] {
    const deeds: Deed[] = [];
    const deck = this.#deck(REVOKINGS);
    for (let at = BEGIN_MS; at < this.#endMs; at += this.#between(BETWEEN_REVOCATIONS_MS)) {
      deeds.push({ at, does: "revoke", revoking: this.#revoking(deck()) });
    }
    return deeds;
  }

  #fault(kind: string, at: number, forMs: number): Fault | undefined {
    const nodes = this.#nodes();
    const redises = this.#stage.clusters.map((id) => `${id}-redis`);
    const take = (names: readonly string[]) => this.#take(names, at, forMs);
    const on = <T extends Fault>(names: readonly string[], fault: (name: string) => T): T | undefined => {
      const name = take(names);
      return name === undefined ? undefined : fault(name);
    };
    switch (kind) {
      case "kill node":
        return on(nodes, (part) => ({ kind: "kill", part }));
      case "kill redis":
        return on(redises, (part) => ({ kind: "kill", part }));
      case "kill edge":
        return on(["edge"], (part) => ({ kind: "kill", part }));
      case "freeze node":
        return on(nodes, (part) => ({ kind: "freeze", part }));
      case "freeze redis":
        return on(redises, (part) => ({ kind: "freeze", part }));
      case "freeze edge":
        return on(["edge"], (part) => ({ kind: "freeze", part }));
      case "drain":
        return on(nodes, (part) => ({ kind: "drain", part }));
      case "cut":
        return on(this.#links(), (link) => ({ kind: "cut", links: [link] }));
      case "stall":
        return on(this.#links(), (link) => this.#stall([link]));
      case "delay":
        return on(this.#links(), (link) => this.#delay([link]));
      case "isolate":
        return this.#isolate(at, forMs);
      case "flush":
        return { kind: "flush", cluster: this.#random.pick(this.#stage.clusters) };
      case "failover":
        return on(redises, (part) => ({ kind: "failover", cluster: part.replace(/-redis$/, "") }));
      case "step":
        return on(this.#clocks(), (clock) => this.#clock(clock, this.#random.pick([-STEP_MS, STEP_MS])));
      case "step edge":
        return on(["edge:clock"], (clock) => this.#clock(clock, this.#random.pick([-EDGE_STEP_MS, EDGE_STEP_MS])));
      case "ahead":
        return { kind: "ahead", cluster: this.#random.pick(this.#stage.clusters) };
      case "leap":
        return on(this.#clocks(), (clock) => this.#clock(clock, this.#between(LEAP_MS)));
      default:
        return this.#replay();
    }
  }

  /** A node that reaches neither Redis nor the edge, and that now and then the edge does not reach either. */
  #isolate(at: number, forMs: number): Fault | undefined {
    const node = this.#random.pick(this.#nodes());
    const links = [`${node}:redis`, `${node}:edge`, ...this.#random.pick([[], [`${node}:push`]])];
    if (links.some((link) => !this.#isFree(link, at))) return undefined;
    for (const link of links) this.#busy.set(link, at + forMs);
    return this.#random.below(2) === 0 ? { kind: "cut", links } : this.#stall(links);
  }

  #stall(links: readonly string[]): Fault {
    return { kind: "stall", links, direction: this.#random.pick(DIRECTIONS), late: this.#random.below(2) === 0 };
  }

  #delay(links: readonly string[]): Fault {
    return { kind: "delay", links, direction: this.#random.pick(DIRECTIONS), ms: this.#between(DELAY_MS) };
  }

  #clock(clock: string, offMs: number): Fault {
    return { kind: "clock", node: clock.replace(/:clock$/, ""), offMs };
  }

  #replay(): Fault {
    const how = this.#random.pick(["push", "stream", "garbage"] as const);
    return { kind: "replay", cluster: this.#random.pick(this.#stage.clusters), how };
  }

  #revoking(kind: string): Revoking {
    const { clients, persons, tenants } = this.#stage;
    const client = this.#random.below(clients);
    const person = this.#random.below(persons);
    const margin = this.#random.below(4) === 0 ? { margin: 1 + this.#random.below(3) } : {};
    switch (kind) {
      case "token":
        return { kind, client, ...margin };
      case "user":
        return { kind, person, byLogin: this.#random.below(2) === 0, ...margin };
      case "bulk":
        return { kind, persons: this.#random.shuffled([...Array(persons).keys()]).slice(0, 3) };
      case "tenant":
        return { kind, tenant: this.#random.below(tenants), ...margin };
      case "everyone":
        return { kind };
      case "past": {
        const of = this.#random.pick(["user", "tenant", "everyone"] as const);
        const number = of === "user" ? person : this.#random.below(tenants);
        return { kind, of, number, ago: 1 + this.#random.below(20) };
      }
      case "key":
      case "logout":
      case "others":
        return { kind, client };
      default:
        return { kind: "session", client };
    }
  }

  #nodes(): string[] {
    const { clusters, nodesPerCluster } = this.#stage;
    return clusters.flatMap((id) => Array.from({ length: nodesPerCluster }, (_, index) => `${id}-${index + 1}`));
  }

  #links(): string[] {
    return [
      "people:edge",
      "admin:edge",
      ...this.#nodes().flatMap((node) => LINKS_OF_NODE.map((way) => `${node}:${way}`)),
    ];
  }

  #clocks(): string[] {
    return this.#nodes().map((node) => `${node}:clock`);
  }

  #take(names: readonly string[], at: number, forMs: number): string | undefined {
    const free = names.filter((name) => this.#isFree(name, at));
    if (free.length === 0) return undefined;
    const name = this.#random.pick(free);
    this.#busy.set(name, at + forMs + RECOVERY_MS);
    return name;
  }

  #isFree(name: string, at: number): boolean {
    return (this.#busy.get(name) ?? 0) <= at;
  }

  #between({ from, to }: { readonly from: number; readonly to: number }): number {
    return from + this.#random.below(to - from);
  }

  #deck(weights: Readonly<Record<string, number>>): () => string {
    const cards = Object.entries(weights).flatMap(([kind, count]) => Array<string>(count).fill(kind));
    let left: string[] = [];
    return () => {
      if (left.length === 0) left = this.#random.shuffled(cards);
      return left.pop() ?? "";
    };
  }
}

/** Where a fault is, for people and for the histories: processes, links or clusters. */
export function placesOf(fault: Fault): readonly string[] {
  if ("links" in fault) return fault.links;
  if ("part" in fault) return [fault.part];
  return [fault.kind === "clock" ? fault.node : fault.cluster];
}

export function describeFault(fault: Fault): string {
  switch (fault.kind) {
    case "stall":
      return `stall ${fault.direction}${fault.late ? ", late" : ""}`;
    case "delay":
      return `delay ${fault.direction} ${fault.ms} ms`;
    case "clock":
      return `clock ${fault.offMs > 0 ? "+" : ""}${fault.offMs / 1000} s`;
    case "replay":
      return `replay by ${fault.how}`;
    default:
      return fault.kind;
  }
}

const CLIENTS: Readonly<Record<string, string>> = { others: "all others", key: "the signer" };

export function describeRevoking(revoking: Revoking): string {
  const { kind } = revoking;
  if (revoking.kind === "past") {
    const { of, number, ago } = revoking;
    return `${of === "everyone" ? of : `${of === "user" ? "person" : of} ${number}`}, sessions older than ${ago} s`;
  }
  const margin = "margin" in revoking ? `, within ${revoking.margin} s` : "";
  if ("client" in revoking) return `${CLIENTS[kind] ?? kind} of client ${revoking.client}${margin}`;
  if ("person" in revoking) return `person ${revoking.person}${revoking.byLogin ? " by login" : ""}${margin}`;
  if ("persons" in revoking) return `persons ${revoking.persons.join(", ")}`;
  return "tenant" in revoking ? `tenant ${revoking.tenant}${margin}` : kind;
}

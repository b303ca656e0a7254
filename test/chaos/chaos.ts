/**
 * One run: a world with people in it, a plan that is carried out, everything mended in the end, and the histories judged.
 *
 * At the end nothing is excused any more. Every revocation has to be enforced and everybody who may be connected has to be,
 * and then every token that has not run out is tried at every node once more.
 */
import { EdgeClient } from "../../infra/edge-client.ts";
import { until } from "../../infra/until.ts";
import { Random } from "../support/random.ts";
import { type Administrator, createAdministrator, type Order } from "./administrator.ts";
import { createBreaker } from "./breaker.ts";
import { check, type Verdict } from "./checker.ts";
import { type Crowd, startCrowd } from "./crowd.ts";
import { type Entry, now, readHistories, type Scope } from "./history.ts";
import type { Client } from "./people.ts";
import { type Deed, describeFault, describeRevoking, type Plan, placesOf, type Revoking, type Stage } from "./plan.ts";
import { createReplayer } from "./replayer.ts";
import { startWorld, type World } from "./world.ts";

export const STAGE: Stage = { clusters: ["north", "south"], nodesPerCluster: 3, persons: 6, tenants: 2, clients: 12 };

export interface ChaosOptions {
  readonly plan: Plan;
  /** Where all state lives, the histories among it. */
  readonly dir: string;
  /** How long access tokens live. */
  readonly tokenSeconds?: number;
  onStep?(text: string): void;
  /** Something is done to the world, this many milliseconds after the beginning. */
  onDeed?(at: number, text: string): void;
  /** What the processes print. */
  onLine?(process: string, line: string): void;
}

export interface ChaosReport {
  readonly plan: Plan;
  readonly verdict: Verdict;
  readonly entries: readonly Entry[];
  /** When the first deed could be done, as the histories have it. */
  readonly beganAt: number;
}

interface Person {
  readonly sub: string;
  readonly login: string;
  readonly password: string;
  readonly tid: string;
}

/** Longer than a lease, a few retries of the edge's and a restart take together, also on a machine that is busy with other things. */
const SETTLED_WITHIN_MS = 180_000;
const LOOK_MS = 20;
const LEASE_SECONDS = 3;
const DEVICES = ["phone", "laptop"] as const;
/** What nodes think that clocks may differ. */
const SKEW_SECONDS = 5;

export async function runChaos(options: ChaosOptions): Promise<ChaosReport> {
  const { plan, dir, tokenSeconds = 15 } = options;
  const world = await startWorld({
    dir,
    clusters: Object.fromEntries(STAGE.clusters.map((id) => [id, STAGE.nodesPerCluster])),
    edgeSettings: {
      ACCESS_TOKEN_TTL_SECONDS: String(tokenSeconds),
      // An answer that is lost for long must not look like theft, nor many logins like many devices.
      REFRESH_GRACE_SECONDS: "300",
      SESSIONS_PER_ACCOUNT: "50",
      SESSION_IDLE_SECONDS: "120",
    },
    nodeSettings: { LEASE_SECONDS: String(LEASE_SECONDS), LOG_LEVEL: "info" },
    onStep: (text) => options.onStep?.(text),
    onLine: (process, line) => options.onLine?.(process, line),
  });
  try {
    const run = await Run.begin(world, options);
    await run.carryOut(plan.deeds);
    await run.settle();
    await run.end();
    const entries = readHistories(world.historyDir);
    return { plan, entries, verdict: check(entries, { skewSeconds: SKEW_SECONDS }), beganAt: run.beganAt };
  } finally {
    await world.stop();
  }
}

class Run {
  readonly beganAt = now();
  readonly #world: World;
  readonly #options: ChaosOptions;
  readonly #persons: readonly Person[];
  readonly #crowd: Crowd;
  readonly #administrator: Administrator;
  readonly #replayers: ReadonlyMap<string, ReturnType<typeof createReplayer>>;
  readonly #breaker: ReturnType<typeof createBreaker>;

  static async begin(world: World, options: ChaosOptions): Promise<Run> {
    const edge = new EdgeClient({ edgeUrl: world.urls.admin, adminToken: world.adminToken });
    const persons = personsOf(STAGE);
    for (const person of persons) await edge.createAccount(person);
    options.onStep?.(`${persons.length} accounts`);
    const settings = {
      edgeUrl: world.urls.people,
      historyDir: world.historyDir,
      clients: clientsOf(world, persons),
      places: world.nodes.map(({ name, url }) => ({ name, url })),
      seed: options.plan.seed,
    };
    const crowd = await startCrowd(settings, (line) => options.onLine?.("people", line));
    options.onStep?.(`${settings.clients.length} clients are connected`);
    return new Run(world, options, persons, crowd);
  }

  private constructor(world: World, options: ChaosOptions, persons: readonly Person[], crowd: Crowd) {
    this.#world = world;
    this.#options = options;
    this.#persons = persons;
    this.#crowd = crowd;
    this.#administrator = createAdministrator(world.urls.admin, world.adminToken, world.write);
    const { seed } = options.plan;
    this.#replayers = new Map(
      world.clusters.map((cluster) => {
        const elsewhere = world.nodes.filter((node) => node.cluster !== cluster.id).map(({ directUrl }) => directUrl);
        return [cluster.id, createReplayer(cluster, elsewhere, new Random(seed))];
      }),
    );
    this.#breaker = createBreaker(world, this.#replayers);
  }

  async carryOut(deeds: readonly Deed[]): Promise<void> {
    for (const deed of deeds) {
      await until("its time has come", () => now() - this.beganAt >= deed.at, { withinMs: Number.POSITIVE_INFINITY });
      this.#do(deed);
    }
  }

  /** Mends everything and waits until all is as it should be. What is not in time is written down. */
  async settle(): Promise<void> {
    const { write } = this.#world;
    this.#say("everything is mended");
    await this.#breaker.mendAll();
    write({ kind: "calm" });
    const deadline = now() + SETTLED_WITHIN_MS;
    const areBack = await isDone(deadline, () => this.#crowd.missing());
    for (const what of this.#crowd.missing()) write({ kind: "missing", what });
    // One more, after everything that was decided without a receipt of its own.
    void this.#administrator.revoke(LAST_ORDER);
    const isEnforced = await isDone(deadline, () => this.#administrator.outstanding());
    write(isEnforced ? { kind: "settled" } : { kind: "overdue" });
    if (areBack) await this.#crowd.tryEverything();
    this.#say("every token has been tried at every node");
    await this.#world.witnessed();
  }

  async end(): Promise<void> {
    this.#administrator.stop();
    for (const replayer of this.#replayers.values()) replayer.stop();
    await this.#crowd.stop();
  }

  #do(deed: Deed): void {
    if (deed.does === "break") {
      this.#say(`${describeFault(deed.fault).padEnd(18)} ${placesOf(deed.fault).join(", ")} for ${deed.forMs} ms`);
      this.#breaker.break(deed.fault, deed.forMs);
      return;
    }
    const { revoking } = deed;
    if (revoking.kind === "logout") this.#crowd.logOut(this.#nameOf(revoking.client));
    const order = revoking.kind === "logout" ? undefined : this.#order(revoking);
    if (order !== undefined) void this.#administrator.revoke(order);
    this.#say(`${"revoke".padEnd(18)} ${describeRevoking(revoking)}`);
  }

  /** The order that a number of the plan stands for now; undefined when it is about somebody who is signed out. */
  #order(revoking: Exclude<Revoking, { kind: "logout" }>): Order | undefined {
    const about = `the revocation of ${describeRevoking(revoking)}`;
    const manner = "margin" in revoking ? { mode: "reauthenticate", margin: revoking.margin } : {};
    switch (revoking.kind) {
      case "everyone":
        return { about, scope: { kind: "everyone" }, body: { target: { kind: "everyone" } } };
      case "tenant": {
        const target = { kind: "tenant", tid: `tenant-${revoking.tenant}` } as const;
        return { about, scope: target, body: { target, ...manner } };
      }
      case "bulk": {
        const users = revoking.persons.map((index) => this.#person(index).sub);
        return { about, scope: { kind: "users", subs: users }, body: { users }, bulk: true };
      }
      case "user": {
        const { sub, login } = this.#person(revoking.person);
        const target = { kind: "user", ...(revoking.byLogin ? { login } : { sub }) };
        return { about, scope: { kind: "users", subs: [sub] }, body: { target, ...manner } };
      }
      case "past":
        return this.#orderOnPast(revoking, about);
      default:
        return this.#orderOnClient(revoking, about, manner);
    }
  }

  #orderOnPast({ of, number, ago }: Extract<Revoking, { kind: "past" }>, about: string): Order {
    const begunBy = Math.floor(now() / 1000) - ago;
    const order = (scope: Scope, target: object) => ({ about, scope, body: { target, issued_before: begunBy } });
    if (of === "everyone") return order({ kind: of, begunBy }, { kind: of });
    if (of === "tenant") {
      const target = { kind: of, tid: `tenant-${number}` } as const;
      return order({ ...target, begunBy }, target);
    }
    const { sub } = this.#person(number);
    return order({ kind: "users", subs: [sub], begunBy }, { kind: "user", sub });
  }

  #orderOnClient({ kind, client }: { kind: string; client: number }, about: string, manner: object): Order | undefined {
    const holding = this.#crowd.holdingOf(this.#nameOf(client));
    if (holding === undefined) return undefined;
    const { sid, jti, kid } = holding;
    if (kind === "key") return { about, scope: { kind, kid }, body: { target: { kind, kid } } };
    if (kind === "token") return { about, scope: { kind, jti }, body: { target: { kind, jti }, ...manner } };
    if (kind === "session") return { about, scope: { kind, sid }, body: { target: { kind, sid } } };
    const { sub } = this.#person(Math.floor(client / DEVICES.length));
    return {
      about,
      scope: { kind: "users", subs: [sub], except: sid },
      body: { target: { kind: "user", sub }, except: sid },
    };
  }

  #person(index: number): Person {
    const person = this.#persons[index];
    if (person === undefined) throw new Error(`There is no person ${index}.`);
    return person;
  }

  #nameOf(client: number): string {
    return nameOf(this.#person(Math.floor(client / DEVICES.length)), client % DEVICES.length);
  }

  #say(text: string): void {
    this.#options.onDeed?.(now() - this.beganAt, text);
  }
}

/** Whether there is nothing left to wait for, by then. */
async function isDone(deadline: number, left: () => readonly string[]): Promise<boolean> {
  while (left().length > 0 && now() < deadline) await new Promise((resolve) => setTimeout(resolve, LOOK_MS));
  return left().length === 0;
}

/** A token that nobody has. */
const LAST_ORDER: Order = {
  about: "the last revocation",
  scope: { kind: "token", jti: "nobody-has-it" },
  body: { target: { kind: "token", jti: "nobody-has-it" } },
};

function personsOf({ persons, tenants }: Stage): Person[] {
  return Array.from({ length: persons }, (_, index) => ({
    sub: `person-${index}`,
    login: `person-${index}@example.com`,
    password: `a long secret of person ${index}`,
    tid: `tenant-${index % tenants}`,
  }));
}

function nameOf({ sub }: Person, device: number): string {
  return `${sub}'s ${DEVICES[device]}`;
}

/** Each has a socket in every cluster; their nodes, habits and transports differ. */
function clientsOf({ clusters }: World, persons: readonly Person[]): Client[] {
  return persons.flatMap((person, p) =>
    DEVICES.map((_, d) => {
      const index = p * DEVICES.length + d;
      return {
        ...{ name: nameOf(person, d), login: person.login, password: person.password },
        lazy: index % 3 === 0,
        transports: index % 4 === 0 ? (["polling", "websocket"] as const) : (["websocket"] as const),
        places: clusters.map(({ nodes }) => {
          const first = index % nodes.length;
          return [...nodes.slice(first), ...nodes.slice(0, first)].map(({ name, url }) => ({ name, url }));
        }),
      };
    }),
  );
}

/**
 * A small world for one short scene: a cluster of two nodes, somebody with a phone and a laptop, an administrator, and in the
 * end the checker's verdict on what happened in the scene and nothing before.
 */
import { EdgeClient } from "../../infra/edge-client.ts";
import { until } from "../../infra/until.ts";
import { type Administrator, createAdministrator, type Order } from "./administrator.ts";
import { check, type Terms, type Verdict } from "./checker.ts";
import { historyFile, now, ofKind, readHistories, type Scope } from "./history.ts";
import { Device, type Place, type Surroundings, tryCopy, Wallet } from "./people.ts";
import type { PlantName } from "./plants.ts";
import { startWorld, type World } from "./world.ts";

export const NODES = ["north-1", "north-2"] as const;
const LEASE_SECONDS = 2;

export interface Theatre {
  readonly world: World;
  /** Starts what is to have a bug, or not to have one any more, anew. */
  prepare(plant: PlantName | undefined): Promise<void>;
  /**
   * Plays a scene, and judges it.
   *
   * @param patienceMs how long a revocation is waited for; whether it is in time is for the checker to say
   */
  play(scene: (actors: Actors) => Promise<void>, terms: Terms, patienceMs: number): Promise<Verdict>;
  stop(): Promise<void>;
}

export interface Actors {
  readonly world: World;
  /** Both of one person, each with a session of its own and a socket on each node. */
  readonly phone: Device;
  readonly laptop: Device;
  /**
   * Resolves when the receipt says enforced, or nobody waits any longer.
   *
   * @param order what is asked of the edge, without the reason
   */
  revoke(scope: Scope, order: Order["body"]): Promise<void>;
  /** Resolves when the app has spoken to both sockets of a device a few times more. */
  heardMore(device: Device): Promise<void>;
  /** Shows the token that the phone had at the beginning, at a node. */
  steal(node: string): Promise<void>;
}

export async function openTheatre(dir: string, tokenSeconds: number): Promise<Theatre> {
  const world = await startWorld({
    dir,
    clusters: { north: NODES.length },
    edgeSettings: { ACCESS_TOKEN_TTL_SECONDS: String(tokenSeconds) },
    nodeSettings: { LEASE_SECONDS: String(LEASE_SECONDS), LOG_LEVEL: "info" },
  });
  const edge = new EdgeClient({ edgeUrl: world.urls.people, adminToken: world.adminToken });
  const write = historyFile(world.historyDir, "people");
  let persons = 0;

  async function devices(around: Surroundings): Promise<readonly [phone: Device, laptop: Device]> {
    persons += 1;
    const account = { login: `person-${persons}`, password: `a long secret of person ${persons}`, tid: "acme" };
    await edge.createAccount(account);
    const places = world.nodes.map(({ name, url }): readonly Place[] => [{ name, url }]);
    const habits = { lazy: true, transports: ["websocket"] as const, places };
    return [
      new Device({ name: `${account.login}'s phone`, ...account, ...habits }, around),
      new Device({ name: `${account.login}'s laptop`, ...account, ...habits }, around),
    ];
  }

  async function act(scene: (actors: Actors) => Promise<void>, patienceMs: number): Promise<void> {
    const around: Surroundings = { edge, edgeUrl: world.urls.people, write, wallet: new Wallet() };
    const administrator = createAdministrator(world.urls.admin, world.adminToken, world.write);
    const [phone, laptop] = await devices(around);
    try {
      await Promise.all([phone.start(), laptop.start()]);
      const stolen = await phone.token();
      await until("everybody is connected", () => phone.missing.length + laptop.missing.length === 0);
      await scene({
        ...{ world, phone, laptop },
        revoke: (scope, order) => revoke(administrator, scope, order, patienceMs),
        heardMore,
        steal: (node) => tryCopy(stolen, placeOf(node), around),
      });
      world.write({ kind: administrator.outstanding().length === 0 ? "settled" : "overdue" });
      await world.witnessed();
    } finally {
      administrator.stop();
      phone.stop();
      laptop.stop();
    }
  }

  async function heardMore({ client: { name } }: Device): Promise<void> {
    const since = now();
    await until(`${name} has been spoken to`, () => {
      const heard = ofKind(readHistories(world.historyDir), "heard").filter(
        ({ client, sentAt }) => client === name && sentAt > since,
      );
      return heard.length > NODES.length * 2;
    });
  }

  function placeOf(name: string): Place {
    const node = world.nodes.find((each) => each.name === name);
    if (node === undefined) throw new Error(`There is no ${name}.`);
    return { name, url: node.url };
  }

  return {
    world,
    prepare: (plant) => world.plant(plant),
    async play(scene, terms, patienceMs) {
      const beganAt = now();
      await act(scene, patienceMs);
      // Runs of nodes began before the scene; everything else of before is another story.
      const entries = readHistories(world.historyDir).filter(({ at, kind }) => at >= beganAt || kind === "started");
      return check(entries, terms);
    },
    stop: () => world.stop(),
  };
}

async function revoke(
  administrator: Administrator,
  scope: Scope,
  body: Order["body"],
  patienceMs: number,
): Promise<void> {
  await administrator.revoke({ about: `the revocation of a ${scope.kind}`, scope, body });
  const isEnforced = () => administrator.outstanding().length === 0;
  await until("it is enforced", isEnforced, { withinMs: patienceMs }).catch(() => undefined);
}

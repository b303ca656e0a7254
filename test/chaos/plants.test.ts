/**
 * The checker is only worth what it finds. Into real nodes and a real Worker a bug is planted for each promise, and in a scene of a few seconds in
 * which that bug matters the checker has to find that promise broken; in the same scene without the bug it has to find nothing.
 */
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { until } from "../../infra/until.ts";
import { now } from "./history.ts";
import { PLANTS, type PlantName, planted } from "./plants.ts";
import { type Actors, NODES, openTheatre, type Theatre } from "./scene.ts";

/** Long enough for a node to be started anew meanwhile; the scene about expiry lasts longer than that. */
const TOKEN_SECONDS = 20;
/** No clock is stepped here: what is left is the second in which ends are looked for, and the one to hear of it. */
const TERMS = { skewSeconds: 2 };
/** Nobody waits longer for a revocation, on whatever machine. */
const ENFORCED_WITHIN_MS = 60_000;
/** Of these bugs that is all that shows: what is revoked is never enforced, however long one waits. */
const NEVER_ENFORCED: readonly PlantName[] = ["event dropped", "decision lost"];
/** Longer than it takes without them. */
const NEVER_MS = 15_000;
/** Far longer than a receipt takes that waits for nobody. */
const MARGIN_SECONDS = 8;

let dir: string;
let theatre: Theatre;

beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), "keycard-plants-"));
  theatre = await openTheatre(dir, TOKEN_SECONDS);
});

afterAll(async () => {
  await theatre.stop();
  await rm(dir, { recursive: true, force: true });
});

/** Whoever may still speak does so for a while after the answer. */
async function revokePhone({ phone, laptop, revoke, heardMore }: Actors, manner = {}): Promise<void> {
  const { sid = "" } = phone.current ?? {};
  await revoke({ kind: "session", sid }, { target: { kind: "session", sid }, ...manner });
  // The phone speaks as often as the laptop, if it still can.
  await heardMore(laptop);
}

const revokeAtOnce = (actors: Actors) => revokePhone(actors);

/** Its sockets are given time, and until that is over no receipt may say that they are gone. */
const giveTime = (actors: Actors) => revokePhone(actors, { mode: "reauthenticate", margin: MARGIN_SECONDS });

/** It reaches neither Redis nor the edge, nor the edge it: what is revoked meanwhile it cannot know. */
async function cutOff(actors: Actors): Promise<void> {
  const [node] = NODES;
  const { world } = actors;
  const links = ["redis", "edge", "push"].map((way) => world.link(`${node}:${way}`));
  for (const link of links) link.stall();
  await revokePhone(actors);
  await world.witnessed();
  for (const link of links) link.heal();
}

const SCENES: Readonly<Record<PlantName, (actors: Actors) => Promise<void>>> = {
  "no index check": async (actors) => {
    await revokePhone(actors);
    for (const node of NODES) await actors.steal(node);
  },
  "acknowledged before closed": revokeAtOnce,
  "fence comes late": cutOff,
  "no replay": async (actors) => {
    const [node] = NODES;
    await revokePhone(actors);
    await actors.world.kill(node);
    await actors.world.restart(node);
    await actors.steal(node);
  },
  "event dropped": revokeAtOnce,
  "decision lost": revokeAtOnce,
  "nobody waited for": giveTime,
  "bystander closed": revokeAtOnce,
  "no expiry": async ({ phone }) => {
    const { exp = 0 } = phone.current ?? {};
    const overMs = (exp + TERMS.skewSeconds + 4) * 1_000;
    await until("the token has been over for a while", () => now() > overMs, { withinMs: 60_000 });
  },
};
const NAMES = Object.keys(PLANTS) as PlantName[];
/** Several bugs show in the same one. */
const SCENES_ONCE = [...new Map(NAMES.map((name) => [SCENES[name], name])).values()];

describe("the checker finds nothing in a scene that ends well:", () => {
  test.for(SCENES_ONCE)("the one for %s", async (name) => {
    await theatre.prepare(undefined);
    const { violations, stakes } = await theatre.play(SCENES[name], TERMS, ENFORCED_WITHIN_MS);
    expect(violations.map(({ what }) => what)).toEqual([]);
    expect(stakes.coveredSockets + stakes.expiredSockets).toBeGreaterThan(0);
  });
});

describe("the checker finds", () => {
  test.for(NAMES)("%s", async (name) => {
    await theatre.prepare(name);
    const patienceMs = NEVER_ENFORCED.includes(name) ? NEVER_MS : ENFORCED_WITHIN_MS;
    const { violations } = await theatre.play(SCENES[name], TERMS, patienceMs);
    expect(violations.map(({ promise }) => promise)).toContain(PLANTS[name].breaks);
  });
});

describe("a plant", () => {
  test.for(NAMES)("fits the source of today: %s", async (name) => {
    const source = await readFile(join(import.meta.dirname, "..", "..", PLANTS[name].file), "utf8");
    expect(planted(source, PLANTS[name])).toContain(PLANTS[name].put);
  });

  test("fails loudly where the source has moved on, and where it would be planted twice", () => {
    const plant = PLANTS["no index check"];
    expect(() => planted("something else", plant)).toThrow(/has 0 times/);
    expect(() => planted(`${plant.instead} ${plant.instead}`, plant)).toThrow(/has 2 times/);
  });
});

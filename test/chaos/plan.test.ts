/** A plan is a function of its seed, and asks for nothing that cannot be done. */
import { describe, expect, test } from "vitest";
import { STAGE } from "./chaos.ts";
import { type Deed, describeFault, describeRevoking, placesOf, planOf } from "./plan.ts";

const SEEDS = Array.from({ length: 20 }, (_, seed) => seed);
type Breaking = Extract<Deed, { does: "break" }>;
const breakings = (deeds: readonly Deed[]) => deeds.filter((deed): deed is Breaking => deed.does === "break");

describe("a plan", () => {
  test("is the same for the same seed, and another for another", () => {
    expect(planOf(7, 60, STAGE)).toEqual(planOf(7, 60, STAGE));
    expect(planOf(7, 60, STAGE).deeds).not.toEqual(planOf(8, 60, STAGE).deeds);
  });

  test("of a longer run begins as that of a shorter one does", () => {
    const began = (seconds: number) =>
      planOf(7, seconds, STAGE)
        .deeds.slice(0, 20)
        .map(({ at }) => at);
    expect(began(60)).toEqual(began(600));
  });

  test.for(SEEDS)("of seed %i breaks nothing that is broken already, and everything is over at its end", (seed) => {
    const { deeds, seconds } = planOf(seed, 120, STAGE);
    const busy = new Map<string, number>();
    for (const { at, fault, forMs } of breakings(deeds)) {
      expect(at + forMs).toBeLessThanOrEqual(seconds * 1_000);
      // What comes and goes at once gets in nobody's way, and clocks are no part of what runs by them.
      if (fault.kind === "flush" || fault.kind === "replay" || fault.kind === "ahead") continue;
      for (const place of placesOf(fault).map((each) => (fault.kind === "clock" ? `${each}:clock` : each))) {
        expect(busy.get(place) ?? 0, `${place} at ${at}`).toBeLessThanOrEqual(at);
        busy.set(place, at + forMs);
      }
    }
  });

  test("has every kind of fault and of revocation within two minutes", () => {
    const { deeds } = planOf(1, 120, STAGE);
    const faults = new Set(breakings(deeds).map(({ fault }) => fault.kind));
    const revokings = new Set(deeds.flatMap((deed) => (deed.does === "revoke" ? [deed.revoking.kind] : [])));
    expect([...faults].sort()).toEqual(
      ["ahead", "clock", "cut", "delay", "drain", "failover", "flush", "freeze", "kill", "replay", "stall"].sort(),
    );
    expect(revokings.size).toBe(10);
  });

  test("can be told", () => {
    for (const deed of planOf(1, 120, STAGE).deeds) {
      const text = deed.does === "revoke" ? describeRevoking(deed.revoking) : describeFault(deed.fault);
      expect(text).toMatch(/^[a-z]/);
    }
  });
});

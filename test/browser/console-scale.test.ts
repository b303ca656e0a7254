/** The axes of the console's plots: everything lies on them, and what is written beside them is round. */
import { describe, expect, it } from "vitest";
import { counts, durations, time } from "../../edge/console/scale.ts";

const HOUR = 3_600_000;

describe("an axis", () => {
  it.each([[[]], [[8]], [[12, 80, 7_040]], [[0.2, 0.4]], [[40_000, 86_400_000]]])("of durations holds %j", (values) => {
    const { place, ticks } = durations(values, 200, 0);
    for (const value of values) {
      expect(place(value)).toBeGreaterThanOrEqual(0);
      expect(place(value)).toBeLessThanOrEqual(200);
    }
    expect(ticks.length).toBeGreaterThanOrEqual(2);
    expect(ticks.map(Math.log10).every(Number.isInteger)).toBe(true);
    expect(place(ticks[0] ?? 0)).toBe(200);
    expect(place(ticks.at(-1) ?? 0)).toBe(0);
  });

  it.each([0, 1, 2, 7, 13, 999, 10_000])("of counts begins at nothing and reaches %i, in few whole steps", (most) => {
    const { place, ticks } = counts(most, 52, 0);
    expect(place(0)).toBe(52);
    expect(place(most)).toBeGreaterThanOrEqual(0);
    expect(ticks.every(Number.isInteger)).toBe(true);
    expect(ticks.length).toBeLessThanOrEqual(5);
  });

  it.each([
    [1, 3],
    [1, 12],
    [24, 3],
    [24, 10],
    [168, 2],
  ])("of %i hours has at most %i round moments, all within", (hours, room) => {
    const since = Date.UTC(2026, 4, 3, 7, 43);
    const until = since + hours * HOUR;
    const { place, ticks } = time(since, until, 56, 900, room);
    expect(ticks.length).toBeGreaterThan(0);
    expect(ticks.length).toBeLessThanOrEqual(room + 1);
    for (const tick of ticks) {
      expect(new Date(tick).getMinutes() % 5).toBe(0);
      expect(place(tick)).toBeGreaterThanOrEqual(56);
      expect(place(tick)).toBeLessThanOrEqual(900);
    }
  });
});

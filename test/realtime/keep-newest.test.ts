/** What is remembered, and bounded: that the oldest goes first, and that being full does not make it slow. */
import { expect, it } from "vitest";
import { keepNewest } from "../../realtime/keep-newest.ts";

it("forgets the oldest first, and never more than it has to", () => {
  const remembered = new Map<number, string>();
  let most = 0;
  for (let i = 0; i < 1_000; i++) {
    remembered.set(i, "");
    keepNewest(remembered, 100);
    most = Math.max(most, remembered.size);
    expect(remembered.size).toBeGreaterThanOrEqual(Math.min(i + 1, 100));
    expect(remembered.has(i)).toBe(true);
  }
  expect(most).toBeLessThanOrEqual(110);
  expect([...remembered.keys()]).toEqual(
    Array.from({ length: remembered.size }, (_, i) => 1_000 - remembered.size + i),
  );
});

it("looks at each entry about once, however many there are", () => {
  let looks = 0;
  const remembered = new Set<number>();
  const counted = {
    get size() {
      return remembered.size;
    },
    *keys() {
      for (const key of remembered) {
        looks += 1;
        yield key;
      }
    },
    delete: (key: number) => remembered.delete(key),
  };
  for (let i = 0; i < 50_000; i++) {
    remembered.add(i);
    keepNewest(counted, 10_000);
  }
  expect(looks).toBeLessThan(50_000);
});

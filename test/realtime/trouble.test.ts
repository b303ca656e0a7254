/** A failure that goes on is told so that somebody can read it. */
import { afterEach, beforeEach, expect, it, vi } from "vitest";
import { Refusal } from "#contract/refusal";
import { Trouble, type TroubleWords } from "../../realtime/trouble.ts";

const MINUTE = 60_000;
let told: string[];

beforeEach(() => {
  told = [];
  vi.useFakeTimers({ toFake: ["performance"] });
});
afterEach(() => vi.useRealTimers());

function troubleOf(words: Partial<TroubleWords> = {}, why?: (error: unknown) => Promise<unknown>): Trouble {
  const listener = {
    onProblem: (message: string, error: unknown, times: number) => void told.push(`${message}: ${error} (${times})`),
    onBack: (message: string, { times, afterMs }: { times: number; afterMs: number }) =>
      void told.push(`${message} after ${times} in ${afterMs} ms`),
  };
  return new Trouble({ begun: "broken", over: "back", ...words }, listener, why);
}

/** Four attempts a second. */
function failFor(trouble: Trouble, ms: number, error: unknown): void {
  for (let passed = 0; passed < ms; passed += 250) {
    trouble.failed(error);
    vi.advanceTimersByTime(250);
  }
}

it("is told when it begins, once a minute with a count, and when it is over", () => {
  const trouble = troubleOf();
  failFor(trouble, 2.5 * MINUTE, "refused");
  expect(told).toEqual(["broken: refused (1)", "broken: refused (240)", "broken: refused (240)"]);
  trouble.over();
  expect(told.slice(3)).toEqual(["back after 600 in 150000 ms"]);
  trouble.over();
  expect(told).toHaveLength(4);
});

it("begins anew after its end", () => {
  const trouble = troubleOf();
  trouble.failed("refused");
  trouble.over();
  trouble.failed("refused");
  expect(told).toEqual(["broken: refused (1)", "back after 1 in 0 ms", "broken: refused (1)"]);
});

it("tells another reason at once, and of strangers' words no more than a few", () => {
  const trouble = troubleOf();
  trouble.failed(new Error("refused"));
  trouble.failed(new Refusal("token_invalid", { detail: "its signature" }));
  trouble.failed(new Refusal("token_invalid", { detail: "its audience" }));
  expect(told).toHaveLength(3);
  for (let i = 0; i < 1_000; i++) trouble.failed(new Error(`${i}`));
  expect(told.length).toBeLessThan(25);
});

it("without an end it is told once a minute, for as long as it happens", () => {
  const trouble = troubleOf({ over: undefined as unknown as string });
  failFor(trouble, 1.5 * MINUTE, "garbage");
  trouble.over();
  expect(told).toEqual(["broken: garbage (1)", "broken: garbage (240)"]);
});

it("waits for a better reason, asks for it once, and is told before its end", async () => {
  let asked = 0;
  const trouble = troubleOf({}, async (error) => {
    asked += 1;
    return `${error}, because of the weather`;
  });
  failFor(trouble, 5_000, "refused");
  trouble.over();
  await vi.waitFor(() => expect(told).toHaveLength(2));
  expect(told).toEqual(["broken: refused, because of the weather (1)", "back after 20 in 5000 ms"]);
  expect(asked).toBe(1);
});

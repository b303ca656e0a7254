/** The pump that collects receipts from one cluster: one question after the other, and with patience. */
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import type { ReceiptsAnswer } from "../../edge/revocations/cluster.ts";
import { type AskedEvent, ReceiptCollector } from "../../edge/revocations/receipt-collector.ts";

const BEGIN = 1_790_000_000_000;

interface Question {
  readonly ids: readonly string[];
  readonly waitMs: number;
  answer(answer: ReceiptsAnswer | Error): Promise<void>;
}

/** A cluster, and books in which an event is due until the cluster has said something. */
class World {
  readonly questions: Question[] = [];
  readonly errors: string[] = [];
  due: AskedEvent[] = [];
  readonly collector = new ReceiptCollector(
    { id: "here", ask: (ids, waitMs) => this.#ask(ids, waitMs) },
    {
      due: (_, __, limit) => this.due.slice(0, limit),
      nextDue: () => (this.due.length > 0 ? Date.now() : undefined),
      heard: (_, asked) => {
        this.due = this.due.filter((event) => !asked.includes(event));
      },
      unheard: (_, __, error) => this.errors.push(error),
      changed: () => undefined,
    },
  );

  add(count: number, fresh = true): void {
    for (let i = 0; i < count; i++) this.due.push({ seq: this.due.length, id: `rev_${this.due.length}`, fresh });
  }

  get last(): Question {
    const last = this.questions.at(-1);
    if (last === undefined) throw new Error("nobody was asked");
    return last;
  }

  #ask(ids: readonly string[], waitMs: number): Promise<ReceiptsAnswer> {
    return new Promise((resolve, reject) => {
      const answer = async (given: ReceiptsAnswer | Error) => {
        if (given instanceof Error) reject(given);
        else resolve(given);
        await scheduler.wait(0);
      };
      this.questions.push({ ids, waitMs, answer });
    });
  }
}

let world: World;
beforeEach(() => {
  vi.useFakeTimers({ toFake: ["Date"], now: BEGIN });
  world = new World();
});
afterEach(() => {
  vi.useRealTimers();
});

const good: ReceiptsAnswer = { receipts: [] };
const bad: ReceiptsAnswer = { reason: "later", error: "nobody is there" };
const large: ReceiptsAnswer = { reason: "too_large", error: "the answer is too large" };

function pass(ms: number): void {
  vi.setSystemTime(Date.now() + ms);
}

test("there is one question at a time, and what has come meanwhile goes into the next", async () => {
  world.add(150);
  world.collector.kick();
  world.collector.kick();
  expect(world.questions.map(({ ids }) => ids.length)).toEqual([100]);
  await world.last.answer(good);
  expect(world.questions.map(({ ids }) => ids.length)).toEqual([100, 50]);
  await world.last.answer(good);
  expect([world.questions.length, world.collector.wakeAt()]).toEqual([2, undefined]);
});

test("a cluster is given time to answer about what is new, or when somebody waits, and not otherwise", async () => {
  world.add(1);
  world.collector.kick();
  await world.last.answer(good);
  world.add(1, false);
  world.collector.kick();
  await world.last.answer(good);
  world.add(1, false);
  world.collector.hurry(BEGIN + 1);
  expect(world.questions.map(({ waitMs }) => waitMs)).toEqual([500, 0, 500]);
});

test("who gives no answer is asked after 1, 2, 4 seconds and so on, half a minute at most, and at once after an answer", async () => {
  world.add(1);
  world.collector.kick();
  const pauses: number[] = [];
  for (let i = 0; i < 7; i++) {
    await world.last.answer(i === 3 ? new Error("the key ring is away") : bad);
    const pause = (world.collector.wakeAt() ?? 0) - Date.now();
    pauses.push(pause);
    pass(pause - 1);
    world.collector.kick();
    expect(world.questions.length).toBe(i + 1);
    pass(1);
    world.collector.kick();
    expect(world.questions.length).toBe(i + 2);
  }
  expect(pauses).toEqual([1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000]);
  expect(world.errors[3]).toBe("the key ring is away");
  await world.last.answer(good);
  world.add(1);
  world.collector.kick();
  await world.last.answer(bad);
  expect(world.collector.wakeAt()).toBe(Date.now() + 1_000);
});

test("while somebody waits a cluster that gives no answer is asked every second", async () => {
  world.add(1);
  world.collector.kick();
  for (let i = 0; i < 5; i++) {
    await world.last.answer(bad);
    world.collector.hurry(BEGIN + 60_000);
    expect(world.questions.length).toBe(i + 1);
    pass(1_000);
    world.collector.hurry(BEGIN + 60_000);
    expect(world.questions.length).toBe(i + 2);
  }
});

test("where an answer is too large fewer are asked for, at once, until one alone is", async () => {
  world.add(100);
  world.collector.kick();
  for (let i = 0; i < 7; i++) await world.last.answer(large);
  expect(world.questions.map(({ ids }) => ids.length)).toEqual([100, 50, 25, 13, 7, 4, 2, 1]);
  await world.last.answer(good);
  expect(world.last.ids.length).toBe(2);
  world.due = world.due.slice(0, 1);
  await world.last.answer(good);
  world.add(1);
  world.collector.kick();
  await world.last.answer(large);
  expect(world.collector.wakeAt()).toBe(Date.now() + 1_000);
});

test("while a question is under way it is looked after, should the object die meanwhile", () => {
  world.add(1);
  world.collector.kick();
  expect(world.collector.wakeAt()).toBe(BEGIN + 10_000);
});

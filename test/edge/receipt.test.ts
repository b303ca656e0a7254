/** What a line of a receipt says, and when it is complete. */
import { expect, test } from "vitest";
import { type FeedNode, isExpired, judge, type Testimony } from "../../edge/revocations/receipt.ts";

const NOW = 1_790_000_000_000;
const LATER = 1_790_000_600;
const one = { node: "one", applied_at: 1, closed: 2 };
const word = { applied_at: 7, closed: 3 };

const NOBODY = { expected: [], applied: [], pending: [], fenced: [] };
const done = { ...NOBODY, expected: ["one"], applied: [one] };
const waiting = { ...NOBODY, expected: ["one", "two"], applied: [one], pending: ["two"] };
const fenced = { ...NOBODY, expected: ["one", "two"], applied: [one], fenced: [{ node: "two", fenced_at: 5 }] };

const alive: FeedNode = { node: "two", until: NOW + 1 };
const over: FeedNode = { node: "two", until: NOW };

function judged(receipt: Testimony["receipt"], feed: readonly FeedNode[] = [], taken = true, expires_at = LATER) {
  const { enforcement, complete } = judge({ ...(receipt && { receipt }), feed }, { taken, expires_at }, NOW);
  const { expected, applied, pending, fenced, expired } = enforcement;
  return {
    expected,
    applied: applied.map(({ node }) => node),
    pending,
    fenced: fenced.map(({ node }) => node),
    complete,
    expired,
  };
}

test.for<
  [string, Testimony["receipt"], readonly FeedNode[], { applied?: string[]; pending?: string[]; fenced?: string[] }]
>([
  ["nobody is pending", done, [], { applied: ["one"] }],
  ["there are no nodes at all", NOBODY, [], {}],
  ["one node is pending", waiting, [], { applied: ["one"], pending: ["two"] }],
  ["one node is fenced", fenced, [], { applied: ["one"], fenced: ["two"] }],
  [
    "a node was expected and is left out",
    { ...done, expected: ["one", "two"] },
    [],
    { applied: ["one"], pending: ["two"] },
  ],
  [
    "a node is pending that was not expected",
    { ...done, pending: ["two"] },
    [],
    { applied: ["one"], pending: ["two"] },
  ],
  ["one lives by the feed", done, [alive], { applied: ["one"], pending: ["two"] }],
  ["one lived by the feed", done, [over], { applied: ["one"], fenced: ["two"] }],
  ["one has given its word", done, [{ ...alive, word }], { applied: ["one", "two"] }],
  ["one had given its word when its lease ended", done, [{ ...over, word }], { applied: ["one", "two"] }],
  ["one is pending and lives by the feed", waiting, [alive], { applied: ["one"], pending: ["two"] }],
  ["one is pending and has given its word", waiting, [{ ...over, word }], { applied: ["one", "two"] }],
  ["one is pending and lived by the feed", waiting, [over], { applied: ["one"], pending: ["two"] }],
  ["one is fenced and lives by the feed", fenced, [alive], { applied: ["one"], pending: ["two"] }],
  ["one is fenced and lived by the feed", fenced, [over], { applied: ["one"], fenced: ["two"] }],
  ["one is fenced and has given its word", fenced, [{ ...alive, word }], { applied: ["one", "two"] }],
  ["one was started anew", done, [{ ...over, word }, alive], { applied: ["one"], pending: ["two"] }],
  [
    "one was started anew, and both have",
    done,
    [
      { ...over, word },
      { ...alive, word },
    ],
    { applied: ["one", "two"] },
  ],
  ["one has applied it, and then lives by the feed", done, [{ ...alive, node: "one" }], { pending: ["one"] }],
  ["one has applied it, and then lived by the feed", done, [{ ...over, node: "one" }], { applied: ["one"] }],
])("where %s", ([, receipt, feed, { applied = [], pending = [], fenced = [] }]) => {
  const line = judged(receipt, feed);
  expect(line).toMatchObject({ applied, pending, fenced, complete: pending.length === 0 });
  expect(line.expected).toEqual(expect.arrayContaining(feed.map(({ node }) => node)));
  // Nobody is in two places, and nobody who was expected in none.
  expect([...applied, ...pending, ...fenced].length).toBe(new Set([...applied, ...pending, ...fenced]).size);
  for (const node of line.expected) expect([...applied, ...pending, ...fenced]).toContain(node);
});

test("two runs of a node are one: the sockets of both, and the later time", () => {
  const feed = [
    { ...over, word },
    { ...alive, word: { applied_at: 9, closed: 1 } },
  ];
  const { enforcement } = judge({ receipt: done, feed }, { taken: true, expires_at: LATER }, NOW);
  expect(enforcement.applied).toContainEqual({ node: "two", applied_at: 9, closed: 4 });
});

test("a fence that Redis saw before the feed's is as late as the feed's", () => {
  const { enforcement } = judge({ receipt: fenced, feed: [over] }, { taken: true, expires_at: LATER }, NOW);
  expect(enforcement.fenced).toEqual([{ node: "two", fenced_at: NOW }]);
});

test("a cluster that has not taken it, or has not answered, is not complete though nobody is pending", () => {
  expect(judged(done, [], false).complete).toBe(false);
  expect(judged(undefined).complete).toBe(false);
  expect(judged(undefined, [{ ...alive, word }]).complete).toBe(false);
});

test("a minute after its time it is complete whoever is pending, and says that this is why", () => {
  const past = NOW / 1000 - 60;
  expect(judged(waiting, [], true, past)).toMatchObject({ pending: ["two"], complete: true, expired: true });
  expect(judged(undefined, [alive], false, past)).toMatchObject({ pending: ["two"], complete: true, expired: true });
  expect(judged(done, [], true, past).expired).toBeUndefined();
  expect(judged(waiting, [], true, past + 1)).toMatchObject({ complete: false, expired: undefined });
  expect([isExpired(past, NOW), isExpired(past + 1, NOW)]).toEqual([true, false]);
});

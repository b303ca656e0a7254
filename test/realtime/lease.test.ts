/** Who is believed alive, by clocks that these tests turn by hand. */
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { heartbeat, Lease, leaseNow, type Member, memberKey, Peers } from "../../realtime/lease.ts";
import { Sequence } from "../../realtime/sequence.ts";

const CLUSTER = "eu";
const SECRETS = ["what the nodes of the cluster share"] as const;
const node: Member = { node: "n1", boot: "b1", leaseMs: 1_000, keepMs: 0 };
/** A lease and its margin. */
const LIFE = 1_400;
let forged: string[];
let peers: Peers;

beforeEach(() => {
  vi.useFakeTimers({ toFake: ["performance", "Date"], now: 0 });
  forged = [];
  peers = new Peers(CLUSTER, SECRETS, (key) => forged.push(key));
});
afterEach(() => vi.useRealTimers());

const pass = (ms: number) => vi.advanceTimersByTime(ms);
const beat = (count: number, member = node) => heartbeat(member, count, CLUSTER, SECRETS);
function see(...values: readonly (readonly [Member, string])[]): readonly (readonly string[])[] {
  return peers.observe(new Map(values.map(([member, value]) => [memberKey(member), value])), performance.now());
}
const alive = () => peers.alive().map(({ node: name }) => name);

describe("a lease", () => {
  it("runs until the end that was set last, by either link, and says which one holds it", () => {
    const lease = new Lease();
    expect(lease.isRunning()).toBe(false);
    const now = leaseNow();
    lease.extend("feed", now + 100);
    expect(lease.link).toBe("feed");
    lease.extend("redis", now + 200);
    lease.extend("redis", now + 150);
    expect([lease.link, lease.endsAt]).toEqual(["redis", now + 200]);
    pass(200);
    expect([lease.isRunning(), lease.link]).toEqual([false, undefined]);
  });

  it("is over when the machine was suspended for longer, or the wall clock was set ahead by that much", () => {
    const lease = new Lease();
    lease.extend("redis", leaseNow() + 5_000);
    vi.setSystemTime(Date.now() + 4_000);
    expect(lease.isRunning()).toBe(true);
    vi.setSystemTime(Date.now() + 1_001);
    expect(lease.isRunning()).toBe(false);
    lease.extend("redis", leaseNow() + 5_000);
    expect(lease.isRunning()).toBe(true);
  });

  it("is no longer for a wall clock that was set back, nor shorter for one that is slewed", () => {
    const lease = new Lease();
    lease.extend("redis", leaseNow() + 5_000);
    vi.setSystemTime(Date.now() - 3_600_000);
    for (let second = 0; second < 4; second++) {
      pass(1_000);
      vi.setSystemTime(Date.now() + 200);
      expect(lease.isRunning()).toBe(true);
    }
    pass(1_001);
    expect(lease.isRunning()).toBe(false);
  });

  it("is over at once when it is given back", () => {
    const lease = new Lease();
    lease.extend("redis", leaseNow() + 1_000);
    lease.end();
    expect(lease.isRunning()).toBe(false);
  });
});

describe("a node that others watch", () => {
  it("is alive for its lease and a margin after its heartbeat was first seen, and no longer for being seen again", () => {
    const value = beat(1);
    see([node, value]);
    pass(1_000);
    see([node, value]);
    pass(LIFE - 1_001);
    expect(alive()).toEqual(["n1"]);
    pass(2);
    expect(alive()).toEqual([]);
  });

  it("is said to have ended only by what was looked at after its end", () => {
    see([node, beat(1)]);
    pass(LIFE + 60_000);
    expect(peers.endOf(node)).toBeUndefined();
    see([node, beat(1)]);
    expect(peers.endOf(node)).toBe(LIFE);
  });

  it("is not thought to have ended while its heartbeats come, even if nobody looked for long", () => {
    see([node, beat(1)]);
    pass(60_000);
    see([node, beat(60)]);
    expect([peers.endOf(node), alive()]).toEqual([undefined, ["n1"]]);
  });

  it("may keep its sockets for longer, and is waited for that long", () => {
    const keeping = { ...node, keepMs: 10_000 };
    see([keeping, beat(1, keeping)]);
    pass(LIFE + 9_999);
    expect(alive()).toEqual(["n1"]);
  });

  it("is gone at once after its farewell", () => {
    see([node, beat(1)]);
    see([node, beat(2, { ...node, leaseMs: 0 })]);
    expect(alive()).toEqual([]);
    pass(1);
    see();
    expect(peers.endOf(node)).toBe(0);
  });

  it("that vanished from Redis is remembered until its lease is over", () => {
    see([node, beat(1)]);
    pass(100);
    see();
    expect(alive()).toEqual(["n1"]);
  });

  it("is neither revived nor ended by an old heartbeat", () => {
    const old = beat(1);
    see([node, old]);
    see([node, beat(2)]);
    pass(1_000);
    see([node, old]);
    expect(alive()).toEqual(["n1"]);
    pass(LIFE);
    see([node, old]);
    expect(alive()).toEqual([]);
  });

  it("is not believed without a seal of the cluster, for another name, lease, count or cluster", () => {
    const good = beat(7);
    const [count, lease, keep, seal] = good.split(".");
    const other = { ...node, node: "n2" };
    const bad: (readonly [Member, string])[] = [
      [node, `${count}.${lease}.${keep}.AAAA`],
      [node, `8.${lease}.${keep}.${seal}`],
      [node, `${count}.0.${keep}.${seal}`],
      [node, `${count}.${lease}.5.${seal}`],
      [node, `-1.${lease}.${keep}.${seal}`],
      [node, "nonsense"],
      [node, ""],
      [other, good],
      [node, heartbeat(node, 7, "us", SECRETS)],
      [node, heartbeat(node, 7, CLUSTER, ["another secret that nobody here knows"])],
    ];
    for (const sighting of bad) see(sighting);
    expect(alive()).toEqual([]);
    expect(forged).toHaveLength(bad.length);
  });

  it("is swept out of Redis a minute after its end", () => {
    const value = beat(1);
    see([node, value]);
    pass(LIFE + 60_000);
    expect(see([node, value])).toEqual([]);
    pass(1);
    expect(see([node, value])).toEqual([[memberKey(node), value]]);
  });
});

describe("a node that watches", () => {
  it("vouches for who is there once it has watched for as long as a lease lasts", () => {
    expect(peers.canVouch(node)).toBe(false);
    see();
    pass(LIFE);
    see();
    expect(peers.canVouch(node)).toBe(false);
    pass(1);
    see();
    expect(peers.canVouch(node)).toBe(true);
  });

  it("says of one that it never saw that it has ended only after that time, too", () => {
    see();
    pass(LIFE);
    see();
    expect(peers.endOf(node)).toBeUndefined();
    pass(1);
    see();
    expect(peers.endOf(node)).toBe(LIFE);
  });
});

describe("a sequence of numbers", () => {
  it("knows up to where nothing is missing, whatever the order", () => {
    const sequence = new Sequence();
    for (const number of [3, 1, 5, 2]) sequence.add(number);
    expect([sequence.through, sequence.hasGap, sequence.has(4), sequence.has(5)]).toEqual([3, true, false, true]);
    sequence.add(4);
    expect([sequence.through, sequence.hasGap]).toEqual([5, false]);
  });

  it("goes on from where nothing needs to be known before", () => {
    const sequence = new Sequence();
    for (const number of [7, 9, 10]) sequence.add(number);
    sequence.advance(8);
    expect([sequence.through, sequence.hasGap]).toEqual([10, false]);
    sequence.advance(2);
    expect(sequence.through).toBe(10);
  });

  it("begins anew", () => {
    const sequence = new Sequence();
    sequence.add(1);
    sequence.add(9);
    sequence.restart(0);
    expect([sequence.through, sequence.hasGap, sequence.has(1)]).toEqual([0, false, false]);
  });
});

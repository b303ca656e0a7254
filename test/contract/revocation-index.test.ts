/**
 * The index that every node decides by, against an oracle that is too simple to be wrong: all events in a list, each
 * asked with `hits`. The names are few, so that events meet.
 */
import { describe, expect, test } from "vitest";
import {
  hits,
  keyOf,
  type RevocableClaims,
  type RevocationCode,
  type RevocationEvent,
  type RevocationTarget,
} from "#contract/revocation";
import { RevocationIndex } from "#contract/revocation-index";
import { Random } from "../support/random.ts";

const CODES = ["token_revoked", "session_revoked", "refresh_reused"] as const;
const SUBS = ["u1", "u2", "u3"] as const;
const TENANTS = ["acme", "apex"] as const;
const KIDS = ["k1", "k2", "k3"] as const;
/** One name that is a token's, a key's, a session's, a user's and a tenant's at once: the kinds must not meet. */
const SHARED_NAME = "everyone";
const TIMES = 6;
const SEEDS = Array.from({ length: 60 }, (_, seed) => seed);

function randomTarget(random: Random): RevocationTarget {
  switch (random.below(12)) {
    case 0:
      return { kind: "everyone", cutoff: random.below(TIMES) };
    case 1:
    case 2:
      return { kind: "tenant", tid: random.pick([...TENANTS, SHARED_NAME]), cutoff: random.below(TIMES) };
    case 3:
    case 4:
      return { kind: "user", sub: random.pick([...SUBS, SHARED_NAME]), generation: random.below(TIMES) };
    case 5:
    case 6:
    case 7:
      return { kind: "session", sid: random.pick([`${random.pick(SUBS)}.s${random.below(3)}`, SHARED_NAME]) };
    case 11:
      return { kind: "subject", sub: random.pick([...SUBS, SHARED_NAME]), cutoff: random.below(TIMES) };
    case 8:
      return { kind: "key", kid: random.pick([...KIDS, SHARED_NAME]) };
    default:
      return { kind: "token", jti: random.pick([`t${random.below(12)}`, SHARED_NAME]) };
  }
}

function randomEvents(random: Random): RevocationEvent[] {
  return Array.from({ length: 1 + random.below(10) }, (_, index) => ({
    id: `rev_${index}`,
    seq: index + 1,
    targets: Array.from({ length: 1 + random.below(3) }, () => randomTarget(random)),
    code: random.pick(CODES),
    decided_at: 0,
    expires_at: 100 + random.below(100),
  }));
}

function randomClaims(random: Random): RevocableClaims {
  const sub = random.pick([...SUBS, SHARED_NAME]);
  return {
    sub,
    sid: random.pick([`${sub}.s${random.below(3)}`, SHARED_NAME]),
    jti: random.pick([`t${random.below(12)}`, SHARED_NAME]),
    gen: random.below(TIMES),
    auth_time: random.below(TIMES),
    ...(random.below(3) === 0 ? {} : { tid: random.pick([...TENANTS, SHARED_NAME]) }),
    ...(random.below(3) === 0 ? {} : { kid: random.pick([...KIDS, SHARED_NAME]) }),
  };
}

function claimsToAsk(random: Random): RevocableClaims[] {
  return Array.from({ length: 200 }, () => randomClaims(random));
}

function indexOf(events: readonly RevocationEvent[]): RevocationIndex {
  const index = new RevocationIndex();
  for (const event of events) index.merge(event);
  return index;
}

/** The widest level that hits decides; in it the highest cutoff, and on a tie the lesser code. */
function oracle(events: readonly RevocationEvent[], claims: RevocableClaims): RevocationCode | undefined {
  for (const kind of ["everyone", "tenant", "user", "subject", "session", "key", "token"] as const) {
    const hit = events
      .flatMap((event) => event.targets.map((target) => ({ target, code: event.code })))
      .filter(({ target }) => target.kind === kind && hits(target, claims))
      .sort((a, b) => cutoffOf(b.target) - cutoffOf(a.target) || (a.code < b.code ? -1 : 1))[0];
    if (hit !== undefined) return hit.code;
  }
  return undefined;
}

function cutoffOf(target: RevocationTarget): number {
  if (target.kind === "user") return target.generation;
  return "cutoff" in target ? target.cutoff : 0;
}

const answers = (index: RevocationIndex, asked: readonly RevocableClaims[]) =>
  asked.map((claims) => index.check(claims));

describe("for every set of events,", () => {
  test.for(SEEDS)("check answers as asking every event would (seed %i)", (seed) => {
    const random = new Random(seed);
    const events = randomEvents(random);
    const index = indexOf(events);
    for (const claims of claimsToAsk(random)) {
      expect(index.check(claims), JSON.stringify({ events, claims })).toBe(oracle(events, claims));
    }
  });

  test.for(SEEDS)("neither order nor repetition nor splitting changes an answer (seed %i)", (seed) => {
    const random = new Random(seed);
    const events = randomEvents(random);
    const asked = claimsToAsk(random);
    const expected = answers(indexOf(events), asked);
    for (let round = 0; round < 5; round++) {
      const repeated = [...events, ...events.filter(() => random.below(2) === 0)];
      const split = repeated.flatMap((event) => event.targets.map((target) => ({ ...event, targets: [target] })));
      expect(answers(indexOf(random.shuffled(repeated)), asked)).toEqual(expected);
      expect(answers(indexOf(random.shuffled(split)), asked)).toEqual(expected);
    }
  });

  test.for(SEEDS)("more events never let anybody back in (seed %i)", (seed) => {
    const random = new Random(seed);
    const index = new RevocationIndex();
    const asked = claimsToAsk(random);
    for (const event of randomEvents(random)) {
      const out = asked.filter((claims) => index.check(claims) !== undefined);
      index.merge(event);
      for (const claims of out) expect(index.check(claims)).toBeDefined();
    }
  });

  test.for(SEEDS)("nothing is forgotten before it expires, in any order (seed %i)", (seed) => {
    const random = new Random(seed);
    const events = randomEvents(random);
    const asked = claimsToAsk(random);
    const now = 100 + random.below(100);
    const index = indexOf(random.shuffled(events));
    index.expire(now);
    const alive = events.filter((event) => event.expires_at > now);
    for (const claims of asked) {
      if (oracle(alive, claims) !== undefined) expect(index.check(claims)).toBeDefined();
      if (oracle(events, claims) === undefined) expect(index.check(claims)).toBeUndefined();
    }
  });
});

test("the rounds above hit often and miss often, so that they prove something", () => {
  const verdicts = SEEDS.flatMap((seed) => {
    const random = new Random(seed);
    const events = randomEvents(random);
    return claimsToAsk(random).map((claims) => oracle(events, claims));
  });
  for (const code of [undefined, ...CODES]) {
    expect(verdicts.filter((verdict) => verdict === code).length).toBeGreaterThan(verdicts.length / 20);
  }
});

describe("the rules by example:", () => {
  const claims: RevocableClaims = {
    jti: "t1",
    sid: "u1.s1",
    sub: "u1",
    gen: 2,
    auth_time: 1000,
    tid: "acme",
    kid: "k1",
  };
  test.for<[RevocationTarget, boolean]>([
    [{ kind: "token", jti: "t1" }, true],
    [{ kind: "token", jti: "t2" }, false],
    [{ kind: "session", sid: "u1.s1" }, true],
    [{ kind: "session", sid: "u1.s" }, false],
    [{ kind: "user", sub: "u1", generation: 3 }, true],
    [{ kind: "user", sub: "u1", generation: 2 }, false],
    [{ kind: "user", sub: "u", generation: 9 }, false],
    [{ kind: "subject", sub: "u1", cutoff: 1000 }, true],
    [{ kind: "subject", sub: "u1", cutoff: 999 }, false],
    [{ kind: "subject", sub: "u", cutoff: 2000 }, false],
    [{ kind: "tenant", tid: "acme", cutoff: 1000 }, true],
    [{ kind: "tenant", tid: "acme", cutoff: 999 }, false],
    [{ kind: "tenant", tid: "apex", cutoff: 2000 }, false],
    [{ kind: "key", kid: "k1" }, true],
    [{ kind: "key", kid: "k" }, false],
    [{ kind: "everyone", cutoff: 1000 }, true],
    [{ kind: "everyone", cutoff: 999 }, false],
  ])("%j hits the session: %s", ([target, expected]) => {
    const event: RevocationEvent = {
      id: "r",
      seq: 1,
      targets: [target],
      code: "session_revoked",
      decided_at: 0,
      expires_at: 2000,
    };
    expect(hits(target, claims)).toBe(expected);
    expect(indexOf([event]).check(claims)).toBe(expected ? "session_revoked" : undefined);
  });

  test("a session without a tenant is hit by no tenant's cutoff, not even that of a tenant named undefined", () => {
    const { tid: _, ...single } = claims;
    const event: RevocationEvent = {
      id: "r",
      seq: 1,
      targets: [{ kind: "tenant", tid: "undefined", cutoff: 5000 }],
      code: "session_revoked",
      decided_at: 0,
      expires_at: 2000,
    };
    expect(indexOf([event]).check(single)).toBeUndefined();
  });

  test("a token whose key is not known is hit by no key, not even by one named undefined", () => {
    const { kid: _, ...unknown } = claims;
    const event = { id: "r", seq: 1, code: "token_revoked", decided_at: 0, expires_at: 2000 } as const;
    expect(indexOf([{ ...event, targets: [{ kind: "key", kid: "undefined" }] }]).check(unknown)).toBeUndefined();
  });

  test("ending a session outranks ending one of its tokens, whichever came first", () => {
    const token = { id: "a", seq: 1, targets: [{ kind: "token", jti: "t1" }], code: "token_revoked" } as const;
    const session = { id: "b", seq: 2, targets: [{ kind: "session", sid: "u1.s1" }], code: "session_revoked" } as const;
    const times = { decided_at: 0, expires_at: 2000 };
    expect(
      indexOf([
        { ...token, ...times },
        { ...session, ...times },
      ]).check(claims),
    ).toBe("session_revoked");
    expect(
      indexOf([
        { ...session, ...times },
        { ...token, ...times },
      ]).check(claims),
    ).toBe("session_revoked");
  });

  test("an entry is gone at the second it expires and the index is empty again", () => {
    const targets: RevocationTarget[] = [
      { kind: "session", sid: "u1.s1" },
      { kind: "everyone", cutoff: 1 },
    ];
    const index = indexOf([{ id: "r", seq: 1, targets, code: "session_revoked", decided_at: 0, expires_at: 2000 }]);
    index.expire(1999);
    expect(index.size).toBe(2);
    index.expire(2000);
    expect(index.size).toBe(0);
    expect(index.check(claims)).toBeUndefined();
  });

  test("what is over is forgotten, and what was made to last longer stays, whichever kinds they are", () => {
    const index = indexOf(
      SEEDS.flatMap((seed) => randomEvents(new Random(seed))).map((event, second) => ({
        ...event,
        expires_at: second,
      })),
    );
    const last = new Map<string, number>();
    SEEDS.flatMap((seed) => randomEvents(new Random(seed))).forEach(({ targets }, second) => {
      for (const target of targets) last.set(keyOf(target), second);
    });
    for (let now = 0; index.size > 0; now++) {
      index.expire(now);
      expect(index.size).toBe([...last.values()].filter((second) => second > now).length);
    }
  });

  test("a later event about the same target keeps it for longer, an earlier one never for less", () => {
    const event = { id: "r", seq: 1, code: "session_revoked", decided_at: 0 } as const;
    const targets: RevocationTarget[] = [{ kind: "session", sid: "u1.s1" }];
    const index = indexOf([
      { ...event, targets, expires_at: 3000 },
      { ...event, targets, expires_at: 2000 },
    ]);
    index.expire(2500);
    expect(index.check(claims)).toBe("session_revoked");
  });
});

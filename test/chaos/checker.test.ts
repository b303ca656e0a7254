/** Histories made by hand: guilty ones, each of one thing, and innocent ones that look much like them. */
import { describe, expect, test } from "vitest";
import { check, type Violation } from "./checker.ts";
import type { Entry, Scope } from "./history.ts";

/** Milliseconds since the epoch at which everything begins; the tests count from here. */
const BEGIN = 1_790_000_000_000;
const TTL_SECONDS = 60;
const SKEW_SECONDS = 5;

type Said<K extends Entry["kind"]> = Omit<Extract<Entry, { kind: K }>, "kind" | "at">;

/** Ada has a session and a socket on north-1, which runs all the time. */
class Tale {
  readonly #entries: Entry[] = [];

  say<K extends Entry["kind"]>(at: number, kind: K, said: Said<K>): this {
    this.#entries.push({ at: BEGIN + at, kind, ...said } as unknown as Entry);
    return this;
  }

  node(from: number, to: number, boot = "north-1.a"): this {
    const node = "north-1";
    return this.say(from, "started", { node, cluster: "north", boot }).awake(from, to, boot);
  }

  awake(from: number, to: number, boot = "north-1.a"): this {
    return this.say(to, "awake", { node: "north-1", boot, from: BEGIN + from, until: BEGIN + to });
  }

  session(at: number, sid: string, sub = "ada", tid = "acme"): this {
    return this.say(at, "session", { client: sub, sid, sub, tid, askedAt: BEGIN + at - 10 });
  }

  token(at: number, jti: string, sid: string): this {
    const exp = (BEGIN + at) / 1000 + TTL_SECONDS;
    return this.say(at, "token", { client: "ada", sid, jti, kid: "k1", exp, askedAt: BEGIN + at - 10 });
  }

  socket(at: number, socket: string, jti: string, boot = "north-1.a"): this {
    return this.say(at, "connected", { node: "north-1", boot, socket, jti });
  }

  closed(at: number, socket: string): this {
    return this.say(at, "disconnected", { node: "north-1", socket, reason: "server namespace disconnect" });
  }

  packet(at: number, socket: string): this {
    return this.say(at, "handled", { node: "north-1", socket });
  }

  word(sentAt: number, heardAt: number, socket: string): this {
    return this.say(heardAt, "heard", { client: "ada", socket, sentAt: BEGIN + sentAt });
  }

  told(at: number, code: string, jti: string, socket?: string): this {
    const where = socket === undefined ? {} : { socket };
    return this.say(at, "told", { client: "ada", node: "north-1", jti, code, ...where });
  }

  /** A revocation that is asked for at 1000 and answered at 1020. */
  revoked(scope: Scope, revocation = "r"): this {
    return this.say(1_000, "asked", { revocation, scope, about: "a revocation" }).say(1_020, "decided", {
      revocation,
      id: `rev_${revocation}`,
    });
  }

  enforced(at: number, readAt = at + 100, revocation = "r"): this {
    return this.say(readAt, "receipt", { revocation, state: "enforced", enforced: true, enforcedAt: BEGIN + at });
  }

  /** What the checker finds: the promise and the sentence of each violation. */
  found(): string[] {
    return this.verdict().violations.map(({ promise, what }: Violation) => `${promise}: ${what}`);
  }

  verdict() {
    return check(this.#entries, { skewSeconds: SKEW_SECONDS });
  }
}

/** Ada's session s1 with its token t1, and her socket, open from 0 on. */
function ada(): Tale {
  return new Tale().node(-500, 30_000).session(-100, "s1").token(-100, "t1", "s1").socket(0, "socket", "t1");
}

const SESSION: Scope = { kind: "session", sid: "s1" };
const ADA: Scope = { kind: "users", subs: ["ada"] };
/** Long before Ada's session began, and long after: the edge's seconds need not be ours. */
const [LONG_BEFORE, LONG_AFTER] = [BEGIN / 1000 - 60, BEGIN / 1000 + 60];
const nothing = (tale: Tale) => expect(tale.found()).toEqual([]);
const one = (tale: Tale, violation: RegExp) => {
  expect(tale.found()).toHaveLength(1);
  expect(tale.found()[0]).toMatch(violation);
};

/** Stopped over a revocation of its socket. */
const frozenUntil = (awakeAt: number) =>
  new Tale()
    .node(-500, 900)
    .awake(awakeAt, 30_000)
    .session(-100, "s1")
    .token(-100, "t1", "s1")
    .socket(0, "socket", "t1")
    .revoked(SESSION);

describe("promise 1 is kept when", () => {
  const SCOPES: readonly Scope[] = [
    { kind: "token", jti: "t1" },
    SESSION,
    ADA,
    { kind: "tenant", tid: "acme" },
    { kind: "everyone" },
    { kind: "key", kid: "k1" },
    { kind: "users", subs: ["ada"], begunBy: LONG_AFTER },
  ];

  test.for(SCOPES)("a socket that %o covers is closed before that is enforced", (scope) =>
    nothing(ada().revoked(scope).packet(1_030, "socket").closed(1_050, "socket").enforced(1_060)),
  );

  test("a socket is open while the receipt does not say enforced yet", () =>
    nothing(
      ada()
        .revoked(SESSION)
        .say(2_000, "receipt", { revocation: "r", state: "delivered", enforced: false })
        .packet(3_000, "socket"),
    ));

  test("it is another session, user, tenant or token that is revoked", () => {
    nothing(ada().revoked({ kind: "session", sid: "s2" }).enforced(1_060).packet(3_000, "socket"));
    nothing(
      ada()
        .revoked({ kind: "users", subs: ["bob"] })
        .enforced(1_060)
        .packet(3_000, "socket"),
    );
    nothing(ada().revoked({ kind: "tenant", tid: "other" }).enforced(1_060).packet(3_000, "socket"));
    nothing(ada().revoked({ kind: "token", jti: "t2" }).enforced(1_060).packet(3_000, "socket"));
    nothing(ada().revoked({ kind: "key", kid: "k2" }).enforced(1_060).packet(3_000, "socket"));
    nothing(
      ada()
        .revoked({ kind: "users", subs: ["ada"], except: "s1" })
        .enforced(1_060)
        .packet(3_000, "socket"),
    );
  });

  test("only sessions that had begun long before are revoked, or nobody knows whether this one had", () => {
    for (const begunBy of [LONG_BEFORE, BEGIN / 1000]) {
      nothing(ada().revoked({ kind: "everyone", begunBy }).enforced(1_060).packet(3_000, "socket"));
    }
  });

  test("somebody who logs in after a bulk revocation was answered may be hit until it has come to them all", () => {
    const bulk = (state: string) =>
      ada()
        .say(1_000, "asked", { revocation: "r", scope: ADA, about: "a revocation" })
        .say(1_020, "decided", { revocation: "r", id: "blk_r" })
        .closed(1_050, "socket")
        .say(1_100, "receipt", { revocation: "r", state, enforced: false })
        .session(1_200, "s2")
        .token(1_200, "t2", "s2")
        .socket(1_300, "again", "t2")
        .told(1_400, "session_revoked", "t2", "again")
        .closed(1_410, "again");
    nothing(bulk("pending"));
    one(bulk("decided"), /^3: ada was told session_revoked/);
  });

  test("somebody who logs in after the answer stays", () =>
    nothing(
      ada()
        .revoked(ADA)
        .closed(1_050, "socket")
        .enforced(1_060)
        .session(1_200, "s2")
        .token(1_200, "t2", "s2")
        .socket(1_300, "again", "t2")
        .packet(1_400, "again"),
    ));

  test("a socket goes on with another token than the one that is revoked", () =>
    nothing(
      ada()
        .revoked({ kind: "token", jti: "t1" })
        .token(1_030, "t2", "s1")
        .say(1_040, "renewing", { client: "ada", socket: "socket", jti: "t2" })
        .say(1_050, "renewed", { client: "ada", socket: "socket", jti: "t2", askedAt: BEGIN + 1_040 })
        .enforced(1_060)
        .packet(3_000, "socket"),
    ));

  test("nobody knows whether it was decided", () =>
    nothing(ada().say(1_000, "asked", { revocation: "r", scope: SESSION, about: "it" }).packet(3_000, "socket")));

  const FROZEN = () => frozenUntil(5_000).enforced(3_000);
  const FROZEN_UNTIL_SAID = () => frozenUntil(4_960).enforced(5_000);

  test("a process that was stopped closes the socket soon after it runs again", () =>
    nothing(FROZEN().closed(5_400, "socket")));

  test("a process runs again a moment before that is said, and closes the socket soon after", () =>
    nothing(FROZEN_UNTIL_SAID().closed(5_400, "socket")));

  test("a process that was stopped is killed before it runs again", () =>
    nothing(
      new Tale()
        .node(-500, 900)
        .session(-100, "s1")
        .token(-100, "t1", "s1")
        .socket(0, "socket", "t1")
        .revoked(SESSION)
        .enforced(3_000)
        .say(4_000, "down", { part: "north-1", expected: true }),
    ));

  test("what the app had said before arrives late", () =>
    nothing(ada().revoked(SESSION).closed(1_050, "socket").enforced(1_060).word(1_040, 4_000, "socket")));

  test("a node's clock was off when it said when it had closed", () =>
    nothing(
      ada()
        .say(500, "clock", { node: "north-1", offMs: -3_000 })
        .revoked(SESSION)
        .closed(3_500, "socket")
        .enforced(1_060, 3_600),
    ));

  test("a process that was stopped hands no packet on, and one of before the enforcement counts for nothing", () =>
    nothing(FROZEN().packet(800, "socket").closed(5_010, "socket")));
});

describe("promise 1 is broken by", () => {
  test("a covered token that is let in", () =>
    one(
      ada()
        .revoked(SESSION)
        .closed(1_050, "socket")
        .enforced(1_060)
        .socket(2_000, "thief", "t1")
        .closed(2_100, "thief"),
      /^1: north-1 let socket thief in with token t1, 935 ms after/,
    ));

  test("a token that the revoked key signs afterwards", () =>
    one(
      ada()
        .revoked({ kind: "key", kid: "k1" })
        .closed(1_050, "socket")
        .enforced(1_060)
        .token(1_900, "t2", "s1")
        .socket(2_000, "again", "t2")
        .closed(2_100, "again"),
      /^1: north-1 let socket again in with token t2/,
    ));

  test("a session that had begun long before, of one who is told to have", () =>
    one(
      ada().revoked({ kind: "tenant", tid: "acme", begunBy: LONG_AFTER }).enforced(1_060),
      /^1: socket socket on north-1 was never closed/,
    ));

  test("one that is let in before the receipt was read, but after the time that it names", () =>
    one(
      ada()
        .revoked(SESSION)
        .closed(1_050, "socket")
        .enforced(1_060, 9_000)
        .socket(2_000, "thief", "t1")
        .closed(2_100, "thief"),
      /^1: north-1 let/,
    ));

  test("a younger token of the same session", () =>
    one(
      ada()
        .revoked(SESSION)
        .closed(1_050, "socket")
        .enforced(1_060)
        .token(1_500, "t2", "s1")
        .socket(2_000, "thief", "t2")
        .closed(2_100, "thief"),
      /^1: north-1 let socket thief in with token t2/,
    ));

  test("a socket that is closed too late", () =>
    one(ada().revoked(SESSION).enforced(1_060).closed(1_100, "socket"), /^1: .* was open for another 35 ms/));

  test("a socket that is never closed", () =>
    one(ada().revoked(SESSION).enforced(1_060), /^1: socket socket on north-1 was never closed/));

  test("a packet that the app is given, and a word that it says, after that", () => {
    const tale = ada().revoked(SESSION).enforced(1_060).packet(1_080, "socket").word(1_090, 1_095, "socket");
    expect(tale.closed(1_100, "socket").found()).toEqual([
      expect.stringMatching(/^1: socket socket on north-1 was open/),
      expect.stringMatching(/^1: the app on north-1 was given a packet of socket 15 ms after/),
      expect.stringMatching(/^1: socket was told something by the app on north-1 25 ms after/),
    ]);
  });

  test("a process that runs again a moment before that is said, and takes its time", () =>
    one(
      frozenUntil(4_960).enforced(5_000).closed(6_500, "socket"),
      /^1: socket socket on north-1 was open for another/,
    ));

  test("a process that was stopped and goes on as if nothing had happened", () => {
    const tale = new Tale().node(-500, 900).awake(5_000, 30_000).session(-100, "s1").token(-100, "t1", "s1");
    tale.socket(0, "socket", "t1").revoked(SESSION).enforced(3_000).packet(5_001, "socket").closed(6_500, "socket");
    expect(tale.found()).toEqual([
      expect.stringMatching(/^1: the app on north-1 was given a packet of socket 1996 ms after/),
      expect.stringMatching(/^1: socket socket on north-1 was open/),
    ]);
  });

  test("a renewal with a covered token", () =>
    one(
      ada()
        .revoked({ kind: "token", jti: "t2" })
        .token(900, "t2", "s1")
        .enforced(1_060)
        .say(2_000, "renewing", { client: "ada", socket: "socket", jti: "t2" })
        .say(2_010, "renewed", { client: "ada", socket: "socket", jti: "t2", askedAt: BEGIN + 2_000 }),
      /^1: socket socket was renewed with token t2/,
    ));

  test("a handshake of which only the client knows", () =>
    one(
      ada()
        .revoked(SESSION)
        .closed(1_050, "socket")
        .enforced(1_060)
        .say(2_010, "opened", { client: "thief", socket: "unseen", jti: "t1", askedAt: BEGIN + 2_000 }),
      /^1: socket unseen was opened with token t1/,
    ));
});

describe("promise 2 is kept when", () => {
  const end = (tale: Tale) => tale.say(20_000, "settled", {});

  test("everything that was answered 2xx is enforced in the end, however late", () =>
    nothing(end(ada().revoked(SESSION).closed(15_000, "socket").enforced(15_010))));

  test("the run was cut short", () => nothing(ada().revoked(SESSION)));

  test("it was declined, or never answered", () => {
    const asked = () => ada().say(1_000, "asked", { revocation: "r", scope: SESSION, about: "it" });
    nothing(end(asked().say(1_020, "declined", { revocation: "r", code: "not_found" })));
    nothing(end(asked().say(9_000, "abandoned", { revocation: "r" })));
  });

  test("every event of a revocation of many is enforced", () =>
    nothing(
      end(
        ada()
          .say(1_000, "asked", { revocation: "r", scope: ADA, about: "it" })
          .say(1_020, "decided", { revocation: "r", id: "blk_1" })
          .closed(1_300, "socket")
          .say(2_000, "receipt", { revocation: "r", state: "enforced", enforced: true }),
      ),
    ));
});

describe("promise 2 is broken by", () => {
  test("a revocation, or one of many, that is not enforced although everything is mended", () => {
    const end = (id: string, state: string) =>
      ada()
        .say(1_000, "asked", { revocation: "r", scope: SESSION, about: "it" })
        .say(1_020, "decided", { revocation: "r", id })
        .closed(1_050, "socket")
        .say(2_000, "receipt", { revocation: "r", state, enforced: false })
        .say(60_000, "overdue", {});
    one(end("rev_1", "delivered"), /^2: it was answered 2xx .* its receipt says delivered/);
    one(end("blk_1", "decided"), /^2: it was answered 2xx .* its receipt says decided/);
  });

  const enforced = () => ada().revoked(SESSION).closed(1_050, "socket").enforced(1_060);

  test("a node that has forgotten it over a restart", () =>
    one(
      enforced()
        .say(2_000, "down", { part: "north-1", expected: true })
        .node(2_500, 30_000, "north-1.b")
        .socket(3_000, "thief", "t1", "north-1.b")
        .closed(3_100, "thief"),
      /^2: .* it was forgotten, for north-1 has been started again since/,
    ));

  test("a node that has forgotten it together with its Redis", () =>
    one(
      enforced().say(2_000, "forgot", { cluster: "north" }).socket(3_000, "thief", "t1").closed(3_100, "thief"),
      /^2: .* it was forgotten, for the Redis of north has lost data since/,
    ));

  test("a revocation without a receipt that does not hold in the end", () =>
    one(
      ada()
        .say(1_000, "asked", { revocation: "r", scope: SESSION, about: "a logout" })
        .say(1_020, "decided", { revocation: "r", id: "logout" })
        .closed(1_050, "socket")
        .say(20_000, "settled", {})
        .socket(21_000, "thief", "t1")
        .closed(21_100, "thief"),
      /^1: north-1 let socket thief in/,
    ));
});

describe("promise 3 is kept when", () => {
  test("whoever is told so was revoked", () =>
    nothing(
      ada().revoked(SESSION).told(1_050, "session_revoked", "t1", "socket").closed(1_050, "socket").enforced(1_060),
    ));

  test("the order was given and its answer is still out", () =>
    nothing(
      ada()
        .say(1_000, "asked", { revocation: "r", scope: ADA, about: "it" })
        .told(1_010, "session_revoked", "t1", "socket"),
    ));

  test("a login and a revocation were under way at the same time", () =>
    nothing(ada().revoked(ADA).session(1_025, "s2").token(1_025, "t2", "s2").told(1_050, "session_revoked", "t2")));

  test("it is told something else", () =>
    nothing(ada().told(500, "token_expired", "t1", "socket").told(600, "unavailable", "t1")));

  test("a renewal is refused because of the token that it brings", () =>
    nothing(
      ada()
        .revoked({ kind: "token", jti: "t2" })
        .token(900, "t2", "s1")
        .say(1_500, "renewing", { client: "ada", socket: "socket", jti: "t2" })
        .told(1_510, "token_revoked", "t1", "socket"),
    ));
});

describe("promise 3 is broken by", () => {
  test("somebody who was told so and whom nobody revoked", () =>
    one(ada().told(500, "session_revoked", "t1", "socket"), /^3: ada was told session_revoked by north-1/));

  test("somebody who was told so before anybody had asked for it", () =>
    one(
      ada().told(500, "session_revoked", "t1").revoked(SESSION).closed(1_030, "socket").enforced(1_060),
      /^3: ada was told session_revoked/,
    ));

  test("somebody who logged in after the answer", () =>
    one(
      ada()
        .revoked(ADA)
        .closed(1_050, "socket")
        .enforced(1_060)
        .session(1_200, "s2")
        .token(1_200, "t2", "s2")
        .told(1_300, "session_revoked", "t2"),
      /^3: ada was told session_revoked/,
    ));

  test("the session that was excepted", () =>
    one(
      ada()
        .revoked({ kind: "users", subs: ["ada"], except: "s1" })
        .told(1_100, "session_revoked", "t1", "socket"),
      /^3: ada was told session_revoked/,
    ));

  test("somebody who was sent away without a word", () =>
    one(
      ada().say(500, "lost", { client: "ada", socket: "socket", reason: "io server disconnect" }),
      /^3: ada was sent away from north-1 without a word/,
    ));

  test("the edge, when it ends a session that nobody revoked", () =>
    one(ada().say(500, "ended", { client: "ada", sid: "s1", code: "session_revoked" }), /^3: the edge told ada/));
});

describe("promise 4 is kept when", () => {
  const END = TTL_SECONDS * 1_000 - 100;
  /** The token ends at END; the node runs for long after that. */
  const old = () =>
    new Tale().node(-500, 200_000).session(-100, "s1").token(-100, "t1", "s1").socket(0, "socket", "t1");

  test("a socket is closed at its token's end, give or take the clocks", () => {
    nothing(
      old()
        .packet(END - 10, "socket")
        .closed(END + 900, "socket"),
    );
    nothing(
      old()
        .packet(END + 2_900, "socket")
        .closed(END + SKEW_SECONDS * 1_000 + 1_500, "socket"),
    );
  });

  test("it has been renewed, or may have been", () => {
    const renewing = () =>
      old().token(50_000, "t2", "s1").say(50_010, "renewing", { client: "ada", socket: "socket", jti: "t2" });
    const late = END + 20_000;
    nothing(
      renewing()
        .say(50_020, "renewed", { client: "ada", socket: "socket", jti: "t2", askedAt: BEGIN + 50_010 })
        .packet(late, "socket")
        .closed(110_000, "socket"),
    );
    nothing(renewing().packet(late, "socket").closed(110_000, "socket"));
  });

  test("the process was stopped over it, and closes it when it runs again", () => {
    const stopped = new Tale().node(-500, 50_000).awake(90_000, 100_000).session(-100, "s1").token(-100, "t1", "s1");
    nothing(stopped.socket(0, "socket", "t1").closed(90_900, "socket"));
  });

  test("it is broken by a socket that stays open", () => {
    one(old(), /^4: socket socket on north-1 was open .* after the end of its token/);
    one(old().closed(END + SKEW_SECONDS * 1_000 + 6_000, "socket"), /^4: socket socket on north-1 was open/);
  });

  test("it is broken by a packet, a word, or a handshake after that", () => {
    const late = END + SKEW_SECONDS * 1_000 + 10;
    one(
      old()
        .packet(late, "socket")
        .closed(late + 5, "socket"),
      /^4: the app on north-1 was given a packet/,
    );
    one(
      old()
        .word(late, late, "socket")
        .closed(late + 5, "socket"),
      /^4: socket was told something/,
    );
    one(
      old()
        .closed(END, "socket")
        .socket(late, "thief", "t1")
        .closed(late + 5, "thief"),
      /^4: north-1 let socket thief in/,
    );
  });
});

describe("a run does not count as good when", () => {
  test("a process died by itself", () =>
    one(ada().say(500, "down", { part: "edge", expected: false }), /^recovery: edge died, and nobody had killed it/));

  test("somebody does not come back", () =>
    one(ada().say(500, "missing", { what: "ada on north-1" }), /^recovery: all is mended, and still missing: ada/));
});

describe("a violation", () => {
  test("is told with what led to it, and the earliest comes first", () => {
    const { violations, broken } = ada()
      .say(900, "fault", { fault: "fault 1", what: "cut", on: "north-1:redis" })
      .say(900, "fault", { fault: "fault 2", what: "cut", on: "south-1:redis" })
      .revoked(SESSION)
      .enforced(1_060)
      .told(400, "session_revoked", "t9")
      .verdict();
    expect(broken).toEqual({ 1: 1, 3: 1 });
    expect(violations.map(({ promise }) => promise)).toEqual([3, 1]);
    expect(violations[1]?.timeline.map(({ kind }) => kind)).toEqual([
      "started",
      "token",
      "connected",
      "fault",
      "asked",
      "decided",
      "receipt",
    ]);
  });

  test("needs something that was at stake, and that is counted", () => {
    const { stakes } = ada()
      .revoked(SESSION)
      .told(1_050, "session_revoked", "t1", "socket")
      .closed(1_050, "socket")
      .enforced(1_060)
      .told(2_000, "session_revoked", "t1")
      .session(2_000, "s2", "bob")
      .token(2_000, "t2", "s2")
      .socket(2_100, "other", "t2")
      .closed(62_300, "other")
      .verdict();
    expect(stakes).toEqual({ revocations: 1, coveredSockets: 1, innocentSockets: 1, expiredSockets: 1, refused: 1 });
  });
});

/** Floods: per address by the Rate Limiting binding, per account in its Credential; and that neither locks anybody out. */
import { createExecutionContext } from "cloudflare:test";
import { env } from "cloudflare:workers";
import { describe, expect, test, vi } from "vitest";
import { hashPassword } from "../../edge/accounts/password.ts";
import { app } from "../../edge/app.ts";
import { addressOf, isLoopback, networkOf, originOf } from "../../edge/origin.ts";
import { ADMIN, bearer, call, ISSUER, newMember, ok, PASSWORD, post, refreshed, refusal, signIn } from "./edge.ts";

const WRONG = "this is not the password";

/** Addresses of RFC 5737 and RFC 3849, a new network each time. */
let networks = 0;
const newNetwork = () => `198.51.${++networks}`;

const from = (address: string) => ({ "cf-connecting-ip": address });

async function flood(path: string, address: string, times: number): Promise<Response[]> {
  return await Promise.all(Array.from({ length: times }, () => post(path, {}, from(address))));
}

const limited = (responses: readonly Response[]) => responses.filter(({ status }) => status === 429).length;

describe("one address", () => {
  test("that floods the login is turned away, with a time to wait, and nobody else is", async () => {
    const [attacker, other] = [`${newNetwork()}.1`, `${newNetwork()}.1`];
    // Windows are aligned to the clock, so that two may be met, and what comes after the flood may be in a third.
    const turnedAway = (await flood("/login", attacker, 130)).find(({ status }) => status === 429);
    expect(turnedAway?.headers.get("retry-after")).toBe("60");
    expect(turnedAway && (await refusal(turnedAway))).toBe("too_many_attempts");
    const person = await newMember();
    const body = { login: person.login, password: PASSWORD };
    expect((await post("/login", body, from(other))).status).toBe(200);
  });

  test("may refresh ten times as often as log in", async () => {
    const address = `${newNetwork()}.1`;
    expect(limited(await flood("/refresh", address, 300))).toBe(0);
  });

  test("that may not log in any more can still refresh, and its living sessions go on", async () => {
    const address = `${newNetwork()}.1`;
    const session = await signIn(await newMember());
    expect(limited(await flood("/login", address, 130))).toBeGreaterThan(0);
    const response = await post("/refresh", { refresh_token: session.refresh_token }, from(address));
    expect(response.status).toBe(200);
  });

  test("of IPv6 counts as its whole /64", async () => {
    const network = `2001:db8:0:${(++networks).toString(16)}`;
    const all = await Promise.all(Array.from({ length: 130 }, (_, i) => post("/login", {}, from(`${network}::${i}`))));
    expect(limited(all)).toBeGreaterThan(0);
  });

  test("is what Cloudflare says, whatever the client says", async () => {
    const address = `${newNetwork()}.1`;
    const all = await Promise.all(
      Array.from({ length: 130 }, (_, i) =>
        post("/login", {}, { ...from(address), "x-forwarded-for": `192.0.2.${i}` }),
      ),
    );
    expect(limited(all)).toBeGreaterThan(0);
  });

  test("of this machine, and no address at all, are not counted", async () => {
    expect(limited(await flood("/login", "127.0.0.1", 130))).toBe(0);
    expect(limited(await Promise.all(Array.from({ length: 130 }, () => post("/login", {}))))).toBe(0);
  });
});

test("without the bindings, or with broken ones, people log in", async () => {
  const person = await newMember();
  const broken = { limit: () => Promise.reject(new Error("down")) };
  for (const LOGIN_RATE of [undefined, broken]) {
    const body = JSON.stringify({ login: person.login, password: PASSWORD });
    const headers = { "content-type": "application/json", ...from(`${newNetwork()}.1`) };
    const request = new Request(`${ISSUER}/login`, { method: "POST", body, headers });
    const response = await app.fetch(request, { ...env, LOGIN_RATE } as unknown as Env, createExecutionContext());
    expect(response.status).toBe(200);
  }
});

test("whoever guesses at an account delays its next login, and never touches its living sessions", async () => {
  const person = await newMember();
  const session = await signIn(person);
  // However long the hashing takes here, the wait is not over meanwhile.
  vi.useFakeTimers({ toFake: ["Date"] });
  for (let guess = 0; guess < 5; guess++) {
    expect(await refusal(await post("/login", { login: person.login, password: WRONG }))).toBe("credentials_wrong");
  }
  const throttled = await post("/login", { login: person.login, password: PASSWORD });
  expect(Number(throttled.headers.get("retry-after"))).toBeLessThanOrEqual(60);
  expect(await refusal(throttled)).toBe("too_many_attempts");
  vi.useRealTimers();
  const next = await refreshed(session.refresh_token);
  expect((await call("GET", "/sessions", undefined, bearer(next.access_token))).status).toBe(200);
  const shown = await ok<{ sessions: object[] }>(await call("GET", `/admin/accounts/${person.sub}`, undefined, ADMIN));
  expect(shown.sessions).toHaveLength(1);
});

test("hashes are worked on a few at a time; who is too many is told to come back, and it counts as no guess", async () => {
  const outcomes = await Promise.allSettled(Array.from({ length: 12 }, () => hashPassword("a password")));
  const refused = outcomes.filter((outcome) => outcome.status === "rejected");
  expect(refused).toHaveLength(4);
  for (const { reason } of refused) expect(reason).toMatchObject({ code: "unavailable", retryAfterSeconds: 1 });
  await hashPassword("and afterwards there is room again");
});

describe("an address is kept only as", () => {
  test.for([
    ["203.0.113.77", "203.0.113.0/24"],
    ["::ffff:203.0.113.77", "203.0.113.0/24"],
    ["2001:db8:1:2:3:4:5:6", "2001:db8:1::/48"],
    ["2001:db8::1", "2001:db8:0::/48"],
    ["::1", "0:0:0::/48"],
  ] as const)("%s: %s", ([address, network]) => {
    expect(networkOf(address, 24, 48)).toBe(network);
  });

  test.for(["", "x", "1.2.3", "1.2.3.256", "01.2.3.4", "1.2.3.4.5", "g::1", "[::1]", "1.2.3.4, 5.6.7.8", "::1%eth0"])(
    "nothing, when it is none: %j",
    (text) => {
      expect(networkOf(text, 24, 48)).toBeUndefined();
      expect(addressOf(new Request(ISSUER, { headers: { "cf-connecting-ip": text } }))).toBeUndefined();
    },
  );

  test("its network, in bits", () => {
    expect(networkOf("203.0.113.77", 32, 64)).toBe("203.0.113.77/32");
    expect(networkOf("203.0.113.255", 30, 64)).toBe("203.0.113.252/30");
    expect(networkOf("2001:db8:1:2:3:4:5:6", 32, 64)).toBe("2001:db8:1:2::/64");
    expect(networkOf("2001:db8:1:ff:3:4:5:6", 32, 56)).toBe("2001:db8:1:0::/56");
    expect(networkOf("2001:db8:1:2:3:4:5:6", 32, 128)).toBe("2001:db8:1:2:3:4:5:6/128");
  });

  test("loopback, in every form", () => {
    for (const address of ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"]) expect(isLoopback(address)).toBe(true);
    for (const address of ["128.0.0.1", "::2", "2001:db8::127"]) expect(isLoopback(address)).toBe(false);
  });

  test("an origin that is bounded, and without anything that is not a country", () => {
    const headers = { "cf-connecting-ip": "203.0.113.77", "user-agent": "x".repeat(5_000) };
    const request = new Request(ISSUER, { headers, cf: { country: "DE" } });
    expect(originOf(request)).toEqual({ address: "203.0.113.0/24", country: "DE", user_agent: "x".repeat(256) });
    expect(originOf(new Request(ISSUER))).toEqual({});
    expect(originOf(new Request(ISSUER, { cf: { country: "<script>" } }))).toEqual({});
  });
});

/**
 * Bad input of every kind against real processes, over real HTTP and WebSocket. Each is answered by a clear refusal of
 * the one table, changes nothing, leaks nothing, and leaves every process standing.
 */
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { Redis } from "ioredis";
import { decodeProtectedHeader, type JSONWebKeySet } from "jose";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { REFUSALS, type RefusalCode } from "#contract/refusal";
import { REVOCATION_EVENT, SECURITY_EVENT_MEDIA_TYPE, SECURITY_EVENT_TYPE } from "#contract/revocation";
import type { Tokens } from "../../infra/edge-client.ts";
import type { ObservedSocket } from "../../infra/observed-socket.ts";
import type { StackNode } from "../../infra/stack.ts";
import { until } from "../../infra/until.ts";
import { Random } from "../support/random.ts";
import { sendBytes, sendMessages, upgradeWith } from "../support/raw.ts";
import { type Person, startTestStack, type TestStack } from "../support/test-stack.ts";
import { createSigner, forge, forgeHmac, goodClaims, signingInput } from "../support/tokens.ts";

const MEGABYTE = 1_000_000;

let system: TestStack;
let redis: Redis;
let pids: Readonly<Record<string, number>>;
let honest: Person;
let tokens: Tokens;
/** The honest person's sockets, one on each node: nothing that strangers send may cost one of them. */
let sockets: readonly ObservedSocket[];
/** Whatever must be in no answer and in no log. */
const secrets = new Set<string>();

beforeAll(async () => {
  system = await startTestStack();
  redis = new Redis(system.stack.redisUrl);
  pids = system.stack.pids;
  honest = await system.newPerson({ tid: "acme" });
  tokens = await system.logIn(honest);
  sockets = await system.openEverywhere(tokens.access_token);
  for (const secret of [system.stack.adminToken, honest.password, tokens.access_token, tokens.refresh_token]) {
    keepSecret(secret);
  }
});

afterEach(async () => {
  expect(system.deaths).toEqual([]);
  expect(system.stack.pids).toEqual(pids);
  expect(await statusOf(`${system.stack.edgeUrl}/healthz`)).toBe(200);
  for (const { url } of system.stack.nodes) expect(await statusOf(`${url}/readyz`)).toBe(200);
  for (const { connects, disconnects, unauthorized } of sockets) {
    expect({ connects, disconnects, unauthorized }).toEqual({ connects: 1, disconnects: [], unauthorized: [] });
  }
  const fresh = await system.openEverywhere(tokens.access_token);
  for (const { socket } of fresh) socket.close();
});

afterAll(async () => {
  redis?.disconnect();
  await system?.stop();
});

/** What is secret in a token is so without the rest, too: logs like to cut. The beginning of either kind is not. */
function keepSecret(secret: string): string {
  for (const part of [secret, ...secret.split(".").slice(secret.startsWith("kcr.") ? -2 : 1)]) {
    if (part.length >= 20) secrets.add(part);
  }
  return secret;
}

function expectNoSecret(text: string): void {
  for (const secret of secrets)
    if (text.includes(secret)) throw new Error(`it repeats a secret: ${text.slice(0, 300)}`);
}

async function statusOf(url: string): Promise<number> {
  const response = await fetch(url);
  await response.body?.cancel();
  return response.status;
}

function nodeFor(name: string): StackNode {
  const { nodes } = system.stack;
  const node = nodes[name.length % nodes.length];
  if (node === undefined) throw new Error("the stack has no nodes");
  return node;
}

async function edgeKid(): Promise<string> {
  return decodeProtectedHeader(tokens.access_token).kid ?? "";
}

async function edgeKeys(): Promise<JSONWebKeySet> {
  return (await (await fetch(`${system.stack.edgeUrl}/.well-known/jwks.json`)).json()) as JSONWebKeySet;
}

/** Claims that would be perfect, had the edge signed them. */
function perfectClaims() {
  return {
    ...goodClaims(Math.floor(Date.now() / 1000), { issuer: system.stack.edgeUrl, audience: "keycard" }),
    sub: tokens.sub,
    sid: tokens.sid,
  };
}

/** A SET that the edge really signed and the cluster really took. */
async function genuineSet(): Promise<string> {
  const victim = await system.logIn(await system.newPerson());
  const { id } = await system.edge.revoke({ kind: "session", sid: victim.sid }, "to have a genuine event");
  await system.edge.enforcedReceipt(id);
  const [entry] = await redis.xrevrange("{keycard}:log", "+", "-", "COUNT", 1);
  return entry?.[1][1] ?? "";
}

const stranger = await createSigner("RS256", "key-of-a-stranger");

describe("a handshake is refused", () => {
  const rows: readonly (readonly [name: string, token: () => unknown, code: RefusalCode])[] = [
    ["without a token", () => undefined, "token_missing"],
    ["with null", () => null, "token_missing"],
    ["with an empty token", () => "", "token_missing"],
    ["with a number", () => 7, "token_invalid"],
    ["with true", () => true, "token_invalid"],
    ["with an object", () => ({ toString: "x" }), "token_invalid"],
    ["with a list", () => [tokens.access_token], "token_invalid"],
    ["with bytes", () => new Uint8Array([1, 2, 3]), "token_invalid"],
    ["with one character too many", () => "x".repeat(8193), "token_invalid"],
    ["with 60 kilobytes", () => "a.".repeat(30_000), "token_invalid"],
    ["with a word", () => "hello", "token_invalid"],
    ["with three dots", () => "...", "token_invalid"],
    ["with a cut token", () => tokens.access_token.slice(0, -5), "token_invalid"],
    ["with a refresh token", () => tokens.refresh_token, "token_invalid"],
    ["with the admin credential", () => system.stack.adminToken, "token_invalid"],
    ["with a revocation that the edge signed", () => genuineSet(), "token_invalid"],
    [
      "with alg none",
      async () => `${signingInput({ typ: "at+jwt", alg: "none", kid: await edgeKid() }, perfectClaims())}.`,
      "token_invalid",
    ],
    [
      "with an HMAC over the public key",
      async () => {
        const [key] = (await edgeKeys()).keys;
        return forgeHmac({ typ: "at+jwt", alg: "HS256", kid: key?.kid }, perfectClaims(), JSON.stringify(key));
      },
      "token_invalid",
    ],
    ["with an unknown kid", () => forged({ kid: stranger.key.kid }), "token_invalid"],
    ["without a kid", () => forged({ kid: undefined }), "token_invalid"],
    ["with a stranger's signature under the edge's kid", async () => forged({ kid: await edgeKid() }), "token_invalid"],
    ["with its own key in the header", () => forged({ kid: "k", jwk: stranger.publicJwk }), "token_invalid"],
    ["with the typ of any JWT", async () => forged({ kid: await edgeKid(), typ: "JWT" }), "token_invalid"],
    ["with another issuer", () => forged({}, { iss: "http://127.0.0.1:1" }), "token_invalid"],
    ["with an issuer that is no URL", () => forged({}, { iss: "__proto__" }), "token_invalid"],
    ["with another audience", async () => forged({ kid: await edgeKid() }, { aud: "billing" }), "token_invalid"],
    ["expired, by a stranger", async () => forged({ kid: await edgeKid() }, { exp: 1 }), "token_invalid"],
  ];

  function forged(header: Record<string, unknown>, claims: Record<string, unknown> = {}): Promise<string> {
    const base = { typ: "at+jwt", alg: "RS256", kid: "k" };
    return forge({ ...base, ...header }, { ...perfectClaims(), ...claims }, stranger);
  }

  test.for(rows)("%s", async ([name, token, code]) => {
    const presented = await token();
    if (typeof presented === "string" && presented.split(".").length === 3) keepSecret(presented);
    for (const transport of ["websocket", "polling"] as const) {
      const { refusals, connects } = await refusedSocket(nodeFor(name), presented, transport);
      expect(connects).toBe(0);
      const { advice, message } = REFUSALS[code];
      expect(refusals, transport).toEqual([{ type: "UnauthorizedError", code, advice, message }]);
    }
  });

  async function refusedSocket(
    node: StackNode,
    token: unknown,
    transport: "websocket" | "polling",
  ): Promise<ObservedSocket> {
    // Stock clients send what they are given; only the types of ours insist on a string.
    const socket = system.open(node, token as string, { transports: [transport] });
    await until("the node has judged it", () => socket.refusals.length > 0 || socket.connects > 0);
    return socket;
  }

  test.for<readonly [string, string, RefusalCode]>([
    ["Basic", `Basic ${btoa("ada:secret")}`, "token_invalid"],
    ["Bearer without a token", "Bearer ", "token_invalid"],
    ["Bearer with a word", "Bearer hello", "token_invalid"],
  ])("with an Authorization header that says %s", async ([name, authorization, code]) => {
    const overrides = { transports: ["polling"], extraHeaders: { authorization } };
    const socket = system.open(nodeFor(name), undefined as unknown as string, overrides);
    await until("the node has judged it", () => socket.refusals.length > 0 || socket.connects > 0);
    expect(socket.refusals.map((refusal) => refusal.code)).toEqual([code]);
  });

  test("with an address of keys in its header, and nobody asks that address", async () => {
    let asked = 0;
    const server = createServer((_request, response) => {
      asked += 1;
      response.end(JSON.stringify({ keys: [stranger.publicJwk] }));
    });
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    const address = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
    for (const extra of [{ jku: `${address}/jwks.json` }, { x5u: `${address}/cert.pem` }]) {
      const ours = await forged({ kid: stranger.key.kid, ...extra });
      const theirs = await forged({ kid: stranger.key.kid, ...extra }, { iss: address });
      for (const token of [ours, theirs]) {
        const { refusals } = await refusedSocket(nodeFor(token), token, "websocket");
        expect(refusals.map(({ code }) => code)).toEqual(["token_invalid"]);
      }
    }
    expect(asked).toBe(0);
    await new Promise((resolve) => server.close(resolve));
  });
});

describe("a pushed event is refused and reaches nobody:", () => {
  function event(): Record<string, unknown> {
    const second = Math.floor(Date.now() / 1000);
    const body = { seq: 1, targets: [{ kind: "everyone", cutoff: second + 60 }], code: "session_revoked" };
    return {
      iss: system.stack.edgeUrl,
      aud: "local",
      iat: second,
      jti: "rev_forged",
      txn: "rev_forged",
      events: { [REVOCATION_EVENT]: { ...body, decided_at: Date.now(), expires_at: second + 600 } },
    };
  }
  const header = { typ: SECURITY_EVENT_TYPE, alg: "RS256" };

  async function push(body: string | Uint8Array<ArrayBuffer>, type = SECURITY_EVENT_MEDIA_TYPE, node = nodeFor("a")) {
    const headers = { "content-type": type, accept: "application/json" };
    const response = await fetch(`${node.url}/events`, { method: "POST", headers, body });
    const text = await response.text();
    expectNoSecret(text);
    return { status: response.status, answer: text === "" ? undefined : JSON.parse(text) };
  }

  const rows: readonly (readonly [name: string, set: () => string | Promise<string>, err: string])[] = [
    ["an empty body", () => "", "invalid_request"],
    ["a word", () => "hello", "invalid_request"],
    ["JSON", () => JSON.stringify(event()), "invalid_request"],
    ["one megabyte", () => "x".repeat(MEGABYTE), "invalid_request"],
    ["one without a signature", () => `${signingInput({ ...header, alg: "none" }, event())}.`, "invalid_request"],
    ["an HMAC", () => forgeHmac({ ...header, alg: "HS256" }, event(), "secret"), "invalid_request"],
    ["a signer that is unknown", () => forge({ ...header, kid: "unknown" }, event(), stranger), "invalid_key"],
    [
      "a stranger's signature under the edge's kid",
      async () => forge({ ...header, kid: await edgeKid() }, event(), stranger),
      "authentication_failed",
    ],
    [
      "another issuer",
      () => forge({ ...header, kid: "k" }, { ...event(), iss: "http://127.0.0.1:1" }, stranger),
      "invalid_issuer",
    ],
    ["an access token", () => tokens.access_token, "invalid_request"],
  ];

  test.for(rows)("%s", async ([name, set, err]) => {
    const before = await redis.xlen("{keycard}:log");
    const body = await set();
    if (body.split(".").length === 3) keepSecret(body);
    // Unavailable while the issuer was asked for a key just now: it may be one that is new.
    const { status, answer } = await until("it is judged", async () => {
      const judged = await push(body, SECURITY_EVENT_MEDIA_TYPE, nodeFor(name));
      return judged.status !== 503 && judged;
    });
    expect({ status, err: answer?.err }).toEqual({ status: 400, err });
    expect(await redis.xlen("{keycard}:log")).toBe(before);
  });

  test("one of the wrong content type", async () => {
    const set = await genuineSet();
    for (const type of ["application/json", "text/plain", "application/jwt"]) {
      const { status, answer } = await push(set, type);
      expect({ status, err: answer?.err }).toEqual({ status: 400, err: "invalid_request" });
    }
  });

  test("one that is not posted", async () => {
    for (const method of ["GET", "PUT", "DELETE"]) {
      const response = await fetch(`${nodeFor("a").url}/events`, { method });
      expect(response.status).toBe(405);
      expect(response.headers.get("allow")).toBe("POST");
      await response.body?.cancel();
    }
  });

  test("a genuine one that is replayed to every node is taken, and does nothing a second time", async () => {
    const set = await genuineSet();
    const before = await redis.xlen("{keycard}:log");
    for (const node of system.stack.nodes) expect((await push(set, SECURITY_EVENT_MEDIA_TYPE, node)).status).toBe(202);
    expect(await redis.xlen("{keycard}:log")).toBe(before);
  });

  test("one that somebody writes into Redis without a signature of the edge", async () => {
    const set = await forge({ ...header, kid: await edgeKid() }, event(), stranger);
    for (const written of [keepSecret(set), "hello", "", "x".repeat(MEGABYTE)]) {
      const entry = await redis.xadd("{keycard}:log", "*", "set", written);
      await redis.publish("{keycard}:bell", `${entry} ${written}`);
      await redis.publish("{keycard}:bell", written);
    }
    await redis.xadd("{keycard}:log", "*", "other", "field");
    // When a genuine one that came after them is applied, they have been looked at.
    await genuineSet();
  });

  test("receipts are told to nobody but the edge", async () => {
    const queries = ["", "hello", tokens.access_token, system.stack.adminToken, await genuineSet()];
    for (const body of queries) {
      const headers = { "content-type": "application/jwt" };
      const response = await fetch(`${nodeFor("a").url}/receipts`, { method: "POST", headers, body });
      expect(response.status).toBe(body === "" ? 400 : 401);
      expectNoSecret(await response.text());
    }
  });

  test("the edge's feed is read by nobody but a node", async () => {
    const bearers = [undefined, "hello", tokens.access_token, system.stack.adminToken, await genuineSet()];
    for (const bearer of bearers) {
      const headers = bearer === undefined ? {} : { authorization: `Bearer ${bearer}` };
      const response = await fetch(`${system.stack.edgeUrl}/revocations?after=0`, { headers });
      expect(response.status).toBe(401);
      expectNoSecret(await response.text());
    }
  });
});

describe("the edge refuses", () => {
  interface Ask {
    readonly method?: string;
    readonly path: string;
    readonly body?: unknown;
    /** Sent as it is, instead of `body` as JSON. */
    readonly raw?: BodyInit;
    readonly type?: string;
    readonly bearer?: () => string;
    readonly headers?: Record<string, string>;
  }

  async function ask(asked: Ask): Promise<{ response: Response; text: string }> {
    const { method = "POST", path, body, raw, type = "application/json", bearer, headers } = asked;
    const sent = raw ?? (body === undefined ? undefined : JSON.stringify(body));
    const response = await fetch(`${system.stack.edgeUrl}${path}`, {
      method,
      headers: {
        ...(type === "" || sent === undefined ? {} : { "content-type": type }),
        ...(bearer === undefined ? {} : { authorization: `Bearer ${bearer()}` }),
        ...headers,
      },
      ...(sent === undefined ? {} : { body: sent, duplex: "half" }),
    } as RequestInit);
    const text = await response.text();
    expectNoSecret(text);
    return { response, text };
  }

  async function expectRefused(asked: Ask, code: RefusalCode): Promise<Response> {
    const { response, text } = await ask(asked);
    const { status, advice, message } = REFUSALS[code];
    const answer: unknown = text === "" ? undefined : JSON.parse(text);
    expect(answer).toMatchObject({ type: `urn:keycard:refusal:${code}`, title: message, status, code, advice });
    expect(response.status).toBe(status);
    expect(response.headers.get("content-type")).toMatch(/^application\/problem\+json/);
    expect(response.headers.get("cache-control")).toBe("no-store");
    return response;
  }

  const good = { login: "nobody@example.com", password: "no such person" };
  const manyBytes = (count: number) => JSON.stringify({ ...good, password: "x".repeat(count) });
  const stream = (text: string) =>
    new ReadableStream<Uint8Array>({
      start(controller) {
        for (let at = 0; at < text.length; at += 10_000) {
          controller.enqueue(new TextEncoder().encode(text.slice(at, at + 10_000)));
        }
        controller.close();
      },
    });

  const bodies: readonly (readonly [string, Omit<Ask, "path">, RefusalCode])[] = [
    ["broken JSON", { raw: '{"login":' }, "request_malformed"],
    ["a list", { body: [] }, "request_malformed"],
    ["null", { raw: "null" }, "request_malformed"],
    ["a number", { raw: "7" }, "request_malformed"],
    ["a string", { raw: '"x"' }, "request_malformed"],
    ["a very deep list", { raw: "[".repeat(16_000) }, "request_malformed"],
    ["two documents", { raw: "{}{}" }, "request_malformed"],
    ["no UTF-8", { raw: new Uint8Array([0x7b, 0xff, 0xfe, 0x7d]) }, "request_malformed"],
    ["a prototype", { raw: '{"__proto__":{"admin":true}}' }, "request_malformed"],
    ["a constructor", { raw: '{"constructor":{"prototype":{}}}' }, "request_malformed"],
    ["more than 16 KiB", { raw: manyBytes(17_000) }, "request_too_large"],
    ["one megabyte", { raw: manyBytes(MEGABYTE) }, "request_too_large"],
    ["40 kilobytes of unknown length", { raw: "stream" }, "request_too_large"],
    ["plain text", { raw: "login=x", type: "text/plain" }, "media_type_unsupported"],
    ["a form", { raw: "login=x", type: "application/x-www-form-urlencoded" }, "media_type_unsupported"],
    ["no content type", { raw: new TextEncoder().encode("{}"), type: "" }, "media_type_unsupported"],
  ];
  const paths = [
    ["/login", false],
    ["/refresh", false],
    ["/logout", false],
    ["/admin/accounts", true],
    ["/admin/revocations", true],
  ] as const;
  const everyBody = paths.flatMap(([path, admin]) =>
    bodies.map(([what, asked, code]) => [path, what, asked, code, admin] as const),
  );

  test.for(everyBody)("POST %s with a body that is %s", async ([path, , asked, code, admin]) => {
    const raw = asked.raw === "stream" ? stream(manyBytes(40_000)) : asked.raw;
    const bearer = admin ? { bearer: () => system.stack.adminToken } : {};
    await expectRefused({ path, ...asked, ...(raw === undefined ? {} : { raw }), ...bearer }, code);
  });

  test.for([
    ["no login name", { password: "x" }],
    ["no password", { login: "x" }],
    ["an empty login name", { login: "", password: "x" }],
    ["blanks for a login name", { login: "   ", password: "x" }],
    ["a login name that is a number", { login: 7, password: "x" }],
    ["a login name that is a query", { login: { $ne: null }, password: "x" }],
    ["a password that is a list", { login: "x", password: ["x"] }],
    ["a password of 10 000 characters", { login: "x", password: "x".repeat(10_000) }],
    ["a device that is an object", { ...good, device: {} }],
    ["a member that nobody knows", { ...good, admin: true }],
  ] as const)("a login with %s", async ([, body]) => {
    await expectRefused({ path: "/login", body }, "request_malformed");
  });

  test.for([
    "a\u0000b",
    "\ud800",
    "../../account",
    "x'; DROP TABLE sessions; --",
    "<script>",
    "__proto__",
    "ﬁancée@example.com",
  ])("a login as %j, like any that does not exist", async (login) => {
    await expectRefused({ path: "/login", body: { ...good, login } }, "credentials_wrong");
  });

  test.for([
    ["GET", "/login"],
    ["PUT", "/login"],
    ["DELETE", "/refresh"],
    ["PATCH", "/logout"],
    ["POST", "/sessions"],
    ["POST", "/.well-known/jwks.json"],
    ["DELETE", "/admin/revocations"],
    ["DELETE", "/admin/accounts"],
  ] as const)("%s %s, and says what is allowed", async ([method, path]) => {
    const response = await expectRefused({ method, path }, "method_not_allowed");
    expect(response.headers.get("allow")).toBeTruthy();
  });

  test.for([
    "/",
    "/nothing",
    "/admin",
    "/login/",
    "//login",
    "/%00",
    "/%ff%fe",
    "/sessions/a/b",
    `/${"x".repeat(5000)}`,
  ])("GET %s as nothing that is here", async (path) => {
    await expectRefused({ method: "GET", path }, "not_found");
  });

  test("a refresh without, with a bad and with a changed refresh token, and the true one lives on", async () => {
    const person = await system.newPerson();
    const { refresh_token: token } = await system.logIn(person);
    keepSecret(token);
    await expectRefused({ path: "/refresh", body: {} }, "token_missing");
    await expectRefused({ path: "/refresh", body: { refresh_token: 7 } }, "request_malformed");
    const at = token.length - 1;
    const changed = `${token.slice(0, at)}${token[at] === "A" ? "B" : "A"}`;
    const [kcr, sub, random, , secret, tag] = token.split(".");
    const ahead = [kcr, sub, random, "7", secret, tag].join(".");
    const strangers = ["hello", "kcr.a.b.0.c.d", "kcr", "....", changed, ahead, `${token}.x`, person.password];
    for (const bad of strangers)
      await expectRefused({ path: "/refresh", body: { refresh_token: bad } }, "refresh_invalid");
    keepSecret((await system.edge.refresh(token)).refresh_token);
  });

  test.for<readonly [string, (() => string) | undefined, RefusalCode]>([
    ["nothing", undefined, "token_missing"],
    ["a word", () => "hello", "token_invalid"],
    ["the admin credential", () => system.stack.adminToken, "token_invalid"],
    ["a refresh token", () => tokens.refresh_token, "token_invalid"],
    ["an unsigned token", () => `${signingInput({ typ: "at+jwt", alg: "none" }, perfectClaims())}.`, "token_invalid"],
    ["8193 characters", () => "x".repeat(8193), "token_invalid"],
  ])("the list of sessions for %s", async ([, bearer, code]) => {
    const ask = bearer === undefined ? {} : { bearer };
    await expectRefused({ method: "GET", path: "/sessions", ...ask }, code);
  });

  test("to end somebody else's session, and it lives on", async () => {
    const other = await system.logIn(await system.newPerson());
    const bearer = () => tokens.access_token;
    for (const sid of [other.sid, `${tokens.sub}.nothing`, "..%2f..", "%00", "%ff"]) {
      await expectRefused({ method: "DELETE", path: `/sessions/${sid}`, bearer }, "not_found");
    }
    keepSecret((await system.edge.refresh(other.refresh_token)).refresh_token);
  });

  test.for<readonly [string, (() => string) | undefined, RefusalCode]>([
    ["nothing", undefined, "token_missing"],
    ["a guess", () => "a guess".repeat(8).replaceAll(" ", "-"), "token_invalid"],
    ["most of the credential", () => system.stack.adminToken.slice(0, -1), "token_invalid"],
    ["somebody's access token", () => tokens.access_token, "token_invalid"],
  ])("every admin call for %s", async ([, bearer, code]) => {
    const ask = bearer === undefined ? {} : { bearer };
    await expectRefused({ path: "/admin/accounts", body: { ...good }, ...ask }, code);
    await expectRefused(
      { path: "/admin/revocations", body: { target: { kind: "everyone" }, reason: "x" }, ...ask },
      code,
    );
    await expectRefused({ method: "GET", path: `/admin/accounts/${tokens.sub}`, ...ask }, code);
    await expectRefused({ method: "GET", path: "/admin/revocations/x", ...ask }, code);
  });

  test.for([
    ["no target", { reason: "x" }, "request_malformed"],
    ["no reason", { target: { kind: "everyone" } }, "request_malformed"],
    ["an empty reason", { target: { kind: "everyone" }, reason: " " }, "request_malformed"],
    [
      "a reason of 10 000 characters",
      { target: { kind: "everyone" }, reason: "x".repeat(10_000) },
      "request_malformed",
    ],
    ["a target that is a word", { target: "everyone", reason: "x" }, "request_malformed"],
    ["a target that is a list", { target: [{ kind: "everyone" }], reason: "x" }, "request_malformed"],
    ["a target of an unknown kind", { target: { kind: "device", id: "x" }, reason: "x" }, "request_malformed"],
    ["everyone, and a tenant", { target: { kind: "everyone", tid: "acme" }, reason: "x" }, "request_malformed"],
    [
      "a session that is no session's name",
      { target: { kind: "session", sid: "x" }, reason: "x" },
      "request_malformed",
    ],
    ["a user that is nobody's name", { target: { kind: "user", sub: "../x" }, reason: "x" }, "request_malformed"],
    ["a user that does not exist", { target: { kind: "user", sub: "u_nobody" }, reason: "x" }, "not_found"],
    ["a login that does not exist", { target: { kind: "user", login: "nobody" }, reason: "x" }, "not_found"],
    [
      "a session that does not exist",
      { target: { kind: "session", sid: `u_nobody.${"x".repeat(22)}` }, reason: "x" },
      "not_found",
    ],
    ["a token that is none", { target: { kind: "token", token: "hello" }, reason: "x" }, "request_malformed"],
  ] as const)("an administrator who revokes %s", async ([, body, code]) => {
    const before = await redis.xlen("{keycard}:log");
    await expectRefused({ path: "/admin/revocations", body, bearer: () => system.stack.adminToken }, code);
    expect(await redis.xlen("{keycard}:log")).toBe(before);
  });

  test("an administrator who asks for what is not there, or makes what is", async () => {
    const bearer = () => system.stack.adminToken;
    for (const path of [
      "/admin/revocations/x",
      "/admin/revocations/%00",
      "/admin/accounts/u_nobody",
      "/admin/accounts/%ff",
    ]) {
      await expectRefused({ method: "GET", path, bearer }, "not_found");
    }
    const { login, password } = honest;
    await expectRefused({ path: "/admin/accounts", body: { login, password }, bearer }, "conflict");
    const other = { login: "somebody-else@example.com", password: "x".repeat(20), sub: tokens.sub };
    await expectRefused({ path: "/admin/accounts", body: other, bearer }, "conflict");
  });

  test("a cookie that comes from a page of somebody else", async () => {
    const cookie = `__Host-keycard=${tokens.refresh_token}`;
    for (const headers of [{ cookie }, { cookie, origin: "https://attacker.test" }, { cookie, origin: "null" }]) {
      await expectRefused({ path: "/refresh", body: {}, headers }, "origin_forbidden");
    }
  });

  test("a flood of guesses, while others log in as if nothing happened", async () => {
    const victim = await system.newPerson();
    const other = await system.newPerson();
    const guess = async (login: string, index: number) => {
      const { response, text } = await ask({ path: "/login", body: { login, password: `guess number ${index}` } });
      const { code, retry_after } = JSON.parse(text) as { code: RefusalCode; retry_after?: number };
      return { code, waits: retry_after !== undefined && response.headers.get("retry-after") === `${retry_after}` };
    };
    const flood = Promise.all(Array.from({ length: 60 }, (_, index) => guess(victim.login, index)));
    keepSecret((await system.logIn(other)).access_token);
    const answers = await flood;
    expect(answers.filter(({ code }) => code === "credentials_wrong").length).toBeLessThan(20);
    const turnedAway = answers.filter(({ code }) => code === "too_many_attempts");
    expect(turnedAway.length).toBeGreaterThan(0);
    expect(turnedAway.every(({ waits }) => waits)).toBe(true);
    expect([...new Set(answers.map(({ code }) => code))].filter((code) => code === "internal")).toEqual([]);
  });
});

describe("a node stands when", () => {
  const random = new Random(1);
  const noise = (length: number) => Uint8Array.from({ length }, () => random.below(256));
  const endpoint = "/socket.io/?EIO=4&transport=websocket";

  test.for<readonly [string, string | Uint8Array]>([
    ["noise", noise(4096)],
    ["a path of two slashes", "GET // HTTP/1.1\r\nHost: node\r\n\r\n"],
    ["an address that is no address", "GET http://[ HTTP/1.1\r\nHost: node\r\n\r\n"],
    ["an address of somewhere else", "GET http://attacker.test/events HTTP/1.1\r\nHost: node\r\n\r\n"],
    ["an asterisk", "OPTIONS * HTTP/1.1\r\nHost: node\r\n\r\n"],
    ["a path that cannot be decoded", "GET /%ff%00%zz?%ff HTTP/1.1\r\nHost: node\r\n\r\n"],
    ["a tunnel", "CONNECT attacker.test:443 HTTP/1.1\r\nHost: node\r\n\r\n"],
    ["no host", "GET /readyz HTTP/1.1\r\n\r\n"],
    ["a header of 100 kilobytes", `GET / HTTP/1.1\r\nHost: node\r\nX-Big: ${"x".repeat(100_000)}\r\n\r\n`],
    ["two lengths", "POST /events HTTP/1.1\r\nHost: node\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx"],
    [
      "half a body",
      "POST /events HTTP/1.1\r\nHost: node\r\nContent-Type: application/secevent+jwt\r\nContent-Length: 999\r\n\r\nx",
    ],
    [
      "a polling request for no session",
      "GET /socket.io/?EIO=4&transport=polling&sid=nobody HTTP/1.1\r\nHost: node\r\n\r\n",
    ],
    ["an old protocol", "GET /socket.io/?EIO=3&transport=polling HTTP/1.1\r\nHost: node\r\n\r\n"],
    ["an unknown transport", "GET /socket.io/?EIO=4&transport=toString HTTP/1.1\r\nHost: node\r\n\r\n"],
    ["a transport named twice", "GET /socket.io/?EIO=4&transport=polling&transport=x HTTP/1.1\r\nHost: node\r\n\r\n"],
    ["a socket.io path that is no address", "GET /socket.io//\\[ HTTP/1.1\r\nHost: node\r\n\r\n"],
    ["an upgrade elsewhere", upgradeWith("/events")],
    ["an upgrade to two slashes", upgradeWith("//")],
    ["an upgrade with a bad key", upgradeWith(endpoint, new Uint8Array(), "x")],
    ["an upgrade for a session of nobody", upgradeWith(`${endpoint}&sid=nobody`)],
    ["noise after an upgrade", upgradeWith(endpoint, noise(4096))],
    ["a frame without a mask", upgradeWith(endpoint, Uint8Array.of(0x81, 0x02, 0x34, 0x30))],
    ["a frame of unheard-of length", upgradeWith(endpoint, Uint8Array.of(0x81, 0xff, ...Array(12).fill(0x7f)))],
    ["a frame with reserved bits", upgradeWith(endpoint, Uint8Array.of(0xf1, 0x80, 0, 0, 0, 0))],
    ["a frame that is no UTF-8", upgradeWith(endpoint, Uint8Array.of(0x81, 0x82, 0, 0, 0, 0, 0xff, 0xfe))],
  ])("it is sent %s", async ([, bytes]) => {
    for (const { url } of system.stack.nodes) await sendBytes(url, bytes);
  });

  test("the edge does too, under the same bytes", async () => {
    const { edgeUrl } = system.stack;
    const requests = [
      "GET // HTTP/1.1\r\nHost: edge\r\n\r\n",
      "GET http://[ HTTP/1.1\r\nHost: edge\r\n\r\n",
      noise(4096),
    ];
    for (const bytes of [...requests, upgradeWith("/login")]) await sendBytes(edgeUrl, bytes);
    // It may answer and hang up before it has read everything.
    const endless = `POST /login HTTP/1.1\r\nHost: edge\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n`;
    await sendBytes(edgeUrl, `${endless}f4240\r\n${"x".repeat(MEGABYTE)}`);
  });

  test.for<readonly [string, readonly (string | Uint8Array<ArrayBuffer>)[]]>([
    ["nothing", []],
    ["an empty message", [""]],
    ["an unknown packet", ["9", "x", "\u0000", "4"]],
    ["a handshake without a payload", ["40"]],
    ["a handshake with a broken payload", ['40{"token":']],
    ["handshakes with odd payloads", ["40[]", "40null", "407", '40"x"', '40{"token":{"__proto__":{"x":1}}}']],
    ["a handshake in a namespace that is not there", ["40/admin,{}", `40/${"x".repeat(1000)},{}`]],
    ["an event before any handshake", ['42["message","hello"]', "41", "43[]"]],
    ["two handshakes", ['40{"token":"a"}', '40{"token":"b"}']],
    ["attachments that never come", ['451-["message",{"_placeholder":true,"num":0}]', '45-1["x"]', "459999999-[]"]],
    ["bytes", [noise(1000), noise(1)]],
    ["a message of 70 kilobytes", [`40{"token":"${"x".repeat(70_000)}"}`]],
    ["a probe and an upgrade", ["2probe", "5", "6", "3", "1"]],
  ])("it is sent %s over a WebSocket", async ([, messages]) => {
    for (const { url } of system.stack.nodes) await sendMessages(url, messages);
  });

  test.for<readonly [string, readonly string[]]>([
    ["no event at all", ["42[]", "42{}", "42[7]", "42[null]"]],
    [
      "reserved events",
      ['42["connect"]', '42["disconnect"]', '42["disconnecting"]', '42["newListener"]', '42["error"]'],
    ],
    [
      "odd messages",
      ['42["message"]', '42["message",{}]', '42["message",null]', '42["message",["x"]]', '42["message",7]'],
    ],
    ["an acknowledgement that nobody asked for", ['437["x"]', "43[]"]],
    ["a broken packet", ['42["message"']],
    ["one megabyte", [`42["message","${"x".repeat(MEGABYTE)}"]`]],
  ])("somebody who was let in sends %s", async ([, packets]) => {
    for (const { url } of system.stack.nodes) {
      await sendMessages(url, [`40${JSON.stringify({ token: tokens.access_token })}`, ...packets]);
    }
  });

  test("a polling session posts garbage and one megabyte", async () => {
    for (const { url } of system.stack.nodes) {
      for (const body of ["x", "1:", "\u001e\u001e", "b!!!", "40{", "x".repeat(MEGABYTE)]) {
        const opening = await (await fetch(`${url}/socket.io/?EIO=4&transport=polling`)).text();
        const { sid } = JSON.parse(opening.slice(1)) as { sid: string };
        const posted = fetch(`${url}/socket.io/?EIO=4&transport=polling&sid=${sid}`, { method: "POST", body });
        // The connection may be cut in the middle of the body: that, too, is a no.
        const status = await posted.then((response) => response.status).catch(() => 413);
        expect([200, 400, 413]).toContain(status);
      }
    }
  });

  test("bodies that never end are held open against it", async () => {
    const head =
      "POST /events HTTP/1.1\r\nHost: node\r\nContent-Type: application/secevent+jwt\r\nContent-Length: 9999\r\n\r\n";
    const { url } = nodeFor("a");
    await Promise.all(Array.from({ length: 50 }, () => sendBytes(url, head)));
  });
});

test("nothing secret is in any line that any process printed, and no rejection went unhandled", () => {
  expect(secrets.size).toBeGreaterThan(20);
  expect(system.lines.length).toBeGreaterThan(50);
  for (const line of system.lines) {
    expectNoSecret(line);
    // workerd's own word for an address that is none; it answers that before any code of ours.
    if (line.includes("kj/compat/url.c++")) continue;
    expect(line).not.toMatch(/nobody looked|uncaught|unhandled/i);
  }
});

/**
 * A hundred thousand mutated inputs, most of them into the functions that judge and the rest over the wires. Whatever they
 * are: nothing crashes, no rejection goes unhandled, nobody is let in, nobody is thrown out, and the node stays ready.
 *
 * The seed is fixed, so that a run that fails can be failed again; the input that did it is in the message.
 */
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { Redis } from "ioredis";
import { base64url } from "jose";
import { Server } from "socket.io";
import { afterAll, afterEach, beforeAll, beforeEach, expect, it } from "vitest";
import { Refusal, type RefusalCode } from "#contract/refusal";
import { REVOCATION_EVENT, SECURITY_EVENT_MEDIA_TYPE, SECURITY_EVENT_TYPE } from "#contract/revocation";
import { until } from "../../infra/until.ts";
import { findCredential } from "../../realtime/credentials.ts";
import { type Door, protect } from "../../realtime/protect.ts";
import { createVerifier, type Verifier } from "../../realtime/verifier.ts";
import { Random } from "../support/random.ts";
import { sendBytes } from "../support/raw.ts";
import {
  AUDIENCE,
  CLUSTER,
  CLUSTER_SECRET,
  connected,
  revocationOf,
  startCluster,
  type TestClient,
  type TestCluster,
  type TestNode,
} from "../support/realtime-cluster.ts";
import { createSigner, forge, goodClaims, signingInput, type TestSigner } from "../support/tokens.ts";

const SEED = 20_260_923;
const COUNTS = {
  tokens: 58_000,
  signedNonsense: 4_000,
  events: 18_000,
  handshakes: 3_000,
  packets: 13_000,
  pushes: 2_000,
  entries: 1_500,
  requestLines: 500,
} as const;

const NO_LIMITS = { burst: 1_000_000, perSecond: 1_000_000 };
/** The only answers to input that is bad: anything else means that a judge was surprised. */
const EXPECTED: readonly RefusalCode[] = [
  ...(["token_missing", "token_invalid", "token_expired", "request_malformed"] as const),
  // A key that nobody knows may have just come, and the issuer was asked a moment ago.
  "unavailable",
];

let cluster: TestCluster;
let target: TestNode;
let io: Server;
let door: Door;
let redis: Redis;
let verifier: Verifier;
let stranger: TestSigner;
/** Somebody who is in from the beginning to the end. */
let honest: TestClient;
/** Who was let in, by subject. */
const admitted: string[] = [];
/** Who may be: those whose tokens were shown unchanged. */
const invited = new Set<string>();
const rejections: unknown[] = [];
const noteRejection = (reason: unknown) => void rejections.push(reason);

beforeAll(async () => {
  process.on("unhandledRejection", noteRejection);
  cluster = await startCluster();
  stranger = await createSigner("ES256", cluster.issuer.signer.key.kid);
  redis = new Redis(cluster.redis.url);
  const issuers = [{ issuer: cluster.issuer.url, audience: AUDIENCE }];
  verifier = createVerifier({ issuers, cluster: CLUSTER, clockSkewSeconds: 5, onProblem: () => undefined });
  await verifier.ready();
  const http = createServer();
  io = new Server(http, { connectionStateRecovery: {} });
  // Everything that can be switched on is, and nothing is held off by a limit: each input is to be judged.
  door = protect(io, {
    redis: new Redis(cluster.redis.url, { lazyConnect: true }),
    issuers,
    cluster: CLUSTER,
    clusterSecret: CLUSTER_SECRET,
    leaseMs: 3_000,

    credentials: { cookie: { name: "token", origins: ["http://app.test"] }, ticket: true, queryToken: true },
    lobby: { timeoutMs: 60_000 },
    limits: { attemptsPerConnection: 1_000_000, connectionsPerAddress: NO_LIMITS, failuresPerAddress: NO_LIMITS },
  });
  door.events.on("admitted", ({ sub }) => admitted.push(sub));
  io.of(/^\/dynamic/);
  io.on("connection", (socket) => socket.onAny((...args) => args.at(-1) instanceof Function && args.at(-1)("ok")));
  http.on("request", (request, response) => {
    if (request.url?.startsWith(io.path()) || door.receive(request, response)) return;
    response.writeHead(404).end();
  });
  await new Promise<void>((resolve) => http.listen(0, "127.0.0.1", resolve));
  const { port } = http.address() as AddressInfo;
  target = { door, port, url: `http://127.0.0.1:${port}`, lines: [], stop: () => Promise.resolve() };
  await door.ready();
});

beforeEach(async () => {
  honest = cluster.client(target, await tokenOf("u_honest"));
  await connected(honest);
});

afterEach(async () => {
  expect(honest.history).toEqual(["connect"]);
  honest.disconnect();
  expect(admitted.filter((sub) => !invited.has(sub))).toEqual([]);
  // It shares its thread with whoever fuzzed it, and may have been kept from its heartbeat.
  await until("it is ready", async () => (await fetch(`${target.url}/readyz`)).status === 200);
  const afterwards = cluster.client(target, await tokenOf("u_afterwards"));
  await connected(afterwards);
  afterwards.disconnect();
  expect(rejections).toEqual([]);
});

afterAll(async () => {
  verifier.close();
  redis.disconnect();
  await door.close();
  await io.close();
  await cluster.stop();
  process.off("unhandledRejection", noteRejection);
});

it("the inputs are a hundred thousand", () => {
  expect(Object.values(COUNTS).reduce<number>((sum, count) => sum + count, 0)).toBe(100_000);
});

function tokenOf(sub: string): Promise<string> {
  invited.add(sub);
  return cluster.issuer.token({ sub, sid: `${sub}.s`, tid: "acme", scope: "chat" });
}

/** An event that would throw everybody out. */
function dreadfulEvent(): Promise<string> {
  return cluster.issuer.set(revocationOf([{ kind: "everyone", cutoff: Math.floor(Date.now() / 1000) + 60 }]));
}

function claims(): ReturnType<typeof goodClaims> {
  return goodClaims(Math.floor(Date.now() / 1000), { issuer: cluster.issuer.url, audience: AUDIENCE });
}

function complain(what: string, index: number, input: unknown, cause: unknown): never {
  throw new Error(`seed ${SEED}, ${what} ${index}: ${JSON.stringify(input)?.slice(0, 2_000)}`, { cause });
}

/** Runs a judge, which must refuse by one of the expected codes. Undefined when it did, else what it said. */
async function judged(judge: () => Promise<unknown>): Promise<{ readonly said: unknown } | undefined> {
  try {
    return { said: await judge() };
  } catch (thrown) {
    if (thrown instanceof Refusal && EXPECTED.includes(thrown.code)) return undefined;
    throw thrown;
  }
}

const NASTY: readonly unknown[] = [
  null,
  undefined,
  true,
  0,
  -1,
  1e308,
  Number.MAX_SAFE_INTEGER,
  1.5,
  "",
  " ",
  "\u0000",
  "__proto__",
  "constructor",
  "x".repeat(300),
  "\ud800",
  [],
  [null],
  [["a"]],
  {},
  { toString: "x" },
  { length: 3 },
  { __proto__: null },
  "none",
  "HS256",
  "2026-01-01",
];
const nasty = (random: Random): unknown => NASTY[random.below(NASTY.length)];
const nastyText = (random: Random): string =>
  random.pick(["", " ", "__proto__", "constructor", "Bearer", "x", "\ud800"]);
const ALPHABET = "ABCdef012-_.=+/ \n\u0000é{}[]\",:%'\\";

/** One to three small changes to a text. */
function mutateText(random: Random, text: string): string {
  let mutated = text;
  for (let changes = 1 + random.below(3); changes > 0; changes--) {
    const at = random.below(mutated.length + 1);
    const length = 1 + random.below(random.below(4) === 0 ? 200 : 4);
    const piece = Array.from({ length: 1 + random.below(4) }, () => ALPHABET[random.below(ALPHABET.length)]).join("");
    mutated = random.pick<(text: string) => string>([
      (old) => old.slice(0, at) + old.slice(at + length),
      (old) => old.slice(0, at) + piece + old.slice(at),
      (old) => old.slice(0, at) + piece + old.slice(at + piece.length),
      (old) => old.slice(0, at) + old.slice(at, at + length).repeat(1 + random.below(3)) + old.slice(at),
      (old) => old.slice(0, at),
      (old) => old.split("").reverse().join(""),
      (old) => old.toUpperCase(),
      (old) => old.split(".").reverse().join("."),
      (old) => old.repeat(1 + random.below(30)),
    ])(mutated);
  }
  return mutated;
}

/** One or two members replaced, removed or added, at any depth. */
function mutateMembers(random: Random, value: unknown): unknown {
  if (typeof value !== "object" || value === null || random.below(6) === 0) return nasty(random);
  const entries = Object.entries(value);
  const key = random.below(5) === 0 ? nastyText(random) : (entries[random.below(entries.length)]?.[0] ?? "a");
  const copy: Record<string, unknown> = Object.fromEntries(entries);
  if (random.below(5) === 0) delete copy[key];
  else copy[key] = mutateMembers(random, copy[key]);
  return copy;
}

/** A compact JWS, changed in its text or in what it says, its signature left as it was. */
function mutateToken(random: Random, token: string): string {
  if (random.below(2) === 0) return mutateText(random, token);
  const [header = "", payload = "", signature = ""] = token.split(".");
  const parts = [header, payload].map((part) => JSON.parse(Buffer.from(part, "base64url").toString()) as unknown);
  const which = random.below(2);
  parts[which] = mutateMembers(random, parts[which]);
  return `${signingInput(parts[0] ?? "", parts[1] ?? "")}.${random.below(4) === 0 ? mutateText(random, signature) : signature}`;
}

/** Whether two texts are the same token: its last characters have bits that no decoder looks at. */
function isSame(mutated: string, original: string): boolean {
  const canonical = (token: string) => {
    const [header, payload, signature = "", ...rest] = token.split(".");
    return [header, payload, base64url.encode(new Uint8Array(Buffer.from(signature, "base64url"))), ...rest].join(".");
  };
  return /^[\w.-]+$/.test(mutated) && canonical(mutated) === canonical(original);
}

it("no mutated token is believed, and every one is refused by an expected code", async () => {
  const random = new Random(SEED);
  const header = { typ: "at+jwt", alg: "ES256", kid: cluster.issuer.signer.key.kid };
  const bases = [
    await tokenOf("u_mutated"),
    await cluster.issuer.ticket(),
    await dreadfulEvent(),
    await forge(header, claims(), stranger),
    `${signingInput({ ...header, alg: "none" }, claims())}.`,
    "a.b.c",
  ];
  for (let i = 0; i < COUNTS.tokens; i++) {
    const base = random.pick(bases);
    const token = base === "a.b.c" ? mutateText(random, base) : mutateToken(random, base);
    const judge = random.below(8) === 0 ? verifier.ticket : verifier.accessToken;
    try {
      const outcome = await judged(() => judge(random.below(50) === 0 ? nasty(random) : token));
      if (outcome !== undefined && !isSame(token, base)) complain("believed token", i, token, outcome.said);
    } catch (error) {
      complain("token", i, token, error);
    }
  }
});

it("nonsense with a true signature is refused, or read into claims of the right types", async () => {
  const random = new Random(SEED + 1);
  const { signer } = cluster.issuer;
  const header = { typ: "at+jwt", alg: "ES256", kid: signer.key.kid };
  for (let i = 0; i < COUNTS.signedNonsense; i++) {
    const isEvent = i % 2 === 0;
    const body = { seq: 1, targets: [{ kind: "session", sid: "s" }], code: "session_revoked" };
    const event = { ...body, decided_at: 1, expires_at: 2 };
    const payload = isEvent ? { ...claims(), aud: CLUSTER, events: { [REVOCATION_EVENT]: event } } : claims();
    const typ = isEvent ? SECURITY_EVENT_TYPE : header.typ;
    const said = mutateMembers(random, payload);
    const token = await forge({ ...header, typ }, said ?? "null", signer);
    try {
      const outcome = await judged(() => (isEvent ? verifier.revocation(token) : verifier.accessToken(token)));
      if (outcome === undefined) continue;
      if (isEvent)
        expect(outcome.said).toMatchObject({ event: { id: expect.any(String), targets: expect.any(Array) } });
      else
        expect(outcome.said).toMatchObject({
          sub: expect.any(String),
          sid: expect.any(String),
          gen: expect.any(Number),
        });
    } catch (error) {
      complain("signed", i, said, error);
    }
  }
});

it("no mutated event is believed, and every one is refused by an expected code", async () => {
  const random = new Random(SEED + 2);
  const bases = [await dreadfulEvent(), (await cluster.issuer.query("rev_1")).jwt, await tokenOf("u_event")];
  for (let i = 0; i < COUNTS.events; i++) {
    const base = random.pick(bases);
    const set = mutateToken(random, base);
    try {
      const outcome = await judged(() =>
        random.below(8) === 0 ? verifier.receiptQuery(set) : verifier.revocation(set),
      );
      if (outcome !== undefined && !isSame(set, base)) complain("believed event", i, set, outcome.said);
    } catch (error) {
      complain("event", i, set, error);
    }
  }
});

it("a credential is looked for in any handshake without a surprise", async () => {
  const random = new Random(SEED + 3);
  const token = await tokenOf("u_handshake");
  const sources = { cookie: { name: "token", origins: ["http://app.test"] }, ticket: true, queryToken: true };
  const text = () => (random.below(3) === 0 ? mutateText(random, `Bearer ${token}`) : nastyText(random));
  for (let i = 0; i < COUNTS.handshakes; i++) {
    const handshake = {
      auth: random.below(2) === 0 ? {} : { token: nasty(random) },
      query: random.below(2) === 0 ? {} : { token: nasty(random), ticket: nasty(random) },
      headers: {
        authorization: random.below(2) === 0 ? undefined : text(),
        cookie: random.below(2) === 0 ? undefined : mutateText(random, `a=b; token=${token}; token="x"`),
        origin: random.pick(["", "http://app.test", "http://evil.test", "null"]),
      },
    };
    try {
      findCredential(handshake, sources);
    } catch (error) {
      if (!(error instanceof Refusal) || error.code !== "origin_forbidden") complain("handshake", i, handshake, error);
    }
  }
});

type Message = string | Uint8Array<ArrayBuffer>;

/**
 * Sends messages over one WebSocket, where a first one is given only after its answer, and resolves once either side
 * has closed it.
 */
function sendAll(url: string, first: Message | undefined, messages: readonly Message[]): Promise<void> {
  const socket = new WebSocket(url);
  const sendRest = () => {
    for (const message of messages) socket.send(message);
    socket.close();
  };
  return new Promise((resolve) => {
    socket.addEventListener("open", () => (first === undefined ? sendRest() : socket.send(first)));
    socket.addEventListener("message", ({ data }) => {
      if (first !== undefined && /^4[04]/.test(String(data))) sendRest();
    });
    socket.addEventListener("error", () => resolve());
    socket.addEventListener("close", () => resolve());
  });
}

/** Runs `count` turns, some at once. */
async function inTurns(count: number, atOnce: number, turn: (index: number) => Promise<void>): Promise<void> {
  let next = 0;
  await Promise.all(
    Array.from({ length: atOnce }, async () => {
      while (next < count) await turn(next++);
    }),
  );
}

it("mutated packets over WebSockets, of strangers and of people who are in, harm nobody", async () => {
  const random = new Random(SEED + 4);
  const perSocket = 4; // few, since the first that does not parse ends the connection
  const url = `${target.url.replace("http", "ws")}/socket.io/?EIO=4&transport=websocket`;
  const mine = await tokenOf("u_mine");
  const theirs = await tokenOf("u_theirs");
  const packets = [
    `40${JSON.stringify({ token: "x" })}`,
    '40/dynamic-1,{"token":"x"}',
    "40{}",
    '42["message",{"text":"hello"}]',
    `42["authenticate",{"token":"${mine.slice(0, 60)}"}]`,
    '4217["authenticate"]',
    '42/dynamic-1,7["message"]',
    '451-9["message",{"_placeholder":true,"num":0}]',
    '437["ack"]',
    "41",
    '44{"message":"x"}',
    "2",
    "3probe",
    "5",
    "6",
    "1",
  ];
  /** The token of somebody who is not to get in, but for at least one character of it. */
  const mutatedToken = () => {
    let token = mutateToken(random, theirs);
    while (isSame(token.trim(), theirs) || token.includes(theirs)) token = mutateToken(random, theirs);
    return token;
  };
  const makers: readonly (() => Message)[] = [
    () => mutateText(random, random.pick(packets)),
    () => new TextEncoder().encode(mutateText(random, "\u0004binary")),
    () => `40${JSON.stringify({ token: mutatedToken(), pid: nasty(random), offset: nasty(random) })}`,
    () => `40/dynamic-${random.below(9)},${JSON.stringify({ token: mutatedToken() })}`,
    () => `42["authenticate",${JSON.stringify({ token: mutatedToken() })}]`,
    () => `42${random.below(99)}${JSON.stringify(mutateMembers(random, ["authenticate", { token: "a.b.c" }]))}`,
    () => `42${random.below(99)}${JSON.stringify(mutateMembers(random, ["message", { to: ["a"], text: "b" }]))}`,
    () => `45${random.below(3)}-1${JSON.stringify(mutateMembers(random, ["m", { _placeholder: true, num: 0 }]))}`,
  ];
  let sent: Message[] = [];
  try {
    await inTurns(COUNTS.packets / perSocket, 8, async (index) => {
      const messages = Array.from({ length: perSocket }, () => random.pick(makers)());
      sent = messages;
      const query = index % 5 === 0 ? `&token=${encodeURIComponent(mutatedToken())}` : "";
      await sendAll(url + query, index % 2 === 0 ? `40${JSON.stringify({ token: mine })}` : undefined, messages);
    });
    expect(admitted).not.toContain("u_theirs");
    expect(admitted.filter((sub) => sub === "u_mine").length).toBeGreaterThan(COUNTS.packets / perSocket / 3);
    await until("those who left are gone", () => door.health().sockets === 1);
  } catch (error) {
    complain("packets, the last being", COUNTS.packets, sent.map(String), error);
  }
});

it("mutated events that are pushed are answered 400, or 503 while a key of that name may yet come, and not kept", async () => {
  const random = new Random(SEED + 5);
  const base = await dreadfulEvent();
  const before: unknown[] = [await redis.xlen("{keycard}:log"), door.health().revocations];
  await inTurns(COUNTS.pushes, 8, async (index) => {
    let body = mutateToken(random, base);
    while (isSame(body, base)) body = mutateToken(random, base);
    const type = random.below(10) === 0 ? "text/plain" : SECURITY_EVENT_MEDIA_TYPE;
    const response = await fetch(`${target.url}/events`, { method: "POST", headers: { "content-type": type }, body });
    const text = await response.text();
    if (response.status !== 400 && response.status !== 503) complain("push", index, body, `${response.status} ${text}`);
  });
  expect([await redis.xlen("{keycard}:log"), door.health().revocations]).toEqual(before);
});

it("mutated events that are written into Redis are passed over", async () => {
  const random = new Random(SEED + 6);
  const base = await dreadfulEvent();
  const before = Number(door.health().revocations);
  const writes = redis.pipeline();
  for (let i = 0; i < COUNTS.entries; i++) {
    let set = mutateToken(random, base);
    while (isSame(set, base)) set = mutateToken(random, base);
    // Places in the stream that no entry will have.
    const place = random.pick(["", "x", "0-1", "-", `${9e15}-0`, "1e400-0", "NaN-NaN", mutateText(random, "123-4")]);
    if (i % 3 === 0) writes.publish("{keycard}:bell", `${place} ${set}`);
    else if (i % 3 === 1) writes.publish("{keycard}:bell", mutateText(random, `${place} ${set}`));
    else writes.xadd("{keycard}:log", "*", random.pick(["set", "", "x"]), set);
  }
  await writes.exec();
  // A genuine one behind them: once it is applied, they have been looked at.
  const receipt = await cluster.revoke(target, [{ kind: "session", sid: "u_nobody.s" }]);
  expect(receipt.pending, `seed ${SEED}`).toEqual([]);
  expect(door.health().revocations).toBe(before + 1);
});

it("mutated HTTP requests get an answer or none, and the node lives", async () => {
  const random = new Random(SEED + 7);
  const lines = [
    "GET /healthz HTTP/1.1",
    "POST /events HTTP/1.1",
    "POST /receipts?wait=5 HTTP/1.1",
    "GET /socket.io/?EIO=4&transport=polling HTTP/1.1",
    "GET /socket.io/?EIO=4&transport=polling&sid=abc HTTP/1.1",
    "POST /socket.io/?EIO=4&transport=polling&sid=abc HTTP/1.1",
    "GET /socket.io/?EIO=4&transport=websocket&token=a.b.c HTTP/1.1",
    "OPTIONS * HTTP/1.1",
  ];
  const headers = [
    "Authorization: Bearer a.b.c",
    "Cookie: token=a.b.c; io=x",
    "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    "X-Forwarded-For: ::1, 1.2.3.4",
    "Content-Type: application/secevent+jwt",
    "Origin: http://app.test",
  ];
  await inTurns(COUNTS.requestLines, 25, async () => {
    const line = mutateText(random, random.pick(lines));
    const head = [line, "Host: node", "Connection: close", mutateText(random, random.pick(headers))].join("\r\n");
    await sendBytes(target.url, `${head}\r\n\r\n`);
  });
});

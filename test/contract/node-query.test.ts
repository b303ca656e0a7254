/** What the edge asks nodes about themselves and is told: that it arrives as it was sent, from nobody else, and within bounds. */
import { SignJWT } from "jose";
import { describe, expect, test } from "vitest";
import { SIGNATURE_ALGORITHMS, type TokenRules } from "#contract/access-token";
import { type ClusterSecrets, MAX_NODES } from "#contract/cluster";
import {
  MAX_LISTED_BY_NODE,
  NODE_ANSWERS_TYPE,
  NODE_QUERY_TYPE,
  type NodeQuestion,
  type NodeSockets,
  type NodeStatus,
  readNodeAnswer,
  signNodeAnswers,
  signNodeQuery,
  verifyNodeAnswers,
  verifyNodeQuery,
} from "#contract/node-query";
import { Refusal, type RefusalCode } from "#contract/refusal";
import { createSigner, forge, keySetOf } from "../support/tokens.ts";

const NOW = 1_790_000_000;
const now = new Date(NOW * 1000);
const later = (seconds: number) => new Date((NOW + seconds) * 1000);
const ISSUER = "https://edge.test";
const NONCE = "a nonce";
const SECRET = "the secret that the nodes of the cluster have";
const secrets: ClusterSecrets = [SECRET];
const STRANGER = "a secret that somebody else has made up now";

const edge = await createSigner("RS256", "key");
const keys = keySetOf(edge);
const rules: TokenRules = { issuer: ISSUER, audience: "eu", algorithms: SIGNATURE_ALGORITHMS, clockSkewSeconds: 5 };
const envelope = { issuer: ISSUER, audience: "eu", issuedAt: NOW, nonce: NONCE };
const STATUS = { about: "status" } as const;
const SOCKETS = { about: "sockets", sub: "u_ada" } as const;

const status: NodeStatus = {
  ...{ node: "one", boot: "b1", version: "1.2.3", started_at: NOW * 1000, ready: true, link: "redis", lease_ms: 4_000 },
  ...{ applied: 42, sockets: 7, gap: false, unsettled: 0, log_silence_ms: null },
};
const socket = { id: "s1", sid: "u_ada.a", nsp: "/", transport: "websocket", connected_at: NOW, expires_at: NOW + 300 };
const sockets: NodeSockets = { node: "one", boot: "b1", sockets: 1, listed: [socket] };
const from = { cluster: "eu", node: "one", issuer: ISSUER, nonce: NONCE };
const asked = { cluster: "eu", issuer: ISSUER, nonce: NONCE };

async function codeOf(judging: Promise<unknown>): Promise<RefusalCode> {
  const outcome: unknown = await judging.catch((thrown: unknown) => thrown);
  if (!(outcome instanceof Refusal)) throw new Error("it was not refused", { cause: outcome });
  return outcome.code;
}

function answered(answers: unknown, more: object = {}, secret = SECRET): Promise<string> {
  const claims = { iss: "eu", sub: "one", aud: ISSUER, jti: NONCE, iat: NOW, exp: NOW + 60 };
  const header = { alg: "HS256", typ: NODE_ANSWERS_TYPE };
  const payload = { ...claims, answers, silent: [], redis: true, ...more };
  return new SignJWT(payload).setProtectedHeader(header).sign(new TextEncoder().encode(secret));
}

describe("a node query", () => {
  test.for<NodeQuestion>([STATUS, SOCKETS])("about $about is what the edge asked", async (question) => {
    const token = await signNodeQuery(question, envelope, edge.key);
    expect(await verifyNodeQuery(token, keys, rules, now)).toEqual({ question, nonce: NONCE });
    expect(await codeOf(verifyNodeQuery(token, keys, rules, later(120)))).toBe("token_expired");
    expect(await codeOf(verifyNodeQuery(token, keys, { ...rules, audience: "us" }, now))).toBe("token_invalid");
  });

  test.for<[string, unknown]>([
    ["nothing", undefined],
    ["something that nobody knows", { about: "secrets" }],
    ["the sockets of nobody", { about: "sockets" }],
    ["the sockets of a name that is too long", { about: "sockets", sub: "u".repeat(257) }],
  ])("about %s is malformed", async ([, question]) => {
    const payload = { iss: ISSUER, aud: "eu", iat: NOW, exp: NOW + 60, jti: NONCE, question };
    const token = await forge({ alg: "RS256", kid: "key", typ: NODE_QUERY_TYPE }, payload, edge);
    expect(await codeOf(verifyNodeQuery(token, keys, rules, now))).toBe("request_malformed");
  });

  test("is not a rehearsal, nor a query of another kind", async () => {
    const payload = { iss: ISSUER, aud: "eu", iat: NOW, exp: NOW + 60, jti: NONCE, question: STATUS };
    const token = await forge({ alg: "RS256", kid: "key", typ: "receipt-query+jwt" }, payload, edge);
    expect(await codeOf(verifyNodeQuery(token, keys, rules, now))).toBe("token_invalid");
  });
});

describe("the answers of nodes", () => {
  test("arrive as they were given", async () => {
    const given = { answers: [status], silent: ["two"], redis: true };
    const token = await signNodeAnswers(given, from, secrets, NOW);
    expect(await verifyNodeAnswers(token, STATUS, asked, secrets, now)).toEqual(given);
    const held = { answers: [sockets], silent: [], redis: false };
    const second = await signNodeAnswers(held, from, secrets, NOW);
    expect(await verifyNodeAnswers(second, SOCKETS, asked, [STRANGER, SECRET], now)).toEqual(held);
  });

  test.for<[string, () => Promise<string>]>([
    ["with another secret", () => answered([status], {}, STRANGER)],
    ["to another question", () => answered([status], { jti: "another" })],
    ["to another edge", () => answered([status], { aud: "https://other.test" })],
    ["of another cluster", () => answered([status], { iss: "us" })],
    ["that are too old", () => answered([status], { iat: NOW - 600, exp: NOW - 500 })],
  ])("%s are not believed", async ([, token]) => {
    expect(await codeOf(verifyNodeAnswers(await token(), STATUS, asked, secrets, now))).toBe("token_invalid");
  });

  const manySockets = Array(MAX_LISTED_BY_NODE + 1).fill(socket);
  test.for<[string, NodeQuestion, unknown, object?]>([
    ["that are no list", STATUS, { one: status }],
    ["of too many nodes", STATUS, Array(MAX_NODES + 1).fill(status)],
    ["with too many who are silent", STATUS, [], { silent: Array(MAX_NODES + 1).fill("x") }],
    ["that do not say how Redis is", STATUS, [], { redis: "fine" }],
    ["about something else", STATUS, [sockets]],
    ["about something else, the other way round", SOCKETS, [status]],
    ["with a link that nobody knows", STATUS, [{ ...status, link: "carrier pigeon" }]],
    ["with a number that is none", STATUS, [{ ...status, applied: -1 }]],
    ["without a name", STATUS, [{ ...status, node: "" }]],
    ["with too many sockets listed", SOCKETS, [{ ...sockets, listed: manySockets }]],
    ["with a socket that is none", SOCKETS, [{ ...sockets, listed: [{ ...socket, sid: 5 }] }]],
  ])("%s are malformed", async ([, question, answers, more = {}]) => {
    const token = await answered(answers, more);
    expect(await codeOf(verifyNodeAnswers(token, question, asked, secrets, now))).toBe("request_malformed");
  });

  test("are read for what the contract names, and nothing else", () => {
    expect(readNodeAnswer({ ...status, secret: "x" }, STATUS)).toEqual(status);
    expect(readNodeAnswer({ ...sockets, listed: [{ ...socket, secret: "x" }] }, SOCKETS)).toEqual(sockets);
  });
});

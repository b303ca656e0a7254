/** What a cluster and the edge say to each other: that it arrives as it was sent, and from nobody else. */
import { SignJWT } from "jose";
import { describe, expect, test } from "vitest";
import { SIGNATURE_ALGORITHMS, type TokenRules } from "#contract/access-token";
import {
  type ClusterReceipt,
  type ClusterSecrets,
  FEED_PAGE_EVENTS,
  FEED_PAGE_TYPE,
  FEED_QUERY_TYPE,
  type FeedPage,
  type FeedQuery,
  MAX_LEASE_MS,
  MAX_NODES,
  MAX_RECEIPTS,
  MAX_WORDS,
  RECEIPT_QUERY_TYPE,
  RECEIPTS_TYPE,
  signFeedPage,
  signFeedQuery,
  signReceiptQuery,
  signReceipts,
  verifyFeedPage,
  verifyFeedQuery,
  verifyReceiptQuery,
  verifyReceipts,
} from "#contract/cluster";
import { Refusal, type RefusalCode } from "#contract/refusal";
import { createSigner, forge, keySetOf, signingInput } from "../support/tokens.ts";

const NOW = 1_790_000_000;
const now = new Date(NOW * 1000);
const later = (seconds: number) => new Date((NOW + seconds) * 1000);
const ISSUER = "https://edge.test";
const NONCE = "a nonce";
const SECRET = "the secret that the nodes of the cluster have";
const BEFORE = "the secret that they had before, also long";
const STRANGER = "a secret that somebody else has made up now";
const secrets: ClusterSecrets = [SECRET];
const both: ClusterSecrets = [SECRET, BEFORE];

const edge = await createSigner("RS256", "key");
const attacker = await createSigner("RS256", "key");
const keys = keySetOf(edge);
const rules: TokenRules = {
  issuer: ISSUER,
  audience: "eu",
  algorithms: SIGNATURE_ALGORITHMS,
  clockSkewSeconds: 5,
};
const envelope = { issuer: ISSUER, audience: "eu", issuedAt: NOW, nonce: NONCE };

async function codeOf(judging: Promise<unknown>): Promise<RefusalCode> {
  const outcome: unknown = await judging.catch((thrown: unknown) => thrown);
  if (!(outcome instanceof Refusal)) throw new Error("it was not refused", { cause: outcome });
  return outcome.code;
}

/** A JWT that somebody who knows the secret makes, whatever it says. */
function shared(typ: string, claims: Record<string, unknown>, secret = SECRET, alg = "HS256"): Promise<string> {
  return new SignJWT({ iat: NOW, exp: NOW + 60, ...claims })
    .setProtectedHeader({ alg, typ })
    .sign(new TextEncoder().encode(secret));
}

const many = (count: number) => Array.from({ length: count }, (_, index) => `n${index}`);

describe("a feed query", () => {
  const query: FeedQuery = {
    ...{ cluster: "eu", node: "one", boot: "b_1", nonce: NONCE },
    lease: { ms: 10_000, done: 41, words: [{ id: "rev_1", applied_at: 1_790_000_000_000, closed: 3 }] },
  };
  const claims = { iss: "eu", sub: "one", aud: ISSUER, jti: NONCE, boot: "b_1" };
  const secretsOf = (cluster: string) => (cluster === "eu" ? both : undefined);
  const judged = (token: string | undefined, at = now) => verifyFeedQuery(token, ISSUER, secretsOf, at);

  test("arrives as it was sent, with a lease and without", async () => {
    expect(await judged(await signFeedQuery(query, ISSUER, secrets, NOW))).toEqual(query);
    const { lease: _, ...plain } = query;
    expect(await judged(await signFeedQuery(plain, ISSUER, secrets, NOW))).toEqual(plain);
  });

  test("with the secret of before is as good", async () => {
    expect(await judged(await signFeedQuery(query, ISSUER, [BEFORE], NOW))).toEqual(query);
  });

  test("is good for a minute, and for as long as clocks may differ", async () => {
    const token = await signFeedQuery(query, ISSUER, secrets, NOW);
    expect(await judged(token, later(119))).toEqual(query);
    expect(await codeOf(judged(token, later(121)))).toBe("token_invalid");
  });

  test("that is absent is missing", async () => {
    expect(await codeOf(judged(undefined))).toBe("token_missing");
    expect(await codeOf(judged(""))).toBe("token_missing");
  });

  test.for<[string, () => Promise<string>]>([
    ["another secret", () => signFeedQuery(query, ISSUER, [STRANGER], NOW)],
    ["a cluster that nobody knows", () => signFeedQuery({ ...query, cluster: "us" }, ISSUER, secrets, NOW)],
    ["another edge's name", () => signFeedQuery(query, "https://another.test", secrets, NOW)],
    ["the type of receipts", () => shared(RECEIPTS_TYPE, claims)],
    ["no type", () => shared(undefined as unknown as string, claims)],
    ["another algorithm", () => shared(FEED_QUERY_TYPE, claims, SECRET, "HS512")],
    ["no issuer", () => shared(FEED_QUERY_TYPE, { ...claims, iss: undefined })],
    ["no audience", () => shared(FEED_QUERY_TYPE, { ...claims, aud: undefined })],
    ["a signature of the edge", () => forge({ typ: FEED_QUERY_TYPE, alg: "RS256", kid: "key" }, claims, edge)],
    ["no signature", async () => `${signingInput({ typ: FEED_QUERY_TYPE, alg: "none" }, claims)}.`],
    ["no form", async () => "hello"],
    ["five million characters", async () => "a".repeat(5_000_000)],
  ])("with %s is refused", async ([, token]) => {
    expect(await codeOf(judged(await token()))).toBe("token_invalid");
  });

  const word = ["rev_1", 1, 1];
  test.for<[string, Record<string, unknown>]>([
    ["no node", { sub: undefined }],
    ["an empty node", { sub: "" }],
    ["a node of 257 characters", { sub: "n".repeat(257) }],
    ["no nonce", { jti: undefined }],
    ["no run", { boot: undefined }],
    ["a run that is a number", { boot: 7 }],
    ["a lease that is a number", { lease: 7 }],
    ["a lease that is null", { lease: null }],
    ["a lease without a length", { lease: { done: 1, words: [] } }],
    ["a lease for too long", { lease: { ms: MAX_LEASE_MS + 1, done: 1, words: [] } }],
    ["a lease of less than nothing", { lease: { ms: -1, done: 1, words: [] } }],
    ["half a lease", { lease: { ms: 0.5, done: 1, words: [] } }],
    ["a lease that has done nothing known", { lease: { ms: 1, words: [] } }],
    ["a lease without words", { lease: { ms: 1, done: 1 } }],
    ["too many words", { lease: { ms: 1, done: 1, words: Array(MAX_WORDS + 1).fill(word) } }],
    ["a word that is none", { lease: { ms: 1, done: 1, words: ["rev_1"] } }],
    ["a word about nothing", { lease: { ms: 1, done: 1, words: [["", 1, 1]] } }],
    ["a word without a count", { lease: { ms: 1, done: 1, words: [["rev_1", 1]] } }],
    ["a word with a count below nothing", { lease: { ms: 1, done: 1, words: [["rev_1", 1, -1]] } }],
  ])("with %s is malformed", async ([, change]) => {
    expect(await codeOf(judged(await shared(FEED_QUERY_TYPE, { ...claims, ...change })))).toBe("request_malformed");
  });

  test("may bring the greatest lease, and the greatest number of words", async () => {
    const words = Array.from({ length: MAX_WORDS }, (_, index) => ({ id: `rev_${index}`, applied_at: 0, closed: 0 }));
    const greatest = { ...query, lease: { ms: MAX_LEASE_MS, done: Number.MAX_SAFE_INTEGER, words } };
    expect(await judged(await signFeedQuery(greatest, ISSUER, secrets, NOW))).toEqual(greatest);
  });
});

describe("a page of the feed", () => {
  const event = {
    ...{ id: "rev_1", seq: 42, code: "session_revoked" as const, decided_at: NOW * 1000, expires_at: NOW + 420 },
    targets: [{ kind: "user" as const, sub: "u_ada", generation: 3 }],
  };
  const page: FeedPage = { after: 41, upto: 42, head: 42, first: 7, events: [event] };
  const header = { typ: FEED_PAGE_TYPE, alg: "RS256", kid: "key" };
  const payload = { iss: ISSUER, aud: "eu", iat: NOW, exp: NOW + 60, nonce: NONCE, ...page };
  const judged = (token: unknown, at = now) => verifyFeedPage(token, NONCE, keys, rules, at);

  test("arrives as it was sent, also when it is empty", async () => {
    expect(await judged(await signFeedPage(page, envelope, edge.key))).toEqual(page);
    const empty = { after: 42, upto: 42, head: 42, first: 43, events: [] };
    expect(await judged(await signFeedPage(empty, envelope, edge.key))).toEqual(empty);
  });

  test("of the greatest number of events is taken, and one more is not", async () => {
    const whole = { ...page, events: Array(FEED_PAGE_EVENTS).fill(event) };
    expect((await judged(await signFeedPage(whole, envelope, edge.key))).events).toHaveLength(FEED_PAGE_EVENTS);
    const more = { ...page, events: Array(FEED_PAGE_EVENTS + 1).fill(event) };
    expect(await codeOf(judged(await signFeedPage(more, envelope, edge.key)))).toBe("request_malformed");
  });

  test.for<[string, () => Promise<string>, RefusalCode]>([
    ["in answer to another query", () => signFeedPage(page, { ...envelope, nonce: "x" }, edge.key), "token_invalid"],
    ["for another cluster", () => signFeedPage(page, { ...envelope, audience: "us" }, edge.key), "token_invalid"],
    ["of another edge", () => signFeedPage(page, { ...envelope, issuer: "https://x.test" }, edge.key), "token_invalid"],
    ["of before", () => signFeedPage(page, { ...envelope, issuedAt: NOW - 66 }, edge.key), "token_expired"],
    ["signed by somebody else", () => signFeedPage(page, envelope, attacker.key), "token_invalid"],
    ["signed with the cluster's secret", () => shared(FEED_PAGE_TYPE, payload), "token_invalid"],
    ["of another type", () => forge({ ...header, typ: "secevent+jwt" }, payload, edge), "token_invalid"],
    ["too long", async () => `${"a".repeat(4 * 1024 * 1024)}.b.c`, "token_invalid"],
  ])("%s is refused", async ([, token, code]) => {
    expect(await codeOf(judged(await token()))).toBe(code);
  });

  test.for<[string, Record<string, unknown>]>([
    ["no after", { after: undefined }],
    ["no upto", { upto: undefined }],
    ["a head that is a string", { head: "42" }],
    ["a first below nothing", { first: -1 }],
    ["no events", { events: undefined }],
    ["events that are no list", { events: {} }],
    ["an event that is none", { events: [{}] }],
    ["a target of an unknown kind", { events: [{ ...event, targets: [{ kind: "planet" }] }] }],
  ])("with %s is malformed", async ([, change]) => {
    expect(await codeOf(judged(await forge(header, { ...payload, ...change }, edge)))).toBe("request_malformed");
  });
});

describe("a receipt query", () => {
  const header = { typ: RECEIPT_QUERY_TYPE, alg: "RS256", kid: "key" };
  const payload = { iss: ISSUER, aud: "eu", iat: NOW, exp: NOW + 60, jti: NONCE, ids: ["rev_1"] };
  const judged = (token: unknown, at = now) => verifyReceiptQuery(token, keys, rules, at);

  test("arrives as it was sent, for as many as may be asked for", async () => {
    const ids = Array.from({ length: MAX_RECEIPTS }, (_, index) => `rev_${"x".repeat(20)}${index}`);
    expect(await judged(await signReceiptQuery(ids, envelope, edge.key))).toEqual({ ids, nonce: NONCE });
  });

  test.for<[string, () => Promise<string>, RefusalCode]>([
    ["for another cluster", () => signReceiptQuery(["x"], { ...envelope, audience: "us" }, edge.key), "token_invalid"],
    ["of before", () => signReceiptQuery(["x"], { ...envelope, issuedAt: NOW - 66 }, edge.key), "token_expired"],
    ["signed by somebody else", () => signReceiptQuery(["x"], envelope, attacker.key), "token_invalid"],
    ["signed with the cluster's secret", () => shared(RECEIPT_QUERY_TYPE, payload), "token_invalid"],
    ["of another type", () => forge({ ...header, typ: FEED_PAGE_TYPE }, payload, edge), "token_invalid"],
    ["about too many", () => signReceiptQuery(many(MAX_RECEIPTS + 1), envelope, edge.key), "request_malformed"],
    ["about nothing known", () => forge(header, { ...payload, ids: undefined }, edge), "request_malformed"],
    ["about a number", () => forge(header, { ...payload, ids: [7] }, edge), "request_malformed"],
    ["without a nonce", () => forge(header, { ...payload, jti: undefined }, edge), "request_malformed"],
  ])("%s is refused", async ([, token, code]) => {
    expect(await codeOf(judged(await token()))).toBe(code);
  });
});

describe("receipts", () => {
  const receipt: ClusterReceipt = {
    id: "rev_1",
    expected: ["one", "two", "three"],
    applied: [{ node: "one", applied_at: 1_790_000_000_000, closed: 3 }],
    pending: ["two"],
    fenced: [{ node: "three", fenced_at: 1_790_000_000_500 }],
  };
  const from = { cluster: "eu", node: "one", issuer: ISSUER, nonce: NONCE };
  const asked = { cluster: "eu", issuer: ISSUER, nonce: NONCE };
  const claims = { iss: "eu", sub: "one", aud: ISSUER, jti: NONCE };
  const judged = (token: string, at = now) => verifyReceipts(token, asked, both, at);

  test("arrive as they were sent, also when there are none, and with the secret of before", async () => {
    expect(await judged(await signReceipts([receipt], from, secrets, NOW))).toEqual([receipt]);
    expect(await judged(await signReceipts([], from, [BEFORE], NOW))).toEqual([]);
  });

  test("are as many as may be asked for, of as many nodes as a cluster has", async () => {
    const receipts = Array(MAX_RECEIPTS).fill({ ...receipt, expected: [], applied: [], pending: [], fenced: [] });
    expect(await judged(await signReceipts(receipts, from, secrets, NOW))).toHaveLength(MAX_RECEIPTS);
    const nodes = many(MAX_NODES);
    const words = nodes.map((node) => ({ node, applied_at: 0, closed: 0 }));
    const whole = { ...receipt, expected: nodes, applied: words, pending: nodes, fenced: [] };
    expect(await judged(await signReceipts([whole], from, secrets, NOW))).toEqual([whole]);
  });

  test.for<[string, () => Promise<string>]>([
    ["with another secret", () => signReceipts([receipt], from, [STRANGER], NOW)],
    ["of another cluster", () => signReceipts([receipt], { ...from, cluster: "us" }, secrets, NOW)],
    ["for another edge", () => signReceipts([receipt], { ...from, issuer: "https://x.test" }, secrets, NOW)],
    ["in answer to another query", () => signReceipts([receipt], { ...from, nonce: "x" }, secrets, NOW)],
    ["of before", () => signReceipts([receipt], from, secrets, NOW - 121)],
    ["of another type", () => shared(FEED_QUERY_TYPE, { ...claims, receipts: [receipt] })],
    ["signed by the edge", () => forge({ typ: RECEIPTS_TYPE, alg: "RS256", kid: "key" }, claims, edge)],
    ["that are nothing", async () => ""],
    ["that are JSON", async () => JSON.stringify([receipt])],
  ])("%s are refused", async ([, token]) => {
    expect(await codeOf(judged(await token()))).toBe("token_invalid");
  });

  test.for<[string, unknown]>([
    ["not a list", { rev_1: receipt }],
    ["too many", Array(MAX_RECEIPTS + 1).fill(receipt)],
    ["a string", ["rev_1"]],
    ["about nothing", [{ ...receipt, id: "" }]],
    ["without the expected", [{ ...receipt, expected: undefined }]],
    ["with a node without a name", [{ ...receipt, pending: [""] }]],
    ["with too many nodes expected", [{ ...receipt, expected: many(MAX_NODES + 1) }]],
    ["with too many words", [{ ...receipt, applied: Array(MAX_NODES + 1).fill(receipt.applied[0]) }]],
    ["with too many fences", [{ ...receipt, fenced: Array(MAX_NODES + 1).fill(receipt.fenced[0]) }]],
    ["with a word of nobody", [{ ...receipt, applied: [{ applied_at: 1, closed: 1 }] }]],
    ["with half a socket", [{ ...receipt, applied: [{ node: "one", applied_at: 1, closed: 0.5 }] }]],
    ["with a fence without a time", [{ ...receipt, fenced: [{ node: "three" }] }]],
    ["without the fenced", [{ ...receipt, fenced: undefined }]],
  ])("that are %s are malformed", async ([, receipts]) => {
    expect(await codeOf(judged(await shared(RECEIPTS_TYPE, { ...claims, receipts })))).toBe("request_malformed");
  });
});

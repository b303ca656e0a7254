/** A revocation on its way: what a Security Event Token must be before anybody is thrown out because of it. */
import { describe, expect, test } from "vitest";
import { SIGNATURE_ALGORITHMS, signAccessToken, type TokenRules, verifyAccessToken } from "#contract/access-token";
import { Refusal, type RefusalCode } from "#contract/refusal";
import {
  MAX_TARGETS,
  REVOCATION_EVENT,
  type RevocationEvent,
  SECURITY_EVENT_TYPE,
  signRevocation,
  verifyRevocation,
} from "#contract/revocation";
import { createSigner, forge, forgeHmac, goodClaims, keySetOf, signingInput } from "../support/tokens.ts";

const NOW = 1_790_000_000;
const now = new Date(NOW * 1000);
const rules: TokenRules = {
  issuer: "https://edge.test",
  audience: "cluster-a",
  algorithms: SIGNATURE_ALGORITHMS,
  clockSkewSeconds: 5,
};
const envelope = { issuer: rules.issuer, audience: rules.audience, issuedAt: NOW };

const edge = await createSigner("EdDSA", "key-ed");
const attacker = await createSigner("EdDSA", "key-ed");
const stranger = await createSigner("EdDSA", "key-unknown");
const keys = keySetOf(edge);

const event: RevocationEvent = {
  id: "rev_1",
  seq: 42,
  targets: [
    { kind: "token", jti: "t_1" },
    { kind: "session", sid: "u_ada.s1" },
    { kind: "user", sub: "u_ada", generation: 3 },
    { kind: "tenant", tid: "acme", cutoff: NOW },
    { kind: "key", kid: "key-old" },
    { kind: "everyone", cutoff: NOW },
  ],
  code: "session_revoked",
  decided_at: NOW * 1000,
  expires_at: NOW + 420,
};
const { id, ...body } = event;
const header = { typ: SECURITY_EVENT_TYPE, alg: "EdDSA", kid: "key-ed" };
const payload = { iss: rules.issuer, aud: rules.audience, iat: NOW, jti: id, txn: id };

function payloadWith(change: Record<string, unknown>) {
  return { ...payload, events: { [REVOCATION_EVENT]: { ...body, ...change } } };
}

async function codeOf(set: unknown, rulesOf = rules): Promise<RefusalCode> {
  const outcome: unknown = await verifyRevocation(set, keys, rulesOf, now).catch((thrown: unknown) => thrown);
  if (!(outcome instanceof Refusal)) throw new Error("the event was not refused", { cause: outcome });
  return outcome.code;
}

describe("a revocation", () => {
  test.for(SIGNATURE_ALGORITHMS)("signed with %s arrives as it was sent", async (alg) => {
    const signer = await createSigner(alg, "key");
    const set = await signRevocation(event, envelope, signer.key);
    expect(await verifyRevocation(set, keySetOf(signer), rules, now)).toEqual(event);
  });

  test("has neither sub nor exp, and names itself as jti and txn (RFC 8417)", async () => {
    const [, part = ""] = (await signRevocation(event, envelope, edge.key)).split(".");
    const sent: unknown = JSON.parse(atob(part.replaceAll("-", "+").replaceAll("_", "/")));
    expect(sent).toEqual(payloadWith({}));
  });

  test("is good however late it arrives: a receiver that was away for a year must still take it", async () => {
    const set = await signRevocation(event, envelope, edge.key);
    const nextYear = new Date(now.getTime() + 365 * 86_400_000);
    expect(await verifyRevocation(set, keys, rules, nextYear)).toEqual(event);
  });

  test("brings the name of the call that decided it, and is taken without it when it is no name", async () => {
    const sent = (request: unknown) => forge(header, payloadWith({ request }), edge);
    expect(await verifyRevocation(await sent("8f3c-FRA"), keys, rules, now)).toEqual({ ...event, request: "8f3c-FRA" });
    for (const request of [7, null, {}, "", "two words", "a\nline", "x".repeat(129)]) {
      expect(await verifyRevocation(await sent(request), keys, rules, now)).toEqual(event);
    }
  });

  test("that is delivered twice is the same event both times", async () => {
    const set = await signRevocation(event, envelope, edge.key);
    expect(await verifyRevocation(set, keys, rules, now)).toEqual(await verifyRevocation(set, keys, rules, now));
  });
});

describe("a revocation is refused as invalid when", () => {
  test("it is unsigned", async () => {
    expect(await codeOf(`${signingInput({ ...header, alg: "none" }, payloadWith({}))}.`)).toBe("token_invalid");
    expect(await codeOf(signingInput(header, payloadWith({})))).toBe("token_invalid");
  });

  test("it is signed with an HMAC over the public key", async () => {
    const secret = JSON.stringify(edge.publicJwk);
    expect(await codeOf(await forgeHmac({ ...header, alg: "HS256" }, payloadWith({}), secret))).toBe("token_invalid");
  });

  test("its signer is unknown, under any kid and with the key in its own header", async () => {
    expect(await codeOf(await forge(header, payloadWith({}), attacker))).toBe("token_invalid");
    expect(await codeOf(await forge({ ...header, kid: "key-unknown" }, payloadWith({}), stranger))).toBe(
      "token_invalid",
    );
    const withKey = { ...header, kid: "key-unknown", jwk: stranger.publicJwk, jku: "https://attacker.test/jwks.json" };
    expect(await codeOf(await forge(withKey, payloadWith({}), stranger))).toBe("token_invalid");
  });

  test.for([
    ["it is for another cluster", { aud: "cluster-b" }],
    ["it is for nobody", { aud: undefined }],
    ["it is from another issuer", { iss: "https://attacker.test" }],
    ["it has no issuer", { iss: undefined }],
  ] as const)("%s", async ([, change]) => {
    const set = await forge(header, { ...payloadWith({}), ...change }, edge);
    expect(await codeOf(set)).toBe("token_invalid");
  });

  test.for([undefined, "JWT", "at+jwt", "receipt-query+jwt", "secevent"])("its typ is %s", async (typ) => {
    expect(await codeOf(await forge({ ...header, typ }, payloadWith({}), edge))).toBe("token_invalid");
  });

  test("it is an access token, and an access token is no revocation either, even for the same audience", async () => {
    const claims = goodClaims(NOW, rules);
    expect(await codeOf(await signAccessToken(claims, edge.key))).toBe("token_invalid");

    const both = { ...claims, ...payloadWith({}) };
    const asEvent = await forge(header, both, edge);
    const verdict: unknown = await verifyAccessToken(asEvent, keys, rules, now).catch((thrown: unknown) => thrown);
    expect(verdict).toMatchObject({ name: "Refusal", code: "token_invalid" });
    expect(await codeOf(await forge({ ...header, typ: "at+jwt" }, both, edge))).toBe("token_invalid");
  });

  test.for([
    [undefined, "token_missing"],
    ["", "token_missing"],
    [{}, "token_invalid"],
    [7, "token_invalid"],
    ["hello", "token_invalid"],
    ["x".repeat(1_000_000), "token_invalid"],
  ] as const)("it is no token (case %$)", async ([set, code]) => {
    expect(await codeOf(set)).toBe(code);
  });
});

describe("a well signed event that is no revocation is refused as malformed when", () => {
  const session = { kind: "session", sid: "s" };
  test.for([
    ["it has no events", payload],
    ["its events are a list", { ...payload, events: [body] }],
    ["its events are null", { ...payload, events: null }],
    ["it is another event", { ...payload, events: { "urn:example:other": body } }],
    ["its event is a string", { ...payload, events: { [REVOCATION_EVENT]: "x" } }],
    ["its event is a list", { ...payload, events: { [REVOCATION_EVENT]: [body] } }],
    ["it has no id", { ...payloadWith({}), jti: undefined }],
    ["its id is a number", { ...payloadWith({}), jti: 7 }],
    ["its id is empty", { ...payloadWith({}), jti: "" }],
    ["it has no place in the log", payloadWith({ seq: undefined })],
    ["its place in the log is a string", payloadWith({ seq: "42" })],
    ["its place in the log is negative", payloadWith({ seq: -1 })],
    ["nobody knows when it was decided", payloadWith({ decided_at: null })],
    ["it never expires", payloadWith({ expires_at: undefined })],
    ["its code is unknown", payloadWith({ code: "kicked" })],
    ["its code is a refusal that no revocation leads to", payloadWith({ code: "token_expired" })],
    ["it has no code", payloadWith({ code: undefined })],
    ["it has no targets", payloadWith({ targets: undefined })],
    ["its targets are empty", payloadWith({ targets: [] })],
    ["its targets are no list", payloadWith({ targets: session })],
    ["its targets are too many", payloadWith({ targets: Array(MAX_TARGETS + 1).fill(session) })],
    ["a target is null", payloadWith({ targets: [null] })],
    ["a target is a string", payloadWith({ targets: ["everyone"] })],
    ["a target is of no kind", payloadWith({ targets: [{ sid: "s" }] })],
    ["a target is of an unknown kind", payloadWith({ targets: [{ kind: "device", id: "d" }] })],
    ["only one of its targets is of an unknown kind", payloadWith({ targets: [session, { kind: "device", id: "d" }] })],
    ["a token has no jti", payloadWith({ targets: [{ kind: "token" }] })],
    ["a session's sid is empty", payloadWith({ targets: [{ kind: "session", sid: "" }] })],
    ["a session's sid is a list", payloadWith({ targets: [{ kind: "session", sid: ["s"] }] })],
    ["a user has no generation", payloadWith({ targets: [{ kind: "user", sub: "u" }] })],
    ["a user's generation is a string", payloadWith({ targets: [{ kind: "user", sub: "u", generation: "3" }] })],
    ["a tenant has no cutoff", payloadWith({ targets: [{ kind: "tenant", tid: "acme" }] })],
    ["a tenant has no tid", payloadWith({ targets: [{ kind: "tenant", cutoff: 1 }] })],
    ["a key has no kid", payloadWith({ targets: [{ kind: "key" }] })],
    ["everyone has no cutoff", payloadWith({ targets: [{ kind: "everyone" }] })],
    ["everyone's cutoff is negative", payloadWith({ targets: [{ kind: "everyone", cutoff: -1 }] })],
  ] as const)("%s", async ([, malformed]) => {
    expect(await codeOf(await forge(header, malformed, edge))).toBe("request_malformed");
  });

  test("and the greatest number of targets is still taken", async () => {
    const set = await forge(header, payloadWith({ targets: Array(MAX_TARGETS).fill(session) }), edge);
    expect((await verifyRevocation(set, keys, rules, now)).targets).toHaveLength(MAX_TARGETS);
  });
});

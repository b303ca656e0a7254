/** What an access token must be, judged with true signatures over false claims: each check is failed alone. */
import { describe, expect, test } from "vitest";
import {
  ACCESS_TOKEN_TYPE,
  MAX_TOKEN_LENGTH,
  SIGNATURE_ALGORITHMS,
  signAccessToken,
  type TokenRules,
  verifyAccessToken,
} from "#contract/access-token";
import { Refusal, type RefusalCode } from "#contract/refusal";
import {
  createSigner,
  forge,
  forgeHmac,
  goodClaims,
  keySetOf,
  signingInput,
  untouchableKeys,
} from "../support/tokens.ts";

const NOW = 1_790_000_000;
const now = new Date(NOW * 1000);
const rules: TokenRules = {
  issuer: "https://edge.test",
  audience: "realtime",
  algorithms: SIGNATURE_ALGORITHMS,
  clockSkewSeconds: 5,
};

const signers = {
  EdDSA: await createSigner("EdDSA", "key-ed"),
  ES256: await createSigner("ES256", "key-es"),
  RS256: await createSigner("RS256", "key-rs"),
};
const attacker = await createSigner("EdDSA", "key-ed");
const stranger = await createSigner("EdDSA", "key-unknown");
const keys = keySetOf(signers.EdDSA, signers.ES256, signers.RS256);
const claims = goodClaims(NOW, rules);
const header = { typ: ACCESS_TOKEN_TYPE, alg: "EdDSA", kid: "key-ed" };
const good = await forge(header, claims, signers.EdDSA);

async function refusalOf(token: unknown, keysOf = keys, rulesOf = rules): Promise<Refusal> {
  const outcome: unknown = await verifyAccessToken(token, keysOf, rulesOf, now).catch((thrown: unknown) => thrown);
  if (!(outcome instanceof Refusal)) throw new Error("the token was not refused", { cause: outcome });
  return outcome;
}

/** Refused with this code, and neither the answer nor what goes to the log repeats any part of the token. */
async function expectRefused(token: unknown, code: RefusalCode): Promise<void> {
  const refusal = await refusalOf(token);
  expect(refusal.code).toBe(code);
  if (typeof token !== "string") return;
  const said = `${refusal.message} ${refusal.detail ?? ""} ${refusal.stack ?? ""} ${JSON.stringify(refusal.answer())}`;
  for (const part of token.split(".")) if (part.length > 12) expect(said).not.toContain(part);
}

describe("a good access token", () => {
  test.for(SIGNATURE_ALGORITHMS)("signed with %s is accepted with its claims", async (alg) => {
    const token = await signAccessToken(claims, signers[alg].key);
    expect(await verifyAccessToken(token, keys, rules, now)).toEqual({ ...claims, kid: signers[alg].key.kid });
  });

  test.for([
    ["without the optional claims", { tid: undefined, scope: undefined, keys: undefined }],
    ["for several audiences, ours among them", { aud: ["other", "realtime"] }],
    ["that expired within the clock skew", { exp: NOW - 4 }],
    ["that becomes valid within the clock skew", { nbf: NOW + 5 }],
    ["issued in the future within the clock skew", { iat: NOW + 5, auth_time: NOW + 5 }],
  ] as const)("%s is accepted", async ([, change]) => {
    const token = await forge(header, { ...claims, ...change }, signers.EdDSA);
    expect((await verifyAccessToken(token, keys, rules, now)).sid).toBe(claims.sid);
  });

  test("may spell its type with the application/ prefix of RFC 9068", async () => {
    const token = await forge({ ...header, typ: "application/at+jwt" }, claims, signers.EdDSA);
    expect((await verifyAccessToken(token, keys, rules, now)).sid).toBe(claims.sid);
  });

  test("of the greatest length is accepted, and one character more is refused before the keys are asked for", async () => {
    const bare = await forge(header, { ...claims, pad: "" }, signers.EdDSA);
    const room = Math.floor(((MAX_TOKEN_LENGTH - bare.length) * 3) / 4);
    const longest = await forge(header, { ...claims, pad: "x".repeat(room - 2) }, signers.EdDSA);
    expect(longest.length).toBeLessThanOrEqual(MAX_TOKEN_LENGTH);
    expect(longest.length).toBeGreaterThan(MAX_TOKEN_LENGTH - 8);
    expect((await verifyAccessToken(longest, keys, rules, now)).sid).toBe(claims.sid);

    const tooLong = await forge(header, { ...claims, pad: "x".repeat(room + 8) }, signers.EdDSA);
    expect((await refusalOf(tooLong, untouchableKeys)).code).toBe("token_invalid");
    expect((await refusalOf("x".repeat(50_000_000), untouchableKeys)).code).toBe("token_invalid");
  });
});

describe("what is no token at all", () => {
  test.for([undefined, null, ""])("%j is refused as missing", async (token) => {
    await expectRefused(token, "token_missing");
    expect((await refusalOf(token, untouchableKeys)).code).toBe("token_missing");
  });

  test.for([
    ["a number", 7],
    ["true", true],
    ["an object", { token: "x" }],
    ["an array", ["x"]],
    ["bytes", new Uint8Array([1, 2, 3])],
    ["a function", () => "x"],
    ["a symbol", Symbol("x")],
    ["a bigint", 1n],
    ["an object that would like to be a string", { toString: () => "a.b.c", length: 5 }],
  ] as const)("%s is refused as invalid", async ([, token]) => {
    await expectRefused(token, "token_invalid");
    expect((await refusalOf(token, untouchableKeys)).code).toBe("token_invalid");
  });
});

describe("a malformed token is refused as invalid:", () => {
  const [head = "", body = "", signature = ""] = good.split(".");
  test.for([
    ["a word", "hello"],
    ["blanks", "   "],
    ["two parts", `${head}.${body}`],
    ["four parts", `${good}.x`],
    ["five parts, as an encrypted token has", `${good}.x.y`],
    ["only dots", ".."],
    ["a million dots cut to the limit", ".".repeat(MAX_TOKEN_LENGTH)],
    ["an authorization header instead of its token", `Bearer ${good}`],
    ["a good token followed by a line break", `${good}\n`],
    ["letters outside of base64url", `${head}.${body}.ÄÖÜ🔑`],
    ["a header that is no JSON", `${signingInput("{", claims)}.${signature}`],
    ["a header that is null", `${signingInput(null, claims)}.${signature}`],
    ["a header that is an array", `${signingInput([header], claims)}.${signature}`],
    ["a NUL", `${head}.${body}\0.${signature}`],
  ] as const)("%s", async ([, token]) => {
    await expectRefused(token, "token_invalid");
  });

  test.for([
    ["no JSON", "{"],
    ["null", null],
    ["an array", [claims]],
    ["a number", 7],
    ["empty", ""],
  ] as const)("well signed, but its payload is %s", async ([, payload]) => {
    await expectRefused(await forge(header, payload, signers.EdDSA), "token_invalid");
  });
});

describe("a token that nobody we trust has signed is refused as invalid:", () => {
  test.for(["none", "None", "NONE", "nOnE"])("alg %s without a signature", async (alg) => {
    await expectRefused(`${signingInput({ ...header, alg }, claims)}.`, "token_invalid");
  });

  test.for(["HS256", "RS256", "ES256", "EdDSA"])("an HMAC made with the public key, as alg %s", async (alg) => {
    const kid = "key-rs";
    for (const secret of [signers.RS256.publicJwk.n ?? "", JSON.stringify(signers.RS256.publicJwk)]) {
      await expectRefused(await forgeHmac({ ...header, alg, kid }, claims, secret), "token_invalid");
    }
  });

  test("a changed claim", async () => {
    const [head = "", , signature = ""] = (await forge(header, claims, signers.EdDSA)).split(".");
    const [, body = ""] = signingInput(header, { ...claims, sub: "u_root" }).split(".");
    await expectRefused(`${head}.${body}.${signature}`, "token_invalid");
  });

  test("a cut signature, and none", async () => {
    await expectRefused(good.slice(0, -4), "token_invalid");
    await expectRefused(good.slice(0, good.lastIndexOf(".") + 1), "token_invalid");
  });

  test("another's signature under a known kid", async () => {
    await expectRefused(await forge(header, claims, attacker), "token_invalid");
  });

  test("an unknown kid", async () => {
    await expectRefused(await forge({ ...header, kid: "key-unknown" }, claims, stranger), "token_invalid");
  });

  test("a good signature under the kid of another key", async () => {
    await expectRefused(await forge({ ...header, kid: "key-es" }, claims, signers.EdDSA), "token_invalid");
  });

  test.for([
    ["the key itself (jwk)", { jwk: attacker.publicJwk }],
    ["where to fetch the key (jku)", { jku: "https://attacker.test/jwks.json" }],
    ["a certificate's address (x5u)", { x5u: "https://attacker.test/cert.pem" }],
    ["a certificate (x5c)", { x5c: ["MIIB"] }],
  ] as const)("the attacker's signature, the header brings %s", async ([, extra]) => {
    await expectRefused(await forge({ ...header, ...extra }, claims, attacker), "token_invalid");
    await expectRefused(await forge({ ...header, kid: "key-unknown", ...extra }, claims, attacker), "token_invalid");
  });

  test("an algorithm that these rules leave out", async () => {
    const token = await signAccessToken(claims, signers.RS256.key);
    const strict: TokenRules = { ...rules, algorithms: ["EdDSA"] };
    expect((await refusalOf(token, keys, strict)).code).toBe("token_invalid");
  });

  test("expired as well: what it says of itself counts only once it is known to be true", async () => {
    await expectRefused(await forge(header, { ...claims, exp: NOW - 1000 }, attacker), "token_invalid");
  });
});

describe("a well signed token is refused all the same when its header", () => {
  test.for([
    ["has no typ", { typ: undefined }],
    ["has the typ of any JWT", { typ: "JWT" }],
    ["has the typ of a Security Event Token", { typ: "secevent+jwt" }],
    ["has the typ of a receipt query", { typ: "receipt-query+jwt" }],
    ["has a typ that is no string", { typ: 7 }],
    ["has no alg", { alg: undefined }],
    ["has an alg that is no string", { alg: ["EdDSA"] }],
    ["names a critical extension", { crit: ["urn:x"], "urn:x": true }],
    ["names an unencoded payload", { crit: ["b64"], b64: false }],
    ["has a crit that is empty", { crit: [] }],
  ] as const)("%s", async ([, change]) => {
    await expectRefused(await forge({ ...header, ...change }, claims, signers.EdDSA), "token_invalid");
  });
});

describe("a well signed token is refused all the same when", () => {
  const invalid: readonly (readonly [string, Record<string, unknown>])[] = [
    ["it is from another issuer", { iss: "https://attacker.test" }],
    ["its issuer is ours with a slash", { iss: `${rules.issuer}/` }],
    ["it has no issuer", { iss: undefined }],
    ["its issuer is a list", { iss: [rules.issuer] }],
    ["it is for another audience", { aud: "billing" }],
    ["it is for several audiences, none ours", { aud: ["billing", "realtimes"] }],
    ["it has no audience", { aud: undefined }],
    ["its audience is empty", { aud: [] }],
    ["it is not valid yet", { nbf: NOW + 6 }],
    ["its nbf is a string", { nbf: `${NOW}` }],
    ["it was issued in the future", { iat: NOW + 6 }],
    ["its session began in the future", { auth_time: NOW + 6 }],
    ["it never expires", { exp: undefined }],
    ["its exp is a string", { exp: `${NOW + 300}` }],
    ["its exp is null", { exp: null }],
    ["its scope is a list", { scope: ["chat"] }],
    ["its authentication methods are no list", { amr: "pwd" }],
    ["an authentication method is no text", { amr: ["pwd", 1] }],
    ["its keys are a string", { keys: "device:7" }],
    ["one of its keys is a number", { keys: ["device:7", 7] }],
    ["one of its keys is empty", { keys: [""] }],
    ["its tenant is empty", { tid: "" }],
    ["its tenant is null", { tid: null }],
    ...["sub", "client_id", "jti", "sid"].flatMap((claim) => [
      [`${claim} is missing`, { [claim]: undefined }] as const,
      [`${claim} is empty`, { [claim]: "" }] as const,
      [`${claim} is a number`, { [claim]: 7 }] as const,
      [`${claim} is a list`, { [claim]: ["x"] }] as const,
      [`${claim} is longer than 256 characters`, { [claim]: "x".repeat(257) }] as const,
    ]),
    ...["iat", "auth_time", "gen"].flatMap((claim) => [
      [`${claim} is missing`, { [claim]: undefined }] as const,
      [`${claim} is a string`, { [claim]: "1" }] as const,
      [`${claim} is null`, { [claim]: null }] as const,
      [`${claim} is negative`, { [claim]: -1 }] as const,
    ]),
  ];
  test.for(invalid)("%s", async ([, change]) => {
    await expectRefused(await forge(header, { ...claims, ...change }, signers.EdDSA), "token_invalid");
  });

  test.for([
    ["it has expired", { exp: NOW - 5 }],
    ["it expired long ago", { exp: 1 }],
  ] as const)("%s, and it is told apart from an invalid one", async ([, change]) => {
    await expectRefused(await forge(header, { ...claims, ...change }, signers.EdDSA), "token_expired");
  });
});

describe("keys that cannot be had", () => {
  test("are told apart from a bad token, and their failure is not shown", async () => {
    const token = await forge(header, claims, signers.EdDSA);
    const refusal = await refusalOf(token, () => Promise.reject(new TypeError("connect ECONNREFUSED 10.1.2.3")));
    expect(refusal.code).toBe("unavailable");
    expect(JSON.stringify(refusal.answer())).not.toContain("10.1.2.3");
  });
});

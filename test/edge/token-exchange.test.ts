/** Sign-in on another issuer's word: whose word counts, what for, and once. */
import { evictDurableObject, runInDurableObject } from "cloudflare:test";
import { env, exports } from "cloudflare:workers";
import { base64url, type JWTHeaderParameters } from "jose";
import { expect, test } from "vitest";
import type { RefusalCode } from "#contract/refusal";
import type { OpenedSession } from "../../edge/accounts/account.ts";
import { openForeignSession } from "../../edge/accounts/foreign-issuer.ts";
import { linkName } from "../../edge/identifiers.ts";
import {
  ADMIN,
  account,
  call,
  claims,
  ISSUER,
  newLogin,
  ok,
  PASSWORD,
  post,
  refresh,
  refusal,
  type Tokens,
} from "./edge.ts";
import { AUDIENCE, OpenIdProvider } from "./issuer.ts";

interface Trust {
  readonly create?: boolean;
  readonly tenant?: string;
  readonly scope?: string;
  readonly algorithms?: readonly string[];
  readonly jwks_uri?: string;
}

/** An edge that trusts this issuer and no other. */
function edgeThatTrusts({ issuer }: OpenIdProvider, trust: Trust = {}): Env {
  const trusted = [{ issuer, audience: AUDIENCE, create: true, ...trust }];
  return { ...env, TRUSTED_ISSUERS: JSON.stringify(trusted) } as Env;
}

function exchange(edge: Env, token: string, scope?: string): Promise<OpenedSession> {
  return openForeignSession(edge, token, { scope });
}

async function refused(attempt: Promise<unknown>): Promise<RefusalCode> {
  const error = await attempt.then(
    () => undefined,
    (thrown: { code: RefusalCode }) => thrown,
  );
  expect(error).toMatchObject({ name: "Refusal" });
  return error?.code ?? "internal";
}

test("somebody who comes for the first time gets an account, and the same one ever after", async () => {
  const provider = new OpenIdProvider();
  const edge = edgeThatTrusts(provider, { scope: "chat:read", tenant: "acme" });
  const first = await exchange(edge, await provider.idToken());
  const second = await exchange(edge, await provider.idToken());
  expect(first.grant).toMatchObject({ tid: "acme", scope: "chat:read", method: "token_exchange" });
  expect(second.grant.sub).toBe(first.grant.sub);
  expect(second.grant.sid).not.toBe(first.grant.sid);
  const other = await exchange(edge, await provider.idToken({ sub: "eve" }));
  expect(other.grant.sub).not.toBe(first.grant.sub);
});

test("two that come for the first time at once are one account", async () => {
  const provider = new OpenIdProvider();
  const edge = edgeThatTrusts(provider);
  const token = await provider.idToken();
  const opened = await Promise.all(Array.from({ length: 5 }, () => exchange(edge, token)));
  expect(new Set(opened.map(({ grant }) => grant.sub)).size).toBe(1);
});

test("where nobody is to be made, only those are let in who were made before", async () => {
  const provider = new OpenIdProvider();
  const edge = edgeThatTrusts(provider, { create: false });
  expect(await refused(exchange(edge, await provider.idToken()))).toBe("token_invalid");
  const link = { issuer: provider.issuer, subject: "ada" };
  const { sub } = await ok<{ sub: string }>(await post("/admin/accounts", { link }, ADMIN));
  expect((await exchange(edge, await provider.idToken())).grant.sub).toBe(sub);
  const query = `issuer=${encodeURIComponent(link.issuer)}&subject=ada`;
  expect(await ok(await call("GET", `/admin/accounts?${query}`, undefined, ADMIN))).toMatchObject({
    sub,
    links: [link],
  });
  expect(await refusal(await post("/admin/accounts", { link }, ADMIN))).toBe("conflict");
});

test("an identity that nobody has leaves nothing behind", async () => {
  const provider = new OpenIdProvider();
  await refused(exchange(edgeThatTrusts(provider, { create: false }), await provider.idToken({ jti: "once" })));
  const link = env.LINK.getByName(linkName({ issuer: provider.issuer, subject: "ada" }));
  expect(await runInDurableObject(link, (_, { storage }) => [...storage.kv.list()])).toEqual([]);
});

test.for<[string, Readonly<Record<string, unknown>>, RefusalCode]>([
  ["another audience", { aud: "another app" }, "token_invalid"],
  ["several audiences, and meant for another", { aud: [AUDIENCE, "another"], azp: "another" }, "token_invalid"],
  ["several audiences, and meant for nobody in particular", { aud: [AUDIENCE, "another"] }, "token_invalid"],
  ["no subject", { sub: undefined }, "token_invalid"],
  ["an empty subject", { sub: "" }, "token_invalid"],
  ["a subject that is too long", { sub: "x".repeat(256) }, "token_invalid"],
  ["no end", { exp: undefined }, "token_invalid"],
  ["an end that is past", { exp: 1_600_000_000 }, "token_expired"],
  ["a beginning in the future", { nbf: 4_000_000_000 }, "token_invalid"],
  ["no time of issue", { iat: undefined }, "token_invalid"],
  ["a time of issue in the future", { iat: 4_000_000_000 }, "token_invalid"],
  ["the nonce of somebody else", { nonce: "another" }, "token_invalid"],
])("an ID token with %s is refused", async ([, claims, code]) => {
  const provider = new OpenIdProvider();
  const edge = edgeThatTrusts(provider);
  expect(await refused(openForeignSession(edge, await provider.idToken(claims), {}, "ours"))).toBe(code);
});

test("an ID token for several that was meant for us, and repeats the nonce, is accepted", async () => {
  const provider = new OpenIdProvider();
  const token = await provider.idToken({ aud: [AUDIENCE, "another"], azp: AUDIENCE, nonce: "ours" });
  expect((await openForeignSession(edgeThatTrusts(provider), token, {}, "ours")).grant.sub).toBeTruthy();
});

test.for<[string, Partial<JWTHeaderParameters>]>([
  ["an access token", { typ: "at+jwt" }],
  ["a logout token", { typ: "logout+jwt" }],
  ["a token of an unknown key", { kid: "another" }],
])("%s of the issuer is refused", async ([, header]) => {
  const provider = new OpenIdProvider();
  expect(await refused(exchange(edgeThatTrusts(provider), await provider.idToken({}, header)))).toBe("token_invalid");
});

test("a token of an issuer that is not trusted is refused, and nothing is fetched for it", async () => {
  const [trusted, thief] = [new OpenIdProvider(), new OpenIdProvider()];
  const edge = edgeThatTrusts(trusted);
  expect(await refused(exchange(edge, await thief.idToken()))).toBe("token_invalid");
  expect(await refused(exchange(edge, await thief.idToken({ iss: trusted.issuer })))).toBe("token_invalid");
  expect(await thief.fetches()).toBe(0);
});

test("a token is judged by the algorithms of its issuer alone", async () => {
  const provider = new OpenIdProvider();
  const token = await provider.idToken();
  expect(await refused(exchange(edgeThatTrusts(provider, { algorithms: ["RS256"] }), token))).toBe("token_invalid");
  const [, payload] = token.split(".");
  for (const alg of ["none", "HS256"]) {
    const forged = `${base64url.encode(JSON.stringify({ alg }))}.${payload}.`;
    expect(await refused(exchange(edgeThatTrusts(provider), forged))).toBe("token_invalid");
  }
});

test.for([
  ["", "token_missing"],
  ["a.b.c", "token_invalid"],
  ["x".repeat(9000), "token_invalid"],
] as const)("garbage is refused: %#", async ([garbage, code]) => {
  expect(await refused(exchange(edgeThatTrusts(new OpenIdProvider()), garbage))).toBe(code);
});

test("a token that has a name is good for one session, even for two that come at once", async () => {
  const provider = new OpenIdProvider();
  const edge = edgeThatTrusts(provider);
  const token = await provider.idToken({ jti: "once" });
  const attempts = await Promise.allSettled([exchange(edge, token), exchange(edge, token)]);
  expect(attempts.map(({ status }) => status).sort()).toEqual(["fulfilled", "rejected"]);
  await evictDurableObject(env.LINK.getByName(linkName({ issuer: provider.issuer, subject: "ada" })));
  expect(await refused(exchange(edge, token))).toBe("token_invalid");
  expect((await exchange(edge, await provider.idToken({ jti: "twice" }))).grant.sub).toBeTruthy();
});

test("a token of which no session came can be used again", async () => {
  const provider = new OpenIdProvider();
  const edge = edgeThatTrusts(provider, { scope: "chat:read" });
  const token = await provider.idToken({ jti: "once" });
  expect(await refused(exchange(edge, token, "chat:write"))).toBe("scope_invalid");
  expect((await exchange(edge, token, "chat:read")).grant.scope).toBe("chat:read");
});

test("an issuer of one tenant opens no account of another", async () => {
  const provider = new OpenIdProvider();
  const link = { issuer: provider.issuer, subject: "ada" };
  await ok(await post("/admin/accounts", { link, tid: "other" }, ADMIN));
  const edge = edgeThatTrusts(provider, { tenant: "acme" });
  expect(await refused(exchange(edge, await provider.idToken()))).toBe("not_found");
});

test("a new key of the issuer is found, and an unknown one is not looked for again and again", async () => {
  const provider = new OpenIdProvider();
  const edge = edgeThatTrusts(provider);
  await exchange(edge, await provider.idToken());
  for (let i = 0; i < 5; i++) await exchange(edge, await provider.idToken());
  expect(await provider.fetches()).toBe(1);
  for (let i = 0; i < 5; i++) await refused(exchange(edge, await provider.idToken({}, { kid: "unknown" })));
  expect(await provider.fetches()).toBeLessThanOrEqual(2);
  const fresh = edgeThatTrusts(provider);
  await provider.rotate();
  expect((await exchange(fresh, await provider.idToken())).grant.sub).toBeTruthy();
});

test("an issuer that is down is believed on the keys that are known", async () => {
  const provider = new OpenIdProvider();
  const edge = edgeThatTrusts(provider);
  await exchange(edge, await provider.idToken());
  await provider.behave({ manner: "down" });
  expect((await exchange(edge, await provider.idToken())).grant.sub).toBeTruthy();
});

test.for(["down", "another", "elsewhere", "endless"] as const)(
  "nobody is let in when the keys cannot be had: %s",
  async (manner) => {
    const provider = new OpenIdProvider();
    const token = await provider.idToken();
    await provider.behave({ manner });
    expect(await refused(exchange(edgeThatTrusts(provider), token))).toBe("unavailable");
  },
);

test("the keys can be where the configuration says", async () => {
  const provider = new OpenIdProvider();
  const token = await provider.idToken();
  await provider.behave({ manner: "another" });
  const edge = edgeThatTrusts(provider, { jwks_uri: `${provider.issuer}/jwks` });
  expect((await exchange(edge, token)).grant.sub).toBeTruthy();
});

test("deleting an account lets go of its identity: who comes back is somebody new", async () => {
  const provider = new OpenIdProvider();
  const edge = edgeThatTrusts(provider);
  const { grant } = await exchange(edge, await provider.idToken());
  await ok(await call("DELETE", `/admin/accounts/${grant.sub}`, undefined, ADMIN));
  const again = await exchange(edge, await provider.idToken());
  expect(again.grant.sub).not.toBe(grant.sub);
});

test("somebody who is disabled is told so, and an account without a password has none to change", async () => {
  const provider = new OpenIdProvider();
  const edge = edgeThatTrusts(provider);
  const { grant } = await exchange(edge, await provider.idToken());
  const asked = await account(grant.sub).login(grant.sid, 0);
  expect(asked).toMatchObject({ refused: { code: "not_found" } });
  await ok(await call("PATCH", `/admin/accounts/${grant.sub}`, { disabled: true }, ADMIN));
  expect(await refused(exchange(edge, await provider.idToken()))).toBe("account_disabled");
});

test("an account has one opener, and says what is wrong with two", async () => {
  const both = { login: newLogin(), password: PASSWORD, link: { issuer: "https://idp.test", subject: "ada" } };
  expect(await refusal(await post("/admin/accounts", both, ADMIN))).toBe("request_malformed");
});

test("over HTTP: an ID token for tokens, which refresh, revoke and say who they are of like any others", async () => {
  const provider = new OpenIdProvider("welcome");
  const subject = crypto.randomUUID();
  const form = new URLSearchParams({
    grant_type: "urn:ietf:params:oauth:grant-type:token-exchange",
    subject_token: await provider.idToken({ sub: subject }),
    subject_token_type: "urn:ietf:params:oauth:token-type:id_token",
    scope: "chat:read",
  });
  const tokens = await ok<Tokens>(await callWithForm("/oauth/token", form));
  expect(tokens).toMatchObject({
    issued_token_type: "urn:ietf:params:oauth:token-type:access_token",
    token_type: "Bearer",
    scope: "chat:read",
  });
  expect(claims(tokens)).toMatchObject({ amr: ["fed"], sub: tokens.sub, sid: tokens.sid });
  expect((await refresh(tokens.refresh_token)).status).toBe(200);
  form.set("subject_token", await provider.idToken({ sub: subject, exp: 1_600_000_000 }));
  const late = await callWithForm("/oauth/token", form);
  expect([late.status, await late.json()]).toMatchObject([400, { error: "invalid_request" }]);
});

function callWithForm(path: string, form: URLSearchParams): Promise<Response> {
  return exports.default.fetch(new Request(ISSUER + path, { method: "POST", body: form }));
}

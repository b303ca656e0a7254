/** OAuth as other people's libraries speak it, unmodified, and its errors word for word. */
import { exports } from "cloudflare:workers";
import { decodeJwt, exportJWK, generateKeyPair, SignJWT } from "jose";
import * as oauth from "oauth4webapi";
import * as openid from "openid-client";
import { expect, test } from "vitest";
import { asClient, basic, clientToken, newClient, oauthError, postForm } from "./clients.ts";
import {
  ADMIN,
  bearer,
  call,
  claims,
  ISSUER,
  login,
  newMember,
  newPerson,
  ok,
  post,
  refresh,
  refusal,
  revoke,
} from "./edge.ts";

const PUBLIC: oauth.Client = { client_id: "keycard" };
const toEdge = (input: string | URL | Request, init?: RequestInit) => exports.default.fetch(new Request(input, init));
const HTTP = { [oauth.customFetch]: (url: string, init: object) => toEdge(url, init as RequestInit) };
const JWT_BEARER = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

async function discovered(): Promise<oauth.AuthorizationServer> {
  const issuer = new URL(ISSUER);
  const response = await oauth.discoveryRequest(issuer, { algorithm: "oauth2", ...HTTP });
  return await oauth.processDiscoveryResponse(issuer, response);
}

async function keyClient(scopes: readonly string[] = ["sessions:read"]) {
  const { publicKey, privateKey } = await generateKeyPair("ES256", { extractable: true });
  const jwk = { ...(await exportJWK(publicKey)), kid: "one", alg: "ES256" };
  const { client_id } = await newClient(scopes, { jwks: { keys: [jwk] } });
  return { client_id, key: { key: privateKey, kid: "one" } };
}

test("RFC 8414: the metadata names every endpoint, and each of them is there", async () => {
  const as = await discovered();
  expect(as).toMatchObject({
    issuer: ISSUER,
    token_endpoint: `${ISSUER}/oauth/token`,
    response_types_supported: [],
    token_endpoint_auth_methods_supported: ["none", "client_secret_basic", "client_secret_post", "private_key_jwt"],
  });
  for (const [name, url] of Object.entries(as)) {
    if (!name.endsWith("_endpoint") && name !== "jwks_uri") continue;
    expect((await call("OPTIONS", new URL(`${url}`).pathname)).status, name).toBe(405);
  }
  expect(await ok(await call("GET", "/.well-known/openid-configuration"))).toEqual(as);
});

test("RFC 6749 section 6: oauth4webapi refreshes as a public client", async () => {
  const as = await discovered();
  const tokens = await login(await newPerson({ scope: "read write" }));
  const response = await oauth.refreshTokenGrantRequest(as, PUBLIC, oauth.None(), tokens.refresh_token, HTTP);
  expect(response.headers.get("cache-control")).toBe("no-store");
  const refreshed = await oauth.processRefreshTokenResponse(as, PUBLIC, response);
  expect(refreshed).toMatchObject({ token_type: "bearer", expires_in: 300, scope: "read write" });
  expect(decodeJwt(refreshed.access_token).sid).toBe(tokens.sid);
  expect((await refresh(refreshed.refresh_token ?? "")).status).toBe(200);
});

test("RFC 6749 section 6: a refresh may ask for less, and the session keeps what it has", async () => {
  const tokens = await login(await newPerson({ scope: "read write" }));
  const form = { grant_type: "refresh_token", refresh_token: tokens.refresh_token, scope: "read more" };
  const less = await ok<{ scope: string; refresh_token: string; access_token: string }>(
    await postForm("/oauth/token", form),
  );
  expect([less.scope, decodeJwt(less.access_token).scope]).toEqual(["read", "read"]);
  const again = await postForm("/oauth/token", { grant_type: "refresh_token", refresh_token: less.refresh_token });
  expect((await ok<{ scope: string }>(again)).scope).toBe("read write");
});

test("RFC 6749 section 4.4: oauth4webapi gets a token with client_secret_basic and client_secret_post", async () => {
  const as = await discovered();
  const { client_id, client_secret } = await newClient(["revocations:write", "sessions:read"]);
  for (const proof of [oauth.ClientSecretBasic(client_secret), oauth.ClientSecretPost(client_secret)]) {
    const parameters = new URLSearchParams({ scope: "sessions:read" });
    const response = await oauth.clientCredentialsGrantRequest(as, { client_id }, proof, parameters, HTTP);
    const granted = await oauth.processClientCredentialsResponse(as, { client_id }, response);
    expect(granted).toMatchObject({ token_type: "bearer", scope: "sessions:read" });
    expect(granted.refresh_token).toBeUndefined();
  }
});

test("RFC 7523: oauth4webapi gets a token with private_key_jwt", async () => {
  const as = await discovered();
  const { client_id, key } = await keyClient();
  const proof = oauth.PrivateKeyJwt(key);
  const response = await oauth.clientCredentialsGrantRequest(as, { client_id }, proof, {}, HTTP);
  const { access_token } = await oauth.processClientCredentialsResponse(as, { client_id }, response);
  const token = decodeJwt(access_token);
  expect(token).toMatchObject({ iss: ISSUER, aud: ISSUER, sub: client_id, client_id, scope: "sessions:read" });
  expect(token.sid).toBeUndefined();
});

test("openid-client discovers, refreshes, introspects and revokes", async () => {
  const { client_id, client_secret } = await newClient(["sessions:read", "revocations:write"]);
  const options = { algorithm: "oauth2" as const, [openid.customFetch]: toEdge as openid.CustomFetch };
  const app = await openid.discovery(new URL(ISSUER), "keycard", undefined, openid.None(), options);
  const basicAuth = openid.ClientSecretBasic(client_secret);
  const tool = await openid.discovery(new URL(ISSUER), client_id, undefined, basicAuth, options);
  const tokens = await openid.refreshTokenGrant(app, (await login(await newPerson())).refresh_token);
  expect((await openid.clientCredentialsGrant(tool)).scope).toBe("sessions:read revocations:write");
  expect((await openid.tokenIntrospection(tool, tokens.access_token)).active).toBe(true);
  await openid.tokenRevocation(app, tokens.access_token);
  expect(await openid.tokenIntrospection(tool, tokens.access_token)).toEqual({ active: false });
  expect((await openid.tokenIntrospection(tool, tokens.refresh_token ?? "")).active).toBe(true);
  await openid.tokenRevocation(app, tokens.refresh_token ?? "");
  expect(await openid.tokenIntrospection(tool, tokens.refresh_token ?? "")).toEqual({ active: false });
  await expect(openid.refreshTokenGrant(app, tokens.refresh_token ?? "")).rejects.toMatchObject({
    error: "invalid_grant",
  });
});

test.for<[string, Record<string, string>, number, string]>([
  ["no grant type", {}, 400, "invalid_request"],
  ["a grant that nobody knows", { grant_type: "password" }, 400, "unsupported_grant_type"],
  ["a grant named like a method of objects", { grant_type: "toString" }, 400, "unsupported_grant_type"],
  ["no refresh token", { grant_type: "refresh_token" }, 400, "invalid_request"],
  ["an empty refresh token", { grant_type: "refresh_token", refresh_token: "" }, 400, "invalid_request"],
  ["a refresh token of nobody", { grant_type: "refresh_token", refresh_token: "x" }, 400, "invalid_grant"],
  ["a client of nobody", { grant_type: "refresh_token", client_id: "x" }, 401, "invalid_client"],
  ["client credentials without a client", { grant_type: "client_credentials" }, 401, "invalid_client"],
  [
    "a secret for the public client",
    { grant_type: "refresh_token", client_id: "keycard", client_secret: "x" },
    401,
    "invalid_client",
  ],
  [
    "an unknown kind of assertion",
    {
      grant_type: "client_credentials",
      client_id: `c_${"A".repeat(22)}`,
      client_assertion_type: "x",
      client_assertion: "x",
    },
    401,
    "invalid_client",
  ],
  [
    "two proofs",
    { grant_type: "client_credentials", client_secret: "x", client_assertion: "x" },
    400,
    "invalid_request",
  ],
])("RFC 6749 section 5.2: a token request with %s", async ([, form, status, error]) => {
  expect(await oauthError(await postForm("/oauth/token", form))).toEqual([status, error]);
});

test("RFC 6749 section 3.2: a parameter that is given twice is an invalid request", async () => {
  const body = new URLSearchParams([
    ["grant_type", "client_credentials"],
    ["grant_type", "refresh_token"],
  ]);
  const headers = { "content-type": "application/x-www-form-urlencoded" };
  expect(await oauthError(await call("POST", "/oauth/token", body, headers))).toEqual([400, "invalid_request"]);
});

test("RFC 6749 section 3.2: the body is a form and nothing else", async () => {
  expect(await oauthError(await post("/oauth/token", { grant_type: "refresh_token" }))).toEqual([
    400,
    "invalid_request",
  ]);
  const large = { grant_type: "refresh_token", refresh_token: "x".repeat(20_000) };
  expect(await oauthError(await postForm("/oauth/token", large))).toEqual([413, "invalid_request"]);
});

test("RFC 6749 section 5.2: a wrong secret is challenged in the scheme that the client used", async () => {
  const client = await newClient(["sessions:read"]);
  const wrong = { ...client, client_secret: "kcs_wrong" };
  const response = await postForm("/oauth/token", { grant_type: "client_credentials" }, basic(wrong));
  expect(response.headers.get("www-authenticate")).toContain("Basic");
  expect(await oauthError(response)).toEqual([401, "invalid_client"]);
  for (const header of ["Basic", "Basic !", `Basic ${btoa("nothing")}`, `Basic ${btoa("%zz:x")}`, "Digest x"]) {
    const bad = await postForm("/oauth/token", { grant_type: "client_credentials" }, { authorization: header });
    expect(await oauthError(bad)).toEqual([401, "invalid_client"]);
  }
});

test("RFC 6749 section 5.2: a scope that the client does not have is an invalid scope", async () => {
  const form = { grant_type: "client_credentials", scope: "sessions:read keys:write" };
  const response = await postForm("/oauth/token", form, basic(await newClient(["sessions:read"])));
  expect(await oauthError(response)).toEqual([400, "invalid_scope"]);
});

test("RFC 6749 section 5.2: an admin client cannot trade a person's refresh token", async () => {
  const { refresh_token } = await login(await newPerson());
  const form = { grant_type: "refresh_token", refresh_token };
  const response = await postForm("/oauth/token", form, basic(await newClient(["sessions:read"])));
  expect(await oauthError(response)).toEqual([400, "unauthorized_client"]);
  expect((await refresh(refresh_token)).status).toBe(200);
});

test("RFC 6749 section 5.2: a reused refresh token is an invalid grant, and so is that of a session that is over", async () => {
  const tokens = await login(await newPerson());
  await revoke({ kind: "session", sid: tokens.sid });
  const form = { grant_type: "refresh_token", refresh_token: tokens.refresh_token };
  expect(await oauthError(await postForm("/oauth/token", form))).toEqual([400, "invalid_grant"]);
});

test("RFC 7523 section 3: an assertion is used once, ends soon, and is signed for this server by this client", async () => {
  const { client_id, key } = await keyClient();
  const other = await generateKeyPair("ES256");
  const now = Math.floor(Date.now() / 1000);
  const good = { iss: client_id, sub: client_id, aud: ISSUER, exp: now + 60, jti: crypto.randomUUID() };
  const asked = async (claims: object, signer: CryptoKey = key.key, alg = "ES256") => {
    const client_assertion = await new SignJWT({ ...claims }).setProtectedHeader({ alg, kid: "one" }).sign(signer);
    const proof = { client_assertion_type: JWT_BEARER, client_assertion };
    return await postForm("/oauth/token", { grant_type: "client_credentials", client_id, ...proof });
  };
  const refused = [
    { ...good, aud: "https://elsewhere.test" },
    { ...good, exp: now + 3600 },
    { ...good, exp: now - 60 },
    { ...good, exp: undefined },
    { ...good, jti: undefined },
    { ...good, sub: "somebody" },
    { ...good, iss: "somebody" },
  ];
  for (const claims of refused) expect(await oauthError(await asked(claims))).toEqual([401, "invalid_client"]);
  expect(await oauthError(await asked(good, other.privateKey))).toEqual([401, "invalid_client"]);
  expect((await asked(good)).status).toBe(200);
  expect(await oauthError(await asked(good))).toEqual([401, "invalid_client"]);
  expect((await asked({ ...good, aud: `${ISSUER}/oauth/token`, jti: crypto.randomUUID() })).status).toBe(200);
});

test("of two uses of one assertion at once one is refused", async () => {
  const { client_id, key } = await keyClient();
  const exp = Math.floor(Date.now() / 1000) + 60;
  const claims = { iss: client_id, sub: client_id, aud: ISSUER, exp, jti: crypto.randomUUID() };
  const client_assertion = await new SignJWT(claims).setProtectedHeader({ alg: "ES256" }).sign(key.key);
  const form = { grant_type: "client_credentials", client_assertion_type: JWT_BEARER, client_assertion };
  const answers = await Promise.all(Array.from({ length: 5 }, () => postForm("/oauth/token", form)));
  expect(answers.map(({ status }) => status).sort()).toEqual([200, 401, 401, 401, 401]);
});

test("RFC 7009: a person's access token is revoked by whoever holds it, and the session lives on", async () => {
  const tokens = await login(await newPerson());
  expect((await postForm("/oauth/revoke", { token: tokens.access_token, client_id: "keycard" })).status).toBe(200);
  expect(await refusal(await call("GET", "/sessions", undefined, bearer(tokens.access_token)))).toBe("token_revoked");
  expect((await refresh(tokens.refresh_token)).status).toBe(200);
});

test("RFC 7009 section 2.1: with the refresh token goes its session", async () => {
  const tokens = await login(await newPerson());
  const form = { token: tokens.refresh_token, token_type_hint: "access_token" };
  expect((await postForm("/oauth/revoke", form)).status).toBe(200);
  expect(await refusal(await refresh(tokens.refresh_token))).toBe("session_revoked");
});

test("RFC 7009 section 2.2: a token that is none is revoked already", async () => {
  for (const token of ["x", "a.b.c", "kcr.x", `kcr.nobody.${"A".repeat(22)}.0.${"A".repeat(43)}.${"A".repeat(22)}`]) {
    const response = await postForm("/oauth/revoke", { token });
    expect([response.status, await response.text()]).toEqual([200, ""]);
  }
  expect(await oauthError(await postForm("/oauth/revoke", {}))).toEqual([400, "invalid_request"]);
});

test("RFC 7009 section 2.1: a client's token is revoked by that client and no other", async () => {
  const [owner, other] = [await newClient(["sessions:read"]), await newClient(["revocations:write"])];
  const token = await clientToken(owner);
  expect(await oauthError(await postForm("/oauth/revoke", { token }, basic(other)))).toEqual([
    400,
    "unauthorized_client",
  ]);
  expect((await postForm("/oauth/introspect", { token: "x" }, bearer(token))).status).toBe(200);
  expect((await postForm("/oauth/revoke", { token }, basic(owner))).status).toBe(200);
  const after = await postForm("/oauth/introspect", { token: "x" }, bearer(token));
  expect(await oauthError(after)).toEqual([401, "invalid_token"]);
});

test("RFC 7009 section 2.1: an admin client without revocations:write revokes nobody's token", async () => {
  const { access_token, refresh_token } = await login(await newPerson());
  const client = basic(await newClient(["sessions:read"]));
  for (const token of [access_token, refresh_token]) {
    expect(await oauthError(await postForm("/oauth/revoke", { token }, client))).toEqual([400, "unauthorized_client"]);
  }
  expect((await refresh(refresh_token)).status).toBe(200);
});

const REASONS = ["token", "session", "user", "tenant", "disabled"] as const;
test.for(REASONS)("RFC 7662: a token is not active once it is revoked, by %s", async (kind) => {
  const tid = crypto.randomUUID();
  const person = await newMember({ tid });
  const tokens = await login(person);
  const inspect = async (token: string) => await ok(await postForm("/oauth/introspect", { token }, ADMIN));
  expect(await inspect(tokens.access_token)).toMatchObject({ active: true, username: person.login, ...claims(tokens) });
  expect(await inspect(tokens.refresh_token)).toMatchObject({ active: true, sub: person.sub, sid: tokens.sid, tid });
  if (kind === "disabled") await call("PATCH", `/admin/accounts/${person.sub}`, { disabled: true }, ADMIN);
  else {
    const targets = {
      token: { jti: claims(tokens).jti },
      session: { sid: tokens.sid },
      user: { sub: person.sub },
      tenant: { tid },
    };
    await revoke({ kind, ...targets[kind] });
  }
  expect(await inspect(tokens.access_token)).toEqual({ active: false });
});

test("RFC 7662 section 2.2: of anything else nothing is told", async () => {
  const { refresh_token } = await login(await newPerson());
  await refresh(refresh_token);
  const spoilt = `${refresh_token.slice(0, -1)}${refresh_token.endsWith("A") ? "B" : "A"}`;
  for (const token of ["x", "a.b.c", "kcr.x", spoilt]) {
    expect(await ok(await postForm("/oauth/introspect", { token }, ADMIN))).toEqual({ active: false });
  }
});

test("RFC 7662 section 2.1: only those may ask who prove themselves and have sessions:read", async () => {
  const form = { token: "x" };
  expect(await oauthError(await postForm("/oauth/introspect", form))).toEqual([401, "invalid_client"]);
  expect(await oauthError(await postForm("/oauth/introspect", form, bearer("a.b.c")))).toEqual([401, "invalid_token"]);
  const weak = await newClient(["audit:read"]);
  expect(await oauthError(await postForm("/oauth/introspect", form, basic(weak)))).toEqual([403, "insufficient_scope"]);
  const granted = await asClient(["sessions:read"]);
  expect((await postForm("/oauth/introspect", form, granted)).status).toBe(200);
});

test("RFC 7662 section 4: a client that is bound to a tenant learns nothing of another one's tokens", async () => {
  const tid = crypto.randomUUID();
  const [inside, outside] = [await login(await newPerson({ tid })), await login(await newPerson())];
  const client = basic(await newClient(["sessions:read"], { tid }));
  for (const [tokens, active] of [
    [inside, true],
    [outside, false],
  ] as const) {
    for (const token of [tokens.access_token, tokens.refresh_token]) {
      expect(await ok(await postForm("/oauth/introspect", { token }, client))).toMatchObject({ active });
    }
  }
});

/** Administrators, people and machines alike: what each may do, in which tenant; and what is different with people. */
import { createLocalJWKSet, type JSONWebKeySet } from "jose";
import { beforeAll, expect, test } from "vitest";
import { verifyAccessToken } from "#contract/access-token";
import { ADMIN_CALLS, administrate, asPerson, EVERY_SCOPE, KINDS } from "./administrators.ts";
import { asClient, basic, newClient, oauthError, postForm } from "./clients.ts";
import {
  ADMIN,
  bearer,
  call,
  claims,
  type Headers,
  ISSUER,
  login,
  type Member,
  newLogin,
  newMember,
  ok,
  PASSWORD,
  post,
  refresh,
  refreshed,
  refusal,
  revoke,
  type Tokens,
} from "./edge.ts";
import { OpenIdProvider } from "./issuer.ts";

const EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange";
const ID_TOKEN = "urn:ietf:params:oauth:token-type:id_token";

const EACH = KINDS.flatMap(([kind, as]) => ADMIN_CALLS.map((made) => [kind, ...made, as] as const));

test.for(EACH)("%s: %s %s takes the scope %s and no other", async ([, method, path, scope, as]) => {
  const others = await as(EVERY_SCOPE.filter((other) => other !== scope));
  expect(await refusal(await call(method, path, undefined, others))).toBe("scope_insufficient");
  const allowed = await call(method, path, undefined, await as([scope]));
  expect([401, 403]).not.toContain(allowed.status);
});

test.for(KINDS)("who is bound to a tenant reaches that tenant and nothing else: %s", async ([, as]) => {
  const tid = crypto.randomUUID();
  const [inside, outside] = [await newMember({ tid }), await newMember()];
  const elsewhere = await login(outside);
  const headers = await as(EVERY_SCOPE, { tid });
  const mine = await ok(await call("GET", `/admin/accounts/${inside.sub}`, undefined, headers));
  expect(mine).toMatchObject({ sub: inside.sub, tid });
  const other = `/admin/accounts/${outside.sub}`;
  const targets = [
    { kind: "user", sub: outside.sub },
    { kind: "user", login: outside.login },
    { kind: "session", sid: elsewhere.sid },
    { kind: "token", token: elsewhere.access_token },
    { kind: "tenant", tid: "another" },
  ];
  const asked = (target: object, more: object = {}) =>
    post("/admin/revocations", { target, reason: "x", ...more }, headers);
  const hidden = [
    await call("GET", other, undefined, headers),
    await call("GET", `${other}/sockets`, undefined, headers),
    await call("GET", `/admin/accounts?login=${encodeURIComponent(outside.login)}`, undefined, headers),
    await call("PATCH", other, { disabled: true }, headers),
    await call("DELETE", other, undefined, headers),
    await post("/admin/sessions", { sub: outside.sub }, headers),
    await post("/admin/sessions", { sub: crypto.randomUUID(), create: { tid: "another" } }, headers),
    await post("/admin/accounts", { login: newLogin(), password: PASSWORD, tid: "another" }, headers),
    await post("/global-token-revocation", { sub_id: { format: "email", email: outside.login } }, headers),
    await call("GET", `/admin/revocations/${(await revoke({ kind: "token", jti: "x" })).id}`, undefined, headers),
    await call("GET", `/admin/clients/${(await newClient(["audit:read"])).client_id}`, undefined, headers),
  ];
  for (const target of targets) hidden.push(await asked(target), await asked(target, { dry_run: true }));
  for (const response of hidden) expect(await refusal(response)).toBe("not_found");
  const everywhere = [
    await call("GET", "/admin/keys", undefined, headers),
    await call("GET", "/admin/status", undefined, headers),
    await call("GET", "/admin/latency", undefined, headers),
    await call("GET", "/metrics", undefined, headers),
    await post("/admin/keys/rotate", { reason: "x" }, headers),
    await call("GET", "/admin/audit/verify", undefined, headers),
    await post("/admin/clients", { name: "x", scopes: ["audit:read"], tid: "another" }, headers),
    await asked({ kind: "everyone" }),
    await asked({ kind: "token", jti: "x" }),
    await asked({ kind: "key", kid: "x" }),
  ];
  for (const response of everywhere) expect(await refusal(response)).toBe("scope_insufficient");
  const { records } = await ok<{ records: { tid?: string }[] }>(
    await call("GET", "/admin/audit?limit=500&tid=another", undefined, headers),
  );
  expect(new Set(records.map((record) => record.tid))).toEqual(new Set([tid]));
  const inBulk = await ok<{ id: string }>(
    await post("/admin/revocations/bulk", { users: [outside.sub], reason: "x" }, headers),
  );
  expect(await ok(await call("GET", `/admin/revocations/${inBulk.id}`, undefined, headers))).toMatchObject({
    revoked: 0,
  });
  expect((await refresh(elsewhere.refresh_token)).status).toBe(200);
});

test.for(KINDS)("who is bound to a tenant revokes there, and sees its receipts: %s", async ([kind, as]) => {
  const tid = crypto.randomUUID();
  const person = await newMember({ tid });
  const headers = await as(["revocations:write", "revocations:read"], { tid });
  const tokens = await login(person);
  for (const target of [
    { kind: "token", token: tokens.access_token },
    { kind: "session", sid: tokens.sid },
    { kind: "user", sub: person.sub },
    // The last one: with the tenant goes the person who looks after it.
    { kind: "tenant", tid },
  ]) {
    const { id } = await ok<{ id: string }>(await post("/admin/revocations", { target, reason: "x" }, headers));
    const shown = await call("GET", `/admin/revocations/${id}`, undefined, headers);
    if (kind === "account" && target.kind === "tenant") expect(await refusal(shown)).toBe("session_revoked");
    else expect(await ok(shown)).toMatchObject({ id, actor: { kind, id: expect.any(String) } });
  }
});

test.for(KINDS)("nobody makes an administrator who could do more: %s", async ([, as]) => {
  const headers = await as(["accounts:write", "sessions:write", "accounts:read"]);
  const { sub } = await newMember({ scope: "chat" });
  const beyond = "chat keys:write";
  const refused = [
    await post("/admin/accounts", { login: newLogin(), password: PASSWORD, scope: beyond }, headers),
    await call("PATCH", `/admin/accounts/${sub}`, { scope: beyond }, headers),
    await post("/admin/sessions", { sub: crypto.randomUUID(), create: { scope: beyond } }, headers),
  ];
  for (const response of refused) expect(await refusal(response)).toBe("scope_insufficient");
  const within = await call("PATCH", `/admin/accounts/${sub}`, { scope: "chat accounts:read" }, headers);
  expect(await ok(within)).toMatchObject({ scope: "chat accounts:read" });
});

test("GET /admin/me says whose credential it is, and what it may do", async () => {
  const me = async (headers: Headers) => await ok(await call("GET", "/admin/me", undefined, headers));
  expect(await me(ADMIN)).toEqual({ kind: "root", id: "root", scopes: EVERY_SCOPE });
  const { client_id, ...client } = await newClient(["audit:read"], { tid: "acme" });
  const form = { grant_type: "client_credentials", resource: ISSUER };
  const given = await ok<Tokens>(await postForm("/oauth/token", form, basic({ client_id, ...client })));
  const machine = { kind: "client", id: client_id, name: "a tool", scopes: ["audit:read"], tid: "acme" };
  expect(await me(bearer(given.access_token))).toEqual(machine);
  const person = await newMember({ scope: "chat audit:read", tid: "acme" });
  const { access_token, sid } = await administrate(person);
  const { login, sub: id } = person;
  expect(await me(bearer(access_token))).toEqual({
    ...{ kind: "account", id, login, sid, scopes: ["audit:read"], tid: "acme" },
  });
  expect(await refusal(await call("GET", "/admin/me"))).toBe("token_missing");
});

let ada: Member;
let hers: Tokens;
beforeAll(async () => {
  ada = await newMember({ scope: "chat:write revocations:read audit:read" });
  hers = await administrate(ada);
});

const me = (tokens: Pick<Tokens, "access_token">) =>
  call("GET", "/admin/revocations?limit=1", undefined, bearer(tokens.access_token));

test("a token for administration is for the issuer, with the admin scopes of the session and no others", async () => {
  expect(hers.scope).toBe("revocations:read audit:read");
  expect(claims(hers)).toMatchObject({ aud: ISSUER, sub: ada.sub, sid: hers.sid, scope: hers.scope, gen: 0 });
  expect((await me(hers)).status).toBe(200);
  const narrow = await administrate(ada, { scope: "chat:write audit:read" });
  expect(narrow.scope).toBe("audit:read");
  expect(await refusal(await me(narrow))).toBe("scope_insufficient");
});

test("it opens no door and no route for people, and a token for the doors is no admin credential", async () => {
  const keys = createLocalJWKSet(await ok<JSONWebKeySet>(await call("GET", "/.well-known/jwks.json")));
  const rules = { issuer: ISSUER, audience: "keycard", algorithms: ["RS256"] as const, clockSkewSeconds: 5 };
  await expect(verifyAccessToken(hers.access_token, keys, rules)).rejects.toMatchObject({ code: "token_invalid" });
  for (const [method, path] of [
    ["GET", "/sessions"],
    ["POST", "/ticket"],
    ["POST", "/logout"],
  ] as const) {
    expect(await refusal(await call(method, path, undefined, bearer(hers.access_token)))).toBe("token_invalid");
  }
  expect(await refusal(await me(await login(ada)))).toBe("token_invalid");
});

test("each refresh says what its token is for, and the session goes on either way", async () => {
  const first = await administrate(ada);
  const ordinary = await refreshed(first.refresh_token);
  expect(claims(ordinary)).toMatchObject({
    aud: "keycard",
    sid: first.sid,
    scope: "chat:write revocations:read audit:read",
  });
  const again = await post("/refresh", { refresh_token: ordinary.refresh_token, resource: ISSUER });
  const tokens = await ok<Tokens>(again);
  expect(claims(tokens)).toMatchObject({ aud: ISSUER, sid: first.sid });
  const form = { grant_type: "refresh_token", refresh_token: tokens.refresh_token, resource: ISSUER };
  const third = await ok<Tokens>(await postForm("/oauth/token", { ...form, scope: "audit:read chat:write" }));
  expect(third.scope).toBe("audit:read");
});

test("a resource that is not the issuer is refused, before anything is judged or traded", async () => {
  const { refresh_token } = await login(ada);
  for (const resource of ["https://elsewhere.test", `${ISSUER}/`, ISSUER.toUpperCase(), "keycard", ""]) {
    const wrong = { login: ada.login, password: "a wrong one", resource };
    expect(await refusal(await post("/login", wrong))).toBe("resource_invalid");
    expect(await refusal(await post("/refresh", { refresh_token, resource }))).toBe("resource_invalid");
  }
  const form = { grant_type: "refresh_token", refresh_token, resource: "https://elsewhere.test" };
  expect(await oauthError(await postForm("/oauth/token", form))).toEqual([400, "invalid_target"]);
  expect(claims(await refreshed(refresh_token)).aud).toBe("keycard");
});

test("an account without an admin scope gets no such token: no session is opened, and nothing is traded", async () => {
  const person = await newMember({ scope: "chat accounts:reader revocations" });
  const { refresh_token, sid } = await login(person);
  const wanted = { login: person.login, password: PASSWORD, resource: ISSUER };
  expect(await refusal(await post("/login", wanted))).toBe("scope_insufficient");
  expect(await refusal(await post("/refresh", { refresh_token, resource: ISSUER }))).toBe("scope_insufficient");
  const form = { grant_type: "refresh_token", refresh_token, resource: ISSUER };
  expect(await oauthError(await postForm("/oauth/token", form))).toEqual([403, "insufficient_scope"]);
  const shown = await call("GET", `/admin/accounts/${person.sub}`, undefined, ADMIN);
  expect((await ok<{ sessions: object[] }>(shown)).sessions).toMatchObject([{ sid }]);
  expect((await refresh(refresh_token)).status).toBe(200);
});

test("a session that a backend opened administrates nothing", async () => {
  const opened = await ok<Tokens>(await post("/admin/sessions", { sub: ada.sub }, ADMIN));
  const asked = await post("/refresh", { refresh_token: opened.refresh_token, resource: ISSUER });
  expect(await refusal(asked)).toBe("scope_insufficient");
  expect(await refusal(await me(await refreshed(opened.refresh_token)))).toBe("token_invalid");
});

test("a person whom a trusted issuer vouches for administrates like any other", async () => {
  const provider = new OpenIdProvider("members");
  const subject = crypto.randomUUID();
  const link = { issuer: provider.issuer, subject };
  await ok(await post("/admin/accounts", { link, scope: "revocations:read" }, ADMIN));
  const form = {
    ...{ grant_type: EXCHANGE, subject_token: await provider.idToken({ sub: subject }), subject_token_type: ID_TOKEN },
    resource: ISSUER,
  };
  const tokens = await ok<Tokens>(await postForm("/oauth/token", form));
  expect(claims(tokens)).toMatchObject({ aud: ISSUER, scope: "revocations:read" });
  expect((await me(tokens)).status).toBe(200);
});

const ENDINGS: Record<string, (person: Member, tokens: Tokens) => Promise<unknown>> = {
  "logs out": (_, { refresh_token }) => post("/logout", { refresh_token }),
  "is disabled": ({ sub }) => call("PATCH", `/admin/accounts/${sub}`, { disabled: true }, ADMIN),
  "is deleted": ({ sub }) => call("DELETE", `/admin/accounts/${sub}`, undefined, ADMIN),
  "is revoked": ({ sub }) => revoke({ kind: "user", sub }),
  "is revoked with the session": (_, { sid }) => revoke({ kind: "session", sid }),
  "is revoked with the token": (_, { access_token: token }) => revoke({ kind: "token", token }),
  "gives the token back": (_, { access_token: token }) => postForm("/oauth/revoke", { token }),
  "is revoked with the tenant": () => revoke({ kind: "tenant", tid: "doomed" }),
  "is found to be robbed": async (_, { refresh_token }) => {
    const second = await refreshed(refresh_token);
    await refreshed(second.refresh_token);
    await refresh(refresh_token);
  },
};

test.for(Object.keys(ENDINGS))("whoever %s is refused at the very next admin call", async (how) => {
  const person = await newMember({ scope: "revocations:read", tid: "doomed" });
  const tokens = await administrate(person);
  expect((await me(tokens)).status).toBe(200);
  await ENDINGS[how]?.(person, tokens);
  const code = how.includes("token") ? "token_revoked" : "session_revoked";
  expect(await refusal(await me(tokens))).toBe(code);
  expect((await me(hers)).status).toBe(200);
});

test("a scope that the account loses is lost to the token that was given before", async () => {
  const person = await newMember({ scope: "revocations:read audit:read" });
  const tokens = await administrate(person);
  await ok(await call("PATCH", `/admin/accounts/${person.sub}`, { scope: "audit:read" }, ADMIN));
  expect(await refusal(await me(tokens))).toBe("scope_insufficient");
  expect((await call("GET", "/admin/audit?limit=1", undefined, bearer(tokens.access_token))).status).toBe(200);
});

test("what an account gains, only the next token has", async () => {
  const person = await newMember({ scope: "audit:read" });
  const tokens = await administrate(person);
  await ok(await call("PATCH", `/admin/accounts/${person.sub}`, { scope: "audit:read revocations:read" }, ADMIN));
  expect(await refusal(await me(tokens))).toBe("scope_insufficient");
  const next = await post("/refresh", { refresh_token: tokens.refresh_token, resource: ISSUER });
  expect((await me(await ok<Tokens>(next))).status).toBe(200);
});

test("a person makes no event stream: it would outlive them", async () => {
  const body = { delivery: { method: "urn:ietf:rfc:8936" } };
  expect(await refusal(await post("/ssf/streams", body, await asPerson(["revocations:read"])))).toBe(
    "scope_insufficient",
  );
  expect((await post("/ssf/streams", body, await asClient(["revocations:read"]))).status).toBe(201);
});

test("somebody whose subject is root is not root", async () => {
  const sub = "root";
  const person = await newMember({ sub, scope: "revocations:write revocations:read" });
  const headers = bearer((await administrate(person)).access_token);
  const { stream_id } = await ok<{ stream_id: string }>(
    await post("/ssf/streams", { delivery: { method: "urn:ietf:rfc:8936" } }, ADMIN),
  );
  expect(await ok(await call("GET", "/ssf/streams", undefined, headers))).toEqual([]);
  expect(await refusal(await call("DELETE", `/ssf/streams?stream_id=${stream_id}`, undefined, headers))).toBe(
    "not_found",
  );
  const body = { target: { kind: "token", jti: "x" }, reason: "x" };
  const key = { "idempotency-key": "the-same" };
  const first = await ok<{ id: string }>(await post("/admin/revocations", body, { ...ADMIN, ...key }));
  const second = await post("/admin/revocations", body, { ...headers, ...key });
  expect(second.headers.get("idempotency-replayed")).toBeNull();
  const { id, ...receipt } = await ok<{ id: string; actor: object }>(second);
  expect(id).not.toBe(first.id);
  expect(receipt.actor).toEqual({ kind: "account", id: "root" });
});

test("what a person decides is in the audit trail under their name, and so is that they came to administrate", async () => {
  const person = await newMember({ scope: "accounts:write accounts:read" });
  const headers = bearer((await administrate(person)).access_token);
  const other = await newMember();
  await ok(await call("PATCH", `/admin/accounts/${other.sub}`, { disabled: true, reason: "why" }, headers));
  const trail = async (sub: string) =>
    (await ok<{ records: object[] }>(await call("GET", `/admin/audit?sub=${sub}`, undefined, ADMIN))).records;
  expect(await trail(other.sub)).toContainEqual(
    expect.objectContaining({ type: "account_disabled", actor: { kind: "account", id: person.sub }, reason: "why" }),
  );
  expect(await trail(person.sub)).toContainEqual(
    expect.objectContaining({ type: "sign_in", reason: "password, for administration" }),
  );
});

test("introspection knows a token for administration, until it is over", async () => {
  const person = await newMember({ scope: "audit:read" });
  const { access_token: token, refresh_token } = await administrate(person);
  const headers = await asClient(["sessions:read"]);
  const introspect = async () => await ok(await postForm("/oauth/introspect", { token }, headers));
  expect(await introspect()).toMatchObject({ active: true, aud: ISSUER, sub: person.sub, scope: "audit:read" });
  await post("/logout", { refresh_token });
  expect(await introspect()).toEqual({ active: false });
});

test("a person with sessions:read introspects as a client does", async () => {
  const { access_token: token } = await login(ada);
  const asked = (headers: Headers) => postForm("/oauth/introspect", { token }, headers);
  expect(await ok(await asked(await asPerson(["sessions:read"])))).toMatchObject({ active: true, sub: ada.sub });
  expect(await oauthError(await asked(await asPerson(["audit:read"])))).toEqual([403, "insufficient_scope"]);
});

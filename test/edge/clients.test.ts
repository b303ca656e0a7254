/** Admin clients: what they may do and what not, in which tenant, and for how long. */
import { createLocalJWKSet, exportJWK, generateKeyPair, type JSONWebKeySet } from "jose";
import { expect, test } from "vitest";
import { verifyAccessToken } from "#contract/access-token";
import { type AdminClient, asClient, basic, clientToken, newClient, oauthError, postForm } from "./clients.ts";
import { ADMIN, bearer, call, ISSUER, login, newPerson, ok, post, refusal } from "./edge.ts";

const GRANT = { grant_type: "client_credentials" };

test("the secret is told once, and only its hash is kept", async () => {
  const client = await newClient(["sessions:read"]);
  expect(client.client_secret).toMatch(/^kcs_[A-Za-z0-9_-]{43}$/);
  const shown = await ok(await call("GET", `/admin/clients/${client.client_id}`, undefined, ADMIN));
  expect(shown).toEqual({
    client_id: client.client_id,
    name: "a tool",
    scopes: ["sessions:read"],
    authentication: "client_secret",
    disabled: false,
    created_at: expect.any(Number),
  });
});

test("a client with keys gets no secret, and no private key is taken", async () => {
  const { publicKey, privateKey } = await generateKeyPair("RS256", { extractable: true });
  const body = { name: "a tool", scopes: ["sessions:read"], jwks: { keys: [await exportJWK(publicKey)] } };
  const client = await ok<AdminClient>(await post("/admin/clients", body, ADMIN));
  expect(client).toMatchObject({ authentication: "private_key_jwt" });
  expect(client.client_secret).toBeUndefined();
  const wrong = { ...body, jwks: { keys: [await exportJWK(privateKey)] } };
  const refused = await post("/admin/clients", wrong, ADMIN);
  const text = await refused.clone().text();
  expect(await refusal(refused)).toBe("request_malformed");
  expect(text).not.toContain((await exportJWK(privateKey)).d ?? "?");
});

test("a client's token opens no door: realtime nodes refuse it, and so do the routes for people", async () => {
  const token = await clientToken(await newClient(["sessions:read"]));
  const keys = createLocalJWKSet(await ok<JSONWebKeySet>(await call("GET", "/.well-known/jwks.json")));
  const rules = { issuer: ISSUER, audience: "keycard", algorithms: ["RS256"] as const, clockSkewSeconds: 5 };
  await expect(verifyAccessToken(token, keys, rules)).rejects.toMatchObject({ code: "token_invalid" });
  // Even a node that is told a wrong audience refuses it: it has no session.
  const misled = { ...rules, audience: ISSUER };
  await expect(verifyAccessToken(token, keys, misled)).rejects.toMatchObject({ code: "token_invalid" });
  expect(await refusal(await call("GET", "/sessions", undefined, bearer(token)))).toBe("token_invalid");
});

test("a person's token is no admin credential", async () => {
  const { access_token } = await login(await newPerson({ scope: "accounts:read" }));
  expect(await refusal(await call("GET", "/admin/accounts/x", undefined, bearer(access_token)))).toBe("token_invalid");
});

test("a client that is disabled or deleted is out at once, with the tokens that it has", async () => {
  const client = await newClient(["accounts:read"]);
  const headers = bearer(await clientToken(client));
  const asked = () => call("GET", "/admin/accounts/x", undefined, headers);
  const path = `/admin/clients/${client.client_id}`;
  expect(await refusal(await asked())).toBe("not_found");
  await ok(await call("PATCH", path, { disabled: true }, ADMIN));
  expect(await refusal(await asked())).toBe("token_invalid");
  expect(await oauthError(await postForm("/oauth/token", GRANT, basic(client)))).toEqual([401, "invalid_client"]);
  await ok(await call("PATCH", path, { disabled: false }, ADMIN));
  expect(await refusal(await asked())).toBe("not_found");
  expect((await call("DELETE", path, undefined, ADMIN)).status).toBe(204);
  expect(await refusal(await asked())).toBe("token_invalid");
  expect(await oauthError(await postForm("/oauth/token", GRANT, basic(client)))).toEqual([401, "invalid_client"]);
  expect(await refusal(await call("GET", path, undefined, ADMIN))).toBe("not_found");
});

test("nobody gives what they do not have: scopes, or another tenant", async () => {
  const maker = await asClient(["clients:write", "sessions:read"], { tid: "acme" });
  const made = (body: object) => post("/admin/clients", { name: "a tool", scopes: ["sessions:read"], ...body }, maker);
  expect(await refusal(await made({ scopes: ["keys:write"] }))).toBe("scope_insufficient");
  expect(await refusal(await made({ tid: "other" }))).toBe("scope_insufficient");
  const { client_id } = await ok<AdminClient>(await made({}));
  const shown = await ok(await call("GET", `/admin/clients/${client_id}`, undefined, maker));
  expect(shown).toMatchObject({ tid: "acme" });
  const other = await newClient(["sessions:read"]);
  expect(await refusal(await call("GET", `/admin/clients/${other.client_id}`, undefined, maker))).toBe("not_found");
  expect(await refusal(await call("DELETE", `/admin/clients/${other.client_id}`, undefined, maker))).toBe("not_found");
});

/** Global Token Revocation, draft-parecki-oauth-global-token-revocation-06, as Okta and Auth0 send it. */
import { exportJWK, generateKeyPair, SignJWT } from "jose";
import { expect, test } from "vitest";
import { asClient, newClient } from "./clients.ts";
import { ADMIN, bearer, type Headers, ISSUER, login, newMember, post, refresh, refusal } from "./edge.ts";

const PATH = "/global-token-revocation";

async function allowed(more: Record<string, unknown> = {}): Promise<Headers> {
  return await asClient(["revocations:write"], more);
}

test.for(["sub_id", "subject"])(
  "a user is named by %s in every format, and every session and token dies",
  async (member) => {
    const person = await newMember();
    for (const identifier of [
      { format: "email", email: person.login.toUpperCase() },
      { format: "iss_sub", iss: ISSUER, sub: person.sub },
      { format: "opaque", id: person.sub },
    ]) {
      const sessions = [await login(person), await login(person)];
      const response = await post(PATH, { [member]: identifier }, await allowed());
      expect([response.status, await response.text()]).toEqual([204, ""]);
      for (const { refresh_token } of sessions)
        expect(await refusal(await refresh(refresh_token))).toBe("session_revoked");
    }
  },
);

test("Okta's bearer is the client's own signed assertion, and it is good once", async () => {
  const { publicKey, privateKey } = await generateKeyPair("RS256", { extractable: true });
  const jwk = { ...(await exportJWK(publicKey)), kid: "okta" };
  const { client_id } = await newClient(["revocations:write"], { jwks: { keys: [jwk] } });
  const person = await newMember();
  const now = Math.floor(Date.now() / 1000);
  const claims = { iss: client_id, sub: client_id, aud: ISSUER + PATH, iat: now, exp: now + 300, jti: "one" };
  const assertion = await new SignJWT(claims).setProtectedHeader({ alg: "RS256", kid: "okta" }).sign(privateKey);
  const body = { sub_id: { format: "email", email: person.login } };
  expect((await post(PATH, body, bearer(assertion))).status).toBe(204);
  expect((await post(PATH, body, bearer(assertion))).status).toBe(401);
});

test.for<[string, unknown, number]>([
  ["nothing", {}, 400],
  ["a format that is not supported", { sub_id: { format: "phone_number", phone_number: "+1" } }, 400],
  ["a format without its members", { sub_id: { format: "email" } }, 400],
  ["two subjects", { sub_id: { format: "opaque", id: "a" }, subject: { format: "opaque", id: "b" } }, 400],
  ["an email of nobody", { sub_id: { format: "email", email: "nobody@example.test" } }, 404],
  ["a subject of nobody", { sub_id: { format: "opaque", id: "nobody" } }, 404],
  ["what cannot be a subject", { sub_id: { format: "opaque", id: "a b" } }, 404],
  ["a subject of ours that is nobody", { sub_id: { format: "iss_sub", iss: ISSUER, sub: "nobody" } }, 404],
  ["an issuer that nobody is linked with", { sub_id: { format: "iss_sub", iss: "https://x.test", sub: "a" } }, 422],
])("%s is refused", async ([, body, status]) => {
  const response = await post(PATH, body, ADMIN);
  expect(response.status).toBe(status);
  expect(await refusal(response)).toBeTruthy();
});

test("without a credential it is 401, and without the scope 403", async () => {
  const body = { sub_id: { format: "opaque", id: "nobody" } };
  expect((await post(PATH, body)).status).toBe(401);
  expect((await post(PATH, body, bearer("wrong"))).status).toBe(401);
  expect((await post(PATH, body, await asClient(["sessions:read"]))).status).toBe(403);
});

test("a user of another tenant does not exist for a client that is bound to one", async () => {
  const person = await newMember({ tid: "theirs" });
  const tokens = await login(person);
  const body = { sub_id: { format: "email", email: person.login } };
  expect(await refusal(await post(PATH, body, await allowed({ tid: "ours" })))).toBe("not_found");
  expect((await refresh(tokens.refresh_token)).status).toBe(200);
  expect((await post(PATH, body, await allowed({ tid: "theirs" }))).status).toBe(204);
});

import { createLocalJWKSet } from "jose";
import { expect, test } from "vitest";
import { verifyAccessToken, verifyTicket } from "#contract/access-token";
import { bearer, call, claims, login, newPerson, post, refusal } from "./edge.ts";

const rules = {
  issuer: "https://keycard.test",
  audience: "keycard",
  algorithms: ["RS256", "ES256", "EdDSA"],
  clockSkewSeconds: 5,
} as const;

test("a ticket speaks for the access token that asked for it, and is none itself", async () => {
  const tokens = await login(await newPerson({ tid: "acme" }));
  const answer = await post("/ticket", undefined, bearer(tokens.access_token));
  const { ticket, expires_in } = (await answer.json()) as { ticket: string; expires_in: number };
  const keys = createLocalJWKSet(await (await call("GET", "/.well-known/jwks.json")).json());
  const { sub, sid, jti, exp, tid } = claims(tokens);
  const redeemed = await verifyTicket(ticket, keys, rules);
  expect(redeemed.claims).toMatchObject({ sub, sid, jti, exp, tid });
  expect(redeemed.ticket).not.toBe(jti);
  expect(expires_in).toBe(30);
  await expect(verifyAccessToken(ticket, keys, rules)).rejects.toMatchObject({ code: "token_invalid" });
});

test("a session that is over gets none", async () => {
  const tokens = await login(await newPerson());
  await post("/logout", { refresh_token: tokens.refresh_token });
  expect(await refusal(await post("/ticket", undefined, bearer(tokens.access_token)))).toBe("session_revoked");
  expect(await refusal(await post("/ticket", undefined))).toBe("token_missing");
});

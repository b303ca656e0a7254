/** Administrators as the tests make them, whichever kind they are of, and every call that one can make. */
import { ADMIN_SCOPES } from "../../edge/clients/admin-scope.ts";
import { asClient, postForm } from "./clients.ts";
import { bearer, type Headers, ISSUER, type Member, newMember, ok, PASSWORD, post, type Tokens } from "./edge.ts";

/** Every admin call, with the scope that it takes. */
export const ADMIN_CALLS = [
  ["POST", "/admin/accounts", "accounts:write"],
  ["GET", "/admin/accounts/x", "accounts:read"],
  ["GET", "/admin/accounts?login=x", "accounts:read"],
  ["GET", "/admin/accounts?query=x", "accounts:read"],
  ["PATCH", "/admin/accounts/x", "accounts:write"],
  ["DELETE", "/admin/accounts/x", "accounts:write"],
  ["GET", "/admin/accounts/x/sockets", "sessions:read"],
  ["GET", "/admin/status", "revocations:read"],
  ["GET", "/admin/latency", "revocations:read"],
  ["POST", "/admin/sessions", "sessions:write"],
  ["POST", "/admin/revocations", "revocations:write"],
  ["POST", "/admin/revocations/bulk", "revocations:write"],
  ["GET", "/admin/revocations", "revocations:read"],
  ["GET", "/admin/revocations/x", "revocations:read"],
  ["GET", "/admin/audit", "audit:read"],
  ["GET", "/admin/audit/verify", "audit:read"],
  ["GET", "/admin/keys", "keys:write"],
  ["POST", "/admin/keys/rotate", "keys:write"],
  ["POST", "/admin/clients", "clients:write"],
  ["GET", "/admin/clients/x", "clients:write"],
  ["PATCH", "/admin/clients/x", "clients:write"],
  ["DELETE", "/admin/clients/x", "clients:write"],
  ["GET", "/ssf/streams", "revocations:read"],
  ["POST", "/global-token-revocation", "revocations:write"],
] as const;

export const EVERY_SCOPE: readonly string[] = ADMIN_SCOPES;

/** Signs a person in to administrate. */
export async function administrate(person: Pick<Member, "login">, more: object = {}): Promise<Tokens> {
  return await ok(await post("/login", { login: person.login, password: PASSWORD, resource: ISSUER, ...more }));
}

/** Signed in once with everything: a part of it costs no password. By tenant. */
const signedIn = new Map<string | undefined, { person: Member; refreshToken: string }>();

/** The headers of a person who may do this. */
export async function asPerson(scopes: readonly string[], more: { tid?: string } = {}): Promise<Headers> {
  let known = signedIn.get(more.tid);
  if (known === undefined) {
    const person = await newMember({ ...more, scope: EVERY_SCOPE.join(" ") });
    known = { person, refreshToken: (await administrate(person)).refresh_token };
    signedIn.set(more.tid, known);
  }
  const form = { grant_type: "refresh_token", refresh_token: known.refreshToken, resource: ISSUER };
  const tokens = await ok<Tokens>(await postForm("/oauth/token", { ...form, scope: scopes.join(" ") }));
  known.refreshToken = tokens.refresh_token;
  return bearer(tokens.access_token);
}

/** Both kinds of administrator, by what makes one. */
export const KINDS = [
  ["client", asClient],
  ["account", asPerson],
] as const;

/**
 * Who may use the admin calls: the holder of ADMIN_TOKEN, who may do everything, and admin clients with an access token, who may do
 * what their scopes say, and only in their tenant where they are bound to one.
 */
import { Refusal } from "#contract/refusal";
import type { Act } from "../audit/audit.ts";
import { ADMIN_SCOPES, type AdminScope, type ClientSummary } from "../clients/client.ts";
import { readClientToken } from "../clients/client-token.ts";
import { originOf } from "../origin.ts";
import { ask } from "../outcome.ts";
import { sameSecret } from "../subkeys.ts";
import { bearer, type Exchange } from "./request.ts";

/** Who acts. */
export interface Principal {
  /** The `client_id`, or `root` for the holder of ADMIN_TOKEN. For the audit trail. */
  readonly id: string;
  readonly scopes: readonly AdminScope[];
  /** Absent: every tenant. */
  readonly tid?: string;
}

export const ROOT: Principal = { id: "root", scopes: ADMIN_SCOPES };

/**
 * Lets an administrator in who may do this.
 *
 * @throws {Refusal} `unavailable` where nobody is one, `token_missing`, `token_invalid`, `token_expired`, `token_revoked`,
 *   `scope_insufficient`
 */
export async function demandAdministrator(c: Exchange, scope: AdminScope): Promise<Principal> {
  const principal = await principalOf(c);
  if (!principal.scopes.includes(scope)) {
    throw new Refusal("scope_insufficient", { detail: `${principal.id} does not have ${scope}` });
  }
  return principal;
}

async function principalOf(c: Exchange): Promise<Principal> {
  const { adminToken } = c.var.config;
  const token = bearer(c);
  if (adminToken !== undefined && token !== undefined && sameSecret(token, adminToken)) return ROOT;
  // A client's token is a JWT, and nothing else has two dots.
  if (token?.split(".").length === 3) return await clientPrincipal(c, token);
  if (adminToken === undefined) throw new Refusal("unavailable", { detail: "ADMIN_TOKEN is not set" });
  if (token === undefined) throw new Refusal("token_missing", { detail: "no admin credential" });
  throw new Refusal("token_invalid", { detail: "the admin credential is wrong" });
}

async function clientPrincipal(c: Exchange, token: string): Promise<Principal> {
  const claims = await readClientToken(c.env, token);
  const client = await ask(c.env.CLIENT.getByName(claims.client_id).standing(claims.jti));
  return principalFor(client, claims.scope.split(" "));
}

/** A client with those of `granted` that it still has. */
export function principalFor(client: ClientSummary, granted: readonly string[] = client.scopes): Principal {
  const scopes = client.scopes.filter((scope) => granted.includes(scope));
  return { id: client.client_id, scopes, ...(client.tid === null ? {} : { tid: client.tid }) };
}

/**
 * Lets a principal reach what is of a tenant. What is of another one does not exist for it.
 *
 * @param tid null for what is of no tenant
 * @throws {Refusal} `not_found`
 */
export function demandTenant(principal: Principal, tid: string | null): void {
  if (principal.tid !== undefined && principal.tid !== tid) {
    throw new Refusal("not_found", { detail: `not in the tenant of ${principal.id}` });
  }
}

/**
 * Lets a principal do what concerns every tenant.
 *
 * @throws {Refusal} `scope_insufficient`
 */
export function demandAllTenants(principal: Principal): void {
  if (principal.tid !== undefined) {
    throw new Refusal("scope_insufficient", { detail: `${principal.id} is bound to a tenant` });
  }
}

/** That an administrator did something, for the audit trail. */
export function actOfAdministrator(c: Exchange, { id }: Principal): Act {
  const kind = id === ROOT.id ? "admin" : "client";
  return { actor: { kind, id }, from: originOf(c.req.raw), request: c.var.requestId };
}

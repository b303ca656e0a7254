/** Admin clients: made, shown, disabled and deleted by administrators with `clients:write`. Nobody gives what they do not have. */
import type { JSONWebKeySet } from "jose";
import { z } from "zod";
import { Refusal } from "#contract/refusal";
import { audit } from "../audit/audit.ts";
import { ADMIN_SCOPES } from "../clients/admin-scope.ts";
import { ASSERTION_ALGORITHMS, type ClientSummary } from "../clients/client.ts";
import { isClientId, newClientId } from "../identifiers.ts";
import { ask } from "../outcome.ts";
import {
  actOfAdministrator,
  demandAdministrator,
  demandGivable,
  demandTenant,
  type Principal,
} from "./administrator.ts";
import { name } from "./names.ts";
import { type Exchange, pathPart, readBody } from "./request.ts";

/** Public members only (RFC 7518 section 6): a private key that is sent by mistake must not be stored. */
const publicKey = z.strictObject({
  kty: z.enum(["RSA", "EC", "OKP"]),
  kid: z.string().min(1).max(128).optional(),
  alg: z.enum(ASSERTION_ALGORITHMS).optional(),
  use: z.literal("sig").optional(),
  key_ops: z.array(z.literal("verify")).max(1).optional(),
  crv: z.enum(["P-256", "Ed25519"]).optional(),
  // 2048 to 4096 bits.
  n: z.string().min(342).max(683).optional(),
  e: z.string().max(8).optional(),
  x: z.string().length(43).optional(),
  y: z.string().length(43).optional(),
});

export const newClientBody = z.strictObject({
  name: z.string().trim().min(1).max(128),
  scopes: z.array(z.enum(ADMIN_SCOPES)).min(1).max(ADMIN_SCOPES.length),
  tid: name.optional(),
  jwks: z.strictObject({ keys: z.array(publicKey).min(1).max(8) }).optional(),
});
export const changedClientBody = z.strictObject({ disabled: z.boolean() });

export async function createClient(c: Exchange): Promise<Response> {
  const principal = await demandAdministrator(c, "clients:write");
  const { name, scopes, tid = principal.tid, jwks } = await readBody(c, newClientBody);
  demandWithin(principal, scopes, tid);
  const client_id = newClientId();
  const keys = jwks as JSONWebKeySet | undefined;
  const client = { client_id, name, scopes: [...new Set(scopes)], tid: tid ?? null, jwks: keys };
  const secret = await ask(c.env.CLIENT.getByName(client_id).create(client));
  record(c, principal, "client_created", client_id, scopes.join(" "));
  const shown = await ask(c.env.CLIENT.getByName(client_id).summary());
  const location = { location: `/admin/clients/${client_id}` };
  return c.json({ ...clientAnswer(shown), ...(secret !== null && { client_secret: secret }) }, 201, location);
}

export async function showClient(c: Exchange): Promise<Response> {
  const principal = await demandAdministrator(c, "clients:write");
  return c.json(clientAnswer(await reachableClient(c, principal)));
}

export async function changeClient(c: Exchange): Promise<Response> {
  const principal = await demandAdministrator(c, "clients:write");
  const { client_id } = await reachableClient(c, principal);
  const { disabled } = await readBody(c, changedClientBody);
  const changed = await ask(c.env.CLIENT.getByName(client_id).setDisabled(disabled));
  record(c, principal, "client_changed", client_id, disabled ? "disabled" : "enabled");
  return c.json(clientAnswer(changed));
}

export async function deleteClient(c: Exchange): Promise<Response> {
  const principal = await demandAdministrator(c, "clients:write");
  const { client_id } = await reachableClient(c, principal);
  await ask(c.env.CLIENT.getByName(client_id).remove());
  record(c, principal, "client_deleted", client_id);
  return c.body(null, 204);
}

/** @throws {Refusal} `not_found`, for a client of another tenant as well */
async function reachableClient(c: Exchange, principal: Principal): Promise<ClientSummary> {
  const client_id = pathPart(c, "client_id");
  if (!isClientId(client_id)) throw new Refusal("not_found", { detail: "not in the form of a client" });
  const client = await ask(c.env.CLIENT.getByName(client_id).summary());
  demandTenant(principal, client.tid);
  return client;
}

/** @throws {Refusal} `scope_insufficient` for a client that could do more than the one who makes it */
function demandWithin(principal: Principal, scopes: readonly string[], tid: string | undefined): void {
  demandGivable(principal, scopes.join(" "));
  if (principal.tid !== undefined && tid !== principal.tid) {
    throw new Refusal("scope_insufficient", { detail: `${principal.id} cannot give what it does not have` });
  }
}

function record(
  c: Exchange,
  principal: Principal,
  type: "client_created" | "client_changed" | "client_deleted",
  client: string,
  reason?: string,
): void {
  audit(c.env, { type, ...actOfAdministrator(c, principal), client, tid: principal.tid, reason });
}

function clientAnswer({ tid, ...client }: ClientSummary) {
  return { ...client, ...(tid !== null && { tid }) };
}

/**
 * Who may use the admin calls: the holder of ADMIN_TOKEN, who may do everything; admin clients, and people who asked for a token
 * for administration (RFC 8707), who may do what their scopes say, and only in their tenant where they are bound to one. Whoever it is that
 * vouches for them is asked at every call, so that who is out is out at once.
 */
import { decodeJwt } from "jose";
import { Refusal } from "#contract/refusal";
import type { Act } from "../audit/audit.ts";
import { ADMIN_SCOPES, type AdminScope, adminScopesIn } from "../clients/admin-scope.ts";
import type { ClientSummary } from "../clients/client.ts";
import { readClientToken } from "../clients/client-token.ts";
import { originOf } from "../origin.ts";
import { ask } from "../outcome.ts";
import { sameSecret } from "../subkeys.ts";
import { judgedBearer } from "./bearer.ts";
import { bearer, type Exchange } from "./request.ts";

/** Who acts. */
export interface Principal {
  /** A `sub` can be anything: only with this is `id` a name that nobody else has. */
  readonly kind: "root" | "client" | "account";
  /** `root`, a `client_id` or a `sub`. For the audit trail. */
  readonly id: string;
  readonly scopes: readonly AdminScope[];
  /** Absent: every tenant. */
  readonly tid?: string;
  /** Of a client. */
  readonly name?: string;
  /** Of an account, where it has one. */
  readonly login?: string;
  /** Of an account: the session that the token is of. */
  readonly sid?: string;
}

const ROOT: Principal = { kind: "root", id: "root", scopes: ADMIN_SCOPES };

/**
 * Lets an administrator in who may do this.
 *
 * @throws {Refusal} as `demandAnyAdministrator`, and `scope_insufficient`
 */
export async function demandAdministrator(c: Exchange, scope: AdminScope): Promise<Principal> {
  const principal = await demandAnyAdministrator(c);
  if (!principal.scopes.includes(scope)) {
    throw new Refusal("scope_insufficient", { detail: `${principal.id} does not have ${scope}` });
  }
  return principal;
}

/**
 * Lets an administrator in, whatever they may do.
 *
 * @throws {Refusal} `unavailable` where nobody is one, `token_missing`, `token_invalid`, `token_expired`, `token_revoked`, `session_revoked`
 */
export async function demandAnyAdministrator(c: Exchange): Promise<Principal> {
  const { adminToken } = c.var.config;
  const token = bearer(c);
  if (adminToken !== undefined && token !== undefined && sameSecret(token, adminToken)) return ROOT;
  // The others' tokens are JWTs, and nothing else has two dots.
  if (token?.split(".").length === 3) {
    return isOfSession(token) ? await accountPrincipal(c) : await clientPrincipal(c, token);
  }
  if (adminToken === undefined) throw new Refusal("unavailable", { detail: "ADMIN_TOKEN is not set" });
  if (token === undefined) throw new Refusal("token_missing", { detail: "no admin credential" });
  throw new Refusal("token_invalid", { detail: "the admin credential is wrong" });
}

/** Which of the two kinds a token claims to be: that decides only how it is judged. */
function isOfSession(token: string): boolean {
  try {
    return "sid" in decodeJwt(token);
  } catch {
    return false; // refused a moment later
  }
}

async function clientPrincipal(c: Exchange, token: string): Promise<Principal> {
  const claims = await readClientToken(c.env, token);
  const client = await ask(c.env.CLIENT.getByName(claims.client_id).standing(claims.jti));
  return principalFor(client, claims.scope.split(" "));
}

/** A client with those of `granted` that it still has. */
export function principalFor(client: ClientSummary, granted: readonly string[] = client.scopes): Principal {
  const scopes = client.scopes.filter((scope) => granted.includes(scope));
  const { client_id: id, name, tid } = client;
  return { kind: "client", id, scopes, ...(tid === null ? {} : { tid }), name };
}

/** A person, with those of the token's scopes that the session still has. */
async function accountPrincipal(c: Exchange): Promise<Principal> {
  const { claims } = await judgedBearer(c, c.var.config.issuer);
  const { sub: id, sid } = claims;
  const session = await ask(c.env.ACCOUNT.getByName(id).inspect({ access: { sid } }));
  if (session === null)
    throw new Refusal("session_revoked", { detail: "the session is over, or the account disabled" });
  const { tid, login } = session;
  const held = adminScopesIn(session.scope);
  return {
    ...{ kind: "account", id, scopes: adminScopesIn(claims.scope).filter((scope) => held.includes(scope)) },
    ...(tid === null ? {} : { tid }),
    ...(login === null ? {} : { login }),
    sid,
  };
}

/** A name that no other principal has. */
export function nameOf({ kind, id }: Principal): string {
  // Neither a client's id nor `root` has a blank in it.
  return kind === "account" ? `account ${id}` : id;
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

/**
 * Lets a principal give these scopes to somebody: nobody makes an administrator who could do more.
 *
 * @param scope separated by spaces; what is no admin scope is anybody's to give
 * @throws {Refusal} `scope_insufficient`
 */
export function demandGivable(principal: Principal, scope: string | null | undefined): void {
  if (adminScopesIn(scope).some((each) => !principal.scopes.includes(each))) {
    throw new Refusal("scope_insufficient", { detail: `${principal.id} cannot give what it does not have` });
  }
}

const ACTOR_KINDS = { root: "admin", client: "client", account: "account" } as const;

/** That an administrator did something, for the audit trail. */
export function actOfAdministrator(c: Exchange, { kind, id }: Principal): Act {
  return { actor: { kind: ACTOR_KINDS[kind], id }, from: originOf(c.req.raw), request: c.var.requestId };
}

/** `GET /admin/me` */
export async function showMyself(c: Exchange): Promise<Response> {
  return c.json(await demandAnyAdministrator(c));
}

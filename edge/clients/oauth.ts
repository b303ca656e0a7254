/**
 * What OAuth asks of every endpoint of an authorisation server: who the client is (RFC 6749 section 2.3, RFC 7523), and
 * which of our refusals is which of its errors (RFC 6749 section 5.2).
 */
import { z } from "zod";
import { Refusal, type RefusalCode } from "#contract/refusal";
import type { Config } from "../config.ts";
import { isClientId } from "../identifiers.ts";
import { ask } from "../outcome.ts";
import type { ClientProof, ClientSummary } from "./client.ts";

/** RFC 7523 section 2.2. */
export const JWT_BEARER_ASSERTION = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
/** RFC 8693 section 2.1. */
export const TOKEN_EXCHANGE_GRANT = "urn:ietf:params:oauth:grant-type:token-exchange";

/** The parameters with which a client names and proves itself in a form. */
export const clientParameters = {
  client_id: z.string().max(256).optional(),
  client_secret: z.string().max(256).optional(),
  client_assertion_type: z.string().max(128).optional(),
  client_assertion: z.string().max(8192).optional(),
};
export type ClientParameters = z.output<z.ZodObject<typeof clientParameters>>;

/** Who calls: the app in front of the people, which has no secret, or an admin client that proved itself. */
export type Caller =
  | { readonly kind: "public"; readonly client_id: string }
  | { readonly kind: "admin"; readonly client: ClientSummary };

/** The endpoints that a client assertion may be meant for besides the issuer. */
const OAUTH_ENDPOINTS = ["/oauth/token", "/oauth/revoke", "/oauth/introspect", "/global-token-revocation"] as const;

/**
 * Finds out who calls.
 *
 * @param authorization the header, which only `client_secret_basic` uses
 * @throws {Refusal} `client_invalid`; `request_malformed` for more than one proof (RFC 6749 section 2.3)
 */
export async function authenticateClient(
  env: Env,
  config: Config,
  authorization: string | undefined,
  form: ClientParameters,
): Promise<Caller> {
  const basic = authorization === undefined ? undefined : basicCredentials(authorization);
  const proofs = [basic, form.client_secret, form.client_assertion].filter((proof) => proof !== undefined);
  if (proofs.length > 1) throw new Refusal("request_malformed", { detail: "more than one client authentication" });
  if (proofs.length === 0) return publicClient(config, form.client_id);
  const id = basic?.id ?? form.client_id ?? issuerOf(form.client_assertion ?? "");
  if (id === undefined || !isClientId(id) || (form.client_id !== undefined && form.client_id !== id)) {
    throw new Refusal("client_invalid", { detail: "not in the form of a client, or two of them" });
  }
  const client = await ask(env.CLIENT.getByName(id).authenticate(proofOf(config, basic?.secret, form)));
  return { kind: "admin", client };
}

function publicClient({ clientId }: Config, named: string | undefined): Caller {
  if (named !== undefined && named !== clientId) {
    throw new Refusal("client_invalid", { detail: "a client without a proof that is not the public one" });
  }
  return { kind: "public", client_id: clientId };
}

function proofOf(config: Config, basicSecret: string | undefined, form: ClientParameters): ClientProof {
  const secret = basicSecret ?? form.client_secret;
  if (secret !== undefined) return { secret };
  if (form.client_assertion_type !== JWT_BEARER_ASSERTION) {
    throw new Refusal("client_invalid", { detail: "the kind of client assertion is unknown" });
  }
  return { assertion: form.client_assertion ?? "", audiences: assertionAudiences(config) };
}

/** RFC 7523 section 3: whom an assertion may be meant for. */
export function assertionAudiences({ issuer }: Config): string[] {
  return [issuer, ...OAUTH_ENDPOINTS.map((path) => issuer + path)];
}

/** Which client an assertion claims to be of. Only to find the keys that it is then judged with. */
export function issuerOf(assertion: string): string | undefined {
  const claims = z.object({ iss: z.string() }).safeParse(claimsOf(assertion));
  return claims.success ? claims.data.iss : undefined;
}

function claimsOf(jwt: string): unknown {
  try {
    return JSON.parse(atob((jwt.split(".")[1] ?? "").replaceAll("-", "+").replaceAll("_", "/")));
  } catch {
    // Not a JWT: then it is of nobody.
    return undefined;
  }
}

/** RFC 6749 section 2.3.1: name and secret are form-encoded before they are joined. */
function basicCredentials(authorization: string): { readonly id: string; readonly secret: string } {
  const refused = new Refusal("client_invalid", { detail: "the Authorization header is not Basic credentials" });
  const encoded = /^Basic +([A-Za-z0-9+/]{1,1024}={0,2}) *$/i.exec(authorization)?.[1];
  if (encoded === undefined) throw refused;
  try {
    const [, id, secret] = /^([^:]*):(.*)$/s.exec(atob(encoded)) ?? [];
    if (id === undefined || secret === undefined) throw refused;
    return { id: formDecoded(id), secret: formDecoded(secret) };
  } catch (cause) {
    throw new Refusal("client_invalid", { cause, detail: "the Authorization header cannot be decoded" });
  }
}

function formDecoded(text: string): string {
  return decodeURIComponent(text.replaceAll("+", " "));
}

interface OAuthError {
  readonly status: 400 | 401 | 403 | 405 | 413 | 429 | 500 | 503;
  readonly error: string;
}

/** Refusals that are not listed are the client's mistake in the request. */
const OAUTH_ERRORS: Partial<Record<RefusalCode, OAuthError>> = {
  client_invalid: { status: 401, error: "invalid_client" },
  client_unauthorized: { status: 400, error: "unauthorized_client" },
  grant_unsupported: { status: 400, error: "unsupported_grant_type" },
  scope_invalid: { status: 400, error: "invalid_scope" },
  resource_invalid: { status: 400, error: "invalid_target" },
  refresh_invalid: { status: 400, error: "invalid_grant" },
  refresh_reused: { status: 400, error: "invalid_grant" },
  session_revoked: { status: 400, error: "invalid_grant" },
  account_disabled: { status: 400, error: "invalid_grant" },
  credentials_wrong: { status: 400, error: "invalid_grant" },
  request_too_large: { status: 413, error: "invalid_request" },
  method_not_allowed: { status: 405, error: "invalid_request" },
  scope_insufficient: { status: 403, error: "insufficient_scope" },
  // A client gives its session up on `invalid_grant`, so that nothing passing may ever be one.
  too_many_attempts: { status: 429, error: "temporarily_unavailable" },
  unavailable: { status: 503, error: "temporarily_unavailable" },
  internal: { status: 500, error: "server_error" },
};

/** What OAuth calls a refusal, and with which status it answers. */
export function oauthError(code: RefusalCode): OAuthError {
  return OAUTH_ERRORS[code] ?? { status: 400, error: "invalid_request" };
}

/** What others may read about this server before they talk to it: RFC 8414, and the Shared Signals Framework 1.0 section 7. */
import { ADMIN_SCOPES } from "../clients/admin-scope.ts";
import { ASSERTION_ALGORITHMS } from "../clients/client.ts";
import { GRANT_TYPES } from "./oauth.ts";
import type { Exchange } from "./request.ts";

const CACHED = { "cache-control": "public, max-age=300" };
const CONFIDENTIAL = ["client_secret_basic", "client_secret_post", "private_key_jwt"];

/** RFC 8414 section 2. There is no authorisation endpoint: people sign in at `/login`, or with their own provider. */
export function authorizationServer(c: Exchange): Response {
  const { issuer } = c.var.config;
  const metadata = {
    issuer,
    token_endpoint: `${issuer}/oauth/token`,
    jwks_uri: `${issuer}/.well-known/jwks.json`,
    scopes_supported: ADMIN_SCOPES,
    response_types_supported: [],
    grant_types_supported: GRANT_TYPES,
    token_endpoint_auth_methods_supported: ["none", ...CONFIDENTIAL],
    token_endpoint_auth_signing_alg_values_supported: ASSERTION_ALGORITHMS,
    revocation_endpoint: `${issuer}/oauth/revoke`,
    revocation_endpoint_auth_methods_supported: ["none", ...CONFIDENTIAL],
    revocation_endpoint_auth_signing_alg_values_supported: ASSERTION_ALGORITHMS,
    introspection_endpoint: `${issuer}/oauth/introspect`,
    introspection_endpoint_auth_methods_supported: CONFIDENTIAL,
    introspection_endpoint_auth_signing_alg_values_supported: ASSERTION_ALGORITHMS,
    global_token_revocation_endpoint: `${issuer}/global-token-revocation`,
    global_token_revocation_endpoint_auth_methods_supported: ["private_key_jwt"],
    service_documentation: `${issuer}/docs`,
  };
  return c.json(metadata, 200, CACHED);
}

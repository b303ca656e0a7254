/** The edge described in OpenAPI 3.1, from the schemas that judge what comes in. */
import { z } from "zod";
import { REFUSALS, type RefusalCode } from "#contract/refusal";
import { ADMIN_SCOPES } from "../clients/admin-scope.ts";
import { oauthProblem, problem } from "./answers.ts";
import { OPERATIONS, type Operation } from "./operations.ts";

const PROBLEM_MEDIA = "application/problem+json";
const JSON_MEDIA = "application/json";

/** @param issuer where the edge is */
export function openApiDocument(issuer: string): Record<string, unknown> {
  const paths: Record<string, Record<string, unknown>> = {};
  for (const [name, operation] of Object.entries(OPERATIONS)) {
    const [method = "", path = ""] = name.split(" ");
    const template = path.replaceAll(/:(\w+)/g, "{$1}");
    paths[template] = { ...paths[template], [method.toLowerCase()]: described(name, path, operation) };
  }
  return {
    openapi: "3.1.0",
    jsonSchemaDialect: "https://json-schema.org/draft/2020-12/schema",
    info: { title: "Keycard edge", version: "1", description: "Log in, refresh, and revoke down to the open socket." },
    servers: [{ url: issuer }],
    tags: [...new Set(Object.values(OPERATIONS).map(({ tag }) => tag))].map((tag) => ({ name: tag })),
    paths,
    components: {
      schemas: { Problem: schemaOf(problem), OAuthError: schemaOf(oauthProblem) },
      securitySchemes: schemes(),
    },
  };
}

/** The refusals that an operation can end in, its own and those of its kind. */
export function refusalsOf(operation: Operation): readonly RefusalCode[] {
  const ofBody: RefusalCode[] = ["request_malformed", "request_too_large", "media_type_unsupported"];
  const ofNode: RefusalCode[] = ["token_missing", "token_invalid"];
  const ofBearer: RefusalCode[] = [...ofNode, "token_expired", "token_revoked"];
  const { access, body, query, refusals = [] } = operation;
  return [
    ...new Set<RefusalCode>([
      ...(body === undefined ? [] : ofBody),
      ...(query === undefined ? [] : (["request_malformed"] as const)),
      ...(access === "anybody" || access === "client" ? [] : access === "node" ? ofNode : ofBearer),
      ...(access === "bearer" || isAdministration(access) ? (["session_revoked"] as const) : []),
      ...(isScope(access) ? (["scope_insufficient"] as const) : []),
      ...refusals,
      ...(["unavailable", "internal"] as const),
    ]),
  ];
}

function isAdministration(access: string): boolean {
  return access === "administrator" || isScope(access);
}

export function isScope(access: string): boolean {
  return ADMIN_SCOPES.some((scope) => scope === access);
}

function described(name: string, path: string, operation: Operation): Record<string, unknown> {
  const { tag, summary, body } = operation;
  return {
    operationId: name.toLowerCase().replaceAll(/[^a-z]+/g, "_"),
    tags: [tag],
    summary,
    security: security(operation),
    ...(parameters(path, operation).length > 0 && { parameters: parameters(path, operation) }),
    ...(body && {
      requestBody: { content: { [body.media]: { schema: schemaOf(body.schema), example: body.example } } },
    }),
    responses: { ...failures(path, operation), ...successes(operation) },
  };
}

function parameters(path: string, { query, headers = [] }: Operation): unknown[] {
  const inPath = [...path.matchAll(/:(\w+)/g)].map(([, name]) => ({
    ...{ name, in: "path", required: true, schema: { type: "string" } },
  }));
  const inHeader = headers.map(([name, description]) => ({
    ...{ name, in: "header", description, schema: { type: "string" } },
  }));
  return [...inPath, ...(query === undefined ? [] : queryParameters(query)), ...inHeader];
}

/** A choice of parameters becomes all of them, none required. */
function queryParameters(query: z.ZodType): unknown[] {
  const schema = schemaOf(query);
  const choices = Array.isArray(schema.anyOf) ? schema.anyOf : [schema];
  const properties = Object.assign({}, ...choices.map((choice) => choice.properties));
  return Object.entries(properties).map(([name, each]) => ({ name, in: "query", required: false, schema: each }));
}

function successes({ answers, media = JSON_MEDIA }: Operation): Record<string, unknown> {
  return Object.fromEntries(
    Object.entries(answers).map(([status, schema]) => [
      status,
      schema === null
        ? { description: "Done; the body is empty." }
        : { description: "Done.", content: { [media]: { schema: schemaOf(schema) } } },
    ]),
  );
}

function failures(path: string, operation: Operation): Record<string, unknown> {
  if (path.startsWith("/oauth/")) return { default: oauthFailure() };
  const all = refusalsOf(operation);
  const statuses = [...new Set(all.map((code) => REFUSALS[code].status))].sort();
  const entries = statuses.map((status) => {
    const codes = all.filter((code) => REFUSALS[code].status === status);
    const description = codes.map((code) => `\`${code}\`: ${REFUSALS[code].message}`).join(" ");
    const [code = "internal"] = codes;
    const { message, advice } = REFUSALS[code];
    const example = { type: `urn:keycard:refusal:${code}`, title: message, status, code, advice };
    return [status, { description, content: { [PROBLEM_MEDIA]: { schema: reference("Problem"), example } } }];
  });
  return Object.fromEntries(entries);
}

function oauthFailure() {
  const description = "RFC 6749 section 5.2. 429 and 503 say `Retry-After`, and never `invalid_grant`.";
  const example = { error: "invalid_grant", error_description: "The refresh token is not valid." };
  return { description, content: { [JSON_MEDIA]: { schema: reference("OAuthError"), example } } };
}

function security({ access }: Operation): unknown[] {
  if (access === "anybody") return [];
  if (access === "bearer") return [{ accessToken: [] }];
  if (access === "node") return [{ nodeToken: [] }];
  if (access === "client") return [{}, { clientSecret: [] }];
  return [{ adminClient: isScope(access) ? [access] : [] }, { adminAccount: [] }, { adminToken: [] }];
}

function schemes() {
  const scopes = Object.fromEntries(ADMIN_SCOPES.map((scope) => [scope, ""]));
  return {
    accessToken: { type: "http", scheme: "bearer", bearerFormat: "at+jwt", description: "A person's access token." },
    nodeToken: {
      ...{ type: "http", scheme: "bearer", bearerFormat: "feed-query+jwt" },
      description: "A token that a node signs with the secret of its cluster, for one question.",
    },
    adminToken: { type: "http", scheme: "bearer", description: "ADMIN_TOKEN: every scope, every tenant." },
    adminAccount: {
      ...{ type: "http", scheme: "bearer", bearerFormat: "at+jwt" },
      description: "A person's access token for administration: asked for with `resource`, the issuer (RFC 8707).",
    },
    adminClient: { type: "oauth2", flows: { clientCredentials: { tokenUrl: "/oauth/token", scopes } } },
    clientSecret: {
      type: "http",
      scheme: "basic",
      description: "client_id and client_secret; a form may hold a proof too.",
    },
  };
}

function reference(name: string) {
  return { $ref: `#/components/schemas/${name}` };
}

/** As it comes in: before defaults are filled in and names are normalised. */
function schemaOf(schema: z.ZodType): Record<string, unknown> & { anyOf?: Record<string, unknown>[] } {
  const { $schema: _, ...body } = z.toJSONSchema(schema, { io: "input", unrepresentable: "any" });
  return body as Record<string, unknown> & { anyOf?: Record<string, unknown>[] };
}

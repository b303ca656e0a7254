/**
 * The HTTP face of the edge: which route is answered by whom, what every answer carries, and the one place where a refusal
 * becomes an answer.
 */
import { Hono } from "hono";
import type { ContentfulStatusCode } from "hono/utils/http-status";
import { REFUSALS, Refusal, toRefusal } from "#contract/refusal";
import { readConfig } from "./config.ts";
import { logFailure, logRefusal } from "./log.ts";
import {
  changeAccount,
  changePassword,
  createAccount,
  deleteAccount,
  findAccounts,
  openSession,
  showAccount,
} from "./routes/account.ts";
import { showMyself } from "./routes/administrator.ts";
import { readAudit, recordRefusedAdministrators, verifyAudit } from "./routes/audit.ts";
import { corsHeaders, PREFLIGHT_HEADERS } from "./routes/browser.ts";
import { changeClient, createClient, deleteClient, showClient } from "./routes/client.ts";
import { consoleFile, consolePage } from "./routes/console.ts";
import { receiveEvent } from "./routes/event-receiver.ts";
import {
  createStream,
  deleteStream,
  pollStream,
  showStreams,
  ssfConfiguration,
  streamStatus,
  verifyStream,
} from "./routes/event-streams.ts";
import { followRevocations } from "./routes/feed.ts";
import { revokeGlobally } from "./routes/global-token-revocation.ts";
import { listKeys, rotateKeys } from "./routes/keys.ts";
import { showLatency } from "./routes/latency.ts";
import { endSession, healthz, jwks, listSessions, login, logout, refresh } from "./routes/login.ts";
import { authorizationServer } from "./routes/metadata.ts";
import { showMetrics } from "./routes/metrics.ts";
import { showSockets, showStatus } from "./routes/nodes.ts";
import { introspectToken, issueToken, oauthRefused, revokeToken } from "./routes/oauth.ts";
import { listRevocations } from "./routes/receipt-list.ts";
import { docs, openApi } from "./routes/reference.ts";
import type { Exchange, Keycard } from "./routes/request.ts";
import { revoke, revokeInBulk, showRevocation } from "./routes/revocation.ts";
import { giveTicket } from "./routes/ticket.ts";
import { demandRate, type Rate } from "./throttle.ts";

type Handler = (c: Exchange) => Response | Promise<Response>;
type Method = "GET" | "POST" | "PATCH" | "DELETE";

/** Every route there is. */
export const ROUTES: readonly (readonly [path: string, methods: Partial<Record<Method, Handler>>])[] = [
  ["/login", { POST: login }],
  ["/refresh", { POST: refresh }],
  ["/logout", { POST: logout }],
  ["/password", { POST: changePassword }],
  ["/ticket", { POST: giveTicket }],
  ["/sessions", { GET: listSessions }],
  ["/sessions/:sid", { DELETE: endSession }],
  ["/.well-known/jwks.json", { GET: jwks }],
  ["/.well-known/oauth-authorization-server", { GET: authorizationServer }],
  ["/.well-known/openid-configuration", { GET: authorizationServer }],
  ["/oauth/token", { POST: issueToken }],
  ["/oauth/revoke", { POST: revokeToken }],
  ["/oauth/introspect", { POST: introspectToken }],
  ["/global-token-revocation", { POST: revokeGlobally }],
  ["/.well-known/ssf-configuration", { GET: ssfConfiguration }],
  ["/ssf/streams", { GET: showStreams, POST: createStream, DELETE: deleteStream }],
  ["/ssf/status", { GET: streamStatus }],
  ["/ssf/verification", { POST: verifyStream }],
  ["/ssf/poll/:stream_id", { POST: pollStream }],
  ["/ssf/events", { POST: receiveEvent }],
  ["/openapi.json", { GET: openApi }],
  ["/docs", { GET: docs }],
  ["/console", { GET: consolePage }],
  ["/console/:file", { GET: consoleFile }],
  ["/healthz", { GET: healthz }],
  ["/metrics", { GET: showMetrics }],
  ["/revocations", { GET: followRevocations }],
  ["/admin/accounts", { GET: findAccounts, POST: createAccount }],
  ["/admin/accounts/:sub", { GET: showAccount, PATCH: changeAccount, DELETE: deleteAccount }],
  ["/admin/accounts/:sub/sockets", { GET: showSockets }],
  ["/admin/sessions", { POST: openSession }],
  ["/admin/revocations", { GET: listRevocations, POST: revoke }],
  ["/admin/revocations/bulk", { POST: revokeInBulk }],
  ["/admin/revocations/:id", { GET: showRevocation }],
  ["/admin/clients", { POST: createClient }],
  ["/admin/clients/:client_id", { GET: showClient, PATCH: changeClient, DELETE: deleteClient }],
  ["/admin/status", { GET: showStatus }],
  ["/admin/latency", { GET: showLatency }],
  ["/admin/me", { GET: showMyself }],
  ["/admin/audit", { GET: readAudit }],
  ["/admin/audit/verify", { GET: verifyAudit }],
  ["/admin/keys", { GET: listKeys }],
  ["/admin/keys/rotate", { POST: rotateKeys }],
];

/** What a single address may not do as often as it likes. */
const RATES: readonly (readonly [path: string, rate: Rate])[] = [
  ["/login", "LOGIN_RATE"],
  ["/password", "LOGIN_RATE"],
  ["/refresh", "TOKEN_RATE"],
  ["/oauth/token", "TOKEN_RATE"],
];

const SECURITY_HEADERS: Readonly<Record<string, string>> = {
  "cache-control": "no-store",
  "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
  "referrer-policy": "no-referrer",
  "strict-transport-security": "max-age=31536000",
  "x-content-type-options": "nosniff",
};

/** The Worker's HTTP application. */
export const app = new Hono<Keycard>();

app.use(async (c, next) => {
  const requestId = requestIdOf(c.req.header("cf-ray"));
  c.set("requestId", requestId);
  const always = { ...SECURITY_HEADERS, "x-request-id": requestId };
  for (const [name, value] of Object.entries(always)) c.header(name, value);
  const config = readConfig(c.env);
  c.set("config", config);
  const cors = corsHeaders(config, c.req.header("origin"));
  for (const [name, value] of Object.entries(cors)) c.header(name, value);
  c.header("vary", "Origin");
  if (c.req.method === "OPTIONS" && "access-control-allow-origin" in cors) return c.body(null, 204, PREFLIGHT_HEADERS);
  return await next();
});

app.use("/admin/*", recordRefusedAdministrators);
app.use("/metrics", recordRefusedAdministrators);

for (const [path, rate] of RATES) {
  app.use(path, async (c, next) => {
    await demandRate(c.env, rate, c.req.raw);
    return await next();
  });
}

for (const [path, methods] of ROUTES) {
  for (const [method, handler] of Object.entries(methods)) app.on(method, path, handler);
  const allowed = Object.keys(methods).flatMap((method) => (method === "GET" ? ["GET", "HEAD"] : [method]));
  app.all(path, (c) => {
    c.header("allow", allowed.join(", "));
    throw new Refusal("method_not_allowed");
  });
}

app.notFound((c) => refused(c, new Refusal("not_found", { detail: "no such route" })));

app.onError((error, c) => refused(c, toRefusal(error)));

/** Cloudflare's own name of the request. Elsewhere anybody could have written it, and it goes into log lines, receipts and events. */
function requestIdOf(ray: string | undefined): string {
  return ray !== undefined && /^[\w-]{1,64}$/.test(ray) ? ray : crypto.randomUUID();
}

/** A refusal as an answer: RFC 9457. Its detail and its cause are for the log alone. */
function refused(c: Exchange, refusal: Refusal): Response {
  const { code, detail, status } = refusal;
  const fields = { code, detail, method: c.req.method, path: c.req.path, request: c.var.requestId };
  if (status >= 500) logFailure("failed", fields, refusal.cause);
  else logRefusal("refused", fields);
  const { advice, message, retry_after } = refusal.answer();
  if (retry_after !== undefined) c.header("retry-after", String(retry_after));
  if (c.req.path.startsWith("/oauth/")) return oauthRefused(c, refusal);
  if (status === 401) c.header("www-authenticate", "Bearer");
  const problem = {
    ...{ type: `urn:keycard:refusal:${code}`, title: message, status, code, advice, retry_after },
    errors: refusal.problems,
  };
  const mediaType = { "content-type": "application/problem+json" };
  return c.body(JSON.stringify(problem), REFUSALS[code].status satisfies ContentfulStatusCode, mediaType);
}

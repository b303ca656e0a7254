/** Every operation of the edge: what it is for, who may call it, what goes in and what comes out. The reference is made from this. */
import { z } from "zod";
import { JWT_MEDIA_TYPE } from "#contract/cluster";
import type { RefusalCode } from "#contract/refusal";

import type { AdminScope } from "../clients/admin-scope.ts";
import { EXPOSITION_MEDIA_TYPE } from "../exposition.ts";
import {
  accountBody,
  accountChangeBody,
  accountDeletionBody,
  accountQuery,
  passwordBody,
  sessionBody,
} from "../routes/account.ts";
import { auditQuery, verifyQuery } from "../routes/audit.ts";
import { changedClientBody, newClientBody } from "../routes/client.ts";
import { PUSH, pollBody, streamBody, streamQuery, streamsQuery, verificationBody } from "../routes/event-streams.ts";
import { feedQuery } from "../routes/feed.ts";
import { globalRevocationBody } from "../routes/global-token-revocation.ts";
import { rotationBody } from "../routes/keys.ts";
import { latencyQuery } from "../routes/latency.ts";
import { loginBody, logoutBody, refreshBody } from "../routes/login.ts";
import { introspectForm, revokeForm, tokenForm } from "../routes/oauth.ts";
import { receiptsQuery } from "../routes/receipt-list.ts";
import { bulkBody, revocationBody } from "../routes/revocation.ts";
import * as answers from "./answers.ts";

/** Who may call: anybody, the holder of an access token, an OAuth client, a node of a cluster, or an administrator, with a scope or any. */
export type Access = "anybody" | "bearer" | "client" | "node" | "administrator" | AdminScope;

export interface Operation {
  readonly tag: "People" | "OAuth" | "Accounts" | "Revocations" | "Administration" | "Signals" | "About";
  readonly summary: string;
  readonly access: Access;
  readonly body?: { readonly schema: z.ZodType; readonly media: string; readonly example: unknown };
  readonly query?: z.ZodType;
  readonly headers?: readonly (readonly [name: string, description: string])[];
  /** The media type of what it answers; JSON unless given. */
  readonly media?: string;
  /** Status → the shape of its body, or null for an empty one. */
  readonly answers: Readonly<Record<number, z.ZodType | null>>;
  /** Refusals besides those that every operation of its kind has. */
  readonly refusals?: readonly RefusalCode[];
}

const JSON_MEDIA = "application/json";
const FORM_MEDIA = "application/x-www-form-urlencoded";
const WAIT = ["Prefer", "`wait=N`: answer when it is enforced everywhere, or after N seconds, at most 10."] as const;
const FOLLOW = [
  "Accept",
  "`text/event-stream`: an event `receipt` now and at every change, until it is enforced.",
] as const;
const ONCE = ["Idempotency-Key", "At most 128 characters: a repetition within a day gets the first answer."] as const;
/** Of a request for a token for administration. */
const FOR_ADMINISTRATION = ["resource_invalid", "scope_insufficient"] as const;
const SUB = "u_5XkPz0TqWm2RbN8c";
const SID = `${SUB}.Zm9vYmFyYmF6cXV4MTIzNA`;

/** By method and path, as in `GET /sessions`. */
export const OPERATIONS: Readonly<Record<string, Operation>> = {
  "POST /login": {
    ...{ tag: "People", access: "anybody", summary: "Log in with a password: a session, and its tokens." },
    body: json(loginBody, { login: "ada@example.com", password: "correct horse", device: "Ada's phone" }),
    answers: { 200: answers.tokens },
    refusals: [
      ...(["credentials_wrong", "account_disabled", "scope_invalid", "too_many_attempts", "origin_forbidden"] as const),
      ...FOR_ADMINISTRATION,
    ],
  },
  "POST /refresh": {
    ...{ tag: "People", access: "anybody", summary: "Trade a refresh token, from the cookie or the body." },
    body: json(refreshBody, { refresh_token: "kcr.…" }),
    answers: { 200: answers.tokens },
    refusals: [
      ...(["token_missing", "refresh_invalid", "refresh_reused", "session_revoked", "origin_forbidden"] as const),
      ...FOR_ADMINISTRATION,
    ],
  },
  "POST /logout": {
    ...{ tag: "People", access: "anybody", summary: "End this session, the others, or all." },
    body: json(logoutBody, { scope: "others", refresh_token: "kcr.…" }),
    answers: { 204: null },
    refusals: ["token_missing", "refresh_invalid", "refresh_reused", "session_revoked", "origin_forbidden"],
  },
  "POST /password": {
    ...{ tag: "People", access: "bearer", summary: "Change the password: the other sessions end." },
    body: json(passwordBody, { current_password: "correct horse", new_password: "battery staple" }),
    answers: { 204: null, 202: null },
    refusals: ["credentials_wrong", "too_many_attempts", "not_found", "origin_forbidden"],
  },
  "POST /ticket": {
    ...{ tag: "People", access: "bearer", summary: "A ticket: one handshake for a client that can set only a URL." },
    answers: { 200: answers.ticket },
  },
  "GET /sessions": {
    ...{ tag: "People", access: "bearer", summary: "One's living sessions." },
    answers: { 200: answers.sessions },
  },
  "DELETE /sessions/:sid": {
    ...{ tag: "People", access: "bearer", summary: "End one of one's sessions." },
    answers: { 204: null },
    refusals: ["not_found"],
  },
  "POST /oauth/token": {
    ...{ tag: "OAuth", access: "client", summary: "Tokens: RFC 6749 sections 4.4 and 6, RFC 8693." },
    body: form(tokenForm, { grant_type: "refresh_token", refresh_token: "kcr.…", client_id: "keycard" }),
    answers: { 200: answers.tokens },
    refusals: ["client_invalid", "client_unauthorized", "grant_unsupported", "scope_invalid", "refresh_invalid"],
  },
  "POST /oauth/revoke": {
    ...{ tag: "OAuth", access: "client", summary: "Revoke a token one holds: RFC 7009." },
    body: form(revokeForm, { token: "kcr.…" }),
    answers: { 200: null },
    refusals: ["client_invalid", "client_unauthorized"],
  },
  "POST /oauth/introspect": {
    ...{ tag: "OAuth", access: "client", summary: "Whether a token is active, revocations considered: RFC 7662." },
    body: form(introspectForm, { token: "eyJ…" }),
    answers: { 200: answers.introspection },
    refusals: ["client_invalid", "scope_insufficient"],
  },
  "GET /.well-known/oauth-authorization-server": about(
    "Metadata of the authorisation server: RFC 8414.",
    answers.metadata,
  ),
  "GET /.well-known/openid-configuration": about("The same metadata, where OpenID libraries look.", answers.metadata),
  "GET /.well-known/jwks.json": about("The public keys: RFC 7517.", answers.jwkSet),
  "GET /healthz": about("Whether the edge is there and configured.", answers.health),
  "GET /openapi.json": about(
    "This description, as OpenAPI 3.1.",
    answers.metadata.or(z.looseObject({ openapi: z.string() })),
  ),
  "GET /.well-known/ssf-configuration": about("Metadata of the transmitter: SSF 1.0 section 7.1.", answers.metadata),
  "POST /ssf/streams": {
    ...{ tag: "Signals", access: "revocations:read", summary: "Make an event stream, by push or by poll." },
    body: json(streamBody, { delivery: { method: PUSH, endpoint_url: "https://receiver.example.com/events" } }),
    answers: { 201: answers.stream },
    refusals: ["conflict"],
  },
  "GET /ssf/streams": {
    ...{ tag: "Signals", access: "revocations:read", summary: "One's event streams, or the one that is named." },
    query: streamsQuery,
    answers: { 200: answers.stream.or(z.array(answers.stream)) },
    refusals: ["not_found"],
  },
  "DELETE /ssf/streams": {
    ...{ tag: "Signals", access: "revocations:read", summary: "Delete an event stream." },
    query: streamQuery,
    answers: { 204: null },
    refusals: ["not_found"],
  },
  "GET /ssf/status": {
    ...{
      tag: "Signals",
      access: "revocations:read",
      summary: "Whether a stream is enabled, and what last went wrong.",
    },
    query: streamQuery,
    answers: { 200: answers.streamStatus },
    refusals: ["not_found"],
  },
  "POST /ssf/verification": {
    ...{ tag: "Signals", access: "revocations:read", summary: "Have a verification event sent." },
    body: json(verificationBody, { stream_id: "st_Zm9vYmFyYmF6cXV4MTIzNA", state: "anything" }),
    answers: { 204: null },
    refusals: ["not_found"],
  },
  "POST /ssf/poll/:stream_id": {
    ...{ tag: "Signals", access: "revocations:read", summary: "Take what is waiting, acknowledge what was: RFC 8936." },
    body: json(pollBody, { ack: ["rev_Zm9vYmFyYmF6cXV4MTIzNA"], maxEvents: 10, returnImmediately: true }),
    answers: { 200: answers.poll },
    refusals: ["not_found"],
  },
  "POST /ssf/events": {
    ...{ tag: "Signals", access: "anybody", summary: "A Security Event Token from a trusted transmitter: RFC 8935." },
    body: { schema: z.string(), media: "application/secevent+jwt", example: "eyJ…" },
    answers: { 202: null, 400: answers.setProblem },
  },
  "POST /global-token-revocation": {
    ...{
      tag: "Signals",
      access: "revocations:write",
      summary: "Global Token Revocation: every session of a person ends.",
    },
    body: json(globalRevocationBody, { sub_id: { format: "email", email: "ada@example.com" } }),
    answers: { 204: null },
    refusals: ["not_found", "unprocessable"],
  },
  "POST /admin/accounts": {
    ...{ tag: "Accounts", access: "accounts:write", summary: "Make an account, opened by a password or by a link." },
    body: json(accountBody, { login: "ada@example.com", password: "correct horse", tid: "acme", scope: "chat:read" }),
    answers: { 201: answers.newAccount },
    refusals: ["conflict", "not_found"],
  },
  "GET /admin/accounts": {
    ...{
      tag: "Accounts",
      access: "accounts:read",
      summary: "One account by login name, or by issuer and subject; else those of which a name begins with `query`.",
    },
    query: accountQuery,
    answers: { 200: answers.account.or(answers.accountPage) },
    refusals: ["not_found"],
  },
  "GET /admin/accounts/:sub": {
    ...{ tag: "Accounts", access: "accounts:read", summary: "An account and its living sessions." },
    answers: { 200: answers.account },
    refusals: ["not_found"],
  },
  "PATCH /admin/accounts/:sub": {
    ...{
      tag: "Accounts",
      access: "accounts:write",
      summary: "Disable, for a time or for good, enable, or change the scope.",
    },
    body: json(accountChangeBody, { disabled: true, until: 1_790_000_000, reason: "under investigation" }),
    answers: { 200: answers.account },
    refusals: ["not_found"],
  },
  "DELETE /admin/accounts/:sub": {
    ...{
      tag: "Accounts",
      access: "accounts:write",
      summary: "Delete an account: its subject is never given out again.",
    },
    body: json(accountDeletionBody, { reason: "asked for by the person" }),
    answers: { 200: answers.deletedAccount },
    refusals: ["not_found"],
  },
  "GET /admin/accounts/:sub/sockets": {
    ...{
      tag: "Accounts",
      access: "sessions:read",
      summary: "A person's open sockets, by cluster and node, as of now.",
    },
    answers: { 200: answers.sockets },
    refusals: ["not_found"],
  },
  "POST /admin/sessions": {
    ...{ tag: "Accounts", access: "sessions:write", summary: "A trusted backend opens a session for its own user." },
    body: json(sessionBody, { sub: SUB, create: { tid: "acme" }, device: "Ada's phone" }),
    answers: { 200: answers.tokens },
    refusals: ["not_found", "account_disabled", "scope_invalid"],
  },
  "POST /admin/revocations": {
    ...{ tag: "Revocations", access: "revocations:write", summary: "Revoke. 202 means that it will happen." },
    body: json(revocationBody, { target: { kind: "user", sub: SUB }, except: SID, reason: "a phone was stolen" }),
    headers: [WAIT, ONCE],
    answers: { 200: answers.revocation.rehearsed, 202: answers.revocation.accepted },
    refusals: ["not_found", "conflict", "idempotency_mismatch"],
  },
  "GET /admin/revocations": {
    ...{
      tag: "Revocations",
      access: "revocations:read",
      summary: "The receipts of seven days, the newest first; a bulk revocation stands there once.",
    },
    query: receiptsQuery,
    answers: { 200: answers.receiptPage },
  },
  "POST /admin/revocations/bulk": {
    ...{ tag: "Revocations", access: "revocations:write", summary: "Revoke up to 10,000 users in one call." },
    body: json(bulkBody, { users: [SUB, { login: "ada@example.com" }], reason: "a breach" }),
    headers: [ONCE],
    answers: { 202: answers.revocation.bulk },
    refusals: ["conflict", "idempotency_mismatch"],
  },
  "GET /admin/revocations/:id": {
    ...{
      tag: "Revocations",
      access: "revocations:read",
      summary: "The receipt: who has taken and who has enforced it, and the proof.",
    },
    headers: [WAIT, FOLLOW],
    answers: { 200: answers.anyReceipt },
    refusals: ["not_found"],
  },
  "GET /revocations": {
    ...{ tag: "Revocations", access: "node", summary: "The feed: what a node reads that does without Redis." },
    query: feedQuery,
    media: JWT_MEDIA_TYPE,
    answers: { 200: answers.feedPage },
  },
  "POST /admin/clients": {
    ...{ tag: "Administration", access: "clients:write", summary: "Make an admin client, with a secret or with keys." },
    body: json(newClientBody, { name: "support desk", scopes: ["revocations:write", "accounts:read"], tid: "acme" }),
    answers: { 201: answers.client },
  },
  "GET /admin/clients/:client_id": {
    ...{ tag: "Administration", access: "clients:write", summary: "An admin client." },
    answers: { 200: answers.client },
    refusals: ["not_found"],
  },
  "PATCH /admin/clients/:client_id": {
    ...{ tag: "Administration", access: "clients:write", summary: "Disable or enable an admin client." },
    body: json(changedClientBody, { disabled: true }),
    answers: { 200: answers.client },
    refusals: ["not_found"],
  },
  "DELETE /admin/clients/:client_id": {
    ...{ tag: "Administration", access: "clients:write", summary: "Delete an admin client: its tokens die with it." },
    answers: { 204: null },
    refusals: ["not_found"],
  },
  "GET /admin/status": {
    ...{
      tag: "Administration",
      access: "revocations:read",
      summary: "How the log, every cluster and every node is, as of now.",
    },
    answers: { 200: answers.status },
  },
  "GET /admin/latency": {
    ...{
      tag: "Revocations",
      access: "revocations:read",
      summary: "How soon revocations were enforced, over time: from the decision to the last node of the last cluster.",
    },
    query: latencyQuery,
    answers: { 200: answers.latency },
  },
  "GET /admin/me": {
    ...{ tag: "Administration", access: "administrator", summary: "Whose credential this is, and what it may do." },
    answers: { 200: answers.principal },
  },
  "GET /admin/audit": {
    ...{ tag: "Administration", access: "audit:read", summary: "The audit trail, by page, or as JSON lines." },
    query: auditQuery,
    answers: { 200: answers.auditPage },
  },
  "GET /admin/audit/verify": {
    ...{ tag: "Administration", access: "audit:read", summary: "Whether the chain of the audit trail is whole." },
    query: verifyQuery,
    answers: { 200: answers.auditVerification },
  },
  "GET /metrics": {
    ...{ tag: "Administration", access: "revocations:read", summary: "How the edge stands, for Prometheus." },
    media: EXPOSITION_MEDIA_TYPE,
    answers: { 200: answers.metrics },
  },
  "GET /admin/keys": {
    ...{ tag: "Administration", access: "keys:write", summary: "The signing keys and their states." },
    answers: { 200: answers.keys },
  },
  "POST /admin/keys/rotate": {
    ...{ tag: "Administration", access: "keys:write", summary: "Replace a signing key, in good order or at once." },
    body: json(rotationBody, { retire: true, reason: "a laptop was lost" }),
    answers: { 200: answers.keys },
    refusals: ["not_found", "conflict"],
  },
};

function json(schema: z.ZodType, example: unknown) {
  return { schema, media: JSON_MEDIA, example };
}

function form(schema: z.ZodType, example: unknown) {
  return { schema, media: FORM_MEDIA, example };
}

function about(summary: string, schema: z.ZodType): Operation {
  return { tag: "About", access: "anybody", summary, answers: { 200: schema } };
}

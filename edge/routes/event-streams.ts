/** Event streams for receivers outside: Shared Signals Framework 1.0 section 8.1, RFC 8936 for those who poll. */
import { z } from "zod";
import { Refusal } from "#contract/refusal";
import { audit } from "../audit/audit.ts";
import { eventSigningKey, forgetKeys } from "../keys/issuer.ts";
import { ask } from "../outcome.ts";
import { SESSION_REVOKED } from "../revocations/caep.ts";
import { revocationLog } from "../revocations/cutoffs.ts";
import type { EventStream } from "../revocations/event-streams.ts";
import { actOfAdministrator, demandAdministrator, nameOf, type Principal } from "./administrator.ts";
import { type Exchange, pathPart, readBody, readQuery } from "./request.ts";

/** RFC 8935. */
export const PUSH = "urn:ietf:rfc:8935";
/** RFC 8936. */
export const POLL = "urn:ietf:rfc:8936";

/** An address of this machine: there is nobody in between who could listen, and a test has no certificate. */
const LOOPBACK = /^http:\/\/(127\.0\.0\.1|localhost|\[::1\])(:\d+)?(\/|$)/;
const endpoint = z
  .string()
  .max(1024)
  .refine((text) => isEndpoint(text), "an https URL without a user, query or fragment");

export const streamBody = z.object({
  events_requested: z.array(z.string().max(256)).max(32).optional(),
  delivery: z.discriminatedUnion("method", [
    z.object({
      method: z.literal(PUSH),
      endpoint_url: endpoint,
      authorization_header: z
        .string()
        .max(2048)
        .regex(/^[\x20-\x7e]+$/, "printable characters")
        .optional(),
    }),
    z.object({ method: z.literal(POLL) }),
  ]),
  description: z.string().max(256).optional(),
});
const streamId = z.string().regex(/^st_[A-Za-z0-9_-]{22}$/, "not in the form of a stream");
export const streamQuery = z.strictObject({ stream_id: streamId });
export const streamsQuery = z.strictObject({ stream_id: streamId.optional() });
export const verificationBody = z.strictObject({ stream_id: streamId, state: z.string().max(256).optional() });

const jti = z.string().min(1).max(256);
/** RFC 8936 section 2.2. Waiting for more is left to the receiver's next poll. */
export const pollBody = z.object({
  maxEvents: z.int().min(0).max(100).default(100),
  returnImmediately: z.boolean().optional(),
  ack: z.array(jti).max(1000).default([]),
  setErrs: z
    .record(jti, z.object({ err: z.string().max(64), description: z.string().max(1024).optional() }))
    .default({}),
});

/** `GET /.well-known/ssf-configuration`: SSF 1.0 section 7.1. */
export function ssfConfiguration(c: Exchange): Response {
  const { issuer } = c.var.config;
  const metadata = {
    spec_version: "1_0",
    issuer,
    jwks_uri: `${issuer}/.well-known/jwks.json`,
    delivery_methods_supported: [PUSH, POLL],
    configuration_endpoint: `${issuer}/ssf/streams`,
    status_endpoint: `${issuer}/ssf/status`,
    verification_endpoint: `${issuer}/ssf/verification`,
    authorization_schemes: [{ spec_urn: "urn:ietf:rfc:6749" }],
    default_subjects: "ALL",
  };
  return c.json(metadata, 200, { "cache-control": "public, max-age=300" });
}

/** `POST /ssf/streams` */
export async function createStream(c: Exchange): Promise<Response> {
  const principal = await demandAdministrator(c, "revocations:read");
  // It would go on telling where it was told to when nobody lets its maker in any more.
  if (principal.kind === "account") throw new Refusal("scope_insufficient", { detail: "a person makes no stream" });
  const { delivery, description } = await readBody(c, streamBody);
  const push = delivery.method === PUSH ? delivery : undefined;
  const stream = await ask(
    revocationLog(c.env).createStream({
      owner: nameOf(principal),
      tid: principal.tid ?? null,
      audience: principal.id,
      endpoint_url: push?.endpoint_url ?? null,
      authorization_header: push?.authorization_header ?? null,
      description: description ?? null,
    }),
  );
  // The key is published before the receiver meets the first event that it signed.
  await eventSigningKey(c.env);
  forgetKeys(c.env);
  record(c, principal, "stream_created", stream.stream_id);
  return c.json(configuration(c, stream), 201);
}

/** `GET /ssf/streams`, of one with `?stream_id=` */
export async function showStreams(c: Exchange): Promise<Response> {
  const principal = await demandAdministrator(c, "revocations:read");
  const { stream_id } = readQuery(c, streamsQuery);
  const log = revocationLog(c.env);
  if (stream_id !== undefined) return c.json(configuration(c, await ask(log.stream(stream_id, ownerOf(principal)))));
  const streams = await ask(log.streams(ownerOf(principal)));
  return c.json(streams.map((stream) => configuration(c, stream)));
}

/** `DELETE /ssf/streams?stream_id=` */
export async function deleteStream(c: Exchange): Promise<Response> {
  const principal = await demandAdministrator(c, "revocations:read");
  const { stream_id } = readQuery(c, streamQuery);
  await ask(revocationLog(c.env).removeStream(stream_id, ownerOf(principal)));
  record(c, principal, "stream_deleted", stream_id);
  return c.body(null, 204);
}

/** `GET /ssf/status?stream_id=`: SSF 1.0 section 8.1.2. A stream is enabled for as long as it is there. */
export async function streamStatus(c: Exchange): Promise<Response> {
  const principal = await demandAdministrator(c, "revocations:read");
  const { stream_id } = readQuery(c, streamQuery);
  const { last_error } = await ask(revocationLog(c.env).stream(stream_id, ownerOf(principal)));
  return c.json({ stream_id, status: "enabled", ...(last_error !== null && { reason: last_error }) });
}

/** `POST /ssf/verification`: SSF 1.0 section 8.1.4.2. */
export async function verifyStream(c: Exchange): Promise<Response> {
  const principal = await demandAdministrator(c, "revocations:read");
  const { stream_id, state } = await readBody(c, verificationBody);
  await ask(revocationLog(c.env).verifyStream(stream_id, ownerOf(principal), state));
  return c.body(null, 204);
}

/** `POST /ssf/poll/:stream_id`: RFC 8936 section 2. */
export async function pollStream(c: Exchange): Promise<Response> {
  const principal = await demandAdministrator(c, "revocations:read");
  const { maxEvents, ack, setErrs } = await readBody(c, pollBody, 128 * 1024);
  // Section 2.4: what the receiver cannot read it will not read the next time either.
  const done = [...ack, ...Object.keys(setErrs)];
  const id = pathPart(c, "stream_id");
  return c.json(await ask(revocationLog(c.env).pollStream(id, ownerOf(principal), { maxEvents, done })));
}

/** SSF 1.0 section 8.1.1. The receiver's own credential is not shown again. */
function configuration(c: Exchange, stream: EventStream) {
  const { issuer } = c.var.config;
  const { stream_id, audience, endpoint_url, description } = stream;
  const delivery =
    endpoint_url === null
      ? { method: POLL, endpoint_url: `${issuer}/ssf/poll/${stream_id}` }
      : { method: PUSH, endpoint_url };
  return {
    stream_id,
    iss: issuer,
    aud: audience,
    events_supported: [SESSION_REVOKED],
    events_requested: [SESSION_REVOKED],
    events_delivered: [SESSION_REVOKED],
    delivery,
    ...(description !== null && { description }),
  };
}

/** Whose streams one may see: one's own, or all for the holder of ADMIN_TOKEN. */
function ownerOf(principal: Principal): string | undefined {
  return principal.kind === "root" ? undefined : nameOf(principal);
}

function record(c: Exchange, principal: Principal, type: "stream_created" | "stream_deleted", stream: string): void {
  audit(c.env, { type, ...actOfAdministrator(c, principal), tid: principal.tid, reason: stream });
}

function isEndpoint(text: string): boolean {
  const url = URL.parse(text);
  if (url === null || url.username !== "" || url.search !== "" || url.hash !== "") return false;
  return url.protocol === "https:" || LOOPBACK.test(text);
}

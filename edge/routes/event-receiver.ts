/**
 * Events from transmitters that the configuration trusts: their CAEP `session-revoked` becomes a revocation here. Pushed by RFC 8935, and
 * idempotent: the revocation's id follows from the transmitter and the event's `jti`.
 *
 * 202 says that the event was understood; that it names nobody here is no error of the transmitter's.
 */
import { type JWTPayload, errors as jose, jwtVerify } from "jose";
import { z } from "zod";
import { Refusal } from "#contract/refusal";
import { SECURITY_EVENT_MEDIA_TYPE, SECURITY_EVENT_TYPE } from "#contract/revocation";
import { keysOf } from "../accounts/foreign-issuer.ts";
import { type Act, audit } from "../audit/audit.ts";
import { issuerOf } from "../clients/oauth.ts";
import type { TrustedTransmitter } from "../config.ts";
import { derivedRevocationId, subjectOf } from "../identifiers.ts";
import { originOf } from "../origin.ts";
import { ask } from "../outcome.ts";
import { SESSION_REVOKED, VERIFICATION } from "../revocations/caep.ts";
import type { Order } from "../revocations/revocation-log.ts";
import { subjectIdentifier, subjectNamed } from "./global-token-revocation.ts";
import { sessionId } from "./names.ts";
import { type Exchange, mediaType, readBytes } from "./request.ts";

const MAX_SET_BYTES = 64 * 1024;
const CLOCK_SKEW_SECONDS = 60;
/** As long as the log remembers what it was told: an older event could be carried out twice. */
const MAX_AGE_SECONDS = 6 * 86_400;

const opaque = z.object({ format: z.literal("opaque"), id: z.string().min(1).max(255) });
const complex = z.object({
  format: z.literal("complex"),
  session: z.looseObject({ format: z.string() }).optional(),
  user: subjectIdentifier.optional(),
});
const claims = z.object({
  iss: z.string(),
  jti: z.string().min(1).max(256),
  iat: z.number(),
  events: z.record(z.string(), z.looseObject({})),
  sub_id: z.unknown(),
});

/** RFC 8935 section 2.4. */
interface SetError {
  readonly err: "invalid_request" | "invalid_key" | "invalid_issuer" | "invalid_audience" | "authentication_failed";
  readonly description: string;
}
type Event = z.output<typeof claims>;

/** Whom an event is about, as far as it can be one of ours. */
type Named = { readonly sid: string } | { readonly sub: string } | undefined;

/** `POST /ssf/events` */
export async function receiveEvent(c: Exchange): Promise<Response> {
  const bytes = await readBytes(c, MAX_SET_BYTES);
  if (mediaType(c) !== SECURITY_EVENT_MEDIA_TYPE) throw new Refusal("media_type_unsupported");
  const text = new TextDecoder().decode(bytes);
  // Only to find whom it is judged by.
  const claimed = issuerOf(text);
  const transmitter = c.var.config.trustedTransmitters.find(({ issuer }) => issuer === claimed);
  const error: SetError = { err: "invalid_issuer", description: "The issuer is not trusted here." };
  const judged = transmitter === undefined ? error : await judge(c, transmitter, text);
  if ("err" in judged || transmitter === undefined) {
    audit(c.env, { type: "event_refused", ...actOf(c, transmitter), reason: "err" in judged ? judged.err : error.err });
    return c.json(judged, 400, { "content-language": "en" });
  }
  await carryOut(c, transmitter, judged);
  return c.body(null, 202);
}

async function judge(c: Exchange, transmitter: TrustedTransmitter, text: string): Promise<Event | SetError> {
  const payload = await verified(c.env, transmitter, text);
  if ("err" in payload && "description" in payload) return payload as SetError;
  const event = claims.safeParse(payload);
  const now = Math.floor(Date.now() / 1000);
  if (!event.success || Object.keys(event.data.events).length !== 1) return invalid("A claim is missing or malformed.");
  if (event.data.iat > now + CLOCK_SKEW_SECONDS) return invalid("It was issued in the future.");
  if (event.data.iat < now - MAX_AGE_SECONDS) return invalid("It is too old.");
  return event.data;
}

async function verified(env: Env, transmitter: TrustedTransmitter, text: string): Promise<JWTPayload | SetError> {
  const { issuer, audience, algorithms } = transmitter;
  const options = { issuer, audience, algorithms: [...algorithms], typ: SECURITY_EVENT_TYPE };
  for (const anew of [false, true]) {
    try {
      return (await jwtVerify(text, await keysOf(env, transmitter, anew), options)).payload;
    } catch (error) {
      if (!anew && error instanceof jose.JWKSNoMatchingKey) continue;
      // The keys cannot be had: that is no fault of the event, and it is to come again.
      if (error instanceof Refusal) throw error;
      return setError(error);
    }
  }
  return { err: "invalid_key", description: "No key of the issuer fits." };
}

function setError(error: unknown): SetError {
  if (error instanceof jose.JWKSNoMatchingKey) return { err: "invalid_key", description: "No key of the issuer fits." };
  if (error instanceof jose.JWTClaimValidationFailed && error.claim === "aud") {
    return { err: "invalid_audience", description: "It is meant for somebody else." };
  }
  if (error instanceof jose.JWSSignatureVerificationFailed) {
    return { err: "authentication_failed", description: "The signature does not hold." };
  }
  return invalid("It is not a Security Event Token.");
}

async function carryOut(c: Exchange, transmitter: TrustedTransmitter, event: Event): Promise<void> {
  const by = actOf(c, transmitter);
  const [kind = ""] = Object.keys(event.events);
  if (kind === VERIFICATION) return audit(c.env, { type: "event_received", ...by, reason: "verification" });
  // SSF before 1.0 had the subject in the event.
  const said = event.sub_id ?? event.events[kind]?.subject;
  const named = kind === SESSION_REVOKED ? await whom(c, said) : undefined;
  const order: Order = {
    id: derivedRevocationId(event.iss, event.jti),
    reason: `session-revoked from ${event.iss}`.slice(0, 500),
    again: true,
    tenant: transmitter.tenant,
    by,
  };
  const known = named !== undefined && (await revoked(c, named, order));
  const reason = known ? "session-revoked" : "nobody of ours, or not understood";
  audit(c.env, { type: "event_received", ...by, ...(known && { revocation: order.id }), reason });
}

/** @returns false for somebody who is not here, or is of another tenant */
async function revoked(c: Exchange, named: NonNullable<Named>, order: Order): Promise<boolean> {
  const sub = "sid" in named ? subjectOf(named.sid) : named.sub;
  const account = c.env.ACCOUNT.getByName(sub);
  try {
    await ask("sid" in named ? account.revokeSession(named.sid, order) : account.revokeUser(order));
    return true;
  } catch (error) {
    if (error instanceof Refusal && error.code === "not_found") return false;
    throw error;
  }
}

/**
 * CAEP 1.0 section 3.1.1: a simple subject, or `session` of a complex one, is the session; without one it is every session of the user. A
 * session that is not in our form is the transmitter's own, and ending all of the user's for it would hit what was not named.
 */
async function whom(c: Exchange, said: unknown): Promise<Named> {
  const several = complex.safeParse(said);
  if (several.success && several.data.session !== undefined) return ownSession(several.data.session);
  const session = several.success ? undefined : ownSession(said);
  if (session !== undefined) return session;
  const user = several.success ? several.data.user : subjectIdentifier.safeParse(said).data;
  if (user === undefined) return undefined;
  try {
    return { sub: await subjectNamed(c.env, { ...c.var.config, trustedIssuers: issuers(c) }, user) };
  } catch (error) {
    const nobody = error instanceof Refusal && (error.code === "not_found" || error.code === "unprocessable");
    if (nobody) return undefined;
    throw error;
  }
}

function issuers(c: Exchange) {
  return [...c.var.config.trustedIssuers, ...c.var.config.trustedTransmitters];
}

function ownSession(said: unknown): Named {
  const named = opaque.safeParse(said);
  const sid = sessionId.safeParse(named.data?.id);
  return sid.success ? { sid: sid.data } : undefined;
}

function actOf(c: Exchange, transmitter: TrustedTransmitter | undefined): Act {
  const id = (transmitter?.issuer ?? "an unknown transmitter").slice(0, 256);
  return { actor: { kind: "system", id }, from: originOf(c.req.raw), request: c.var.requestId };
}

function invalid(description: string): SetError {
  return { err: "invalid_request", description };
}

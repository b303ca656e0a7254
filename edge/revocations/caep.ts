/**
 * Revocations as the rest of the world reads them: CAEP 1.0 `session-revoked` in Security Event Tokens of the Shared Signals Framework 1.0.
 *
 * A token or a key that is revoked is no session that is, and is told to nobody. What an operator wrote as the reason stays here.
 */
import type { JWTPayload } from "jose";
import type { RevocationTarget } from "#contract/revocation";
import type { LoggedEvent } from "./delivery.ts";

/** CAEP 1.0 section 3.1. */
export const SESSION_REVOKED = "https://schemas.openid.net/secevent/caep/event-type/session-revoked";
/** SSF 1.0 section 8.1.4.1. */
export const VERIFICATION = "https://schemas.openid.net/secevent/ssf/event-type/verification";

/** RFC 9493, and SSF 1.0 section 3.2 for `complex`. */
type SubjectId = Readonly<Record<string, unknown>> & { readonly format: string };

/** Whom events are told, and about whom. */
export interface Audience {
  readonly issuer: string;
  /** `aud` of what it is sent. */
  readonly audience: string;
  /** What the edge's own application is called: the subject of what concerns everyone. */
  readonly application: string;
  /** The one tenant that it may hear of; absent: all. */
  readonly tid?: string | undefined;
}

/** A Security Event Token that is yet to be signed. It has the same `jti` whenever it is made. */
export interface UnsignedSet {
  readonly jti: string;
  readonly payload: JWTPayload;
}

/** What an event says to a receiver: one SET for each subject, none when it says nothing to it. */
export function sessionRevokedSets(event: LoggedEvent, to: Audience): UnsignedSet[] {
  if (event.hitsNobody === true) return [];
  return event.targets.flatMap((target, index) => {
    const sub_id = subjectOf(target, event, to);
    if (sub_id === undefined) return [];
    const said = {
      event_timestamp: Math.floor(event.decided_at / 1000),
      initiating_entity: initiatorOf(event),
      reason_admin: { en: REASONS[event.code] },
    };
    const jti = index === 0 ? event.id : `${event.id}.${index}`;
    return [{ jti, payload: envelope(to, jti, event.id, sub_id, { [SESSION_REVOKED]: said }) }];
  });
}

/** SSF 1.0 section 8.1.4.1: shows the receiver that the stream works. */
export function verificationSet(streamId: string, state: string | undefined, jti: string, to: Audience): UnsignedSet {
  const said = state === undefined ? {} : { state };
  return { jti, payload: envelope(to, jti, jti, { format: "opaque", id: streamId }, { [VERIFICATION]: said }) };
}

/** SSF 1.0 section 4.1: no `sub` and no `exp`; one event in each. */
function envelope(to: Audience, jti: string, txn: string, sub_id: SubjectId, events: object): JWTPayload {
  return { iss: to.issuer, aud: to.audience, iat: Math.floor(Date.now() / 1000), jti, txn, sub_id, events };
}

const REASONS: Readonly<Record<LoggedEvent["code"], string>> = {
  token_revoked: "A token was revoked.",
  session_revoked: "The session was ended.",
  refresh_reused: "A refresh token was used twice: the session was ended.",
};

function subjectOf(target: RevocationTarget, event: LoggedEvent, to: Audience): SubjectId | undefined {
  if (target.kind === "token" || target.kind === "key") return undefined;
  // Everybody else's cutoff is its tenant's as well.
  if (target.kind === "everyone") {
    if (to.tid !== undefined) return complex({ tenant: opaque(to.tid) });
    return complex({ application: opaque(to.application) });
  }
  if (to.tid !== undefined && event.tid !== to.tid) return undefined;
  const tenant = event.tid === undefined ? {} : { tenant: opaque(event.tid) };
  if (target.kind === "tenant") return complex({ tenant: opaque(target.tid) });
  if (target.kind === "user" || target.kind === "subject") return complex({ user: own(to, target.sub), ...tenant });
  const sub = target.sid.slice(0, target.sid.lastIndexOf("."));
  return complex({ user: own(to, sub), session: opaque(target.sid), ...tenant });
}

function initiatorOf({ actor, code }: LoggedEvent): "admin" | "user" | "policy" | "system" {
  if (code === "refresh_reused") return "policy";
  if (actor === undefined) return "user";
  return actor.kind === "client" || actor.kind === "account" ? "admin" : actor.kind;
}

function complex(members: Readonly<Record<string, SubjectId>>): SubjectId {
  return { format: "complex", ...members };
}

function own({ issuer }: Audience, sub: string): SubjectId {
  return { format: "iss_sub", iss: issuer, sub };
}

function opaque(id: string): SubjectId {
  return { format: "opaque", id };
}

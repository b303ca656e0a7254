/**
 * What a revocation is, how it travels, and what it hits.
 *
 * It travels as a Security Event Token (RFC 8417) that the edge signs. What a node knows is a map from target to
 * cutoff, merged by maximum: merging commutes, is associative and idempotent, so that order and duplicates cannot
 * matter and every path may deliver the same event again.
 */
import type { JWTPayload, JWTVerifyGetKey } from "jose";
import {
  type AccessTokenClaims,
  checkSignature,
  judgeJwt,
  type SignedJwt,
  type SigningKey,
  signTyped,
  type TokenRules,
  verifyTyped,
} from "./access-token.ts";
import { Refusal, type RefusalCode } from "./refusal.ts";
import { isCount, isName, isRecord } from "./shapes.ts";

/** RFC 8417 section 2.3. */
export const SECURITY_EVENT_TYPE = "secevent+jwt";
/** RFC 8935 section 2: the media type of a pushed Security Event Token. */
export const SECURITY_EVENT_MEDIA_TYPE = "application/secevent+jwt";
export const REVOCATION_EVENT = "urn:keycard:event:revocation";
/** The `typ` of the token with which the edge asks a cluster whom a revocation would hit. */
export const REHEARSAL_TYPE = "rehearsal+jwt";
/** RFC 7519 section 10.3.1. */
export const REHEARSAL_MEDIA_TYPE = "application/jwt";

/** Targets that one event may name; larger revocations are several events. */
export const MAX_TARGETS = 50;

/**
 * Who or what is revoked. A `cutoff` hits every session that began at or before that second, whatever it was
 * refreshed to since; a `generation` hits every session of the account that began in an earlier one.
 */
export type RevocationTarget =
  | { readonly kind: "token"; readonly jti: string }
  | { readonly kind: "session"; readonly sid: string }
  | { readonly kind: "user"; readonly sub: string; readonly generation: number }
  /** A user of an issuer that counts no generations: sessions that began by then. */
  | { readonly kind: "subject"; readonly sub: string; readonly cutoff: number }
  | { readonly kind: "tenant"; readonly tid: string; readonly cutoff: number }
  | { readonly kind: "key"; readonly kid: string }
  | { readonly kind: "everyone"; readonly cutoff: number };

/** The refusals that a revocation can lead to: the first leaves the session alive. */
export type RevocationCode = Extract<RefusalCode, "token_revoked" | "session_revoked" | "refresh_reused">;

/** Names of requests are at most this long. */
const MAX_REQUEST_ID = 128;

/** How long a socket may stay open to bring a token that is not hit, at most, in seconds. */
export const MAX_MARGIN_SECONDS = 300;

/**
 * What a node does with an open socket that is hit. Nothing said: it closes it. `reauthenticate`: it asks for another token, and
 * closes the socket when none has come within `margin` seconds. New handshakes are refused at once either way.
 */
export interface RevocationManner {
  readonly mode?: "reauthenticate";
  /** Seconds. Only with `mode`. */
  readonly margin?: number;
}

export interface RevocationEvent extends RevocationManner {
  /** Names the revocation from the admin call to the last closed socket; also the token's `jti` and `txn`. */
  readonly id: string;
  /** The place in the edge's log: 1, 2, 3, … without a gap. */
  readonly seq: number;
  readonly targets: readonly RevocationTarget[];
  /** What the people hit are told. */
  readonly code: RevocationCode;
  /** When it was decided, milliseconds since the epoch. */
  readonly decided_at: number;
  /** `X-Request-Id` of the call that decided it, where it was a call: for log lines, and for nothing else. */
  readonly request?: string;
  /** Seconds since the epoch: from here on no token that it hits can be alive, and it may be forgotten. */
  readonly expires_at: number;
}

/**
 * The signed form: SET claims of RFC 8417 section 2.2 without `sub` and `exp`, as the Shared Signals Framework asks.
 *
 * @param audience the cluster that it is meant for
 */
export function signRevocation(
  event: RevocationEvent,
  envelope: { readonly issuer: string; readonly audience: string; readonly issuedAt: number },
  key: SigningKey,
): Promise<string> {
  const { id, ...body } = event;
  const payload: JWTPayload = {
    iss: envelope.issuer,
    aud: envelope.audience,
    iat: envelope.issuedAt,
    jti: id,
    txn: id,
    events: { [REVOCATION_EVENT]: body },
  };
  return signTyped(SECURITY_EVENT_TYPE, payload, key);
}

/**
 * Judges a pushed Security Event Token.
 *
 * @throws {Refusal} `token_missing`, `token_invalid` (bad signature, signer, audience), `request_malformed` (a good
 *   signature over something that is no revocation); `unavailable` when the signer's keys cannot be had
 */
export async function verifyRevocation(
  set: unknown,
  keys: JWTVerifyGetKey,
  rules: TokenRules,
  now: Date = new Date(),
): Promise<RevocationEvent> {
  return judgeRevocation(await checkSignature(set, keys, rules), rules, now);
}

/** Judges all of a Security Event Token but its signature. @throws {Refusal} `token_invalid`, `request_malformed` */
export function judgeRevocation(jwt: SignedJwt, rules: TokenRules, now: Date = new Date()): RevocationEvent {
  return revocationEvent(judgeJwt(jwt, { ...rules, typ: SECURITY_EVENT_TYPE }, now).payload);
}

function revocationEvent(payload: JWTPayload): RevocationEvent {
  const events = payload.events;
  const body = isRecord(events) ? events[REVOCATION_EVENT] : undefined;
  if (!isRecord(body)) throw malformed("not a revocation event");
  return readRevocation({ ...body, id: payload.jti });
}

/**
 * Reads an event whose signature has been judged already.
 *
 * @throws {Refusal} `request_malformed` when it is none, or one that this version does not understand
 */
export function readRevocation(value: unknown): RevocationEvent {
  if (!isRecord(value) || !isName(value.id)) throw malformed("not a revocation event");
  const { id, seq, targets, code, decided_at, expires_at } = value;
  if (!isCount(seq) || !isCount(decided_at) || !isCount(expires_at)) throw malformed("a number is missing");
  if (code !== "token_revoked" && code !== "session_revoked" && code !== "refresh_reused") {
    throw malformed("the code is unknown");
  }
  if (!Array.isArray(targets) || targets.length === 0 || targets.length > MAX_TARGETS) {
    throw malformed("the targets are missing or too many");
  }
  const said = targets.map(revocationTarget);
  const request = isRequestId(value.request) ? { request: value.request } : {};
  return { id, seq, targets: said, code, decided_at, expires_at, ...request, ...revocationManner(value) };
}

/** One that is none is left out: who is thrown out must not depend on what only names a line in a log. */
function isRequestId(value: unknown): value is string {
  return typeof value === "string" && value.length <= MAX_REQUEST_ID && /^[\w.:-]+$/.test(value);
}

/** A manner that is not known is the strict one: the socket is closed. */
function revocationManner({ mode, margin }: Record<string, unknown>): RevocationManner {
  if (mode !== "reauthenticate") return {};
  if (!isCount(margin) || margin > MAX_MARGIN_SECONDS) throw malformed("the margin is missing or too long");
  return { mode, margin };
}

function revocationTarget(value: unknown): RevocationTarget {
  if (isRecord(value)) {
    const { kind, jti, sid, sub, generation, tid, cutoff, kid } = value;
    if (kind === "token" && isName(jti)) return { kind, jti };
    if (kind === "session" && isName(sid)) return { kind, sid };
    if (kind === "user" && isName(sub) && isCount(generation)) return { kind, sub, generation };
    if (kind === "subject" && isName(sub) && isCount(cutoff)) return { kind, sub, cutoff };
    if (kind === "tenant" && isName(tid) && isCount(cutoff)) return { kind, tid, cutoff };
    if (kind === "key" && isName(kid)) return { kind, kid };
    if (kind === "everyone" && isCount(cutoff)) return { kind, cutoff };
  }
  // An unknown kind is refused, not skipped: skipping would report a revocation as enforced that was not understood.
  throw malformed("a target is malformed or of an unknown kind");
}

/** The claims that decide whether a revocation hits. */
export type RevocableClaims = Pick<AccessTokenClaims, "jti" | "sid" | "sub" | "gen" | "auth_time"> & {
  readonly tid?: string | undefined;
  /** Of the token's header, not a claim: the key that it is signed with. Without it no retired key hits. */
  readonly kid?: string | undefined;
};

/** Whether one target hits a token: the rule itself, one target at a time. */
export function hits(target: RevocationTarget, claims: RevocableClaims): boolean {
  switch (target.kind) {
    case "token":
      return claims.jti === target.jti;
    case "session":
      return claims.sid === target.sid;
    case "user":
      return claims.sub === target.sub && claims.gen < target.generation;
    case "subject":
      return claims.sub === target.sub && claims.auth_time <= target.cutoff;
    case "tenant":
      return claims.tid === target.tid && claims.auth_time <= target.cutoff;
    case "key":
      return claims.kid === target.kid;
    case "everyone":
      return claims.auth_time <= target.cutoff;
  }
}

/** The index key of a target. */
export function keyOf(target: RevocationTarget): string {
  switch (target.kind) {
    case "token":
      return `token:${target.jti}`;
    case "session":
      return `session:${target.sid}`;
    case "user":
      return `user:${target.sub}`;
    case "subject":
      return `subject:${target.sub}`;
    case "tenant":
      return `tenant:${target.tid}`;
    case "key":
      return `key:${target.kid}`;
    case "everyone":
      return "everyone";
  }
}

/** Whom a revocation would hit in one cluster: nothing is done. */
export interface Rehearsal {
  readonly sockets: number;
  /** Sessions that have a socket open. Counted approximately when there are many (HyperLogLog, within about 1 %). */
  readonly sessions: number;
  /** Nodes that did not answer in time; what they hold is not in the figures. */
  readonly silent: readonly string[];
}

/**
 * The question, signed like an event but of a type that no node acts on.
 *
 * @param envelope times in seconds since the epoch
 */
export function signRehearsal(
  targets: readonly RevocationTarget[],
  envelope: { readonly issuer: string; readonly audience: string; readonly issuedAt: number; readonly id: string },
  key: SigningKey,
): Promise<string> {
  const { issuer: iss, audience: aud, issuedAt: iat, id: jti } = envelope;
  return signTyped(REHEARSAL_TYPE, { iss, aud, iat, exp: iat + 60, jti, targets }, key);
}

/** @throws {Refusal} as {@link verifyRevocation} */
export async function verifyRehearsal(
  question: unknown,
  keys: JWTVerifyGetKey,
  rules: TokenRules,
  now: Date = new Date(),
): Promise<{ readonly id: string; readonly targets: readonly RevocationTarget[] }> {
  const { jti, targets } = await verifyTyped(REHEARSAL_TYPE, question, keys, rules, now);
  if (!isName(jti) || !Array.isArray(targets) || targets.length > MAX_TARGETS) throw malformed("not a rehearsal");
  return { id: jti, targets: targets.map(revocationTarget) };
}

function malformed(detail: string): Refusal {
  return new Refusal("request_malformed", { detail });
}

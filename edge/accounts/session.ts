/**
 * A session's life as a pure state machine over one row, and the form of its refresh tokens (RFC 9700 section 4.14.2).
 *
 * A token is `kcr.<sub>.<random>.<position>.<secret>.<tag>`. The secret of the next position is a keyed hash of the token
 * before it, so that a retry gets the very same successor though nothing secret is stored. The tag lets the Worker tell
 * a token of ours from garbage before any object is woken: only a token that we once gave out can end a session.
 */
import { createHash, createHmac } from "node:crypto";
import { base64url } from "jose";
import { Refusal, type RefusalCode } from "#contract/refusal";
import type { RevocationCode } from "#contract/revocation";
import { randomName } from "../identifiers.ts";
import type { Origin } from "../origin.ts";
import { type Secrets, sameSecret, subkey } from "../subkeys.ts";

/** A refresh token whose tag was found right. */
export interface RefreshToken {
  readonly sid: string;
  /** 0 at login, one more with every refresh. */
  readonly position: number;
  /** 256 bits, base64url. */
  readonly secret: string;
}

/** How somebody proved who they are: with a password here, or to an issuer or a backend that is trusted. */
export type SignInMethod = "password" | "token_exchange" | "backend";

/** What is kept of a session. Seconds since the epoch where not said otherwise. */
export interface Session {
  readonly sid: string;
  readonly position: number;
  /** SHA-256 of the current secret, base64url. */
  readonly secret_hash: string;
  /** When the current position was reached, milliseconds: the grace is counted from here. */
  readonly rotated_at: number;
  readonly auth_time: number;
  readonly gen: number;
  readonly device: string | null;
  /** The nearer one of its idle and its absolute end. */
  readonly expires_at: number;
  readonly ended_at: number | null;
  readonly ended_code: RevocationCode | null;
  readonly method: SignInMethod;
  /** A part of the account's scope; null for the whole of it. */
  readonly scope: string | null;
  /** Where the sign-in came from: an `Origin` as JSON. */
  readonly origin: string | null;
}

/** What is known of a session when it begins. */
export interface SessionStart extends Pick<Session, "gen" | "device" | "method" | "scope" | "origin"> {
  readonly auth_time: number;
  readonly nowMs: number;
}

export interface SessionRules {
  readonly refreshGraceSeconds: number;
  readonly sessionIdleSeconds: number;
  readonly sessionMaxSeconds: number;
}

/** What a presented token leads to. */
export type Rotation =
  /** The chain moves on: store `session`, give out `token`. */
  | { readonly step: "advance"; readonly session: Session; readonly token: RefreshToken }
  /** The answer was lost, or two asked at once: give out the same `token` again, store nothing. */
  | { readonly step: "repeat"; readonly session: Session; readonly token: RefreshToken }
  /** A token that was traded long ago: somebody has a copy. End the session. */
  | { readonly step: "theft" }
  | { readonly step: "refuse"; readonly code: RefusalCode; readonly detail: string };

const SHAPE =
  /^kcr\.([A-Za-z0-9_-]{1,64}\.[A-Za-z0-9_-]{22})\.(0|[1-9][0-9]{0,9})\.([A-Za-z0-9_-]{43})\.([A-Za-z0-9_-]{22})$/;
/** Of the longest token that has this shape. */
const MAX_LENGTH = 169;
const TAG_BYTES = 16;

/**
 * Reads a refresh token and checks its tag, without any state.
 *
 * @throws {Refusal} `refresh_invalid`
 */
export function readRefreshToken(text: string, secrets: Secrets): RefreshToken {
  const [, sid, position, chainSecret, tag] = (text.length <= MAX_LENGTH && SHAPE.exec(text)) || [];
  if (sid === undefined || chainSecret === undefined || tag === undefined) {
    throw new Refusal("refresh_invalid", { detail: "not in the form of a refresh token" });
  }
  const token: RefreshToken = { sid, position: Number(position), secret: chainSecret };
  const ours = secrets.some((secret) => sameSecret(tag, tagOf(token, secret)));
  if (!ours) throw new Refusal("refresh_invalid", { detail: "the tag is wrong" });
  return token;
}

/** The token as its holder gets it. */
export function writeRefreshToken(token: RefreshToken, [secret]: Secrets): string {
  return `${body(token)}.${tagOf(token, secret)}`;
}

/** A session that begins now, and the first token of its chain. */
export function beginSession(
  sub: string,
  { nowMs, ...start }: SessionStart,
  rules: SessionRules,
): { readonly session: Session; readonly token: RefreshToken } {
  const token: RefreshToken = { sid: `${sub}.${randomName(128)}`, position: 0, secret: randomName(256) };
  const session: Session = {
    sid: token.sid,
    position: token.position,
    secret_hash: hashOf(token),
    rotated_at: nowMs,
    ...start,
    expires_at: expiry(start.auth_time, nowMs, rules),
    ended_at: null,
    ended_code: null,
  };
  return { session, token };
}

/** Judges a presented token against the session as it stands. Changes nothing. */
export function rotate(
  session: Session | undefined,
  presented: RefreshToken,
  nowMs: number,
  rules: SessionRules,
  secrets: Secrets,
): Rotation {
  if (session === undefined) return refuse("refresh_invalid", "the session is unknown");
  if (session.ended_at !== null) return refuse("session_revoked", `the session ended: ${session.ended_code}`);
  if (session.expires_at * 1000 <= nowMs) return refuse("refresh_invalid", "the session has expired");
  if (presented.position > session.position) return refuse("refresh_invalid", "the position is not reached yet");
  const successor = successorOf(presented, secrets[0]);
  if (presented.position === session.position) {
    if (hashOf(presented) !== session.secret_hash) return refuse("refresh_invalid", "the secret is wrong");
    return { step: "advance", token: successor, session: advanced(session, successor, nowMs, rules) };
  }
  const inGrace = nowMs - session.rotated_at <= rules.refreshGraceSeconds * 1000;
  if (successor.position < session.position || !inGrace) return { step: "theft" };
  // The tag was ours but this chain never went through it: it proves nothing against the holder of the session.
  const given = secrets.map((secret) => successorOf(presented, secret));
  const token = given.find((candidate) => hashOf(candidate) === session.secret_hash);
  if (token === undefined) return refuse("refresh_invalid", "the secret is wrong");
  return { step: "repeat", token, session };
}

/** Whether it can still be refreshed and used. */
export function isLive(session: Session, nowMs: number): boolean {
  return session.ended_at === null && session.expires_at * 1000 > nowMs;
}

/** A session as its owner and administrators see it. Seconds since the epoch. */
export interface SessionSummary extends Pick<Session, "sid" | "device" | "method" | "scope"> {
  readonly user_agent: string | null;
  readonly origin: Omit<Origin, "user_agent">;
  readonly created_at: number;
  readonly last_used_at: number;
  /** When it ends if it is not refreshed until then. */
  readonly idle_expires_at: number;
  /** When it ends however often it is refreshed. */
  readonly absolute_expires_at: number;
  /** What was last decided: the nearer one, by the rules at its last use. */
  readonly expires_at: number;
}

/** What may be shown of a session: nothing that would let anybody refresh it. */
export function summarise(session: Session, rules: SessionRules): SessionSummary {
  const { sid, device, method, scope, auth_time, rotated_at, expires_at } = session;
  const { user_agent, ...origin }: Origin = session.origin === null ? {} : JSON.parse(session.origin);
  return {
    sid,
    device,
    user_agent: user_agent ?? null,
    origin,
    method,
    scope,
    created_at: auth_time,
    last_used_at: Math.floor(rotated_at / 1000),
    idle_expires_at: idleEnd(rotated_at, rules),
    absolute_expires_at: absoluteEnd(auth_time, rules),
    expires_at,
  };
}

/**
 * What of an account's scope a session has. An account that lost a scope since takes it away from its sessions.
 *
 * @returns scopes separated by spaces (RFC 6749 section 3.3), or null when there are none
 */
export function effectiveScope(ofAccount: string | null, ofSession: string | null): string | null {
  if (ofSession === null) return ofAccount;
  const held = new Set(ofAccount?.split(" "));
  const left = ofSession.split(" ").filter((scope) => held.has(scope));
  return left.length === 0 ? null : left.join(" ");
}

function advanced(session: Session, successor: RefreshToken, nowMs: number, rules: SessionRules): Session {
  return {
    ...session,
    position: successor.position,
    secret_hash: hashOf(successor),
    rotated_at: nowMs,
    expires_at: expiry(session.auth_time, nowMs, rules),
  };
}

function expiry(authTime: number, nowMs: number, rules: SessionRules): number {
  return Math.min(idleEnd(nowMs, rules), absoluteEnd(authTime, rules));
}

function idleEnd(usedMs: number, rules: SessionRules): number {
  return Math.floor(usedMs / 1000) + rules.sessionIdleSeconds;
}

function absoluteEnd(authTime: number, rules: SessionRules): number {
  return authTime + rules.sessionMaxSeconds;
}

function refuse(code: RefusalCode, detail: string): Rotation {
  return { step: "refuse", code, detail };
}

function successorOf(token: RefreshToken, secret: string): RefreshToken {
  const next = createHmac("sha256", subkey(secret, "refresh-chain")).update(body(token)).digest("base64url");
  return { sid: token.sid, position: token.position + 1, secret: next };
}

function tagOf(token: RefreshToken, secret: string): string {
  const whole = createHmac("sha256", subkey(secret, "refresh-tag")).update(body(token)).digest();
  return base64url.encode(whole.slice(0, TAG_BYTES));
}

function hashOf(token: RefreshToken): string {
  return createHash("sha256").update(token.secret).digest("base64url");
}

function body(token: RefreshToken): string {
  return `kcr.${token.sid}.${token.position}.${token.secret}`;
}

/**
 * Who is in, and until when: every admitted socket of this node with the claims that let it in, what each issuer has
 * revoked, and the one rule that both meet in.
 *
 * A revocation is applied in one turn: the index learns it and the sockets it hits are found with no wait between, so
 * that a handshake that ends later meets the index and a socket that was connected before is found.
 */
import { setTimeout as delay } from "node:timers/promises";
import type { VerifiedClaims } from "#contract/access-token";
import type { NodeReceipt } from "#contract/cluster";
import { Refusal } from "#contract/refusal";
import { hits, type RevocationEvent, type RevocationTarget } from "#contract/revocation";
import { RevocationIndex } from "#contract/revocation-index";
import { keepNewest } from "./keep-newest.ts";
import type { LogWay } from "./log.ts";
import { SocketIndex } from "./socket-index.ts";
import { type Admission, closeForRefresh, disconnectAll, type ProtectedSocket, sayFarewell } from "./sockets.ts";
import { SecondWheel } from "./wheel.ts";

/** By which way an event came in first: pushed by the edge, by the bell or the stream in Redis, or by the edge's feed. */
export type Way = "push" | LogWay | "feed";

/** An event that this node has understood: nobody it covers gets in any more. */
export interface Applied {
  readonly expiresAt: number;
  /** Once no socket that it covers is open here: a promise only where there was one. */
  readonly done: NodeReceipt | Promise<NodeReceipt>;
}

export interface AdmissionsOptions {
  readonly node: string;
  readonly issuers: readonly string[];
  /** How long before its `exp` a socket is told, at most; a third of the time that is left if that is less. */
  readonly expiryLeadSeconds: number;
  /** @param endsAt when it will be closed, seconds since the epoch */
  onExpiring(admission: Admission, endsAt: number): void;
  onExpired(sockets: number): void;
  /** Nobody whom it covers gets in any more. @param hit sockets that it covers, which are closed from here on */
  onApplied(event: RevocationEvent, way: Way, hit: number): void;
  /** None of those sockets is open any more. */
  onRevoked(event: RevocationEvent, closed: number): void;
  onKeyRevoked(issuer: string): void;
}

/** What is known of one trusted issuer: whom it has revoked, and which sockets its tokens let in. */
interface Realm {
  readonly revocations: RevocationIndex;
  readonly sockets: SocketIndex;
  /** What was done about each event, by its id, so that one that comes again by another path gets the same receipt. */
  readonly applied: Map<string, Applied>;
}

/** @throws {Refusal} `session_mismatch` when a token is of another issuer, person or session */
export function demandSameSession(before: VerifiedClaims, { iss, sub, sid }: VerifiedClaims): void {
  if (iss !== before.iss || sub !== before.sub || sid !== before.sid) throw new Refusal("session_mismatch");
}

/** The wall clock when this process began, by the monotonic one. */
const BEGAN_AT = Date.now() - performance.now();

/**
 * A time that has come whatever anybody does to the clock, milliseconds since the epoch. A clock that is set ahead and back again must not make
 * a node forget what is revoked.
 */
function provenNow(): number {
  return Math.min(Date.now(), BEGAN_AT + performance.now());
}

/** Events of one issuer whose receipt is remembered until they are over. An older one that comes again closes nobody, and says so. */
const EVENTS_KEPT = 100_000;
/** More than are decided, even in a bad hour, in the seconds that a Redis which fails over can lose. */
const LATELY = 10_000;
const FORGET_EVERY_MS = 5_000;

export class Admissions {
  readonly #options: AdmissionsOptions;
  readonly #realms: ReadonlyMap<string, Realm>;
  readonly #of = new WeakMap<ProtectedSocket, Admission>();
  /** Each socket waits once: to be told, and then to be closed. */
  readonly #wheel: SecondWheel<Admission>;
  readonly #forgetting: NodeJS.Timeout;
  readonly #closing = new AbortController();
  #closingEvents = 0;

  constructor(options: AdmissionsOptions) {
    this.#options = options;
    this.#realms = new Map(
      options.issuers.map((issuer) => [
        issuer,
        { revocations: new RevocationIndex(), sockets: new SocketIndex(), applied: new Map() },
      ]),
    );
    this.#wheel = new SecondWheel((due) => this.#come(due));
    this.#forgetting = setInterval(() => this.#forget(), FORGET_EVERY_MS);
    this.#forgetting.unref();
  }

  /** @throws {Refusal} `token_expired`, or the code of the revocation that hits these claims */
  checkLiving(claims: VerifiedClaims): void {
    const dead = this.#realm(claims.iss).revocations.check(claims);
    if (dead !== undefined) throw new Refusal(dead);
    // No leeway here: what is let in late would be closed within the second.
    if (claims.exp <= Date.now() / 1000) throw new Refusal("token_expired");
  }

  /**
   * Takes a connected socket in, until it is told to `leave`.
   *
   * @param keepMs how long it may stay when the node is fenced
   * @throws {Refusal} as `checkLiving`
   */
  admit(socket: ProtectedSocket, claims: VerifiedClaims, keepMs: number): Admission {
    this.checkLiving(claims);
    const admission: Admission = { socket, claims, keepMs, dueAt: 0, ended: undefined };
    this.#of.set(socket, admission);
    this.#enter(admission);
    return admission;
  }

  /** It has disconnected. */
  leave(socket: ProtectedSocket): void {
    const admission = this.#of.get(socket);
    if (admission !== undefined) this.#leave(admission);
  }

  /**
   * Puts a fresh token of the same session in the place of the one that let the socket in.
   *
   * @returns whether it did: one that ends no later than the present one changes nothing
   * @throws {Refusal} `session_mismatch`, or as `checkLiving`
   */
  renew(admission: Admission, claims: VerifiedClaims): boolean {
    demandSameSession(admission.claims, claims);
    this.checkLiving(claims);
    if (claims.exp < admission.claims.exp) return false;
    this.#leave(admission);
    admission.claims = claims;
    this.#enter(admission);
    return true;
  }

  of(socket: ProtectedSocket): Admission | undefined {
    return this.#of.get(socket);
  }

  /** This node's sockets of the same session. */
  siblings({ iss, sid }: VerifiedClaims): ProtectedSocket[] {
    return [...this.#realm(iss).sockets.ofSession(sid)].map(({ socket }) => socket);
  }

  /** What was done about an event that has been applied already. */
  applied(issuer: string, id: string): Applied | undefined {
    return this.#realms.get(issuer)?.applied.get(id);
  }

  /** What was done about the last events of an issuer, by their ids. */
  lately(issuer: string): readonly (readonly [id: string, applied: Applied])[] {
    return [...this.#realm(issuer).applied].slice(-LATELY);
  }

  /** Applies an event, once however often it comes. */
  apply(issuer: string, event: RevocationEvent, way: Way): Applied {
    const { revocations, sockets, applied } = this.#realm(issuer);
    const known = applied.get(event.id);
    if (known !== undefined) return known;
    revocations.merge(event);
    if (event.targets.some(({ kind }) => kind === "key")) this.#options.onKeyRevoked(issuer);
    const hit = sockets.hitBy(event);
    // Most hit nobody here, and a node that was away hears of a hundred thousand.
    const done = hit.size === 0 ? this.#word(0) : this.#enforce(event, hit);
    const now = { expiresAt: event.expires_at, done };
    applied.set(event.id, now);
    keepNewest(applied, EVENTS_KEPT);
    this.#options.onApplied(event, way, hit.size);
    if (hit.size === 0) this.#options.onRevoked(event, 0);
    return now;
  }

  async #enforce(event: RevocationEvent, hit: ReadonlySet<Admission>): Promise<NodeReceipt> {
    this.#closingEvents += 1;
    try {
      const left = event.mode === "reauthenticate" ? await this.#reauthenticate(event, hit) : hit;
      const closed = await disconnectAll(left, event.code);
      this.#options.onRevoked(event, closed);
      return this.#word(closed);
    } finally {
      this.#closingEvents -= 1;
    }
  }

  #word(closed: number): NodeReceipt {
    return { node: this.#options.node, applied_at: Date.now(), closed };
  }

  /** Asks for other tokens, and resolves after the margin to those who have brought none. */
  async #reauthenticate(event: RevocationEvent, hit: ReadonlySet<Admission>): Promise<ReadonlySet<Admission>> {
    const margin = event.margin ?? 0;
    for (const admission of hit) this.#options.onExpiring(admission, Math.floor(Date.now() / 1000) + margin);
    await delay(margin * 1000, undefined, { signal: this.#closing.signal }).catch(() => undefined); // the node closes
    return new Set([...hit].filter(({ claims }) => event.targets.some((target) => hits(target, claims))));
  }

  /** Whom an event with these targets would hit here. */
  hitBy(issuer: string, targets: readonly RevocationTarget[]): { readonly sockets: number; readonly sids: string[] } {
    const hit = this.#realm(issuer).sockets.hitBy({ targets });
    return { sockets: hit.size, sids: [...new Set([...hit].map(({ claims }) => claims.sid))] };
  }

  /** Open sockets of a person. */
  openTo(issuer: string, sub: string): Admission[] {
    return [...this.#realm(issuer).sockets.ofUser(sub)].filter(({ ended }) => ended === undefined);
  }

  get sockets(): number {
    return [...this.#realms.values()].reduce((sum, realm) => sum + realm.sockets.size, 0);
  }

  /** Events that are applied, and whose sockets are not all closed. */
  get closing(): number {
    return this.#closingEvents;
  }

  get revocations(): number {
    return [...this.#realms.values()].reduce((sum, realm) => sum + realm.revocations.size, 0);
  }

  /**
   * Closes the sockets that may not stay any longer on a node that is fenced.
   *
   * @param forMs how long it has been
   * @returns how many that were
   */
  async fence(forMs: number): Promise<number> {
    const due = this.#all((admission) => admission.keepMs <= forMs);
    return await closeForRefresh(due, "unavailable");
  }

  #all(which: (admission: Admission) => boolean): Set<Admission> {
    return new Set([...this.#realms.values()].flatMap(({ sockets }) => [...sockets.all()].filter(which)));
  }

  /** Closes every socket so that stock clients go elsewhere, and stops. */
  async close(): Promise<void> {
    clearInterval(this.#forgetting);
    this.#closing.abort();
    this.#wheel.stop();
    await sayFarewell(this.#all(() => true));
  }

  #enter(admission: Admission): void {
    const { claims } = admission;
    const left = claims.exp - Date.now() / 1000;
    this.#realm(claims.iss).sockets.add(admission);
    this.#await(admission, Math.floor(claims.exp - Math.min(this.#options.expiryLeadSeconds, left / 3)));
  }

  #leave(admission: Admission): void {
    this.#realm(admission.claims.iss).sockets.remove(admission);
    this.#wheel.remove(admission.dueAt, admission);
  }

  #await(admission: Admission, second: number): void {
    admission.dueAt = second;
    this.#wheel.add(second, admission);
  }

  /** The time of some has come: to be told that their token ends, or, where it has ended, to be closed. */
  #come(due: ReadonlySet<Admission>): void {
    const now = Date.now() / 1000;
    const over = new Set([...due].filter(({ claims }) => claims.exp <= now));
    const warned = [...due].filter((admission) => !over.has(admission));
    // All of them before any is told: whatever comes of that, everybody's end has to come.
    for (const admission of warned) this.#await(admission, Math.ceil(admission.claims.exp));
    if (over.size > 0) void closeForRefresh(over, "token_expired").then(this.#options.onExpired);
    for (const admission of warned) {
      if (admission.ended === undefined) this.#options.onExpiring(admission, admission.claims.exp);
    }
  }

  #forget(): void {
    const now = provenNow() / 1000;
    for (const { revocations, applied } of this.#realms.values()) {
      revocations.expire(now);
      for (const [id, { expiresAt }] of applied) if (expiresAt <= now) applied.delete(id);
    }
  }

  #realm(issuer: string): Realm {
    const realm = this.#realms.get(issuer);
    if (realm === undefined) throw new Refusal("token_invalid", { detail: "the issuer is not trusted" });
    return realm;
  }
}

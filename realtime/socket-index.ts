/**
 * Admitted sockets of one issuer by everything that a revocation can name. There is one look-up for each kind of name; a name is the very string that the
 * claims hold, and nearly all have one socket, which is kept without a set around it.
 */
import type { VerifiedClaims } from "#contract/access-token";
import { hits, type RevocationEvent, type RevocationTarget } from "#contract/revocation";
import type { Admission } from "./sockets.ts";

type Holders = Map<string, Admission | Set<Admission>>;

export class SocketIndex {
  readonly #everyone = new Set<Admission>();
  readonly #users: Holders = new Map();
  readonly #sessions: Holders = new Map();
  readonly #tokens: Holders = new Map();
  readonly #tenants: Holders = new Map();

  get size(): number {
    return this.#everyone.size;
  }

  add(admission: Admission): void {
    this.#everyone.add(admission);
    for (const [holders, name] of this.#places(admission.claims)) {
      const known = holders.get(name);
      if (known instanceof Set) known.add(admission);
      else holders.set(name, known === undefined ? admission : new Set([known, admission]));
    }
  }

  remove(admission: Admission): void {
    this.#everyone.delete(admission);
    for (const [holders, name] of this.#places(admission.claims)) {
      const known = holders.get(name);
      if (known === admission) holders.delete(name);
      else if (known instanceof Set && known.delete(admission) && known.size === 0) holders.delete(name);
    }
  }

  /** The sockets that an event hits, each once. */
  hitBy({ targets }: Pick<RevocationEvent, "targets">): Set<Admission> {
    const hit = new Set<Admission>();
    for (const target of targets) {
      for (const admission of this.#namedBy(target)) if (hits(target, admission.claims)) hit.add(admission);
    }
    return hit;
  }

  ofSession(sid: string): Iterable<Admission> {
    return allOf(this.#sessions.get(sid));
  }

  ofUser(sub: string): Iterable<Admission> {
    return allOf(this.#users.get(sub));
  }

  all(): Iterable<Admission> {
    return this.#everyone;
  }

  #places({ sub, sid, jti, tid }: VerifiedClaims): (readonly [Holders, string])[] {
    const places: (readonly [Holders, string])[] = [
      [this.#users, sub],
      [this.#sessions, sid],
      [this.#tokens, jti],
    ];
    if (tid !== undefined) places.push([this.#tenants, tid]);
    return places;
  }

  #namedBy(target: RevocationTarget): Iterable<Admission> {
    switch (target.kind) {
      case "token":
        return allOf(this.#tokens.get(target.jti));
      case "session":
        return this.ofSession(target.sid);
      case "user":
      case "subject":
        return this.ofUser(target.sub);
      case "tenant":
        return allOf(this.#tenants.get(target.tid));
      // A retired key has signed for nearly everybody: an index of its own would cost every socket and spare nothing.
      case "key":
      case "everyone":
        return this.#everyone;
    }
  }
}

function allOf(holders: Admission | Set<Admission> | undefined): Iterable<Admission> {
  if (holders === undefined) return [];
  return holders instanceof Set ? holders : [holders];
}

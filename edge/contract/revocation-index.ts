/**
 * Everything that one issuer has revoked and that a living token could still meet. The strictest level decides.
 *
 * It is asked at every handshake and told of every revocation, so that it is made for many of them: a check is one look-up for each kind of
 * target however much is revoked, no entry has an object of its own, and what is over is found by its second and never looked for.
 */
import type { RevocableClaims, RevocationCode, RevocationEvent, RevocationTarget } from "./revocation.ts";

type Kind = RevocationTarget["kind"];

/** What is known of a target. Never changed, so that all that are alike can share one. */
interface Entry {
  readonly cutoff: number;
  /** Seconds since the epoch. */
  readonly expiresAt: number;
  readonly code: RevocationCode;
}

/** What may be forgotten in one second. */
interface Due {
  /** One for all entries that are alike. */
  readonly entries: Entry[];
  /** Names of targets. One whose entry was made to last longer since is due once more, later. */
  readonly names: Partial<Record<Kind, string[]>>;
}

/** The target `everyone` has no name. */
const EVERYONE = "";
/** Entries are looked for among this many before another one is made: of most seconds there is one for each code. */
const SHARED_AT_MOST = 8;

export class RevocationIndex {
  readonly #entries: Readonly<Record<Kind, Map<string, Entry>>> = {
    everyone: new Map(),
    tenant: new Map(),
    user: new Map(),
    subject: new Map(),
    session: new Map(),
    key: new Map(),
    token: new Map(),
  };
  readonly #due = new Map<number, Due>();

  get size(): number {
    return Object.values(this.#entries).reduce((sum, entries) => sum + entries.size, 0);
  }

  /** Adds an event. Adding it twice, late or out of order changes nothing. */
  merge({ targets, code, expires_at }: RevocationEvent): void {
    for (const target of targets) {
      const name = nameOf(target);
      const cutoff = cutoffOf(target);
      const known = this.#entries[target.kind].get(name);
      if (known === undefined) {
        this.#put(target.kind, name, cutoff, expires_at, code);
        continue;
      }
      // The code of the strictest entry is shown; on a tie the lesser code, so that the order of arrival cannot matter.
      const isStricter = cutoff > known.cutoff || (cutoff === known.cutoff && code < known.code);
      const lasting = Math.max(known.expiresAt, expires_at);
      if (!isStricter && lasting === known.expiresAt) continue;
      this.#put(target.kind, name, Math.max(known.cutoff, cutoff), lasting, isStricter ? code : known.code, known);
    }
  }

  /** Why these claims are dead, or undefined while they live. Ending a session outranks ending one token, or all of one key. */
  check({ jti, sid, sub, gen, auth_time, tid, kid }: RevocableClaims): RevocationCode | undefined {
    const { everyone, tenant, user, subject, session, key, token } = this.#entries;
    return (
      cut(everyone, EVERYONE, auth_time) ??
      (tid === undefined ? undefined : cut(tenant, tid, auth_time)) ??
      cut(user, sub, gen + 1) ??
      cut(subject, sub, auth_time) ??
      session.get(sid)?.code ??
      (kid === undefined ? undefined : key.get(kid)?.code) ??
      token.get(jti)?.code
    );
  }

  /** Forgets what can no longer hit a living token. `now` in seconds since the epoch. */
  expire(now: number): void {
    for (const [second, { names }] of this.#due) {
      if (second > now) continue;
      this.#due.delete(second);
      for (const [kind, due = []] of Object.entries(names)) {
        const entries = this.#entries[kind as Kind];
        for (const name of due) if ((entries.get(name)?.expiresAt ?? now) <= now) entries.delete(name);
      }
    }
  }

  #put(kind: Kind, name: string, cutoff: number, expiresAt: number, code: RevocationCode, known?: Entry): void {
    const due = this.#dueAt(expiresAt);
    this.#entries[kind].set(name, shared(due.entries, { cutoff, expiresAt, code }));
    if (known?.expiresAt === expiresAt) return;
    const names = due.names[kind];
    if (names === undefined) due.names[kind] = [name];
    else names.push(name);
  }

  #dueAt(second: number): Due {
    const known = this.#due.get(second);
    if (known !== undefined) return known;
    const due: Due = { entries: [], names: {} };
    this.#due.set(second, due);
    return due;
  }
}

function shared(entries: Entry[], wanted: Entry): Entry {
  const alike = entries.find(({ cutoff, code }) => cutoff === wanted.cutoff && code === wanted.code);
  if (alike === undefined && entries.length < SHARED_AT_MOST) entries.push(wanted);
  return alike ?? wanted;
}

function cut(entries: ReadonlyMap<string, Entry>, name: string, value: number): RevocationCode | undefined {
  const entry = entries.get(name);
  return entry !== undefined && value <= entry.cutoff ? entry.code : undefined;
}

function nameOf(target: RevocationTarget): string {
  switch (target.kind) {
    case "token":
      return target.jti;
    case "session":
      return target.sid;
    case "user":
    case "subject":
      return target.sub;
    case "tenant":
      return target.tid;
    case "key":
      return target.kid;
    case "everyone":
      return EVERYONE;
  }
}

/** What a name alone decides has none. */
function cutoffOf(target: RevocationTarget): number {
  if (target.kind === "user") return target.generation;
  return "cutoff" in target ? target.cutoff : 0;
}

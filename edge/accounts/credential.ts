/**
 * One login name: its password hash, whose it is, and how often it was guessed at. The hash never leaves the object.
 *
 * A name that nobody has is judged like one that somebody has, at the same price and with the same delays, but nothing of it
 * is stored: guessing at names must not fill the storage.
 */
import { DurableObject } from "cloudflare:workers";
import { Refusal, type RefusalCode, toRefusal } from "#contract/refusal";
import { type Act, audit } from "../audit/audit.ts";
import { newSubject } from "../identifiers.ts";
import { logFailure } from "../log.ts";
import { answer, ask, type Outcome } from "../outcome.ts";
import { hashPassword, NOBODYS_HASH, verifyPassword } from "./password.ts";

/** An account as an administrator asks for it. `login` is normalised. */
export interface NewAccount {
  readonly login: string;
  readonly password: string;
  readonly sub: string | undefined;
  readonly tid: string | null;
  readonly scope: string | null;
}

/** Whose password was found right. */
export interface Verified {
  readonly sub: string;
  /** How often the password has been changed: an account knows by it when one is out of date. */
  readonly passwordGeneration: number;
}

interface FirstStoredCredential {
  /** Of this form; a later form is made from it when it is read. */
  readonly version: 1;
  readonly sub: string;
  readonly hash: string;
  /** Whether the account is known to exist. Until then the name is reserved, and nobody can log in. */
  readonly confirmed: boolean;
}

interface StoredCredential extends Omit<FirstStoredCredential, "version"> {
  readonly version: 2;
  readonly passwordGeneration: number;
}

/** A changed password that the account has not been told of. */
interface Change {
  readonly sub: string;
  readonly passwordGeneration: number;
  readonly keep: string;
  readonly by: Act;
}

interface Throttle {
  readonly failures: number;
  /** Milliseconds since the epoch. */
  readonly lastAt: number;
  readonly openAt: number;
}

const CREDENTIAL_KEY = "credential";
const THROTTLE_KEY = "throttle";
const CHANGE_KEY = "change";

const FREE_FAILURES = 5;
const MAX_DELAY_SECONDS = 60;
/** Failures are forgotten after this long without another one. */
const FORGET_MS = 15 * 60_000;
/** Between two attempts to tell an account that its password was changed. */
const TELL_AGAIN_MS = 5_000;

/** The same person, however they type it: this is what the object is named after. */
export function normaliseLogin(login: string): string {
  return login.normalize("NFKC").trim().toLowerCase();
}

export class Credential extends DurableObject<Env> {
  #creating = false;
  /** In memory for everybody, and stored as well for names that exist. */
  #throttle: Throttle | undefined;

  /**
   * Makes an account with this login name. If it breaks off halfway, asking again finishes it.
   *
   * @returns the subject
   * @throws {Refusal} `conflict` when the login name or the subject is taken, `unavailable` when too much is going on
   */
  create(account: NewAccount, by?: Act): Promise<Outcome<string>> {
    return answer(async () => {
      const reserved = this.#stored();
      if (this.#creating || reserved?.confirmed) throw new Refusal("conflict", { detail: "the login name is taken" });
      if (reserved !== undefined && account.sub !== undefined && account.sub !== reserved.sub) {
        throw new Refusal("conflict", { detail: "the login name is reserved for another subject" });
      }
      this.#creating = true;
      try {
        return await this.#create(account, account.sub ?? reserved?.sub ?? newSubject(), by);
      } finally {
        this.#creating = false;
      }
    });
  }

  /**
   * Judges a password.
   *
   * @param by who tries, for the audit trail; whose account it is, if any, is known only here
   * @throws {Refusal} `credentials_wrong`, `too_many_attempts`, `unavailable` when too many are being judged
   */
  verify(password: string, by?: Act): Promise<Outcome<Verified>> {
    return answer(async () => {
      const known = this.#known();
      try {
        const { sub, passwordGeneration } = await this.#verify(password, known);
        return { sub, passwordGeneration };
      } catch (error) {
        if (by !== undefined) this.#recordFailure(by, known?.sub, toRefusal(error).code);
        throw error;
      }
    });
  }

  /**
   * Changes the password of somebody who knows the present one, and has the other sessions ended. What a guesser of the present
   * password gets is what one gets who logs in.
   *
   * @param change `keep` names the session that stays
   * @returns whether the other sessions have ended; otherwise they will, as soon as the account can be reached
   * @throws {Refusal} as `verify`
   */
  change(
    change: Omit<Change, "passwordGeneration"> & { readonly current: string; readonly next: string },
  ): Promise<Outcome<boolean>> {
    return answer(async () => {
      const { sub, keep, by, current, next } = change;
      const known = this.#known();
      // The name was freed and is somebody else's by now.
      await this.#verify(current, known?.sub === sub ? known : undefined);
      const hash = await hashPassword(next);
      const now = this.#known();
      if (now?.sub !== sub || now.passwordGeneration !== known?.passwordGeneration) {
        throw new Refusal("credentials_wrong", { detail: "the password was changed meanwhile" });
      }
      const passwordGeneration = now.passwordGeneration + 1;
      this.#store({ ...now, hash, passwordGeneration });
      this.ctx.storage.kv.put<Change>(CHANGE_KEY, { sub, passwordGeneration, keep, by });
      void this.ctx.storage.setAlarm(Date.now() + TELL_AGAIN_MS);
      return await this.#tellChange();
    });
  }

  /** Forgets the login name, when it is this subject's. @param sub whose account was deleted */
  release(sub: string): Promise<Outcome<null>> {
    return answer(() => {
      if (this.#stored()?.sub !== sub) return null;
      for (const key of [CREDENTIAL_KEY, CHANGE_KEY]) this.ctx.storage.kv.delete(key);
      this.#forgive();
      return null;
    });
  }

  /** Never throws: the platform gives up after six retries. */
  override async alarm(): Promise<void> {
    if (!(await this.#tellChange())) await this.ctx.storage.setAlarm(Date.now() + TELL_AGAIN_MS);
  }

  /** Whose login name this is. @throws {Refusal} `not_found` */
  subject(): Promise<Outcome<string>> {
    return answer(() => {
      const known = this.#known();
      if (known === undefined) throw new Refusal("not_found", { detail: "no such login name" });
      return known.sub;
    });
  }

  async #create({ login, password, tid, scope }: NewAccount, sub: string, by: Act | undefined): Promise<string> {
    const hash = await hashPassword(password);
    this.#store({ version: 2, sub, hash, confirmed: false, passwordGeneration: 0 });
    try {
      await ask(this.env.ACCOUNT.getByName(sub).create({ sub, login, tid, scope }, undefined, by));
    } catch (error) {
      if (error instanceof Refusal && error.code === "conflict") this.ctx.storage.kv.delete(CREDENTIAL_KEY);
      throw error;
    }
    // It was deleted before it was known here to exist.
    if (this.#stored() === undefined) throw new Refusal("conflict", { detail: "the account was deleted meanwhile" });
    this.#store({ version: 2, sub, hash, confirmed: true, passwordGeneration: 0 });
    return sub;
  }

  async #verify(password: string, known: StoredCredential | undefined): Promise<StoredCredential> {
    this.#countAttempt(known !== undefined, Date.now());
    const verdict = await this.#judge(password, known);
    if (known === undefined || !verdict.matches) throw new Refusal("credentials_wrong");
    this.#forgive();
    if (verdict.outdated) await this.#rehash(password, known);
    return known;
  }

  /** Makes the hash anew with the parameters of today, unless the password was changed meanwhile. */
  async #rehash(password: string, known: StoredCredential): Promise<void> {
    const hash = await hashPassword(password);
    const now = this.#stored();
    if (now?.sub === known.sub && now.passwordGeneration === known.passwordGeneration) this.#store({ ...now, hash });
  }

  async #tellChange(): Promise<boolean> {
    const change = this.ctx.storage.kv.get<Change>(CHANGE_KEY);
    if (change === undefined) return true;
    const { sub, passwordGeneration, keep, by } = change;
    try {
      await ask(this.env.ACCOUNT.getByName(sub).passwordChanged(passwordGeneration, keep, by));
    } catch (error) {
      logFailure("an account does not know of its new password yet", { sub }, error);
      return false;
    }
    // Another change may have come meanwhile; it is told by itself.
    const latest = this.ctx.storage.kv.get<Change>(CHANGE_KEY)?.passwordGeneration;
    if (latest === passwordGeneration) this.ctx.storage.kv.delete(CHANGE_KEY);
    return true;
  }

  async #judge(password: string, known: StoredCredential | undefined) {
    try {
      return await verifyPassword(password, known?.hash ?? NOBODYS_HASH);
    } catch (error) {
      // It was not judged, so it was no guess.
      if (this.#throttle !== undefined) {
        this.#throttle = { ...this.#throttle, failures: this.#throttle.failures - 1, openAt: 0 };
      }
      throw error;
    }
  }

  /**
   * Counts a guess before it is judged, so that guesses made at once cannot all be the first. The write goes on while the hash is
   * computed, so that an answer for a name that exists takes no longer than one for a name that does not.
   */
  #countAttempt(known: boolean, now: number): void {
    const last = this.#throttle ?? this.ctx.storage.kv.get<Throttle>(THROTTLE_KEY);
    if (last !== undefined && now < last.openAt) {
      throw new Refusal("too_many_attempts", { retryAfterSeconds: Math.ceil((last.openAt - now) / 1000) });
    }
    const failures = (last !== undefined && now - last.lastAt < FORGET_MS ? last.failures : 0) + 1;
    this.#throttle = { failures, lastAt: now, openAt: now + delaySeconds(failures) * 1000 };
    if (known) this.ctx.storage.kv.put(THROTTLE_KEY, this.#throttle);
  }

  #forgive(): void {
    this.#throttle = undefined;
    this.ctx.storage.kv.delete(THROTTLE_KEY);
  }

  #recordFailure(by: Act, sub: string | undefined, reason: RefusalCode): void {
    const actor = { kind: "user", id: sub ?? by.actor.id } as const;
    audit(this.env, { type: "sign_in_failed", ...by, actor, sub, reason });
  }

  #known(): StoredCredential | undefined {
    const stored = this.#stored();
    return stored?.confirmed === true ? stored : undefined;
  }

  #stored(): StoredCredential | undefined {
    const stored = this.ctx.storage.kv.get<FirstStoredCredential | StoredCredential>(CREDENTIAL_KEY);
    return stored?.version === 1 ? { ...stored, version: 2, passwordGeneration: 0 } : stored;
  }

  #store(credential: StoredCredential): void {
    this.ctx.storage.kv.put(CREDENTIAL_KEY, credential);
  }
}

/** None for the first four; one second after the fifth, then twice as long each time. */
function delaySeconds(failures: number): number {
  if (failures < FREE_FAILURES) return 0;
  return Math.min(MAX_DELAY_SECONDS, 2 ** (failures - FREE_FAILURES));
}

/**
 * One login name: its password hash, whose it is, and how often it was guessed at. The hash never leaves the object.
 *
 * A name that nobody has is judged like one that somebody has, at the same price and with the same delays, but nothing of it
 * is stored: guessing at names must not fill the storage.
 */
import { DurableObject } from "cloudflare:workers";
import { Refusal } from "#contract/refusal";
import { newSubject } from "./identifiers.ts";
import { answer, ask, type Outcome } from "./outcome.ts";
import { hashPassword, NOBODYS_HASH, verifyPassword } from "./password.ts";

/** An account as an administrator asks for it. `login` is normalised. */
export interface NewAccount {
  readonly login: string;
  readonly password: string;
  readonly sub: string | undefined;
  readonly tid: string | null;
  readonly scope: string | null;
}

interface StoredCredential {
  /** Of this form; a later form is made from it when it is read. */
  readonly version: 1;
  readonly sub: string;
  readonly hash: string;
  /** Whether the account is known to exist. Until then the name is reserved, and nobody can log in. */
  readonly confirmed: boolean;
}

interface Throttle {
  readonly failures: number;
  /** Milliseconds since the epoch. */
  readonly lastAt: number;
  readonly openAt: number;
}

const CREDENTIAL_KEY = "credential";
const THROTTLE_KEY = "throttle";

const FREE_FAILURES = 5;
const MAX_DELAY_SECONDS = 60;
/** Failures are forgotten after this long without another one. */
const FORGET_MS = 15 * 60_000;

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
  create(account: NewAccount): Promise<Outcome<string>> {
    return answer(async () => {
      const reserved = this.#stored();
      if (this.#creating || reserved?.confirmed) throw new Refusal("conflict", { detail: "the login name is taken" });
      if (reserved !== undefined && account.sub !== undefined && account.sub !== reserved.sub) {
        throw new Refusal("conflict", { detail: "the login name is reserved for another subject" });
      }
      this.#creating = true;
      try {
        return await this.#create(account, account.sub ?? reserved?.sub ?? newSubject());
      } finally {
        this.#creating = false;
      }
    });
  }

  /**
   * Judges a password.
   *
   * @returns the subject
   * @throws {Refusal} `credentials_wrong`, `too_many_attempts`, `unavailable` when too many are being judged
   */
  verify(password: string): Promise<Outcome<string>> {
    return answer(async () => {
      const stored = this.#stored();
      const known = stored?.confirmed === true ? stored : undefined;
      this.#countAttempt(known !== undefined, Date.now());
      const verdict = await this.#judge(password, known);
      if (known === undefined || !verdict.matches) throw new Refusal("credentials_wrong");
      this.#forgive();
      if (verdict.outdated) this.#store({ ...known, hash: await hashPassword(password) });
      return known.sub;
    });
  }

  /** Whose login name this is. @throws {Refusal} `not_found` */
  subject(): Promise<Outcome<string>> {
    return answer(() => {
      const stored = this.#stored();
      if (!stored?.confirmed) throw new Refusal("not_found", { detail: "no such login name" });
      return stored.sub;
    });
  }

  async #create({ login, password, tid, scope }: NewAccount, sub: string): Promise<string> {
    const hash = await hashPassword(password);
    this.#store({ version: 1, sub, hash, confirmed: false });
    try {
      await ask(this.env.ACCOUNT.getByName(sub).create({ sub, login, tid, scope }));
    } catch (error) {
      if (error instanceof Refusal && error.code === "conflict") this.ctx.storage.kv.delete(CREDENTIAL_KEY);
      throw error;
    }
    this.#store({ version: 1, sub, hash, confirmed: true });
    return sub;
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

  #stored(): StoredCredential | undefined {
    return this.ctx.storage.kv.get<StoredCredential>(CREDENTIAL_KEY);
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

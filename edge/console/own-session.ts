/**
 * The administrator's own session. The refresh token is a cookie that no script can read; the access token is kept in memory, in
 * this tab, for as long as it lives, and is good at the edge alone: its audience is the issuer (RFC 8707), so that no node takes it.
 * It is renewed before it ends and when the edge wants a fresh one; a session that is over is told, with the reason, in every tab.
 */
import { type Problem, Refused } from "./refused.ts";
import { ask } from "./wire.ts";

interface Tokens {
  readonly access_token: string;
  readonly expires_in: number;
  readonly sub: string;
}

interface Kept {
  readonly token: string;
  /** By this machine's wall clock, milliseconds. */
  readonly goodUntil: number;
}

type Word = "signed-in" | "signed-out";

/** A token is used for this part of its life, so that no call meets one that has just ended. */
const USED_PART = 0.8;
const SIGNED_OUT: Problem = {
  ...{ code: "session_revoked", advice: "login", status: 401 },
  title: "You signed out in another tab.",
};
const SOMEBODY_ELSE: Problem = {
  ...{ code: "session_mismatch", advice: "login", status: 403 },
  title: "Somebody else signed in to the console in this browser.",
};

/** Tells `begun`, and `ended` with the {@link Problem} as its detail, or null for whoever signed out here. */
export class OwnSession extends EventTarget {
  readonly #resource: string;
  readonly #tabs = new BroadcastChannel("keycard console");
  #sub: string | undefined;
  #kept: Kept | undefined;
  #refreshing: Promise<Kept> | undefined;

  /** @param resource the issuer's URL */
  constructor(resource: string) {
    super();
    this.#resource = resource;
    this.#tabs.onmessage = ({ data }: MessageEvent<Word>) => {
      if (data === "signed-out") this.end(SIGNED_OUT);
      // The cookie is another one now, perhaps of somebody else.
      else if (this.#sub === undefined) void this.restore().catch(() => {});
      else void this.token(this.#kept?.token).catch(() => {});
    };
  }

  /** Goes on with the session that this browser has. @returns whether it has one */
  async restore(): Promise<boolean> {
    try {
      await this.#refresh();
      return true;
    } catch (error) {
      if (error instanceof Refused && error.problem.advice !== "retry" && error.problem.advice !== "wait") return false;
      throw error;
    }
  }

  /** @throws {Refused} `credentials_wrong`, `scope_insufficient` for who is no administrator, and what else a login can end in */
  async signIn(login: string, password: string): Promise<void> {
    const body = { login, password, device: "Keycard console", resource: this.#resource };
    this.#keep(await this.#tokens("/login", body));
    this.#tabs.postMessage("signed-in" satisfies Word);
  }

  /** Here and in all tabs. What cannot be told to the edge is over here all the same. */
  async signOut(): Promise<void> {
    await ask("/logout", { method: "POST", body: { resource: this.#resource } }).catch(() => {});
    this.#tabs.postMessage("signed-out" satisfies Word);
    this.#over(null);
  }

  /** It is over: the edge said so. */
  end(problem: Problem): void {
    this.#over(problem);
  }

  /**
   * An access token with some life left.
   *
   * @param spent one that the edge did not take any more
   */
  async token(spent?: string): Promise<string> {
    const kept = this.#kept;
    if (kept !== undefined && kept.token !== spent && kept.goodUntil > Date.now()) return kept.token;
    try {
      return (await this.#refresh()).token;
    } catch (error) {
      if (error instanceof Refused && !/^(retry|wait)$/.test(error.problem.advice)) this.end(error.problem);
      throw error;
    }
  }

  #refresh(): Promise<Kept> {
    const before = this.#sub;
    this.#refreshing ??= this.#tokens("/refresh", { resource: this.#resource })
      .then((tokens) => {
        // Who signed out meanwhile stays signed out.
        if (before !== undefined && this.#sub === undefined) throw new Refused(SIGNED_OUT, undefined);
        return this.#keep(tokens);
      })
      .finally(() => {
        this.#refreshing = undefined;
      });
    return this.#refreshing;
  }

  #tokens(path: string, body: object): Promise<Tokens> {
    return ask(path, { method: "POST", body });
  }

  #keep({ access_token, expires_in, sub }: Tokens): Kept {
    // The cookie is the browser's, and so is who signed in last.
    if (this.#sub !== undefined && this.#sub !== sub) throw new Refused(SOMEBODY_ELSE, undefined);
    const kept = { token: access_token, goodUntil: Date.now() + expires_in * 1000 * USED_PART };
    this.#kept = kept;
    if (this.#sub === undefined) {
      this.#sub = sub;
      this.dispatchEvent(new Event("begun"));
    }
    return kept;
  }

  #over(problem: Problem | null): void {
    if (this.#sub === undefined) return;
    this.#sub = undefined;
    this.#kept = undefined;
    this.dispatchEvent(new CustomEvent("ended", { detail: problem }));
  }
}

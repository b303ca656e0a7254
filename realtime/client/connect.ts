/**
 * What a front-end developer calls: `connect(url, { edge })`. The access token lives in memory only and is refreshed once
 * for all tabs; sockets are renewed in place before it ends, come back with a fresh one after sleep or a lost network, and
 * stop for good, in every tab, when the session is over. Runs in browsers and in Node.
 */
import { io, type ManagerOptions, type Socket, type SocketOptions } from "socket.io-client";
import type { RefusalAnswer } from "#contract/refusal";

export interface ConnectOptions {
  /** Base URL of the edge. */
  readonly edge: string;
  /**
   * For clients that are no browser: the refresh token to begin with. A browser has it in a cookie that no script sees.
   */
  readonly refreshToken?: string;
  /** Told each new refresh token, for clients that keep it. */
  readonly onRefreshToken?: (token: string) => void;
  /** Options of socket.io-client, except `auth`. */
  readonly socket?: Partial<ManagerOptions & SocketOptions>;
}

/** Why somebody is signed out, as the edge or a node said it. */
export type SignedOut = Pick<RefusalAnswer, "code" | "advice"> & { readonly message?: string };

interface Refused {
  readonly message: string;
  readonly data?: RefusalAnswer;
}

/** A token is used for this part of its life, so that no handshake meets one that has just ended. */
const USED_PART = 0.75;
/** How long the word of another tab may take. */
const WORD_MS = 100;
const FIRST_RETRY_MS = 500;
const LAST_RETRY_MS = 30_000;

const keepers = new Map<string, TokenKeeper>();

/**
 * A socket.io-client socket that keeps itself signed in. It emits, besides its own events, `signed-out` with the reason
 * ({@link SignedOut}): after that it does not try again until the app has signed in anew and calls `socket.connect()`.
 */
export function connect(url: string, options: ConnectOptions): Socket {
  const keeper = keeperOf(options);
  /** The token that this socket last showed, and must not show again once it is refused or ending. */
  let shown: string | undefined;
  let spent: string | undefined;
  const auth = (give: (data: object) => void) => {
    keeper.token(spent).then(
      (token) => {
        shown = token;
        give({ token });
      },
      () => socket.disconnect(), // signed out: told by the keeper
    );
  };
  const socket = io(url, { ...options.socket, auth });
  let retries = 0;
  let last: RefusalAnswer | undefined;

  function tryAgain(answer: RefusalAnswer): void {
    if (answer.advice === "login") keeper.signOut(answer);
    if (answer.advice === "login" || answer.advice === "fix") return;
    if (answer.advice === "refresh") spent = shown;
    const wait = Math.max((answer.retry_after ?? 0) * 1000, answer.advice === "refresh" ? 0 : backoff(retries));
    retries += 1;
    setTimeout(() => socket.connect(), wait + Math.random() * FIRST_RETRY_MS);
  }

  const ownDelay = socket.io.reconnectionDelay();
  const ownDelayMax = socket.io.reconnectionDelayMax();
  socket.on("connect", () => {
    retries = 0;
    last = undefined;
    socket.io.reconnectionDelay(ownDelay).reconnectionDelayMax(ownDelayMax);
  });
  socket.on("connect_error", ({ data }: Refused) => {
    if (data?.advice !== undefined) tryAgain(data);
  });
  socket.on("unauthorized", ({ data }: Refused) => {
    last = data;
    const wait = (data?.retry_after ?? 0) * 1000;
    // Before the transport is closed: the manager comes back by itself, and not with everybody else.
    if (wait > 0) socket.io.reconnectionDelay(wait).reconnectionDelayMax(Math.max(wait, ownDelayMax));
  });
  socket.on("expiring", async () => {
    spent = shown;
    const token = await keeper.token(spent).catch(() => undefined); // signed out: told by the keeper
    if (token === undefined || !socket.connected) return;
    shown = token;
    socket.emit("authenticate", { token });
  });
  socket.on("disconnect", (reason) => {
    if (reason === "io server disconnect" && last !== undefined) tryAgain(last);
    else if (last?.advice === "refresh") spent = shown;
  });
  keeper.onSignedOut((why) => {
    socket.disconnect();
    for (const listener of socket.listeners("signed-out")) listener(why);
  });
  onWake(() => {
    if (socket.active && !socket.connected) socket.connect();
  });
  return socket;
}

function keeperOf(options: ConnectOptions): TokenKeeper {
  // Somebody with a refresh token in hand may be one of several people in one process.
  const name = `${options.edge} ${options.refreshToken ?? ""}`;
  const keeper = keepers.get(name) ?? new TokenKeeper(options);
  keepers.set(name, keeper);
  return keeper;
}

interface Kept {
  readonly token: string;
  /** By this machine's wall clock, milliseconds: a monotonic one may stand still while it sleeps. */
  readonly goodUntil: number;
}

type Told = { readonly kept: Kept } | { readonly signedOut: SignedOut };

/** Keeps one session's access token for all sockets of this tab, and shares it with the other tabs of this origin. */
class TokenKeeper {
  readonly #options: ConnectOptions;
  readonly #name: string;
  readonly #tabs: BroadcastChannel | undefined;
  readonly #listeners = new Set<(why: SignedOut) => void>();
  #refreshToken: string | undefined;
  #kept: Kept | undefined;
  #asking: Promise<string> | undefined;

  constructor(options: ConnectOptions) {
    this.#options = options;
    this.#refreshToken = options.refreshToken;
    this.#name = `keycard ${options.edge}`;
    // Tabs share a cookie; whoever holds a refresh token in hand shares nothing.
    if (options.refreshToken !== undefined || typeof BroadcastChannel === "undefined") return;
    this.#tabs = new BroadcastChannel(this.#name);
    this.#tabs.onmessage = ({ data }: MessageEvent<Told>) => {
      if ("kept" in data) this.#kept = data.kept;
      else this.#end(data.signedOut);
    };
  }

  onSignedOut(listener: (why: SignedOut) => void): void {
    this.#listeners.add(listener);
  }

  /**
   * A token with some life left, other than `spent`; a new one is asked for once however many sockets and tabs need it.
   * Rejects when the session is over.
   */
  async token(spent?: string): Promise<string> {
    const living = this.#living(spent);
    if (living !== undefined) return living;
    this.#asking ??= this.#askInTurn(spent).finally(() => {
      this.#asking = undefined;
    });
    return this.#asking;
  }

  signOut(why: SignedOut): void {
    this.#tell({ signedOut: { code: why.code, advice: why.advice } });
    this.#end(why);
  }

  #end(why: SignedOut): void {
    this.#kept = undefined;
    for (const listener of this.#listeners) listener(why);
  }

  #living(spent: string | undefined): string | undefined {
    const kept = this.#kept;
    return kept !== undefined && kept.token !== spent && kept.goodUntil > Date.now() ? kept.token : undefined;
  }

  /** One tab asks at a time, and those that waited for it take what it got. */
  async #askInTurn(spent: string | undefined): Promise<string> {
    const locks = this.#tabs === undefined ? undefined : globalThis.navigator?.locks;
    if (locks === undefined) return this.#ask();
    const first = await locks.request(this.#name, { ifAvailable: true }, (lock) =>
      lock === null ? null : this.#ask(),
    );
    if (first !== null) return first;
    return locks.request(this.#name, async () => {
      if (this.#living(spent) === undefined) await this.#word();
      return this.#living(spent) ?? this.#ask();
    });
  }

  /** The other tab told before it gave up its turn, but the word may still be on its way. */
  #word(): Promise<void> {
    return new Promise((resolve) => {
      this.#tabs?.addEventListener("message", () => resolve(), { once: true });
      setTimeout(resolve, WORD_MS);
    });
  }

  async #ask(): Promise<string> {
    for (let attempt = 0; ; attempt++) {
      const answer = await this.#post();
      if ("access_token" in answer) return this.#keep(answer);
      if (answer.advice === "login" || answer.advice === "fix") {
        this.signOut(answer);
        throw Object.assign(new Error(answer.message ?? answer.code), { code: answer.code });
      }
      const wait = Math.max((answer.retry_after ?? 0) * 1000, backoff(attempt));
      await new Promise((resolve) => setTimeout(resolve, wait));
    }
  }

  #keep({ access_token, expires_in, refresh_token }: Tokens): string {
    this.#kept = { token: access_token, goodUntil: Date.now() + expires_in * 1000 * USED_PART };
    this.#tell({ kept: this.#kept });
    if (refresh_token !== undefined) {
      this.#refreshToken = refresh_token;
      this.#options.onRefreshToken?.(refresh_token);
    }
    return access_token;
  }

  /** Never rejects: an edge that cannot be reached is one that says "later". */
  async #post(): Promise<Tokens | (SignedOut & { readonly retry_after?: number })> {
    const inHand = this.#refreshToken !== undefined;
    try {
      const response = await fetch(`${this.#options.edge}/refresh`, {
        method: "POST",
        credentials: inHand ? "omit" : "include",
        headers: { "content-type": "application/json" },
        body: JSON.stringify(inHand ? { refresh_token: this.#refreshToken } : {}),
      });
      return (await response.json()) as Tokens | SignedOut;
    } catch {
      // No network, or no JSON: neither says anything about the session.
      return { code: "unavailable", advice: "retry" };
    }
  }

  #tell(told: Told): void {
    this.#tabs?.postMessage(told);
  }
}

interface Tokens {
  readonly access_token: string;
  readonly expires_in: number;
  readonly refresh_token?: string;
}

/** Exponential, half of it at random, so that many who were sent away together do not come back together. */
function backoff(attempt: number): number {
  const full = Math.min(LAST_RETRY_MS, FIRST_RETRY_MS * 2 ** attempt);
  return full / 2 + (Math.random() * full) / 2;
}

/** The machine woke up or the network is back: no reason to wait for the next attempt. */
function onWake(wake: () => void): void {
  if (typeof window === "undefined") return;
  window.addEventListener("online", wake);
  document.addEventListener("visibilitychange", () => {
    if (document.visibilityState === "visible") wake();
  });
}

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

/** Refreshed this long before its end, so that no handshake meets an expired one. */
const MARGIN_MS = 10_000;
const FIRST_RETRY_MS = 500;
const LAST_RETRY_MS = 30_000;

const keepers = new Map<string, TokenKeeper>();

/**
 * A socket.io-client socket that keeps itself signed in. It emits, besides its own events, `signed-out` with the reason
 * ({@link SignedOut}): after that it does not try again until the app has signed in anew and calls `socket.connect()`.
 */
export function connect(url: string, options: ConnectOptions): Socket {
  const keeper = keeperOf(options);
  const auth = (give: (data: object) => void) => {
    keeper.token().then(
      (token) => give({ token }),
      () => socket.disconnect(),
    );
  };
  const socket = io(url, { ...options.socket, auth });
  let retries = 0;
  let last: RefusalAnswer | undefined;

  function tryAgain(answer: RefusalAnswer): void {
    if (answer.advice === "login") keeper.signOut(answer);
    if (answer.advice === "login" || answer.advice === "fix") return;
    // The token that was refused must not be shown again.
    if (answer.advice === "refresh") keeper.discard();
    const wait = Math.max((answer.retry_after ?? 0) * 1000, answer.advice === "refresh" ? 0 : backoff(retries));
    retries += 1;
    setTimeout(() => socket.connect(), wait + Math.random() * FIRST_RETRY_MS);
  }

  socket.on("connect", () => {
    retries = 0;
    last = undefined;
  });
  socket.on("connect_error", ({ data }: Refused) => {
    if (data?.advice !== undefined) tryAgain(data);
  });
  socket.on("unauthorized", ({ data }: Refused) => {
    last = data;
  });
  socket.on("expiring", async () => {
    const token = await keeper.fresh().catch(() => undefined); // signed out: told by the keeper
    if (token !== undefined && socket.connected) socket.emit("authenticate", { token });
  });
  socket.on("disconnect", (reason) => {
    if (reason === "io server disconnect" && last !== undefined) tryAgain(last);
    else if (last?.advice === "refresh") keeper.discard();
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
  /** By this tab's wall clock, milliseconds: a monotonic one may stand still while the machine sleeps. */
  readonly endsAt: number;
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

  /** A token with some life left. Rejects when the session is over. */
  async token(): Promise<string> {
    return this.#living() ?? this.fresh();
  }

  /** A new token, asked for once however many need it, in however many tabs. Rejects when the session is over. */
  fresh(): Promise<string> {
    this.#asking ??= this.#freshInTurn().finally(() => {
      this.#asking = undefined;
    });
    return this.#asking;
  }

  discard(): void {
    this.#kept = undefined;
  }

  signOut(why: SignedOut): void {
    this.#tell({ signedOut: { code: why.code, advice: why.advice } });
    this.#end(why);
  }

  #end(why: SignedOut): void {
    this.#kept = undefined;
    for (const listener of this.#listeners) listener(why);
  }

  #living(): string | undefined {
    return this.#kept !== undefined && this.#kept.endsAt - MARGIN_MS > Date.now() ? this.#kept.token : undefined;
  }

  #freshInTurn(): Promise<string> {
    const before = this.#kept?.token;
    const ask = async () => {
      // Another tab may have asked while this one waited for its turn.
      const meanwhile = this.#living();
      return meanwhile !== undefined && meanwhile !== before ? meanwhile : this.#ask();
    };
    const locks = this.#tabs === undefined ? undefined : globalThis.navigator?.locks;
    return locks === undefined ? ask() : locks.request(this.#name, ask);
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
    this.#kept = { token: access_token, endsAt: Date.now() + expires_in * 1000 };
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

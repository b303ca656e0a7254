/**
 * The keys of an issuer: its JWK Set is fetched ahead of time, kept, renewed in the background and served stale, for a bounded time, while the
 * issuer is down.
 */
import { createLocalJWKSet, errors, type JSONWebKeySet, type JWTVerifyGetKey } from "jose";
import type { TokenRules } from "#contract/access-token";
import { Refusal } from "#contract/refusal";
import { readBounded } from "./bounded-body.ts";
import { type DecodedToken, KnownKeys, type TokenUse } from "./known-keys.ts";
import type { Trouble } from "./trouble.ts";

export interface KeySet {
  ready(): Promise<void>;
  /** Asks now, whenever it last did. */
  renew(): void;
  readonly get: JWTVerifyGetKey;
  /** Asks for an unknown key even if somebody has just asked for another: nobody sends what is in the log again. */
  readonly getForLog: JWTVerifyGetKey;
  /**
   * Whether one of them has signed a token, told at once.
   *
   * @returns false when only asking `get` can tell
   * @throws {Refusal} `token_invalid` when the signature is wrong
   */
  haveSigned(token: DecodedToken, rules: Pick<TokenRules, "algorithms">, use: TokenUse): boolean;
  close(): void;
}

/** Keys that were configured, and are there from the start. */
export function givenKeys(keys: JSONWebKeySet): KeySet {
  const get = createLocalJWKSet(keys);
  const known = new KnownKeys();
  known.replace(keys);
  return {
    get,
    getForLog: get,
    haveSigned: (token, { algorithms }, use) => known.haveSigned(token, algorithms, use),
    ready: () => Promise.resolve(),
    renew: () => undefined,
    close: () => undefined,
  };
}

const FETCH_TIMEOUT_MS = 3_000;
const MAX_KEY_SET_BYTES = 65_536;
/**
 * An unknown `kid` makes us ask the issuer, at most this often: garbage must not become a flood. For so long, too, a stranger's garbage can keep us
 * from learning the key that takes the place of one that was retired.
 */
const COOLDOWN_MS = 5_000;
const LOG_COOLDOWN_MS = 1_000;
const SETTLED_MS = 1_000;
const RENEW_AFTER_MS = 5 * 60_000;
/** How long keys are believed while the issuer cannot be reached. */
const STALE_LIMIT_MS = 24 * 60 * 60_000;
const FIRST_FETCH_RETRY_MS = 250;

export function keysFrom(uri: URL, trouble: Trouble): KeySet {
  const stopping = new AbortController();
  const known = new KnownKeys();
  let find: ReturnType<typeof createLocalJWKSet> | undefined;
  let fetchedAt = Number.NEGATIVE_INFINITY;
  let askedAt = Number.NEGATIVE_INFINITY;
  let asking: Promise<boolean> | undefined;
  let failed = false;

  async function ask(): Promise<boolean> {
    askedAt = performance.now();
    try {
      const keys = await fetchKeySet(uri, stopping.signal);
      find = createLocalJWKSet(keys);
      known.replace(keys);
      fetchedAt = performance.now();
      failed = false;
      trouble.over();
      return true;
    } catch (error) {
      failed = true;
      if (!stopping.signal.aborted) trouble.failed(error);
      return false;
    }
  }

  /** One request at a time, however many wait for it. Resolves to whether it brought keys; never rejects. */
  function renew(): Promise<boolean> {
    asking ??= ask().finally(() => {
      asking = undefined;
    });
    return asking;
  }

  /** Whether they may still be believed; asks for fresh ones in the background when it is time. */
  function areGood(): boolean {
    const age = performance.now() - fetchedAt;
    if (age > RENEW_AFTER_MS && age <= STALE_LIMIT_MS && performance.now() - askedAt > COOLDOWN_MS) void renew();
    return age <= STALE_LIMIT_MS;
  }

  const getFor =
    (isFromLog: boolean): JWTVerifyGetKey =>
    async (header, token) => {
      if (find === undefined || !areGood()) throw new Refusal("unavailable", { detail: "no keys" });
      try {
        return await find(header, token);
      } catch (error) {
        if (!(error instanceof errors.JWKSNoMatchingKey)) throw error;
        const askedAgo = performance.now() - askedAt;
        if (isFromLog && asking === undefined && askedAgo < LOG_COOLDOWN_MS) {
          await new Promise((resolve) => setTimeout(resolve, LOG_COOLDOWN_MS - askedAgo));
        } else if (!isFromLog && asking === undefined && askedAgo < COOLDOWN_MS) {
          // It may be one that has just come: only what the issuer said a moment ago settles that there is none.
          if (!failed && askedAgo < SETTLED_MS) throw error;
          throw new Refusal("unavailable", { cause: error, detail: "the issuer cannot be asked again yet" });
        }
        if (!(await renew())) throw new Refusal("unavailable", { cause: error, detail: "the issuer cannot be asked" });
        return find(header, token);
      }
    };

  return {
    get: getFor(false),
    getForLog: getFor(true),
    haveSigned: (token, { algorithms }, use) => areGood() && known.haveSigned(token, algorithms, use),
    renew: () => void renew(),
    async ready() {
      while (find === undefined && !stopping.signal.aborted) {
        if (await renew()) return;
        await new Promise((resolve) => setTimeout(resolve, FIRST_FETCH_RETRY_MS));
      }
    },
    close() {
      stopping.abort();
    },
  };
}

async function fetchKeySet(uri: URL, stopping: AbortSignal): Promise<JSONWebKeySet> {
  const response = await fetch(uri, {
    headers: { accept: "application/json" },
    redirect: "error",
    signal: AbortSignal.any([stopping, AbortSignal.timeout(FETCH_TIMEOUT_MS)]),
  });
  if (response.status !== 200) throw new Error(`the key set answered ${response.status}`);
  const text = await readBounded(response, MAX_KEY_SET_BYTES);
  const body: unknown = JSON.parse(text);
  if (typeof body !== "object" || body === null || !("keys" in body) || !Array.isArray(body.keys)) {
    throw new Error("that is no JWK Set");
  }
  return { keys: body.keys };
}

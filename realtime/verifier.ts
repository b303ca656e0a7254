/**
 * Judges tokens by the keys of their issuers, without asking anybody: each issuer's JWK Set is fetched ahead of time,
 * kept, renewed in the background and served stale, for a bounded time, while the issuer is down. Keys are looked up
 * per issuer, never by `kid` alone, and no URL is ever made from what a token says.
 */
import { createLocalJWKSet, decodeJwt, errors, type JSONWebKeySet, type JWTVerifyGetKey } from "jose";
import {
  MAX_TOKEN_LENGTH,
  type SignatureAlgorithm,
  type TokenRules,
  type VerifiedClaims,
  verifyAccessToken,
  verifyTicket,
} from "#contract/access-token";
import { type FeedPage, verifyFeedPage, verifyReceiptQuery } from "#contract/cluster";
import { type NodeQuestion, verifyNodeQuery } from "#contract/node-query";
import { Refusal } from "#contract/refusal";
import { type RevocationEvent, type RevocationTarget, verifyRehearsal, verifyRevocation } from "#contract/revocation";
import { readBounded } from "./bounded-body.ts";
import { type ForeignTokens, verifyForeignToken } from "./foreign-token.ts";
import { Trouble, type TroubleListener } from "./trouble.ts";

export interface TrustedIssuer {
  /** The exact `iss` of its tokens. */
  readonly issuer: string;
  /** The `aud` that a token must name. */
  readonly audience: string;
  /** Where its JWK Set is; `<issuer>/.well-known/jwks.json` unless given. */
  readonly jwksUri?: string | undefined;
  /** Where its feed of revocations is, `<issuer>/revocations` unless given; false where it has none. One that is no Keycard edge has none. */
  readonly feed?: string | false | undefined;
  /** Accepted signature algorithms; all three of the contract unless given. */
  readonly algorithms?: readonly SignatureAlgorithm[] | undefined;
  /** Given for an issuer that is no Keycard edge: how its tokens are read. `{}` reads what most of them have in common. */
  readonly foreign?: ForeignTokens | undefined;
  /** Who may revoke its tokens besides itself: admin tools and edges with keys of their own. */
  readonly transmitters?: readonly Transmitter[] | undefined;
}

/** Somebody whose signed events are believed about another issuer's tokens. */
export interface Transmitter {
  /** The exact `iss` of its Security Event Tokens. */
  readonly issuer: string;
  /** Where its JWK Set is, or the set itself. */
  readonly keys: string | JSONWebKeySet;
}

/** Where an issuer's feed is, if it has one. */
export function feedOf({ issuer, feed, foreign }: TrustedIssuer): URL | undefined {
  if (feed === false || (foreign !== undefined && feed === undefined)) return undefined;
  return new URL(feed ?? `${issuer.replace(/\/$/, "")}/revocations`);
}

/** Whether somebody may revoke an issuer's tokens whose word no feed brings. */
export function canRevokeUnheard(trusted: TrustedIssuer): boolean {
  return (trusted.transmitters ?? []).length > 0 || (trusted.foreign === undefined && feedOf(trusted) === undefined);
}

export interface Verifier {
  /** Resolves once the keys of every issuer are there; keeps trying until then. */
  ready(): Promise<void>;
  /** @throws {Refusal} see {@link verifyAccessToken} */
  accessToken(token: unknown): Promise<VerifiedClaims>;
  /** @throws {Refusal} see {@link verifyTicket} */
  ticket(ticket: unknown): ReturnType<typeof verifyTicket>;
  /** @throws {Refusal} see {@link verifyRevocation}. The issuer is the one whose tokens the event speaks of, whoever signed it. */
  revocation(
    set: unknown,
    fromLog?: boolean,
  ): Promise<{ readonly issuer: string; readonly signer: string; readonly event: RevocationEvent }>;
  /** @throws {Refusal} see {@link verifyRehearsal} */
  rehearsal(question: unknown): Promise<{
    readonly issuer: string;
    readonly id: string;
    readonly targets: readonly RevocationTarget[];
  }>;
  /** Asks an issuer for its keys now: one of them was retired, and must not be believed any longer. */
  renewKeys(issuer: string): void;
  /** Which events a query asks about, whose they are and who asks. @throws {Refusal} unless a trusted issuer signed it */
  receiptQuery(query: unknown): Promise<{
    readonly about: string;
    readonly issuer: string;
    readonly ids: readonly string[];
    readonly nonce: string;
  }>;
  /** What the nodes are asked about themselves, and who asks. @throws {Refusal} unless a trusted issuer signed it */
  nodeQuery(query: unknown): Promise<{
    readonly about: string;
    readonly issuer: string;
    readonly question: NodeQuestion;
    readonly nonce: string;
  }>;
  /** A page of an issuer's own feed. @throws {Refusal} see {@link verifyFeedPage} */
  feedPage(issuer: string, page: unknown, nonce: string): Promise<FeedPage>;
  close(): void;
}

export interface VerifierOptions extends TroubleListener {
  readonly issuers: readonly TrustedIssuer[];
  /** The audience of events and receipt queries. */
  readonly cluster: string;
  readonly clockSkewSeconds: number;
}

const ALGORITHMS: readonly SignatureAlgorithm[] = ["EdDSA", "ES256", "RS256"];

/** Whose tokens are read how, and with which keys. */
interface Known {
  readonly keys: KeySet;
  readonly rules: TokenRules;
  readonly foreign: ForeignTokens | undefined;
}

/** Whose events are believed, and about whose tokens. */
interface Controller {
  readonly keys: KeySet;
  readonly rules: TokenRules;
  readonly about: string;
}

export function createVerifier(options: VerifierOptions): Verifier {
  const { cluster, clockSkewSeconds } = options;
  const issuers = new Map<string, Known>();
  const controllers = new Map<string, Controller>();
  for (const trusted of options.issuers) {
    const { issuer, audience, foreign } = trusted;
    const algorithms = trusted.algorithms ?? ALGORITHMS;
    const rules: TokenRules = { issuer, audience, algorithms, clockSkewSeconds };
    const keys = keysAt(trusted.jwksUri ?? `${issuer.replace(/\/$/, "")}/.well-known/jwks.json`, issuer);
    issuers.set(issuer, { keys, rules, foreign });
    controllers.set(issuer, { keys, rules: { ...rules, audience: cluster }, about: issuer });
  }
  for (const { issuer: about, transmitters = [] } of options.issuers) {
    for (const { issuer, keys } of transmitters) {
      const rules = { issuer, audience: cluster, algorithms: ALGORITHMS, clockSkewSeconds };
      if (controllers.has(issuer)) throw new TypeError(`${issuer} is named twice; a signer speaks for one issuer`);
      controllers.set(issuer, {
        keys: typeof keys === "string" ? keysAt(keys, issuer) : givenKeys(keys),
        rules,
        about,
      });
    }
  }

  function keysAt(uri: string, issuer: string): KeySet {
    const words = { begun: `cannot fetch the keys of ${issuer}`, over: `the keys of ${issuer} are fetched again` };
    return createKeySet(new URL(uri), new Trouble(words, options));
  }

  return {
    async ready() {
      await Promise.all([...controllers.values()].map(({ keys }) => keys.ready()));
    },
    async accessToken(token) {
      const { keys, rules, foreign } = chosen(issuers, token);
      if (foreign !== undefined) return verifyForeignToken(token, keys.get, rules, foreign);
      return verifyAccessToken(token, keys.get, rules);
    },
    async ticket(ticket) {
      const { keys, rules } = chosen(issuers, ticket);
      return verifyTicket(ticket, keys.get, rules);
    },
    async revocation(set, fromLog = false) {
      const { keys, rules, about } = chosen(controllers, set);
      const event = await verifyRevocation(set, fromLog ? keys.getForLog : keys.get, rules);
      return { issuer: about, signer: rules.issuer, event };
    },
    async rehearsal(question) {
      const { keys, rules, about } = chosen(controllers, question);
      return { issuer: about, ...(await verifyRehearsal(question, keys.get, rules)) };
    },
    renewKeys(issuer) {
      for (const { keys, about } of controllers.values()) if (about === issuer) keys.renew();
    },
    async receiptQuery(query) {
      const { keys, rules, about } = chosen(controllers, query);
      return { about, issuer: rules.issuer, ...(await verifyReceiptQuery(query, keys.get, rules)) };
    },
    async nodeQuery(query) {
      const { keys, rules, about } = chosen(controllers, query);
      return { about, issuer: rules.issuer, ...(await verifyNodeQuery(query, keys.get, rules)) };
    },
    async feedPage(issuer, page, nonce) {
      const known = controllers.get(issuer);
      if (known === undefined) throw new Refusal("token_invalid", { detail: "the issuer is not trusted" });
      return await verifyFeedPage(page, nonce, known.keys.getForLog, known.rules);
    },
    close() {
      for (const { keys } of controllers.values()) keys.close();
    },
  };
}

/** The unverified `iss` only chooses among those that are configured; verifying checks it again. */
function chosen<T>(from: ReadonlyMap<string, T>, token: unknown): T {
  if (token === undefined || token === null || token === "") throw new Refusal("token_missing");
  if (typeof token !== "string") throw new Refusal("token_invalid", { detail: `the token is a ${typeof token}` });
  if (token.length > MAX_TOKEN_LENGTH) throw new Refusal("token_invalid", { detail: "the token is too long" });
  const trusted = from.get(claimedIssuer(token));
  if (trusted === undefined) throw new Refusal("token_invalid", { detail: "the issuer is not trusted" });
  return trusted;
}

function claimedIssuer(token: string): string {
  try {
    return decodeJwt(token).iss ?? "";
  } catch (error) {
    throw new Refusal("token_invalid", { cause: error, detail: "not a JWT" });
  }
}

interface KeySet {
  ready(): Promise<void>;
  /** Asks now, whenever it last did. */
  renew(): void;
  readonly get: JWTVerifyGetKey;
  /** Asks for an unknown key even if somebody has just asked for another: nobody sends what is in the log again. */
  readonly getForLog: JWTVerifyGetKey;
  close(): void;
}

/** Keys that were configured, and are there from the start. */
function givenKeys(keys: JSONWebKeySet): KeySet {
  const get = createLocalJWKSet(keys);
  return { get, getForLog: get, ready: () => Promise.resolve(), renew: () => undefined, close: () => undefined };
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

function createKeySet(uri: URL, trouble: Trouble): KeySet {
  const stopping = new AbortController();
  let find: ReturnType<typeof createLocalJWKSet> | undefined;
  let fetchedAt = Number.NEGATIVE_INFINITY;
  let askedAt = Number.NEGATIVE_INFINITY;
  let asking: Promise<boolean> | undefined;
  let failed = false;

  async function ask(): Promise<boolean> {
    askedAt = performance.now();
    try {
      find = createLocalJWKSet(await fetchKeySet(uri, stopping.signal));
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

  const getFor =
    (isFromLog: boolean): JWTVerifyGetKey =>
    async (header, token) => {
      const age = performance.now() - fetchedAt;
      if (find === undefined || age > STALE_LIMIT_MS) throw new Refusal("unavailable", { detail: "no keys" });
      if (age > RENEW_AFTER_MS && performance.now() - askedAt > COOLDOWN_MS) void renew();
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

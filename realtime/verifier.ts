/**
 * Judges tokens by the keys of their issuers, without asking anybody. Keys are looked up per issuer, never by `kid` alone, and no URL is ever
 * made from what a token says.
 */
import { decodeJwt, type JSONWebKeySet } from "jose";
import {
  checkSignature,
  judgeAccessToken,
  MAX_TOKEN_LENGTH,
  type SignatureAlgorithm,
  type TokenRules,
  type VerifiedClaims,
  verifyTicket,
} from "#contract/access-token";
import { type FeedPage, judgeFeedPage, MAX_PAGE_LENGTH, verifyReceiptQuery } from "#contract/cluster";
import { type NodeQuestion, verifyNodeQuery } from "#contract/node-query";
import { Refusal } from "#contract/refusal";
import { judgeRevocation, type RevocationEvent, type RevocationTarget, verifyRehearsal } from "#contract/revocation";
import { type ForeignTokens, judgeForeignToken } from "./foreign-token.ts";
import { givenKeys, type KeySet, keysFrom } from "./key-set.ts";
import { decodeToken } from "./known-keys.ts";
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
  /** @throws {Refusal} `token_missing`, `token_invalid`, `token_expired`; `unavailable` when the issuer's keys cannot be had */
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
    return keysFrom(new URL(uri), new Trouble(words, options));
  }

  return {
    async ready() {
      await Promise.all([...controllers.values()].map(({ keys }) => keys.ready()));
    },
    async accessToken(offered) {
      const decoded = decodeToken(offered);
      const { keys, rules, foreign } = trustedBy(issuers, decoded.payload.iss);
      const { token } = decoded;
      const signed = keys.haveSigned(decoded, rules, "again") ? decoded : await checkSignature(token, keys.get, rules);
      return foreign === undefined ? judgeAccessToken(signed, rules) : judgeForeignToken(signed, token, rules, foreign);
    },
    async ticket(ticket) {
      const { keys, rules } = chosen(issuers, ticket);
      return verifyTicket(ticket, keys.get, rules);
    },
    async revocation(set, fromLog = false) {
      const decoded = decodeToken(set);
      const { keys, rules, about } = trustedBy(controllers, decoded.payload.iss);
      const signed = keys.haveSigned(decoded, rules, "once")
        ? decoded
        : await checkSignature(decoded.token, fromLog ? keys.getForLog : keys.get, rules);
      return { issuer: about, signer: rules.issuer, event: judgeRevocation(signed, rules) };
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
      const { keys, rules } = known;
      const decoded = decodeToken(page, MAX_PAGE_LENGTH);
      const signed = keys.haveSigned(decoded, rules, "once")
        ? decoded
        : await checkSignature(decoded.token, keys.getForLog, { ...rules, maxLength: MAX_PAGE_LENGTH });
      return judgeFeedPage(signed, nonce, rules);
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
  return trustedBy(from, claimedIssuer(token));
}

function trustedBy<T>(from: ReadonlyMap<string, T>, issuer: unknown): T {
  const trusted = typeof issuer === "string" ? from.get(issuer) : undefined;
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

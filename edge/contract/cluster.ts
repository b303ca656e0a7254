/**
 * What a cluster of realtime nodes and the edge say to each other besides events: the edge's feed, and receipts.
 *
 * Both know one secret, the cluster's. With it a node proves who asks for the feed, and seals what it writes into Redis, so that
 * whoever can write there can neither pass for a node nor forge a receipt. What the edge says it signs with its own key, as
 * always: the secret lets nobody in and revokes nobody.
 */
import { base64url, decodeJwt, errors, type JWTPayload, type JWTVerifyGetKey, jwtVerify, SignJWT } from "jose";
import {
  checkSignature,
  judgeJwt,
  type SignedJwt,
  type SigningKey,
  signTyped,
  type TokenRules,
  verifyJwt,
} from "./access-token.ts";
import { Refusal } from "./refusal.ts";
import { type RevocationEvent, readRevocation } from "./revocation.ts";
import { isCount, isName, isRecord } from "./shapes.ts";

/** Characters of a cluster's secret, at least. */
export const MIN_CLUSTER_SECRET = 32;
/** The secret in use and, while it is being replaced, the one of before. */
export type ClusterSecrets = readonly [current: string, ...previous: string[]];

/** RFC 7518 section 3.2. Only between a cluster and its edge: no token that lets people in is signed with a shared secret. */
const SEAL = { alg: "HS256" } as const;
/** Seconds that a query or an answer is good for. */
export const FRESH_SECONDS = 60;

/** The `typ` of the token with which a node asks for the feed. */
export const FEED_QUERY_TYPE = "feed-query+jwt";
/** The `typ` of a page of the feed. */
export const FEED_PAGE_TYPE = "revocations+jwt";
/** The media type of a page of the feed, and of receipts: RFC 7519 section 10.3.1. */
export const JWT_MEDIA_TYPE = "application/jwt";
/** Events in one page. */
export const FEED_PAGE_EVENTS = 1_000;
/** Milliseconds that the feed waits for something new, at most. */
export const MAX_FEED_WAIT_MS = 25_000;
/** Milliseconds that a lease of the feed may be asked for: a day of keeping sockets, and a lease. */
export const MAX_LEASE_MS = 2 * 86_400_000;
/** Words that one query may bring. */
export const MAX_WORDS = 50;
/** Nodes of one cluster. */
export const MAX_NODES = 1_000;
/** Characters of a page: a thousand events of a target or two each. */
export const MAX_PAGE_LENGTH = 4 * 1024 * 1024;

/** Who asks for the feed, and what that node has to tell. */
export interface FeedQuery {
  readonly cluster: string;
  readonly node: string;
  /** Names this run of the node's process. */
  readonly boot: string;
  /** Repeated in the page that answers, so that no older one can be passed off for it. */
  readonly nonce: string;
  /** There for a node that lives by the feed because it has lost Redis. */
  readonly lease?: {
    /** How long it goes on after the page, milliseconds, and then closes its sockets. */
    readonly ms: number;
    /** Everything up to here is applied, and the sockets that it covers are closed. */
    readonly done: number;
    /** Events whose sockets it has closed, newest last, beyond `done` or with sockets to count. */
    readonly words: readonly FeedWord[];
  };
}

/** What a node did about one event. Times in milliseconds since the epoch. */
export interface FeedWord {
  readonly id: string;
  readonly applied_at: number;
  readonly closed: number;
}

/** A part of the edge's log: every event after `after` and up to `upto` that may still hit a living token. */
export interface FeedPage {
  readonly after: number;
  readonly upto: number;
  /** The last event that there is. */
  readonly head: number;
  /** The first that may still hit a living token; `head + 1` when none may. What lies before it may be forgotten. */
  readonly first: number;
  readonly events: readonly RevocationEvent[];
}

/** @param issuer the edge that is asked */
export function signFeedQuery(query: FeedQuery, issuer: string, secrets: ClusterSecrets, now: number): Promise<string> {
  const { cluster, node, boot, nonce, lease } = query;
  const words = lease?.words.map(({ id, applied_at, closed }) => [id, applied_at, closed]);
  const payload = { boot, ...(lease === undefined ? {} : { lease: { ms: lease.ms, done: lease.done, words } }) };
  return signShared(FEED_QUERY_TYPE, { ...payload, iss: cluster, sub: node, aud: issuer, jti: nonce }, secrets, now);
}

/**
 * Judges who asks for the feed.
 *
 * @param secretsOf the secrets of a cluster that is known, else undefined
 * @throws {Refusal} `token_missing`, `token_invalid`, `request_malformed`
 */
export async function verifyFeedQuery(
  token: string | undefined,
  issuer: string,
  secretsOf: (cluster: string) => ClusterSecrets | undefined,
  now: Date = new Date(),
): Promise<FeedQuery> {
  if (token === undefined || token === "") throw new Refusal("token_missing");
  const cluster = claimedIssuer(token);
  const secrets = secretsOf(cluster);
  if (secrets === undefined)
    throw new Refusal("token_invalid", { detail: "the cluster is not known, or has no secret" });
  const payload = await verifyShared(FEED_QUERY_TYPE, token, { issuer: cluster, audience: issuer }, secrets, now);
  const { sub: node, jti: nonce, boot, lease } = payload;
  if (!isName(node) || !isName(nonce) || !isName(boot)) throw malformed("not a feed query");
  return { cluster, node, boot, nonce, ...(lease === undefined ? {} : { lease: leaseOf(lease) }) };
}

function leaseOf(value: unknown): NonNullable<FeedQuery["lease"]> {
  if (!isRecord(value) || !isCount(value.ms) || value.ms > MAX_LEASE_MS || !isCount(value.done))
    throw malformed("the lease");
  const { ms, done, words } = value;
  if (!Array.isArray(words) || words.length > MAX_WORDS) throw malformed("the words of a lease");
  return {
    ms,
    done,
    words: words.map((word: unknown) => {
      const [id, applied_at, closed] = Array.isArray(word) ? (word as unknown[]) : [];
      if (!isName(id) || !isCount(applied_at) || !isCount(closed)) throw malformed("a word of a lease");
      return { id, applied_at, closed };
    }),
  };
}

/** @param envelope who says it to which cluster, in answer to which query; `issuedAt` in seconds since the epoch */
export function signFeedPage(
  page: FeedPage,
  envelope: { readonly issuer: string; readonly audience: string; readonly issuedAt: number; readonly nonce: string },
  key: SigningKey,
): Promise<string> {
  const { issuer: iss, audience: aud, issuedAt: iat, nonce } = envelope;
  return signTyped(FEED_PAGE_TYPE, { iss, aud, iat, exp: iat + FRESH_SECONDS, nonce, ...page }, key);
}

/**
 * Judges a page of the feed.
 *
 * @throws {Refusal} as `verifyJwt`; `request_malformed` when a good signature is over something that is no such page
 */
export async function verifyFeedPage(
  token: unknown,
  nonce: string,
  keys: JWTVerifyGetKey,
  rules: TokenRules,
  now: Date = new Date(),
): Promise<FeedPage> {
  return judgeFeedPage(await checkSignature(token, keys, { ...rules, maxLength: MAX_PAGE_LENGTH }), nonce, rules, now);
}

/** Judges all of a page but its signature. @throws {Refusal} as {@link verifyFeedPage} */
export function judgeFeedPage(jwt: SignedJwt, nonce: string, rules: TokenRules, now: Date = new Date()): FeedPage {
  const { payload } = judgeJwt(jwt, { ...rules, typ: FEED_PAGE_TYPE }, now);
  const { after, upto, head, first, events } = payload;
  if (payload.nonce !== nonce) throw new Refusal("token_invalid", { detail: "an answer to another query" });
  if (!isCount(after) || !isCount(upto) || !isCount(head) || !isCount(first) || !Array.isArray(events)) {
    throw malformed("not a page of the feed");
  }
  if (events.length > FEED_PAGE_EVENTS) throw malformed("a page with too many events");
  return { after, upto, head, first, events: events.map((event: unknown) => readRevocation(event)) };
}

/** The `typ` of the token with which the edge asks a cluster for receipts. */
export const RECEIPT_QUERY_TYPE = "receipt-query+jwt";
/** The `typ` of what a cluster answers. */
export const RECEIPTS_TYPE = "cluster-receipts+jwt";
/** Receipts that one query may ask for. */
export const MAX_RECEIPTS = 100;

/** What one node did about a revocation. */
export interface NodeReceipt {
  readonly node: string;
  /** When the sockets that it covers were closed, milliseconds since the epoch, by the node's clock. */
  readonly applied_at: number;
  /** Sockets of its own that it closed. */
  readonly closed: number;
}

/** A node that gave no word, but whose lease is over, and its sockets with it. */
export interface FencedNode {
  readonly node: string;
  /** Milliseconds since the epoch. */
  readonly fenced_at: number;
}

/** What one cluster knows of a revocation. Every node that is expected is in one of the other three. */
export interface ClusterReceipt {
  readonly id: string;
  /** Nodes that held a lease when the event came in; a node that joins later replays it first. */
  readonly expected: readonly string[];
  readonly applied: readonly NodeReceipt[];
  readonly pending: readonly string[];
  readonly fenced: readonly FencedNode[];
}

/** @param envelope `issuedAt` in seconds since the epoch */
export function signReceiptQuery(
  ids: readonly string[],
  envelope: { readonly issuer: string; readonly audience: string; readonly issuedAt: number; readonly nonce: string },
  key: SigningKey,
): Promise<string> {
  const { issuer: iss, audience: aud, issuedAt: iat, nonce: jti } = envelope;
  return signTyped(RECEIPT_QUERY_TYPE, { iss, aud, iat, exp: iat + FRESH_SECONDS, jti, ids }, key);
}

/** @throws {Refusal} as `verifyJwt`; `request_malformed` */
export async function verifyReceiptQuery(
  token: unknown,
  keys: JWTVerifyGetKey,
  rules: TokenRules,
  now: Date = new Date(),
): Promise<{ readonly ids: readonly string[]; readonly nonce: string }> {
  const { payload } = await verifyJwt(token, keys, { ...rules, typ: RECEIPT_QUERY_TYPE }, now);
  const { ids, jti: nonce } = payload;
  if (!isName(nonce) || !Array.isArray(ids) || ids.length > MAX_RECEIPTS || !ids.every(isName)) {
    throw malformed("not a receipt query");
  }
  return { ids, nonce };
}

/** @param envelope which node of which cluster says it to which edge, in answer to which query; `now` in seconds */
export function signReceipts(
  receipts: readonly ClusterReceipt[],
  envelope: { readonly cluster: string; readonly node: string; readonly issuer: string; readonly nonce: string },
  secrets: ClusterSecrets,
  now: number,
): Promise<string> {
  const { cluster: iss, node: sub, issuer: aud, nonce: jti } = envelope;
  return signShared(RECEIPTS_TYPE, { iss, sub, aud, jti, receipts }, secrets, now);
}

/**
 * Judges a cluster's answer. Events that the cluster does not know are not in it.
 *
 * @throws {Refusal} `token_missing`, `token_invalid`; `request_malformed`
 */
export async function verifyReceipts(
  token: string,
  asked: { readonly cluster: string; readonly issuer: string; readonly nonce: string },
  secrets: ClusterSecrets,
  now: Date = new Date(),
): Promise<readonly ClusterReceipt[]> {
  const rules = { issuer: asked.cluster, audience: asked.issuer };
  const { jti, receipts } = await verifyShared(RECEIPTS_TYPE, token, rules, secrets, now);
  if (jti !== asked.nonce) throw new Refusal("token_invalid", { detail: "an answer to another query" });
  if (!Array.isArray(receipts) || receipts.length > MAX_RECEIPTS) throw malformed("not receipts");
  return receipts.map(receiptOf);
}

function receiptOf(value: unknown): ClusterReceipt {
  if (!isRecord(value)) throw malformed("a receipt");
  const { id, expected, applied, pending, fenced } = value;
  if (!isName(id) || !isNames(expected) || !isNames(pending) || !isShort(applied) || !isShort(fenced)) {
    throw malformed("a receipt");
  }
  return {
    id,
    expected,
    applied: applied.map((word) => {
      if (!isRecord(word) || !isName(word.node) || !isCount(word.applied_at) || !isCount(word.closed)) {
        throw malformed("a node's word");
      }
      return { node: word.node, applied_at: word.applied_at, closed: word.closed };
    }),
    pending,
    fenced: fenced.map((word) => {
      if (!isRecord(word) || !isName(word.node) || !isCount(word.fenced_at)) throw malformed("a fenced node");
      return { node: word.node, fenced_at: word.fenced_at };
    }),
  };
}

/** Signs with the cluster's secret. @param now seconds since the epoch */
export function signShared(typ: string, payload: JWTPayload, [secret]: ClusterSecrets, now: number): Promise<string> {
  const timed = { ...payload, iat: now, exp: now + FRESH_SECONDS };
  return new SignJWT(timed).setProtectedHeader({ ...SEAL, typ }).sign(bytesOf(secret));
}

/** @throws {Refusal} `token_invalid` */
export async function verifyShared(
  typ: string,
  token: string,
  parties: { readonly issuer: string; readonly audience: string },
  secrets: ClusterSecrets,
  now: Date,
): Promise<JWTPayload> {
  if (token.length > MAX_PAGE_LENGTH) throw new Refusal("token_invalid", { detail: "the token is too long" });
  const options = { ...parties, typ, algorithms: [SEAL.alg], clockTolerance: FRESH_SECONDS, currentDate: now };
  let reason: unknown;
  for (const secret of secrets) {
    try {
      return (await jwtVerify(token, bytesOf(secret), options)).payload;
    } catch (error) {
      reason = error;
    }
  }
  const detail = reason instanceof errors.JOSEError ? `${reason.code}: ${reason.message}` : "not a JWT";
  throw new Refusal("token_invalid", { cause: reason, detail });
}

/** Of a token that is not verified yet: it only chooses the secret to verify with. */
function claimedIssuer(token: string): string {
  try {
    return decodeJwt(token).iss ?? "";
  } catch (cause) {
    throw new Refusal("token_invalid", { cause, detail: "not a JWT" });
  }
}

function bytesOf(text: string): Uint8Array {
  return base64url.decode(base64url.encode(text));
}

function malformed(detail: string): Refusal {
  return new Refusal("request_malformed", { detail });
}

function isNames(value: unknown): value is string[] {
  return isShort(value) && value.every(isName);
}

/** A list of no more than there are nodes in a cluster. */
function isShort(value: unknown): value is unknown[] {
  return Array.isArray(value) && value.length <= MAX_NODES;
}

/**
 * What a node is told by its edges, and what it answers them: takes in events by every way there is, judges their signatures, has
 * them enforced, leaves its word, and says what the cluster's words add up to.
 */
import { randomBytes } from "node:crypto";
import { decodeJwt } from "jose";
import { type ClusterSecrets, signReceipts } from "#contract/cluster";
import { Refusal, toRefusal } from "#contract/refusal";
import type { Rehearsal } from "#contract/revocation";
import type { Admissions, Applied } from "./admissions.ts";
import { createFeed } from "./feed.ts";
import { Follower } from "./follower.ts";
import { type Link, leaseNow, type Member, Peers } from "./lease.ts";
import { type Count, createLog } from "./log.ts";
import { createReceipts, receiptKey } from "./receipts.ts";
import { createLogLinks, type RedisClient } from "./redis.ts";
import { canRevokeUnheard, feedOf, type TrustedIssuer, type Verifier } from "./verifier.ts";

const COMMAND_TIMEOUT_MS = 2_000;
const RETRY_MS = 250;
/** How long a rehearsal waits for nodes that say nothing. */
const REHEARSAL_WAIT_MS = 1_000;
/** Where the feed tells what is older, Redis need not hold more events than these. */
const MAX_EVENTS = 100_000;
const RETENTION_MS = 5 * 60_000;
const RETENTION_WITHOUT_FEED_MS = 2 * 60 * 60_000;

export interface ControlOptions {
  readonly redis: RedisClient;
  readonly issuers: readonly TrustedIssuer[];
  readonly cluster: string;
  readonly secrets: ClusterSecrets;
  readonly node: string;
  readonly leaseMs: number;
  /** How long any of its sockets may stay when the node is fenced, at most. */
  readonly keepMs: number;
  readonly heartbeatMs: number;
  readonly retentionMs: number | undefined;
  readonly feedCheckMs: number;
  readonly replicas: number;
  readonly verifier: Verifier;
  readonly admissions: Admissions;
  onFenced(): void;
  onLink(link: Link | undefined): void;
  /** Something that nobody who is trusted has said. */
  onIgnored(detail: string | undefined): void;
  onProblem(message: string, error: unknown): void;
  onBack(message: string): void;
}

export interface Control {
  /** Resolves once everything that is revoked is known. */
  start(): Promise<void>;
  /** Whether nothing that is revoked can be unknown here. */
  isCurrent(): boolean;
  /** When the node is fenced unless it hears something before, by `leaseNow`. */
  leaseEndsAt(): number;
  /** Acts on an event here at once; resolves only when Redis has it for the others. @throws {Refusal} */
  accept(set: string): Promise<void>;
  /** Whom a revocation would hit in the whole cluster. @throws {Refusal} when no trusted issuer asks */
  rehearse(question: string): Promise<Rehearsal>;
  /** What the cluster knows of the events that a query names, sealed for whoever asked. @throws {Refusal} */
  receipts(query: string, waitMs: number): Promise<string>;
  /** Uses a ticket up. Resolves to whether it was unused until now; rejects when Redis cannot tell. */
  burn(ticket: string, seconds: number): Promise<boolean>;
  /** How it is told, for those who watch over it. */
  health(): {
    readonly link: Link | "none";
    readonly log_silence_ms: number | null;
    readonly lease_ms: number;
    readonly gap: boolean;
    readonly unsettled: number;
    readonly peers: number;
  };
  stop(): Promise<void>;
}

export function createControl(options: ControlOptions): Control {
  const { cluster, secrets, node, leaseMs, keepMs, verifier, admissions, onIgnored, onProblem, onBack } = options;
  const self: Member = { node, boot: randomBytes(6).toString("base64url"), leaseMs, keepMs };
  const links = createLogLinks(options.redis, {
    commandTimeoutMs: COMMAND_TIMEOUT_MS,
    retryMs: RETRY_MS,
    onProblem,
    onBack,
  });
  const peers = new Peers(cluster, secrets, () => onIgnored("a heartbeat that no node of this cluster sealed"));
  const receipts = createReceipts({
    ...{ links, cluster, secrets, self, peers },
    onForged: (what) => onIgnored(`${what} that no node of this cluster sealed`),
  });
  const feeds = options.issuers.flatMap((trusted) => {
    const uri = feedOf(trusted);
    if (uri === undefined) return [];
    const { issuer } = trusted;
    return createFeed({
      ...{ issuer, uri, cluster, secrets, node, boot: self.boot, onProblem },
      verify: (page, nonce) => verifier.feedPage(issuer, page, nonce),
      apply: (event) => applied(issuer, event.id, admissions.apply(issuer, event)),
    });
  });
  const feedsSuffice = feeds.length > 0 && !options.issuers.some(canRevokeUnheard);
  const follower = new Follower({
    ...{ self, feeds, feedsSuffice, checkMs: options.feedCheckMs, onProblem },
    onFenced: options.onFenced,
    onLink: options.onLink,
  });
  const log = createLog({
    ...{
      links,
      cluster,
      secrets,
      self,
      peers,
      onProblem,
      replicas: options.replicas,
      heartbeatMs: options.heartbeatMs,
    },
    retentionMs: options.retentionMs ?? (feedsSuffice ? RETENTION_MS : RETENTION_WITHOUT_FEED_MS),
    maxEvents: feedsSuffice ? MAX_EVENTS : 0,
    apply: applySigned,
    count: countSigned,
    onRead(beat) {
      follower.read(beat);
      receipts
        .flush()
        .catch((error: unknown) => onProblem("receipts could not be written; the next heartbeat will", error));
    },
    onLoss: () => follower.lost(),
  });

  /** Leaves this node's word once there is one. */
  function applied(issuer: string, id: string, { done }: Applied): Applied["done"] {
    // Not waited for: closing may take its time, and the heartbeat must not. What cannot be written now waits for Redis.
    receipts.acknowledge(issuer, id, done).catch(() => undefined);
    return done;
  }

  async function applySigned(set: string): Promise<void> {
    try {
      if (appliedBefore(set)) return;
      enforce(await verifier.revocation(set, true));
    } catch (thrown) {
      const refusal = toRefusal(thrown);
      if (refusal.status >= 500) throw thrown;
      // Redis is not an authority: what no trusted issuer has signed is not obeyed, whoever wrote it.
      onIgnored(refusal.detail);
    }
  }

  function enforce({ issuer, signer, event }: Awaited<ReturnType<Verifier["revocation"]>>): void {
    const done = applied(issuer, event.id, admissions.apply(issuer, event));
    // Other signers number their events by themselves.
    feeds.find((feed) => feed.issuer === signer)?.saw(event, done);
  }

  /** An event that another way brought first. Its signature is spared: whatever it says, nothing is done but to leave the word again. */
  function appliedBefore(set: string): boolean {
    const { iss = "", jti = "" } = claimsOf(set);
    const known = admissions.applied(iss, jti);
    if (known !== undefined) applied(iss, jti, known);
    return known !== undefined;
  }

  async function countSigned(question: string): Promise<(Count & { readonly id: string }) | undefined> {
    try {
      const { issuer, id, targets } = await verifier.rehearsal(question);
      return { id, ...admissions.hitBy(issuer, targets) };
    } catch (thrown) {
      onIgnored(toRefusal(thrown).detail);
      return undefined;
    }
  }

  return {
    async start() {
      await verifier.ready();
      await follower.start(log);
    },
    isCurrent: () => follower.isCurrent(),
    leaseEndsAt: () => follower.leaseEndsAt,
    async accept(set) {
      const revocation = await verifier.revocation(set);
      enforce(revocation);
      const { issuer, event } = revocation;
      try {
        const before = await log.append(receiptKey(issuer, event.id), set);
        await receipts.expect(issuer, event.id, before);
      } catch (error) {
        throw new Refusal("unavailable", { cause: error, detail: "Redis cannot take the event" });
      }
      await receipts.flush().catch(() => undefined); // the next heartbeat does
    },
    async rehearse(question) {
      const { id } = await verifier.rehearsal(question);
      return await log.ask(id, question, REHEARSAL_WAIT_MS);
    },
    async receipts(query, waitMs) {
      const { about, issuer, ids, nonce } = await verifier.receiptQuery(query);
      const known = await receipts.read(about, ids, waitMs);
      return await signReceipts(known, { cluster, node, issuer, nonce }, secrets, Math.floor(Date.now() / 1000));
    },
    burn: (ticket, seconds) => log.burn(ticket, seconds),
    health() {
      const silence = log.silenceMs();
      return {
        link: follower.link ?? "none",
        log_silence_ms: Number.isFinite(silence) ? Math.round(silence) : null,
        lease_ms: Math.max(0, Math.round(follower.leaseEndsAt - leaseNow())),
        gap: follower.hasGap,
        unsettled: log.unsettled,
        peers: peers.alive().length,
      };
    },
    stop: () => follower.stop(),
  };
}

/** Of a token that is not verified: anything may stand there. */
function claimsOf(token: string): { readonly iss?: string; readonly jti?: string } {
  try {
    const { iss, jti } = decodeJwt(token);
    return typeof iss === "string" && typeof jti === "string" ? { iss, jti } : {};
  } catch {
    return {}; // judged, and ignored, a moment later
  }
}

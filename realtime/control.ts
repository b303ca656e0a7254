/**
 * What a node is told by its edges, and what it answers them: takes in events by every way there is, judges their signatures, has
 * them enforced, leaves its word, and says what the cluster's words add up to.
 */
import { randomBytes } from "node:crypto";
import { decodeProtectedHeader } from "jose";
import { type ClusterSecrets, signReceipts } from "#contract/cluster";
import { NODE_QUERY_TYPE, type NodeStatus, signNodeAnswers } from "#contract/node-query";
import { Refusal, toRefusal } from "#contract/refusal";
import type { Rehearsal } from "#contract/revocation";
import { VERSION } from "#contract/version";
import type { Admissions, Applied, Way } from "./admissions.ts";
import { createFeed } from "./feed.ts";
import { Follower } from "./follower.ts";
import { decodeToken } from "./known-keys.ts";
import { type Link, leaseNow, type Member, Peers } from "./lease.ts";
import { createLog, type LogWay } from "./log.ts";
import { createNodeSpeaker } from "./node-answers.ts";
import { createQuestions } from "./questions.ts";
import { createReceipts, receiptKey } from "./receipts.ts";
import { createLogLinks, type RedisClient } from "./redis.ts";
import { Trouble, type TroubleListener } from "./trouble.ts";
import { canRevokeUnheard, feedOf, type TrustedIssuer, type Verifier } from "./verifier.ts";

const COMMAND_TIMEOUT_MS = 2_000;
const RETRY_MS = 250;
/** How long nodes are waited for that say nothing. */
const ANSWER_WAIT_MS = 1_000;
/** Where the feed tells what is older, Redis need not hold more events than these. */
const MAX_EVENTS = 100_000;
const RETENTION_MS = 5 * 60_000;
const RETENTION_WITHOUT_FEED_MS = 2 * 60 * 60_000;

export interface ControlOptions extends TroubleListener {
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
  /** Whether it lets people in. */
  isReady(): boolean;
  onFenced(): void;
  onLink(link: Link | undefined): void;
  /** Something that nobody who is trusted has said. */
  onIgnored(detail: string | undefined): void;
  /** A connection of the log was made, or ended or could not be made. */
  onAttempt(connection: "commands" | "bell" | "sentinel", outcome: "made" | "lost"): void;
  /** An edge's feed was asked. */
  onFeedAsked(issuer: string, outcome: "answered" | "failed"): void;
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
  /** What the nodes say of themselves, sealed for whoever asked. @throws {Refusal} when no trusted issuer asks */
  nodes(query: string): Promise<string>;
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
    readonly unwritten: number;
  };
  stop(): Promise<void>;
}

export function createControl(options: ControlOptions): Control {
  const { cluster, secrets, node, leaseMs, keepMs, verifier, admissions, onIgnored, onProblem, onBack } = options;
  const startedAt = Date.now();
  const listener = { onProblem, ...(onBack && { onBack }) };
  const unwritten = new Trouble({ begun: "receipts could not be written; the next heartbeat will" }, listener);
  const unanswered = new Trouble({ begun: "a question could not be answered" }, listener);
  const self: Member = { node, boot: randomBytes(6).toString("base64url"), leaseMs, keepMs };
  const links = createLogLinks(options.redis, {
    commandTimeoutMs: COMMAND_TIMEOUT_MS,
    retryMs: RETRY_MS,
    onAttempt(connection, outcome) {
      options.onAttempt(connection, outcome);
      if (connection === "commands" && outcome === "made") sayAgain();
    },
    ...listener,
  });
  const peers = new Peers(cluster, secrets, () => onIgnored("a heartbeat that no node of this cluster sealed"));
  const onForged = (what: string) => onIgnored(`${what} that no node of this cluster sealed`);
  const receipts = createReceipts({
    ...{ links, cluster, secrets, self, peers, onForged },
    // The heartbeat writes them.
    mayWait: () => !follower.isCurrent(),
  });
  const questions = createQuestions({ links, cluster, secrets, self, peers, onForged });
  const speaker = createNodeSpeaker({ self, peers, questions, admissions, status, ...listener });
  const feeds = options.issuers.flatMap((trusted) => {
    const uri = feedOf(trusted);
    if (uri === undefined) return [];
    const { issuer } = trusted;
    return createFeed({
      ...{ issuer, uri, cluster, secrets, node, boot: self.boot, onProblem },
      onAsked: (outcome) => options.onFeedAsked(issuer, outcome),
      verify: (page, nonce) => verifier.feedPage(issuer, page, nonce),
      apply: (event) => applied(issuer, event.id, admissions.apply(issuer, event, "feed")),
    });
  });
  const feedsSuffice = feeds.length > 0 && !options.issuers.some(canRevokeUnheard);
  const follower = new Follower({
    ...{ self, feeds, feedsSuffice, checkMs: options.feedCheckMs, ...listener },
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
      ...listener,
      replicas: options.replicas,
      heartbeatMs: options.heartbeatMs,
    },
    retentionMs: options.retentionMs ?? (feedsSuffice ? RETENTION_MS : RETENTION_WITHOUT_FEED_MS),
    maxEvents: feedsSuffice ? MAX_EVENTS : 0,
    apply: applySigned,
    onQuestion(question) {
      answer(question).catch((error: unknown) => unanswered.failed(error));
    },
    onRead(beat) {
      follower.read(beat);
      receipts.flush().then(
        () => unwritten.over(),
        (error: unknown) => unwritten.failed(error),
      );
    },
    onLoss: () => follower.lost(),
  });

  /** Leaves this node's word once there is one. */
  function applied(issuer: string, id: string, { done }: Applied): Applied["done"] {
    receipts.acknowledge(issuer, id, done);
    return done;
  }

  /** Another connection may lead to a Redis that has an event and has lost what this node said of it: nobody else would ever say it. */
  function sayAgain(): void {
    for (const { issuer } of options.issuers) {
      for (const [id, known] of admissions.lately(issuer)) applied(issuer, id, known);
    }
  }

  function health(): ReturnType<Control["health"]> {
    const silence = log.silenceMs();
    return {
      link: follower.link ?? "none",
      log_silence_ms: Number.isFinite(silence) ? Math.round(silence) : null,
      lease_ms: Math.max(0, Math.round(follower.leaseEndsAt - leaseNow())),
      gap: follower.hasGap,
      unsettled: log.unsettled,
      peers: peers.alive().length,
      unwritten: receipts.unwritten,
    };
  }

  function status(issuer: string): NodeStatus {
    const { link, lease_ms, gap, unsettled, log_silence_ms } = health();
    const applied = feeds.find((feed) => feed.issuer === issuer)?.done ?? 0;
    return {
      ...{ node, boot: self.boot, version: VERSION, started_at: startedAt, ready: options.isReady() },
      ...{ link, lease_ms, applied, sockets: admissions.sockets, gap, unsettled, log_silence_ms },
    };
  }

  async function applySigned(set: string, way: LogWay): Promise<void> {
    try {
      if (appliedBefore(set)) return;
      enforce(await verifier.revocation(set, true), way);
    } catch (thrown) {
      const refusal = toRefusal(thrown);
      if (refusal.status >= 500) throw thrown;
      // Redis is not an authority: what no trusted issuer has signed is not obeyed, whoever wrote it.
      onIgnored(refusal.detail);
    }
  }

  function enforce({ issuer, signer, event }: Awaited<ReturnType<Verifier["revocation"]>>, way: Way): void {
    const done = applied(issuer, event.id, admissions.apply(issuer, event, way));
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

  /** This node's part of what all were asked; nothing, where nobody asked who is trusted. Changes nothing. */
  async function answer(question: string): Promise<void> {
    if (typeOf(question) === NODE_QUERY_TYPE) {
      const asked = await believed(verifier.nodeQuery(question));
      if (asked !== undefined) await questions.answer(asked.nonce, speaker.own(asked));
    } else {
      const asked = await believed(verifier.rehearsal(question));
      if (asked !== undefined) await questions.counted(asked.id, admissions.hitBy(asked.issuer, asked.targets));
    }
  }

  async function believed<T>(judging: Promise<T>): Promise<T | undefined> {
    try {
      return await judging;
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
      const { issuer, event } = revocation;
      // On its way to the others while it is enforced here, whatever becomes of either.
      const appending = Promise.allSettled([log.append(receiptKey(issuer, event.id), set)]);
      enforce(revocation, "push");
      try {
        const [appended] = await appending;
        if (appended.status === "rejected") throw appended.reason;
        await receipts.expect(issuer, event.id, appended.value);
      } catch (error) {
        throw new Refusal("unavailable", { cause: error, detail: "Redis cannot take the event" });
      }
      await receipts.flush().catch(() => undefined); // the next heartbeat does
    },
    async rehearse(question) {
      const { id } = await verifier.rehearsal(question);
      return await questions.count(id, question, ANSWER_WAIT_MS);
    },
    async receipts(query, waitMs) {
      const { about, issuer, ids, nonce } = await verifier.receiptQuery(query);
      const known = await receipts.read(about, ids, waitMs);
      return await signReceipts(known, { cluster, node, issuer, nonce }, secrets, Math.floor(Date.now() / 1000));
    },
    async nodes(query) {
      const asked = await verifier.nodeQuery(query);
      const answers = await speaker.all(asked, query, ANSWER_WAIT_MS);
      const envelope = { cluster, node, issuer: asked.issuer, nonce: asked.nonce };
      return await signNodeAnswers(answers, envelope, secrets, Math.floor(Date.now() / 1000));
    },
    burn: (ticket, seconds) => log.burn(ticket, seconds),
    health,
    stop: () => follower.stop(),
  };
}

/** What a token that is not verified calls itself: that decides only how it is judged. */
function typeOf(token: string): string | undefined {
  try {
    return decodeProtectedHeader(token).typ;
  } catch {
    return undefined; // judged, and ignored, a moment later
  }
}

/** Of a token that is not verified: anything may stand there. */
function claimsOf(token: string): { readonly iss?: string; readonly jti?: string } {
  try {
    const { iss, jti } = decodeToken(token).payload;
    return typeof iss === "string" && typeof jti === "string" ? { iss, jti } : {};
  } catch {
    return {}; // judged, and ignored, a moment later
  }
}

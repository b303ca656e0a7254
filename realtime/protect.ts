/**
 * The door: what an app calls on its own Socket.IO server. It lets in whoever shows a living token, keeps every
 * packet of everybody else out, closes at expiry, and enforces revocations on this node's own sockets.
 *
 * A revocation can land at any moment of a handshake, and a socket in the middle of one is in no index yet. So what
 * is revoked is looked at after the last wait of ours and again when the socket is connected, in the same turn in
 * which it enters the index: from there on the event finds the socket.
 */
import { randomUUID } from "node:crypto";
import type { IncomingMessage } from "node:http";
import type { Redis } from "ioredis";
import type { Namespace, Server } from "socket.io";
import type { AccessTokenClaims } from "#contract/access-token";
import { Refusal, type RefusalCode, toRefusal, unauthorizedErrorData } from "#contract/refusal";
import { type NodeReceipt, type RevocationEvent, RevocationIndex } from "#contract/revocation";
import { findToken } from "./credentials.ts";
import { createLog } from "./log.ts";
import { createReceiver, type Health, type Receiver } from "./receiver.ts";
import {
  type Admission,
  closeForRefresh,
  disconnect,
  disconnectAll,
  ExpiryWheel,
  type ProtectedSocket,
  SocketIndex,
  trackTransport,
} from "./sockets.ts";
import { createVerifier, type TrustedIssuer } from "./verifier.ts";

export type { ProtectedSocket, SessionData } from "./sockets.ts";
export type { TrustedIssuer } from "./verifier.ts";

export interface ProtectOptions {
  /** A client of the Redis that the nodes of this cluster share; two connections like it are made. */
  readonly redis: Redis;
  /** Whose tokens let people in, and whose word ends them. */
  readonly issuers: readonly TrustedIssuer[];
  /** The name of this cluster: the `aud` of the events meant for it. */
  readonly cluster: string;
  /** The name of this node, unique in the cluster; random unless given. */
  readonly node?: string | undefined;
  /** How far the clocks of issuers and this node may differ. Default 5. */
  readonly clockSkewSeconds?: number | undefined;
  /** How often the lease is renewed and the stream read. Default 1000. */
  readonly heartbeatMs?: number | undefined;
  /** After this long without a heartbeat no new handshake is accepted. Default 5000. */
  readonly leaseMs?: number | undefined;
  /** How long Redis keeps events: longer than any access token lives. Default 2 hours. */
  readonly retentionMs?: number | undefined;
  /** Everything worth a log line; no secret is ever in it. Default: nothing is logged. */
  readonly onEvent?: ((event: DoorEvent) => void) | undefined;
}

/** What happened at the door, for logs and metrics. */
export type DoorEvent =
  | {
      readonly kind: "admitted";
      readonly socket: string;
      readonly nsp: string;
      readonly sub: string;
      readonly sid: string;
    }
  | {
      readonly kind: "refused";
      readonly socket: string;
      readonly nsp: string;
      readonly code: RefusalCode;
      readonly detail: string | undefined;
      readonly cause: unknown;
    }
  | { readonly kind: "expired"; readonly sockets: number }
  | {
      readonly kind: "revoked";
      readonly revocation: string;
      readonly seq: number;
      readonly code: RefusalCode;
      readonly closed: number;
    }
  | { readonly kind: "ignored"; readonly detail: string | undefined }
  | { readonly kind: "problem"; readonly message: string; readonly error: unknown };

export interface Door {
  readonly node: string;
  /** Resolves once keys are there and the log is replayed. Handshakes are refused as `unavailable` until then. */
  ready(): Promise<void>;
  /** Answers `/events`, `/receipts/:id`, `/healthz` and `/readyz`; returns false for every other request. */
  readonly receive: Receiver;
  health(): Health;
  /** Takes no new handshakes from here on; sockets stay. */
  drain(): void;
  /** Closes this node's sockets so that stock clients go elsewhere, gives back the lease and stops every timer. */
  close(): Promise<void>;
}

/** What is known of one trusted issuer: whom it has revoked, and which sockets its tokens let in. */
interface Realm {
  readonly revocations: RevocationIndex;
  readonly sockets: SocketIndex;
}

type AppliedEvent = NodeReceipt & { readonly id: string };

const FORGET_EVERY_MS = 30_000;
const RECEIPTS_KEPT = 10_000;

/**
 * Protects every namespace of a Socket.IO server, those made later included. Call it before the app's own middleware,
 * so that nothing runs for a stranger.
 */
export function protect(io: Server, options: ProtectOptions): Door {
  const node = options.node ?? randomUUID();
  const clockSkewSeconds = options.clockSkewSeconds ?? 5;
  const report = options.onEvent ?? (() => undefined);
  const onProblem = (message: string, error: unknown) => report({ kind: "problem", message, error });
  const verifier = createVerifier({ issuers: options.issuers, cluster: options.cluster, clockSkewSeconds, onProblem });
  const realms = new Map<string, Realm>(
    options.issuers.map(({ issuer }) => [issuer, { revocations: new RevocationIndex(), sockets: new SocketIndex() }]),
  );
  const wheel = new ExpiryWheel(expire);
  /** Claims of sockets that our middleware has judged, until they are connected. */
  const verified = new WeakMap<ProtectedSocket, AccessTokenClaims>();
  /** What was done about each event, so that one that comes again by another path gets the same receipt. */
  const receipts = new Map<string, Promise<AppliedEvent>>();
  let draining = false;

  const log = createLog({
    redis: options.redis,
    node,
    heartbeatMs: options.heartbeatMs ?? 1_000,
    leaseMs: options.leaseMs ?? 5_000,
    retentionMs: options.retentionMs ?? 2 * 60 * 60_000,
    apply: applySigned,
    onProblem,
  });

  function realmOf(claims: AccessTokenClaims): Realm {
    const realm = realms.get(claims.iss);
    if (realm === undefined) throw new Refusal("token_invalid", { detail: "the issuer is not trusted" });
    return realm;
  }

  /** @throws {Refusal} when these claims may not be used on this node now */
  function checkLiving(claims: AccessTokenClaims): void {
    const dead = realmOf(claims).revocations.check(claims);
    if (dead !== undefined) throw new Refusal(dead);
    // No leeway here: what is let in late would be closed within the second.
    if (claims.exp <= Date.now() / 1000) throw new Refusal("token_expired");
    if (!isReady()) throw new Refusal("unavailable", { detail: "this node does not know what is revoked" });
  }

  function isReady(): boolean {
    return !draining && log.isCurrent();
  }

  async function admit(socket: ProtectedSocket): Promise<void> {
    if (!isReady()) throw new Refusal("unavailable", { detail: "this node does not know what is revoked" });
    const claims = await verifier.accessToken(findToken(socket.handshake));
    checkLiving(claims);
    verified.set(socket, claims);
    socket.data.session = claims;
  }

  function refused(socket: ProtectedSocket, thrown: unknown): Refusal {
    const refusal = toRefusal(thrown);
    const { code, detail, cause } = refusal;
    report({ kind: "refused", socket: socket.id, nsp: socket.nsp.name, code, detail, cause });
    return refusal;
  }

  /** The one place of realtime where a refusal becomes an answer to a client that is not let in. */
  function connectError(socket: ProtectedSocket, thrown: unknown): Error {
    const refusal = refused(socket, thrown);
    return Object.assign(new Error(refusal.message), { data: unauthorizedErrorData(refusal) });
  }

  /** Runs in the turn in which the socket is connected, before any listener of the app. */
  function enter(socket: ProtectedSocket): void {
    trackTransport(socket);
    try {
      const claims = verified.get(socket);
      // Connection state recovery skips middleware by default, and restores what `socket.data` was.
      if (claims === undefined) throw new Refusal("token_missing", { detail: "not verified on this connection" });
      checkLiving(claims);
      keep({ socket, claims, ended: undefined });
    } catch (thrown) {
      disconnect(socket, refused(socket, thrown).code);
    }
  }

  function keep(admission: Admission): void {
    const { socket, claims } = admission;
    const { sockets } = realmOf(claims);
    sockets.add(admission);
    wheel.add(admission);
    socket.once("disconnect", () => {
      sockets.remove(admission);
      wheel.remove(admission);
    });
    socket.use((_packet, next) => {
      if (admission.ended === undefined) next();
    });
    report({ kind: "admitted", socket: socket.id, nsp: socket.nsp.name, sub: claims.sub, sid: claims.sid });
  }

  function guard(nsp: Namespace): void {
    nsp.use((socket, next) => {
      admit(socket).then(
        () => next(),
        (thrown: unknown) => next(connectError(socket, thrown)),
      );
    });
    nsp.prependListener("connect", enter);
  }

  function expire(admissions: ReadonlySet<Admission>): void {
    closeForRefresh(admissions, "token_expired").then(
      (sockets) => report({ kind: "expired", sockets }),
      (error: unknown) => onProblem("closing expired sockets failed", error),
    );
  }

  function apply(issuer: string, event: RevocationEvent): Promise<AppliedEvent> {
    // By issuer too: one must not be able to take the place of another's event.
    const name = `${issuer} ${event.id}`;
    const known = receipts.get(name);
    if (known !== undefined) return known;
    const realm = realms.get(issuer);
    if (realm === undefined) throw new Refusal("token_invalid", { detail: "the issuer is not trusted" });
    // Both in one turn, with no wait between: a handshake that ends later meets the index, a socket that was
    // connected before is found.
    realm.revocations.merge(event);
    const hit = realm.sockets.hitBy(event);
    const receipt = disconnectAll(hit, event.code).then((closed) => {
      report({ kind: "revoked", revocation: event.id, seq: event.seq, code: event.code, closed });
      return { id: event.id, node, applied_at: Date.now(), closed };
    });
    receipts.set(name, receipt);
    if (receipts.size > RECEIPTS_KEPT) receipts.delete(receipts.keys().next().value ?? "");
    return receipt;
  }

  async function applySigned(set: string): Promise<AppliedEvent | undefined> {
    try {
      const { issuer, event } = await verifier.revocation(set);
      return await apply(issuer, event);
    } catch (thrown) {
      const refusal = toRefusal(thrown);
      if (refusal.status >= 500) throw thrown;
      // Redis is not an authority: what no trusted issuer has signed is not obeyed, whoever wrote it.
      report({ kind: "ignored", detail: refusal.detail });
      return undefined;
    }
  }

  /** Acts on it here at once; says yes only when Redis has it for the others. */
  async function accept(set: string): Promise<void> {
    const { issuer, event } = await verifier.revocation(set);
    const applied = apply(issuer, event);
    try {
      await log.append(event.id, set);
    } catch (error) {
      throw new Refusal("unavailable", { cause: error, detail: "Redis cannot take the event" });
    }
    await applied;
  }

  function refuseWhileNotReady(request: IncomingMessage, _response: unknown, next: (error?: Error) => void): void {
    // Refused below Socket.IO, a stock client takes it for a broken connection and tries again by itself.
    const opening = !new URLSearchParams(request.url?.split("?")[1]).has("sid");
    if (opening && !isReady()) next(new Error("unavailable"));
    else next();
  }

  function health(): Health {
    const sockets = [...realms.values()].reduce((sum, realm) => sum + realm.sockets.size, 0);
    const revocations = [...realms.values()].reduce((sum, realm) => sum + realm.revocations.size, 0);
    const silence = log.silenceMs();
    return {
      ready: isReady(),
      node,
      cluster: options.cluster,
      draining,
      log_current: log.isCurrent(),
      log_silence_ms: Number.isFinite(silence) ? Math.round(silence) : null,
      sockets,
      revocations,
    };
  }

  const forgetting = setInterval(() => {
    for (const { revocations } of realms.values()) revocations.expire(Date.now() / 1000);
  }, FORGET_EVERY_MS);
  forgetting.unref();

  for (const nsp of io._nsps.values()) guard(nsp);
  io.on("new_namespace", guard);
  io.engine?.use(refuseWhileNotReady);
  const started = verifier.ready().then(() => log.start());

  return {
    node,
    ready: () => started,
    receive: createReceiver({
      accept,
      authorizeQuery: (token) => verifier.receiptQuery(token),
      receipt: (id) => log.receipt(id),
      health,
      onProblem,
    }),
    health,
    drain() {
      draining = true;
    },
    async close() {
      draining = true;
      clearInterval(forgetting);
      wheel.stop();
      verifier.close();
      // The lease last: while a socket is open, receipts must wait for this node.
      for (const { sockets } of realms.values()) await closeForRefresh(new Set(sockets.all()), "unavailable");
      await log.stop();
    },
  };
}

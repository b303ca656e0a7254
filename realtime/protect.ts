/**
 * The door: what an app calls on its own Socket.IO server. It lets in whoever shows a living token that the namespace's
 * rules allow, judges every packet of everybody, renews in place, closes at expiry, and enforces revocations on this
 * node's own sockets.
 *
 * A revocation can land at any moment of a handshake, and a socket in the middle of one is in no index yet. So what is
 * revoked is looked at after the last wait of ours and again when the socket is connected, in the same turn in which it
 * enters the index: from there on the event finds it.
 */
import { AsyncLocalStorage } from "node:async_hooks";
import { randomUUID } from "node:crypto";
import { EventEmitter } from "node:events";
import type { IncomingMessage, ServerResponse } from "node:http";
import type { Namespace, Server } from "socket.io";
import { TICKET_LIFETIME, type VerifiedClaims } from "#contract/access-token";
import { type ClusterSecrets, MIN_CLUSTER_SECRET } from "#contract/cluster";
import {
  Refusal,
  type RefusalCode,
  toRefusal,
  type UnauthorizedErrorData,
  unauthorizedErrorData,
} from "#contract/refusal";
import type { RevocationEvent } from "#contract/revocation";
import { Admissions, demandSameSession, type Way } from "./admissions.ts";
import { createControl } from "./control.ts";
import { bearerOf, type Credential, type CredentialSources, findCredential } from "./credentials.ts";
import { leaseNow } from "./lease.ts";
import { createGate, type Limits } from "./limits.ts";
import { createLobby, type Lobby } from "./lobby.ts";
import { createOpeningRequests } from "./opening-request.ts";
import { createReceiver, type Health, type Receiver } from "./receiver.ts";
import type { RedisClient } from "./redis.ts";
import { demand, demandClaims, keepMsFor, type NamespaceRule, type Rule, rulesFor } from "./rules.ts";
import {
  type Admission,
  admittedOn,
  type Demand,
  disconnect,
  type ProtectedSocket,
  type SessionData,
  sendAway,
  silencer,
  trackTransport,
  untrackTransport,
  withLastWord,
} from "./sockets.ts";
import { createStrangers } from "./strangers.ts";
import { refuseTransport } from "./transport-refusal.ts";
import type { Ended, TroubleListener } from "./trouble.ts";
import { createVerifier, type TrustedIssuer } from "./verifier.ts";

export type { CredentialSources } from "./credentials.ts";
export type { ForeignTokens } from "./foreign-token.ts";
export type { Limits } from "./limits.ts";
export { type NamespaceRule, type Rule, requireScope } from "./rules.ts";
export type { ProtectedSocket, SessionData } from "./sockets.ts";
export type { Transmitter, TrustedIssuer } from "./verifier.ts";

export interface ProtectOptions {
  /** A client of the Redis that the nodes of this cluster share; two connections like it are made. */
  readonly redis: RedisClient;
  /** Whose tokens let people in, and whose word ends them. */
  readonly issuers: readonly TrustedIssuer[];
  /** The name of this cluster: the `aud` of the events meant for it. */
  readonly cluster: string;
  /**
   * What the nodes of this cluster and its edge share, at least 32 characters; while it is being replaced, the new one and the old one.
   * With it nodes seal what they write into Redis and prove who asks for the edge's feed.
   */
  readonly clusterSecret: string | ClusterSecrets;
  /** The name of this node, unique in the cluster; random unless given. */
  readonly node?: string | undefined;
  /** Ways in besides the `auth` payload and the `Authorization` header; none unless given. */
  readonly credentials?: CredentialSources | undefined;
  /** What every namespace demands. */
  readonly require?: Rule | undefined;
  /** What some namespaces demand besides. */
  readonly namespaces?: readonly NamespaceRule[] | undefined;
  /** Lets clients connect without a token and show it in the event `authenticate`, within this time. Off unless given. */
  readonly lobby?: { readonly timeoutMs: number } | undefined;
  readonly limits?: Limits | undefined;
  /**
   * Whether `socket.request` stays whole after the `connection` listeners have run. Default false: of a request on which the app has put nothing, such as
   * a session, only `headers`, `url`, `method` and `socket` stay, which spares each socket some kilobytes. `socket.handshake` stays as it is.
   */
  readonly keepRequest?: boolean | undefined;
  /** How long before its token's `exp` a socket is sent `expiring`. Default 30. */
  readonly expiryLeadSeconds?: number | undefined;
  /** How far the clocks of issuers and this node may differ. Default 5. */
  readonly clockSkewSeconds?: number | undefined;
  /** How often the lease is renewed and the stream read. Default a fifth of the lease. */
  readonly heartbeatMs?: number | undefined;
  /** After this long without a word from Redis and from the edge's feed the node is fenced: nobody is let in. Default 5000. */
  readonly leaseMs?: number | undefined;
  /** How long sockets may stay on a node that is fenced. Default 0: they are closed at once, so that others can say that they are. */
  readonly fencedKeepSeconds?: number | undefined;
  /** How many replicas of Redis must have confirmed a heartbeat or an event. Default 0; 1 where a Sentinel may fail over. */
  readonly replicas?: number | undefined;
  /**
   * How long Redis keeps events. Default 5 minutes, since what is older is asked of the edge; 2 hours, which must be longer than any
   * access token lives, where somebody revokes who has no feed.
   */
  readonly retentionMs?: number | undefined;
  /** How often the edge is asked whether anything was missed though nothing seems to be. Default 30,000. */
  readonly feedCheckMs?: number | undefined;
}

interface About {
  readonly socket: string;
  readonly nsp: string;
  readonly address: string;
}

/** One id from the call that revoked to the last closed socket, and that call's own. */
interface AboutRevocation {
  readonly revocation: string;
  /** `X-Request-Id` of the call; absent where it was none, or an edge that does not tell it. */
  readonly request?: string | undefined;
  readonly seq: number;
  readonly code: RefusalCode;
}

/** What happened at the door, for logs and metrics. No secret is ever in it. */
export interface DoorEvents {
  admitted: [About & { readonly sub: string; readonly sid: string; readonly tookMs: number }];
  refused: [About & { readonly code: RefusalCode; readonly detail: string | undefined; readonly cause: unknown }];
  renewed: [About & { readonly sub: string; readonly sid: string; readonly exp: number }];
  expired: [{ readonly sockets: number }];
  /** A revocation is known here: nobody whom it covers gets in any more. `sockets` that it covers are being closed. */
  applied: [AboutRevocation & { readonly way: Way; readonly sockets: number }];
  /** None of those sockets is open any more. */
  revoked: [AboutRevocation & { readonly closed: number; readonly afterMs: number }];
  /** Something in Redis that no trusted issuer had signed, or no node of this cluster sealed. */
  ignored: [{ readonly detail: string | undefined }];
  /** Neither Redis nor the edge can be reached: nobody is let in, and sockets are closed. */
  fenced: [{ readonly sockets: number }];
  /** By what the node is told of revocations from here on; undefined when by nothing. */
  link: [{ readonly link: "redis" | "feed" | undefined }];
  /** A connection to Redis was made, or ended or could not be made: every time. */
  connection: [{ readonly connection: "commands" | "bell" | "sentinel"; readonly outcome: "made" | "lost" }];
  /** An edge's feed was asked: every time. */
  feed: [{ readonly issuer: string; readonly outcome: "answered" | "failed" }];
  /** What was a problem is none any more. */
  back: [{ readonly message: string } & Ended];
  /** Told when it begins, and once a minute while it goes on: `times` is how often it happened since it was told last. */
  problem: [{ readonly message: string; readonly error: unknown; readonly times: number }];
}

export interface Door {
  readonly node: string;
  readonly events: EventEmitter<DoorEvents>;
  /** Resolves once keys are there and the log is replayed. Nobody is let in before. */
  ready(): Promise<void>;
  /** Answers `/events`, `/receipts`, `/rehearsals`, `/nodes`, `/healthz` and `/readyz`; returns false for every other request. */
  readonly receive: Receiver;
  health(): Health;
  /**
   * Joins a room that the session's scope or tenant lets it into, and leaves it when a renewed token no longer does.
   *
   * @throws {Refusal} `scope_insufficient`
   */
  join(socket: ProtectedSocket, room: string, rule: Demand): void;
  /** This node's sockets of the same session. */
  sessionSockets(socket: ProtectedSocket): ProtectedSocket[];
  /** Ends one socket with a reason that its client is told. It may come back; to keep a person out, revoke. */
  kick(socket: ProtectedSocket, code?: RefusalCode): void;
  /** Takes no new handshakes from here on; sockets stay. */
  drain(): void;
  /** Closes this node's sockets so that stock clients go elsewhere, gives back the lease and stops every timer. */
  close(): Promise<void>;
}

const NO_CREDENTIAL: Credential = { kind: "token", value: undefined };
/** Failures that an attacker makes; the others happen to honest clients. */
const SUSPICIOUS: readonly RefusalCode[] = ["token_missing", "token_invalid", "session_mismatch", "origin_forbidden"];
/** Messages that a transport may carry before anybody on it is let in: a few CONNECTs and an `authenticate`. */
const MESSAGES_BEFORE_ADMISSION = 50;

/**
 * Protects every namespace of a Socket.IO server, those made later included. Call it after attaching the server to HTTP and
 * before the app's own middleware, so that nothing runs for a stranger.
 *
 * @throws {TypeError} when the server is not attached yet, or a signer is named twice
 */
export function protect(io: Server, options: ProtectOptions): Door {
  if (io.engine === undefined) throw new TypeError("attach the Socket.IO server to HTTP before protecting it");
  const node = options.node ?? randomUUID();
  const clockSkewSeconds = options.clockSkewSeconds ?? 5;
  const events = new EventEmitter<DoorEvents>();
  /** What a node does for itself must not depend on whether a listener of the app's throws. */
  const tell: typeof events.emit = (...event) => {
    try {
      return events.emit(...event);
    } catch (error) {
      // Of one that is told of problems nobody else is left to be told.
      if (event[0] === "problem") process.emitWarning(error instanceof Error ? error : String(error));
      else listener.onProblem(`a listener for ${String(event[0])} threw`, error, 1);
      return true;
    }
  };
  const listener: TroubleListener = {
    onProblem: (message, error, times) => tell("problem", { message, error, times }),
    onBack: (message, ended) => tell("back", { message, ...ended }),
  };
  const { issuers, cluster } = options;
  const verifier = createVerifier({ issuers, cluster, clockSkewSeconds, ...listener });
  const gate = createGate(options.limits ?? {});
  const secrets = clusterSecrets(options.clusterSecret);
  const keepMs = 1000 * (options.fencedKeepSeconds ?? 0);
  const admissions = new Admissions({
    node,
    issuers: options.issuers.map(({ issuer }) => issuer),
    expiryLeadSeconds: options.expiryLeadSeconds ?? 30,
    onExpiring: ({ socket }, endsAt) => socket.emit("expiring", lifetimeUntil(endsAt)),
    onExpired: (sockets) => tell("expired", { sockets }),
    onApplied: (event, way, sockets) => tell("applied", { ...aboutRevocation(event), way, sockets }),
    onRevoked: (event, closed) =>
      tell("revoked", { ...aboutRevocation(event), closed, afterMs: Date.now() - event.decided_at }),
    onKeyRevoked: (issuer) => verifier.renewKeys(issuer),
  });
  const lobby: Lobby | undefined =
    options.lobby && createLobby({ ...options.lobby, onSeated: watchPackets, onTimeout: timeOut });
  // Being fenced is told at once, even if nobody has to go yet.
  const keeps = new Set([0, keepMs, ...(options.namespaces ?? []).map((rule) => 1000 * (rule.fencedKeepSeconds ?? 0))]);
  const leaseMs = options.leaseMs ?? 5_000;
  const control = createControl({
    ...{ node, verifier, admissions, leaseMs, issuers, cluster, secrets, isReady, onFenced: fence, ...listener },
    redis: options.redis,
    keepMs: Math.max(...keeps),
    heartbeatMs: options.heartbeatMs ?? leaseMs / 5,
    retentionMs: options.retentionMs,
    feedCheckMs: options.feedCheckMs ?? 30_000,
    replicas: options.replicas ?? 0,
    onLink: (link) => tell("link", { link }),
    onAttempt: (connection, outcome) => tell("connection", { connection, outcome }),
    onFeedAsked: (issuer, outcome) => tell("feed", { issuer, outcome }),
    onIgnored: (detail) => tell("ignored", { detail }),
  });
  /** Claims of sockets that have been judged on this connection, until they are connected. */
  const verified = new WeakMap<ProtectedSocket, { readonly claims: VerifiedClaims; readonly tookMs: number }>();
  const watched = new WeakSet<ProtectedSocket>();
  /** What somebody had put in the place of Socket.IO's own `onevent`. */
  const heardBefore = new WeakMap<ProtectedSocket, Hearing["onevent"]>();
  const silence = silencer(mayNotStay);
  const openingRequests = createOpeningRequests();
  const strangers = createStrangers({
    messages: MESSAGES_BEFORE_ADMISSION,
    bytes: gate.bytesBeforeAdmission,
    ms: gate.msBeforeAdmission + (options.lobby?.timeoutMs ?? 0),
  });
  const renewing = new WeakSet<ProtectedSocket>();
  /** Refused in the very turn of their connecting: the app must not see them. */
  const turnedAway = new WeakSet<ProtectedSocket>();
  /** Who asks for what was missed, while Socket.IO looks for it. */
  const recovering = new AsyncLocalStorage<VerifiedClaims | undefined>();
  let draining = false;

  function demandReady(): void {
    if (!isReady()) throw new Refusal("unavailable", { detail: "this node does not know what is revoked" });
  }

  function isReady(): boolean {
    return !draining && control.isCurrent();
  }

  function about(socket: ProtectedSocket): About {
    return { socket: socket.id, nsp: socket.nsp.name, address: gate.addressOf(socket.request) };
  }

  /** Verifies a credential, and that it is good for this namespace now. @throws {Refusal} */
  async function judge(socket: ProtectedSocket, { kind, value }: Credential): Promise<VerifiedClaims> {
    demandReady();
    const claims = kind === "ticket" ? await redeem(value) : await verifier.accessToken(value);
    const admission = admissions.of(socket);
    if (admission !== undefined) {
      // Before the rules: what a dead token or another session may do says nothing about this one.
      admissions.checkLiving(claims);
      demandSameSession(admission.claims, claims);
    }
    await demand(rulesFor(socket.nsp.name, options.require, options.namespaces ?? []), claims, socket);
    // After the last wait: what was revoked meanwhile counts.
    demandReady();
    admissions.checkLiving(claims);
    return claims;
  }

  /** The one credential that costs a command to Redis: only there can a second use on another node be seen. */
  async function redeem(value: unknown): Promise<VerifiedClaims> {
    const { claims, ticket } = await verifier.ticket(value);
    const fresh = await control.burn(ticket, TICKET_LIFETIME + 2 * clockSkewSeconds).catch((cause: unknown) => {
      throw new Refusal("unavailable", { cause, detail: "Redis cannot tell whether the ticket was used" });
    });
    if (!fresh) throw new Refusal("token_invalid", { detail: "the ticket was used before" });
    return claims;
  }

  /** Runs as the namespace's middleware: lets in, lets wait, or throws. */
  async function admit(socket: ProtectedSocket): Promise<void> {
    const startedAt = performance.now();
    gate.checkAddress(gate.addressOf(socket.request));
    if (gate.countAttempt(socket.conn)) {
      socket.conn.close(true);
      throw new Refusal("too_many_attempts", { detail: "too many attempts on one connection" });
    }
    const credential = findCredential(socket.handshake, options.credentials ?? {});
    if (credential === undefined && lobby !== undefined) {
      demandReady();
      lobby.admit(socket);
      return;
    }
    const claims = await judge(socket, credential ?? NO_CREDENTIAL);
    verified.set(socket, { claims, tookMs: performance.now() - startedAt });
    socket.data.session = claims;
  }

  /** Notes a refusal, and returns it as what the client is shown. */
  function refused(socket: ProtectedSocket, thrown: unknown): Refusal {
    const refusal = toRefusal(thrown);
    const { code, detail, cause } = refusal;
    if (SUSPICIOUS.includes(code)) gate.countFailure(gate.addressOf(socket.request));
    tell("refused", { ...about(socket), code, detail, cause });
    return refusal;
  }

  /** The one place of realtime where a refusal becomes an answer to a client that is not let in. */
  function connectError(socket: ProtectedSocket, thrown: unknown): Error & { readonly data: UnauthorizedErrorData } {
    const refusal = refused(socket, thrown);
    return Object.assign(new Error(refusal.message), { data: unauthorizedErrorData(refusal) });
  }

  /** Runs in the turn in which the socket is connected, or leaves the lobby, before any listener of the app. */
  function enter(socket: ProtectedSocket): void {
    watchPackets(socket);
    try {
      const judged = verified.get(socket);
      // Connection state recovery can skip middleware, and restores what `socket.data` was.
      if (judged === undefined) throw new Refusal("token_missing", { detail: "not judged on this connection" });
      demandReady();
      admissions.admit(socket, judged.claims, keepMsFor(socket.nsp.name, keepMs / 1000, options.namespaces ?? []));
      verified.delete(socket);
      trackTransport(socket);
      socket.on("disconnect", onDisconnect);
      strangers.welcome(socket.conn);
      silence(socket.conn);
      leaveRoomsBeyond(socket, judged.claims);
      const { sub, sid } = judged.claims;
      if (events.listenerCount("admitted") > 0) {
        tell("admitted", { ...about(socket), sub, sid, tookMs: judged.tookMs });
      }
    } catch (thrown) {
      turnedAway.add(socket);
      const { code } = refused(socket, thrown);
      if (mustTryAgain(socket, code)) sendAway(socket.conn);
      else disconnect(socket, code);
    }
  }

  /** One function for all sockets, so that none has to hold one of its own. */
  function onDisconnect(this: ProtectedSocket): void {
    admissions.leave(this);
    untrackTransport(this);
  }

  /**
   * Whether a client is refused for a moment, and has nothing else on its transport. A stock client takes a refusal for the last word, but comes
   * back by itself, perhaps elsewhere, when it loses its connection.
   */
  function mustTryAgain({ conn }: ProtectedSocket, code: RefusalCode): boolean {
    return code === "unavailable" && admittedOn(conn).length === 0;
  }

  /** Every packet passes here before any handler: two comparisons for an admitted socket. */
  function watchPackets(socket: ProtectedSocket): void {
    // Whatever others have put around it since: once is enough, and twice would be a circle.
    if (watched.has(socket)) return;
    watched.add(socket);
    const hearing = socket as unknown as Hearing;
    // Not `socket.use`: listeners for any event run before it.
    if (Object.hasOwn(socket, "onevent")) heardBefore.set(socket, hearing.onevent);
    hearing.onevent = onPacket;
  }

  function onPacket(this: ProtectedSocket, packet: Packet): void {
    const event = packet.data?.[0];
    const dead = event === "authenticate" ? undefined : deathOf(admissions.of(this));
    if (event !== "authenticate" && dead === undefined) {
      const hear: Hearing["onevent"] = heardBefore.get(this) ?? Object.getPrototypeOf(this).onevent;
      hear.call(this, packet);
      return;
    }
    const args = packet.data?.slice(1) ?? [];
    if (packet.id !== undefined) args.push((this as unknown as Hearing).ack(packet.id));
    if (dead === undefined) void authenticate(this, args);
    else withLastWord(this, () => acknowledge(args, unauthorizedErrorData(new Refusal(dead))));
  }

  function deathOf(admission: Admission | undefined): RefusalCode | undefined {
    if (admission === undefined) return "token_missing";
    if (admission.ended !== undefined) return admission.ended;
    if (isOver(admission)) return "unavailable";
    return admission.claims.exp <= Date.now() / 1000 ? "token_expired" : undefined;
  }

  /** Whether the node is fenced, and for longer than this socket may stay. */
  function isOver({ keepMs }: Admission): boolean {
    return leaseNow() > control.leaseEndsAt() + keepMs;
  }

  function mayNotStay(socket: ProtectedSocket): boolean {
    return deathOf(admissions.of(socket)) !== undefined;
  }

  /** The event `authenticate`: the way out of the lobby, and the way to go on with a fresh token. */
  async function authenticate(socket: ProtectedSocket, args: unknown[]): Promise<void> {
    const [offered] = args;
    const token = typeof offered === "object" && offered !== null && "token" in offered ? offered.token : offered;
    if (renewing.has(socket)) {
      // The one before it goes on, and decides.
      acknowledge(
        args,
        unauthorizedErrorData(refused(socket, new Refusal("too_many_attempts", { detail: "one at a time" }))),
      );
      return;
    }
    try {
      gate.checkAddress(gate.addressOf(socket.request));
      renewing.add(socket);
      const claims = await judge(socket, { kind: "token", value: typeof token === "function" ? undefined : token });
      if (!socket.connected) return;
      const answer = lifetimeUntil(claims.exp);
      if (lobby?.has(socket)) letOut(lobby, socket, claims);
      else renew(socket, claims);
      if (!socket.connected) return;
      socket.emit("authenticated", answer);
      acknowledge(args, answer);
    } catch (thrown) {
      const refusal = refused(socket, thrown);
      const data = unauthorizedErrorData(refusal);
      acknowledge(args, data);
      // Who is in the lobby has had a chance; who is admitted keeps what the old token allows, until it ends.
      if (lobby?.has(socket) || refusal.code === "scope_insufficient") disconnect(socket, refusal.code);
      else socket.emit("unauthorized", { message: data.message, data });
    } finally {
      renewing.delete(socket);
    }
  }

  function letOut(from: Lobby, socket: ProtectedSocket, claims: VerifiedClaims): void {
    verified.set(socket, { claims, tookMs: 0 });
    socket.data.session = claims;
    from.leave(socket);
  }

  function renew(socket: ProtectedSocket, claims: VerifiedClaims): void {
    const admission = admissions.of(socket);
    if (admission === undefined || admission.ended !== undefined) throw new Refusal("session_revoked");
    if (!admissions.renew(admission, claims)) return;
    socket.data.session = claims;
    leaveRoomsBeyond(socket, claims);
    const { sub, sid, exp } = claims;
    tell("renewed", { ...about(socket), sub, sid, exp });
  }

  function leaveRoomsBeyond(socket: ProtectedSocket, claims: VerifiedClaims): void {
    for (const [room, rule] of Object.entries(socket.data.rooms ?? {})) {
      try {
        demandClaims(rule, claims);
      } catch {
        // No error: the token simply no longer reaches that far.
        void socket.leave(room);
        delete socket.data.rooms?.[room];
      }
    }
  }

  function timeOut(socket: ProtectedSocket): void {
    disconnect(socket, refused(socket, new Refusal("token_missing", { detail: "not authenticated in time" })).code);
  }

  function guard(nsp: Namespace): void {
    nsp.use((socket, next) => {
      admit(socket).then(
        () => next(),
        (thrown: unknown) => {
          const error = connectError(socket, thrown);
          if (mustTryAgain(socket, error.data.code)) sendAway(socket.conn);
          next(error);
        },
      );
    });
    const inside = nsp as unknown as Inside;
    // Before the app's: a namespace made by a pattern starts with the middleware of its parent.
    inside._fns.unshift(...inside._fns.splice(-1));
    const emitReserved = inside.emitReserved.bind(nsp);
    inside.emitReserved = (event, ...args) => {
      const socket = args[0] as ProtectedSocket;
      if (event === "connect") enter(socket);
      const isArriving = event === "connect" || event === "connection";
      if (isArriving && turnedAway.has(socket)) return false;
      const wasHeard = emitReserved(event, ...args);
      if (event === "connection" && !options.keepRequest) openingRequests.letGo(socket.conn);
      return wasHeard;
    };
    lobby?.watch(nsp);
    guardRecovery(nsp);
  }

  /**
   * What a client missed is sent before any middleware runs, and its rooms are joined. So who asks for it is judged
   * before that, and is given only what was its own.
   */
  function guardRecovery(nsp: Namespace): void {
    const inside = nsp as unknown as Inside;
    const create = inside._createSocket.bind(nsp);
    inside._createSocket = async (client, auth) => {
      if (typeof auth.pid !== "string") return create(client, auth);
      const claims = await claimsBefore(client.request, auth);
      return recovering.run(claims, () => create(client, auth));
    };
    const { adapter } = inside;
    const restore = adapter.restoreSession.bind(adapter);
    adapter.restoreSession = async (pid, offset) => {
      const claims = recovering.getStore();
      if (claims === undefined) return null;
      const found = await restore(pid, offset);
      const before = found?.data.session;
      const isOwn = before?.iss === claims.iss && before.sub === claims.sub && before.sid === claims.sid;
      if (!isOwn) return null;
      try {
        demandReady();
        admissions.checkLiving(claims);
        for (const rule of rulesFor(nsp.name, options.require, options.namespaces ?? [])) demandClaims(rule, claims);
        return found;
      } catch {
        return null; // refused for the same reason a moment later, and told so
      }
    };
  }

  async function claimsBefore(
    request: IncomingMessage,
    auth: Record<string, unknown>,
  ): Promise<VerifiedClaims | undefined> {
    const query = Object.fromEntries(new URLSearchParams(request.url?.split("?")[1]));
    try {
      gate.checkAddress(gate.addressOf(request));
      const credential = findCredential({ auth, query, headers: request.headers }, options.credentials ?? {});
      return credential?.kind === "token" ? await verifier.accessToken(credential.value) : undefined;
    } catch {
      return undefined; // judged again, and answered, by the middleware
    }
  }

  /** Every HTTP request of the transports passes here, upgrades included. */
  function watchRequest(request: IncomingMessage, response: ServerResponse, next: (error?: Error) => void): void {
    const refuse = (thrown: unknown) => {
      const refusal = toRefusal(thrown);
      refuseTransport(request, response, refusal);
      next(new Error(refusal.code));
    };
    // As Engine.IO has read it.
    const id = (request as EngineRequest)._query.sid;
    if (id) {
      sameHolder(request, id).then(() => next(), refuse);
      return;
    }
    try {
      mayOpen(request);
    } catch (thrown) {
      refuse(thrown);
      return;
    }
    openingRequests.note(request, response);
    next();
  }

  function mayOpen(request: IncomingMessage): void {
    gate.checkOrigin(request);
    gate.countConnection(gate.addressOf(request));
    // Refused below Socket.IO, a stock client takes it for a broken connection and tries again by itself.
    demandReady();
  }

  /** A request that bears a token of its own: a newer one renews, another person's is refused. @throws {Refusal} */
  async function sameHolder(request: IncomingMessage, id: string): Promise<void> {
    const token = bearerOf(request.headers);
    const conn = transports(io)[id];
    if (token === undefined || conn === undefined || lastBearer.get(conn) === token) return;
    // Until somebody is in, the handshake judges, and its refusal has to reach the client by such a request.
    if (admittedOn(conn).length === 0) return;
    for (const socket of admittedOn(conn)) {
      try {
        renew(socket, await judge(socket, { kind: "token", value: token }));
      } catch (thrown) {
        if (toRefusal(thrown).code !== "scope_insufficient") throw thrown;
        disconnect(socket, refused(socket, thrown).code);
      }
    }
    lastBearer.set(conn, token);
  }
  const lastBearer = new WeakMap<ProtectedSocket["conn"], string>();

  /** Every time that some sockets were given is up by itself; a lease that begins anew meanwhile ends the matter. */
  function fence(): void {
    const endedAt = control.leaseEndsAt();
    for (const forMs of keeps) {
      const timer = setTimeout(async () => {
        fences.delete(timer);
        if (control.leaseEndsAt() !== endedAt) return;
        tell("fenced", { sockets: await admissions.fence(forMs) });
      }, forMs);
      fences.add(timer);
    }
  }
  const fences = new Set<NodeJS.Timeout>();

  function health(): Health {
    return {
      ready: isReady(),
      node,
      cluster: options.cluster,
      draining,
      ...control.health(),
      sockets: admissions.sockets,
      closing: admissions.closing,
      revocations: admissions.revocations,
    };
  }

  for (const nsp of io._nsps.values()) guard(nsp);
  io.on("new_namespace", guard);
  verifyRecovered(io);
  io.engine.use(watchRequest);
  io.engine.on("initial_headers", openInOneWrite);
  io.engine.on("connection", strangers.watch);
  const started = control.start();

  return {
    node,
    events,
    ready: () => started,
    receive: createReceiver({
      accept: (set) => control.accept(set),
      rehearse: (question) => control.rehearse(question),
      receipts: (query, waitMs) => control.receipts(query, waitMs),
      nodes: (query) => control.nodes(query),
      health,
      ...listener,
    }),
    health,
    join(socket, room, rule) {
      demandClaims(rule, socket.data.session);
      socket.data.rooms = { ...socket.data.rooms, [room]: rule };
      void socket.join(room);
    },
    sessionSockets: (socket) => admissions.siblings(socket.data.session),
    kick: (socket, code = "session_revoked") => disconnect(socket, code),
    drain() {
      draining = true;
    },
    async close() {
      draining = true;
      verifier.close();
      for (const timer of fences) clearTimeout(timer);
      // The lease last: while a socket is open, receipts must wait for this node.
      await admissions.close();
      await control.stop();
    },
  };
}

/** @throws {TypeError} */
function clusterSecrets(given: string | ClusterSecrets): ClusterSecrets {
  const secrets: ClusterSecrets = typeof given === "string" ? [given] : given;
  if (secrets.every((secret) => secret?.length >= MIN_CLUSTER_SECRET)) return secrets;
  throw new TypeError(`clusterSecret: at least ${MIN_CLUSTER_SECRET} characters`);
}

/** What Socket.IO has and its types do not show. */
interface Inside {
  readonly _fns: unknown[];
  emitReserved(event: string, ...args: unknown[]): boolean;
  _createSocket(client: { readonly request: IncomingMessage }, auth: Record<string, unknown>): Promise<unknown>;
  readonly adapter: {
    restoreSession(pid: string, offset: string): Promise<{ data: Partial<SessionData> } | null>;
  };
}

/** Engine.IO reads the query before its middleware runs. */
type EngineRequest = IncomingMessage & { readonly _query: { readonly sid?: string } };

interface Packet {
  readonly data?: unknown[];
  readonly id?: number;
}

interface Hearing {
  onevent(packet: Packet): void;
  ack(id: number): (...args: unknown[]) => void;
}

function aboutRevocation({ id, request, seq, code }: RevocationEvent): AboutRevocation {
  return { revocation: id, ...(request === undefined ? {} : { request }), seq, code };
}

function acknowledge(args: readonly unknown[], answer: unknown): void {
  const ack = args.at(-1);
  if (typeof ack === "function") ack(answer);
}

/** When something ends, for the client: seconds since the epoch, and from now. */
function lifetimeUntil(endsAt: number): { expires_at: number; expires_in: number } {
  return { expires_at: endsAt, expires_in: Math.max(0, Math.round(endsAt - Date.now() / 1000)) };
}

/** The answer to an upgrade and the first packet go out together: a call of the system costs more than all else that is done for one of them. */
function openInOneWrite(_answered: unknown, { headers, socket }: IncomingMessage): void {
  if (headers.upgrade === undefined) return;
  socket.cork();
  setImmediate(() => socket.uncork());
}

/** The open transports by their `sid`, which Engine.IO has and its types do not show. */
function transports(io: Server): Record<string, ProtectedSocket["conn"]> {
  return (io.engine as unknown as { clients: Record<string, ProtectedSocket["conn"]> }).clients;
}

/** Connection state recovery skips middleware unless told otherwise, and so would bring back whoever was thrown out. */
function verifyRecovered(io: Server): void {
  const { connectionStateRecovery } = (io as unknown as { _opts: { connectionStateRecovery?: object } })._opts;
  if (connectionStateRecovery !== undefined) Object.assign(connectionStateRecovery, { skipMiddlewares: false });
}

/**
 * The two-step way in: a client connects without a token and shows it in an event. Until then it is in the lobby: it
 * receives nothing, joins nothing, may only say `authenticate`, and is closed when it takes too long.
 *
 * The app's `connection` listeners run when it leaves the lobby, not when it enters, so that no handler of the app ever
 * meets a stranger. Socket.IO emits `connect` and `connection` as soon as its middleware is through, so both are held
 * back here; `emitReserved` is the one place where it does.
 */
import type { Namespace } from "socket.io";
import type { ProtectedSocket } from "./sockets.ts";

interface Visitor {
  readonly timer: NodeJS.Timeout;
  readonly join: ProtectedSocket["join"];
}

export interface Lobby {
  /** Lets a socket wait instead of being let in. Called in its middleware, before it is connected. */
  admit(socket: ProtectedSocket): void;
  has(socket: ProtectedSocket): boolean;
  /** The socket is who it says: it takes its place, and the app is told. */
  leave(socket: ProtectedSocket): void;
  /** Holds back what the app must not see yet. Once for each namespace. */
  watch(nsp: Namespace): void;
}

/** What Socket.IO has and its types do not show. */
interface Emitting {
  emitReserved(event: string, ...args: unknown[]): boolean;
}

export interface LobbyOptions {
  readonly timeoutMs: number;
  /** It is connected and waits: its packets must be watched from here on. */
  onSeated(socket: ProtectedSocket): void;
  onTimeout(socket: ProtectedSocket): void;
}

export function createLobby({ timeoutMs, onSeated, onTimeout }: LobbyOptions): Lobby {
  const visitors = new WeakMap<ProtectedSocket, Visitor>();

  /** Out of every room, its own included: a broadcast goes to rooms, or to whoever is in any. */
  function seat(socket: ProtectedSocket): void {
    const timer = setTimeout(() => onTimeout(socket), timeoutMs);
    visitors.set(socket, { timer, join: socket.join });
    socket.once("disconnect", () => clearTimeout(timer));
    socket.nsp.adapter.delAll(socket.id);
    socket.join = () => undefined;
    onSeated(socket);
  }

  const waiting = new WeakSet<ProtectedSocket>();
  return {
    admit: (socket) => void waiting.add(socket),
    has: (socket) => waiting.has(socket),
    leave(socket) {
      const visitor = visitors.get(socket);
      waiting.delete(socket);
      if (visitor === undefined) return;
      visitors.delete(socket);
      clearTimeout(visitor.timer);
      socket.join = visitor.join;
      void socket.join(socket.id);
      const nsp = socket.nsp as unknown as Emitting;
      nsp.emitReserved("connect", socket);
      nsp.emitReserved("connection", socket);
    },
    watch(nsp) {
      const target = nsp as unknown as Emitting;
      const emitReserved = target.emitReserved.bind(nsp);
      target.emitReserved = (event, ...args) => {
        const socket = args[0] as ProtectedSocket;
        const held = (event === "connect" || event === "connection") && waiting.has(socket);
        if (!held) return emitReserved(event, ...args);
        if (event === "connect") seat(socket);
        return false;
      };
    },
  };
}

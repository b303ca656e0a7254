/**
 * Transports on which nobody is let in: they may say only so much, and stay only so long. Nothing is kept for one on which somebody is, and all share
 * the functions that watch them.
 */
import { admittedOn, type ProtectedSocket } from "./sockets.ts";

type Transport = ProtectedSocket["conn"];

interface Stranger {
  messages: number;
  readonly patience?: NodeJS.Timeout;
}

interface Bounds {
  readonly messages: number;
  /** Characters or bytes of one message. */
  readonly bytes: number;
  readonly ms: number;
}

export interface Strangers {
  watch(conn: Transport): void;
  /** Somebody has been let in. */
  welcome(conn: Transport): void;
}

export function createStrangers(bounds: Bounds): Strangers {
  const strangers = new WeakMap<Transport, Stranger>();

  function onPacket(this: Transport, { type, data }: { readonly type: string; readonly data?: unknown }): void {
    if (type !== "message" || admittedOn(this).length > 0) return;
    const stranger = strangers.get(this) ?? { messages: 0 };
    strangers.set(this, stranger);
    stranger.messages += 1;
    const size = typeof data === "string" || Buffer.isBuffer(data) ? data.length : 0;
    if (stranger.messages > bounds.messages || size > bounds.bytes) this.close(true);
  }

  function forget(conn: Transport): void {
    clearTimeout(strangers.get(conn)?.patience);
    strangers.delete(conn);
  }

  function onClose(this: Transport): void {
    forget(this);
  }

  return {
    watch(conn) {
      const patience = setTimeout(() => conn.close(true), bounds.ms);
      patience.unref();
      strangers.set(conn, { messages: 0, patience });
      conn.on("packet", onPacket);
      conn.on("close", onClose);
    },
    welcome: forget,
  };
}

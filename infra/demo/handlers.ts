/** What the demo's nodes do for those whom the door let in: say hello, and pass messages to everybody on every node. */
import type { Server } from "socket.io";

const MAX_TEXT = 2_000;

export default function demoHandlers(io: Server, keycard: { readonly node: string }): void {
  const { node } = keycard;
  io.on("connection", (socket) => {
    const { sub, sid, jti, exp } = socket.data.session as { sub: string; sid: string; jti: string; exp: number };
    socket.emit("welcome", { node, session: { sub, sid, jti, exp } });
    socket.on("message", (text: unknown) => {
      if (typeof text !== "string" || text.trim() === "" || text.length > MAX_TEXT) return;
      // Through the Redis adapter: to the sockets of all nodes.
      io.emit("message", { from: sub, node, text, at: Date.now() });
    });
  });
}

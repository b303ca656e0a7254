/** What the bench's nodes do beside the door: rooms, and Socket.IO's own way to close one on every node. */
import type { Server } from "socket.io";

export default function benchHandlers(io: Server): void {
  io.on("connection", (socket) => {
    socket.on("join", async (room: string, done: () => void) => {
      await socket.join(room);
      done();
    });
    socket.on("close the room", (room: string) => io.in(room).disconnectSockets(true));
  });
}

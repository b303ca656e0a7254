/** An app whose sockets can ask which node they are on: in the test's own process, and in one that is killed. */
import type { Handlers } from "../../realtime/server.ts";

const whereHandlers: Handlers = (io, door) => {
  io.on("connection", (socket) => {
    socket.on("where", (answer: (node: string) => void) => answer(door.node));
  });
};

export default whereHandlers;

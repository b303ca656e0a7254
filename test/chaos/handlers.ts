/**
 * The app on the nodes of a chaos run: it answers probes, talks to its sockets, and writes down what Socket.IO shows it. What the
 * door knows of a socket it never looks at.
 */
import { randomUUID } from "node:crypto";
import type { Server, Socket } from "socket.io";
import { historyFile, now, readToken } from "./history.ts";

/** How often the process shows itself that it runs, and how late that may be before it counts as having been stopped. */
const TICK_MS = 50;
const STOPPED_MS = 250;
/** How long a stretch of running is before it is written down. */
const STRETCH_MS = 1_000;
const TALK_MS = 500;

export default function witness(io: Server): void {
  const { NODE_NAME: node = "", CLUSTER: cluster = "", CHAOS_HISTORY: dir = "" } = process.env;
  const boot = `${node}.${randomUUID().slice(0, 8)}`;
  const write = historyFile(dir, boot);
  write({ kind: "started", node, cluster, boot });
  io.on("connection", (socket) => {
    const { jti, sub } = shownBy(socket);
    write({ kind: "connected", node, boot, socket: socket.id, jti });
    socket.on("probe", (answer: (handledAt: number) => void) => {
      write({ kind: "handled", node, socket: socket.id });
      answer(now());
    });
    // Through the Redis adapter, to the sockets of this person on every node.
    socket.on("call", () => io.to(`person ${sub}`).emit("word", now()));
    socket.once("disconnect", (reason) => write({ kind: "disconnected", node, socket: socket.id, reason }));
    void socket.join(`person ${sub}`);
  });
  setInterval(() => {
    for (const socket of io.of("/").sockets.values()) socket.emit("word", now());
  }, TALK_MS);
  watchOneself((from, until) => write({ kind: "awake", node, boot, from, until }));
}

function shownBy(socket: Socket) {
  const { token } = socket.handshake.auth as { token?: unknown };
  return readToken(token);
}

/** Tells stretches in which this process ran without a pause: each when it is long enough, or was cut short. */
function watchOneself(onStretch: (from: number, until: number) => void): void {
  let from = now();
  let last = from;
  setInterval(() => {
    const tick = now();
    const wasStopped = tick - last > STOPPED_MS;
    if (!wasStopped && tick - from < STRETCH_MS) {
      last = tick;
      return;
    }
    onStretch(from, wasStopped ? last : tick);
    from = tick;
    last = tick;
  }, TICK_MS);
}

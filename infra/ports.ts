/**
 * Ports that are ours from the moment they are chosen until the process they are for takes them over. They lie below those that systems
 * give to outgoing connections, so that none of these has the port of a process that is away for a moment and starts again.
 */
import { randomInt } from "node:crypto";
import { createServer, type Server } from "node:net";

export const LOOPBACK = "127.0.0.1";

const LOWEST = 10_000;
/** Linux begins here, others later. */
const BELOW = 32_768;
const TRIES = 20;

export interface ReservedPort {
  readonly port: number;
  /** Call it right before the process that needs the port starts. */
  release(): Promise<void>;
}

/** A start that failed because somebody else has the port. */
export class PortTaken extends Error {
  override readonly name = "PortTaken";
}

/** The preferred port if it is free, else another free one. */
export async function reservePort(preferred?: number): Promise<ReservedPort> {
  const server = (preferred === undefined ? undefined : await listen(preferred)) ?? (await listenAnywhere());
  if (server === undefined) throw new Error("No free port could be had on 127.0.0.1.");
  const address = server.address();
  if (address === null || typeof address === "string") throw new Error("The reserved port has no number.");
  return { port: address.port, release: () => new Promise((resolve) => server.close(() => resolve())) };
}

async function listenAnywhere(): Promise<Server | undefined> {
  for (let tries = 0; tries < TRIES; tries++) {
    const server = await listen(randomInt(LOWEST, BELOW));
    if (server !== undefined) return server;
  }
  return await listen(0);
}

function listen(port: number): Promise<Server | undefined> {
  return new Promise((resolve) => {
    const server = createServer((socket) => socket.destroy());
    server.once("error", () => resolve(undefined));
    server.listen({ port, host: LOOPBACK }, () => resolve(server));
    server.unref();
  });
}

/** Whether these last lines of a process say that its port was taken. */
export function saysPortTaken(lines: readonly string[]): boolean {
  return lines.some((line) => /EADDRINUSE|address already in use/i.test(line));
}

/** A node that comes back: says how long it took until it knew everything that is revoked. Started by `catchup.ts`. */
import { createServer } from "node:http";
import { Redis } from "ioredis";
import { Server } from "socket.io";
import { protect } from "../../realtime/protect.ts";
import { AUDIENCE, CLUSTER, CLUSTER_SECRET } from "./issuer.ts";
import { serveMeasured } from "./measured-process.ts";

export interface CatchUpSettings {
  readonly redisUrl: string;
  readonly issuer: string;
  /** Whether the issuer has one. */
  readonly feed: boolean;
}

export interface CaughtUp {
  /** Milliseconds from the door's making until it lets people in. */
  readonly readyMs: number;
  /** Of the node's process in that time. */
  readonly cpuMs: number;
  /** Entries of its index. */
  readonly revocations: number;
}

serveMeasured(async ({ redisUrl, issuer, feed }: CatchUpSettings) => {
  const catchUp = async (): Promise<CaughtUp> => {
    const io = new Server(createServer());
    const [startedAt, cpu] = [performance.now(), process.cpuUsage()];
    const door = protect(io, {
      redis: new Redis(redisUrl, { lazyConnect: true }),
      issuers: [{ issuer, audience: AUDIENCE, ...(feed ? {} : { feed: false }) }],
      cluster: CLUSTER,
      clusterSecret: CLUSTER_SECRET,
    });
    await door.ready();
    const { user, system } = process.cpuUsage(cpu);
    const revocations = Number(door.health().revocations);
    return { readyMs: performance.now() - startedAt, cpuMs: (user + system) / 1000, revocations };
  };
  return { ready: {}, actions: { catchUp } };
});

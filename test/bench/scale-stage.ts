/** Two nodes and a crowd, of which everything is counted: what nodes use of the processor and of memory, and what Redis is asked. */
import { join } from "node:path";
import { Redis } from "ioredis";
import { until } from "../../infra/until.ts";
import { type ClosingNodes, startClosingNodes } from "./closing-nodes.ts";
import type { Usage } from "./measured-process.ts";
import type { Shown } from "./scale-crowd.ts";
import { type ServerProcess, startServerProcess } from "./server-process.ts";

export const NODES = 2;
const ARRIVE_WITHIN_MS = 120_000;
const SETTLED_WITHIN_MS = 60_000;
const AT_ONCE = 8;

/** Of all nodes together. */
export interface Counted {
  readonly cpu_us: number;
  readonly seconds: number;
  readonly redis_commands: number;
}

export interface Stage {
  /** A token for each of the session that they have. */
  tokensFor(people: readonly number[]): Promise<readonly Shown[]>;
  readonly crowd: ServerProcess<object>;
  /** Ends the sessions of people, one event each, evenly within so many seconds. Their next tokens are of another one. */
  revoke(people: readonly number[], seconds: number): Promise<void>;
  count(work: () => Promise<unknown>): Promise<Counted>;
  /** Bytes of all nodes. */
  memory(): Promise<number>;
  untilOpen(sockets: number): Promise<void>;
  stop(): Promise<void>;
}

export async function startStage(tell: (text: string) => void): Promise<Stage> {
  const nodes = await startClosingNodes({ count: NODES, kinds: ["keycard"], keycard: { LOG_LEVEL: "error" }, tell });
  const ports = nodes.nodes.map((node) => nodes.portOf(node, "keycard"));
  const crowd = await startServerProcess<object>(join(import.meta.dirname, "scale-crowd.ts"), { ports });
  const redis = new Redis(nodes.redis.url);
  const sessions = new Map<number, number>();
  const sidOf = (person: number) => `u_${person}.${sessions.get(person) ?? 0}`;
  const open = async () => sum(await Promise.all(nodes.nodes.map((node) => node.ask<number>("sockets", "keycard"))));
  let serial = 0;

  return {
    crowd,
    async tokensFor(people) {
      const shown: Shown[] = [];
      for (const person of people) {
        const claims = { sub: `u_${person}`, sid: sidOf(person), jti: `t_${serial++}` };
        shown.push({ person, token: await nodes.issuer.token(claims) });
      }
      return shown;
    },
    async revoke(people, seconds) {
      const began = performance.now();
      const one = async (person: number, index: number) => {
        const dueAt = began + (index * seconds * 1000) / people.length;
        await new Promise((resolve) => setTimeout(resolve, Math.max(0, dueAt - performance.now())));
        const sid = sidOf(person);
        sessions.set(person, (sessions.get(person) ?? 0) + 1);
        await pushOne(nodes, ports[index % NODES] ?? 0, sid);
      };
      const waiting = people.entries();
      const worker = async () => {
        for (const [index, person] of waiting) await one(person, index);
      };
      await Promise.all(Array.from({ length: AT_ONCE }, worker));
    },
    async count(work) {
      const before = await commandsOf(redis);
      await Promise.all(nodes.nodes.map((node) => node.meterStart()));
      await work();
      const usages: Usage[] = await Promise.all(nodes.nodes.map((node) => node.meterStop()));
      const commands = (await commandsOf(redis)) - before;
      const seconds = Math.max(...usages.map(({ wallMs }) => wallMs)) / 1000;
      return { cpu_us: sum(usages.map(({ cpuUs }) => cpuUs)), seconds, redis_commands: commands };
    },
    async memory() {
      return sum((await Promise.all(nodes.nodes.map((node) => node.memory()))).map(({ rss }) => rss));
    },
    async untilOpen(sockets) {
      await until(`${sockets} sockets are open`, async () => (await open()) === sockets, {
        withinMs: ARRIVE_WITHIN_MS,
      });
    },
    async stop() {
      redis.disconnect();
      await crowd.stop();
      await nodes.stop();
    },
  };
}

async function pushOne({ issuer }: ClosingNodes, port: number, sid: string): Promise<void> {
  const event = issuer.prepare([{ kind: "session", sid }]);
  issuer.tell(event);
  const set = await issuer.sign(event);
  const isTaken = () =>
    issuer.push(port, set).then(
      () => true,
      () => false,
    );
  await until("the event is taken", isTaken, { withinMs: SETTLED_WITHIN_MS });
}

async function commandsOf(redis: Redis): Promise<number> {
  return Number(/total_commands_processed:(\d+)/.exec(await redis.info("stats"))?.[1]);
}

function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0);
}

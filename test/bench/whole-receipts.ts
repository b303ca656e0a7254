/**
 * When a receipt became whole: when the last node's word was written. Redis tells of every write by itself (keyspace notifications), so that nobody has
 * to ask, and nothing is slowed down by asking.
 */
import { Redis } from "ioredis";

export interface WholeReceipts {
  /** Whether Redis tells. What it tells costs time, too, so that it is not to when nobody listens. */
  listen(isListening: boolean): Promise<void>;
  /** Resolves with when so many nodes had left their word, by the machine's monotonic clock. */
  whole(id: string, nodes: number): Promise<bigint>;
  stop(): void;
}

/** Besides the words: where the event stands, and whose words are awaited. */
const OTHER_FIELDS = 2;

export async function watchReceipts(redisUrl: string): Promise<WholeReceipts> {
  const [commands, ear] = [new Redis(redisUrl), new Redis(redisUrl)];
  const writes = new Map<string, bigint[]>();
  const waiting = new Map<string, () => void>();
  await ear.psubscribe("__keyspace@*__:{keycard}:receipt:*");
  ear.on("pmessage", (_pattern: string, channel: string, command: string) => {
    if (command !== "hset") return;
    const id = channel.slice(channel.lastIndexOf(" ") + 1);
    writes.set(id, [...(writes.get(id) ?? []), process.hrtime.bigint()]);
    waiting.get(id)?.();
  });
  return {
    async listen(isListening) {
      await commands.config("SET", "notify-keyspace-events", isListening ? "Kh" : "");
    },
    whole: (id, nodes) =>
      new Promise((resolve) => {
        const look = () => {
          const at = writes.get(id)?.[nodes + OTHER_FIELDS - 1];
          if (at === undefined) return;
          waiting.delete(id);
          writes.delete(id);
          resolve(at);
        };
        waiting.set(id, look);
        look();
      }),
    stop() {
      commands.disconnect();
      ear.disconnect();
    },
  };
}

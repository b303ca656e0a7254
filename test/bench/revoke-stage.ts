/** N nodes, and every way to close one socket on each of them, timed. */
import { randomUUID } from "node:crypto";
import type { AdapterName } from "./closing-node.ts";
import { type ClosingNode, type ClosingNodes, startClosingNodes } from "./closing-nodes.ts";
import { type Crowd, startCrowd } from "./leavers.ts";
import { watchReceipts } from "./whole-receipts.ts";

/** Milliseconds. */
export interface Closing {
  readonly closedMs: number;
  /** Until the receipt was whole and the sockets were closed; the same as `closedMs` where nobody looks, or there is none. */
  readonly wholeMs: number;
}

export interface Stage {
  readonly running: ClosingNodes;
  /** Clients of which nobody is idle. */
  readonly crowd: Crowd;
  /** From the moment that the first node has the event. @param isWatched whether it is seen when the receipt is whole */
  byEvent(isWatched: boolean): Promise<Closing>;
  /** From the call on the first node. */
  byRoom(adapter: AdapterName): Promise<Closing>;
  /** PUBLISH on the first node, heard on the last. */
  hop(): Promise<Closing>;
  /** @throws {Error} unless the receipt of every event names every node, and the sockets that were there */
  checkReceipts(): Promise<void>;
  stop(): Promise<void>;
}

const RECEIPTS_AT_ONCE = 100;

export async function startStage(
  count: number,
  adapters: readonly AdapterName[],
  tell: (text: string) => void,
): Promise<Stage> {
  const running = await startClosingNodes({ count, kinds: ["keycard", ...adapters], tell });
  const { nodes, issuer, portOf } = running;
  const [crowd, receipts] = [await startCrowd(), await watchReceipts(running.redis.url)];
  const [first, last] = [nodes[0] as ClosingNode, nodes.at(-1) as ClosingNode];
  const ids: string[] = [];

  async function byEvent(isWatched: boolean): Promise<Closing> {
    await receipts.listen(isWatched);
    const sub = `u_${randomUUID()}`;
    const token = await issuer.token({ sub });
    await crowd.open(
      sub,
      nodes.map((node) => ({ port: portOf(node, "keycard"), token })),
    );
    const event = issuer.prepare([{ kind: "session", sid: `${sub}.s` }]);
    const set = await issuer.sign(event);
    const whole = isWatched ? receipts.whole(event.id, count) : 0n;
    issuer.tell(event);
    await issuer.push(portOf(first, "keycard"), set);
    const [wholeAt, { last: closedAt }] = [await whole, await crowd.departed(sub, count)];
    const pushedAt = await first.ask<bigint>("pushedAt");
    await crowd.leave(sub);
    ids.push(event.id);
    const [closedMs, receiptMs] = [msBetween(pushedAt, closedAt), msBetween(pushedAt, wholeAt)];
    return { closedMs, wholeMs: Math.max(closedMs, receiptMs) };
  }

  async function byRoom(adapter: AdapterName): Promise<Closing> {
    const room = randomUUID();
    await crowd.open(
      room,
      nodes.map((node) => ({ port: portOf(node, adapter), room })),
    );
    const calledAt = await first.ask<bigint>("disconnectRooms", { kind: adapter, rooms: [room] });
    const closedMs = msBetween(calledAt, (await crowd.departed(room, count)).last);
    await crowd.leave(room);
    return { closedMs, wholeMs: closedMs };
  }

  return {
    ...{ running, crowd, byEvent, byRoom },
    async hop() {
      const saidAt = await first.ask<bigint>("hop");
      let heardAt = 0n;
      while (heardAt < saidAt) heardAt = await last.ask<bigint>("hoppedAt");
      return { closedMs: msBetween(saidAt, heardAt), wholeMs: msBetween(saidAt, heardAt) };
    },
    async checkReceipts() {
      for (let from = 0; from < ids.length; from += RECEIPTS_AT_ONCE) {
        const asked = ids.slice(from, from + RECEIPTS_AT_ONCE);
        const told = await issuer.receipts(portOf(first, "keycard"), asked);
        const isWhole = told.every(
          ({ pending, applied }) =>
            pending.length === 0 && applied.length === count && applied.every(({ closed }) => closed === 1),
        );
        if (told.length !== asked.length || !isWhole) throw new Error("a receipt does not say what happened");
      }
    },
    async stop() {
      receipts.stop();
      await crowd.stop();
      await running.stop();
    },
  };
}

function msBetween(from: bigint, to: bigint): number {
  return Number(to - from) / 1e6;
}

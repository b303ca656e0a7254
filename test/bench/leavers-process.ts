/** Clients by the thousand in a process of their own, so that what they do is not what is measured. Started by `leavers.ts`. */
import { serveMeasured } from "./measured-process.ts";
import { openWebSocket, type RawClient } from "./raw-client.ts";

export interface LeaversOrder {
  /** Names those that are opened together. */
  readonly group: string;
  readonly clients: readonly {
    readonly port: number;
    readonly token?: string | undefined;
    readonly room?: string | undefined;
  }[];
  readonly atOnce: number;
}

/** By the machine's monotonic clock, nanoseconds. */
export interface Departures {
  readonly count: number;
  /** Whose connections are closed as well. */
  readonly closed: number;
  readonly first: bigint;
  readonly last: bigint;
}

const sockets = new Map<string, RawClient[]>();
const departures = new Map<string, bigint[]>();
const closed = new Map<string, number>();
let addresses = 0;

async function open({ group, clients, atOnce }: LeaversOrder): Promise<void> {
  const gone: bigint[] = [];
  const opened: RawClient[] = [];
  departures.set(group, gone);
  sockets.set(group, opened);
  const left = [...clients].reverse();
  const one = async () => {
    for (let client = left.pop(); client !== undefined; client = left.pop()) {
      const { port, token, room } = client;
      const auth = token === undefined ? {} : { token };
      const onGone = (at: bigint) => void gone.push(at);
      const opener = await openWebSocket(port, { auth, address: anotherAddress(), onGone });
      void opener.closed.then(() => closed.set(group, (closed.get(group) ?? 0) + 1));
      if (room !== undefined) await opener.join(room);
      opened.push(opener);
    }
  };
  await Promise.all(Array.from({ length: atOnce }, one));
}

function departed(group: string): Departures {
  const gone = departures.get(group) ?? [];
  return { count: gone.length, closed: closed.get(group) ?? 0, first: gone[0] ?? 0n, last: gone.at(-1) ?? 0n };
}

function leave(group: string): void {
  for (const socket of sockets.get(group) ?? []) socket.close();
  sockets.delete(group);
  departures.delete(group);
  closed.delete(group);
}

/** As the proxy in front of a node says it: one address may open only so many. */
function anotherAddress(): string {
  addresses += 1;
  return `10.${(addresses >> 16) & 255}.${(addresses >> 8) & 255}.${addresses & 255}`;
}

serveMeasured(async () => ({ ready: {}, actions: { open, departed, leave } }));

/** People with a socket each, who come, renew their tokens, go and come back at a steady pace; in a process of their own. */
import { serveMeasured } from "./measured-process.ts";
import { openWebSocket, type RawClient } from "./raw-client.ts";

/** Somebody with a token to show. */
export interface Shown {
  readonly person: number;
  readonly token: string;
}
/** What is to be shown within so many seconds, one after the other, evenly. */
export interface Pace {
  readonly shown: readonly Shown[];
  readonly seconds: number;
}

const AT_ONCE = 32;

serveMeasured(async ({ ports }: { readonly ports: readonly number[] }) => {
  const clients = new Map<number, RawClient>();

  async function come({ person, token }: Shown): Promise<void> {
    clients.get(person)?.close();

    const port = ports[person % ports.length] ?? 0;
    const address = `10.${(person >> 16) & 255}.${(person >> 8) & 255}.${person & 255}`;
    clients.set(person, await openWebSocket(port, { auth: { token }, address }, true));
  }

  const renew = async ({ person, token }: Shown) => await clients.get(person)?.renew(token);

  return {
    ready: {},
    actions: {
      come: (shown: readonly Shown[]) => allOf(shown, come),
      renew: (shown: readonly Shown[]) => allOf(shown, renew),
      comeSteadily: ({ shown, seconds }: Pace) => paced(shown, seconds, come),
      renewSteadily: ({ shown, seconds }: Pace) => paced(shown, seconds, renew),
    },
  };
});

async function allOf<T>(items: readonly T[], act: (item: T) => Promise<void>): Promise<void> {
  const waiting = items.values();
  const worker = async () => {
    for (const item of waiting) await act(item);
  };
  await Promise.all(Array.from({ length: AT_ONCE }, worker));
}

async function paced<T>(items: readonly T[], seconds: number, act: (item: T) => Promise<void>): Promise<void> {
  const began = performance.now();
  const begin = async (item: T, index: number) => {
    const dueAt = began + (index * seconds * 1000) / items.length;
    await new Promise((resolve) => setTimeout(resolve, Math.max(0, dueAt - performance.now())));
    await act(item);
  };
  await Promise.all(items.map(begin));
}

/**
 * A crowd that comes back: its node is killed, and each client tries one of the others at once, and again a little later while it is refused,
 * as a stock client does. In a process of its own.
 */
import { serveMeasured } from "./measured-process.ts";
import { type Offer, openWebSocket, type RawClient } from "./raw-client.ts";

export interface StormOrder {
  readonly offers: readonly Offer[];
  /** Where they are, and where they turn to then. */
  readonly port: number;
  readonly others: readonly number[];
}

export interface Storm {
  /** Milliseconds from the loss of the first to the return of half, of 99 in 100, and of the last. */
  readonly halfMs: number;
  readonly most99Ms: number;
  readonly lastMs: number;
  /** Attempts that failed. */
  readonly refusals: number;
}

const AT_ONCE = 64;
/** `reconnectionDelay`, `reconnectionDelayMax` and `randomizationFactor` of a stock client. */
const [FIRST_DELAY_MS, LONGEST_DELAY_MS, SPREAD] = [1_000, 5_000, 0.5];

serveMeasured(async () => {
  let returns: Promise<void>[] = [];
  let lostAt: number | undefined;
  let refusals = 0;
  const back: number[] = [];
  const returned: RawClient[] = [];

  async function comeBack(offer: Offer, others: readonly number[], index: number): Promise<void> {
    for (let attempt = 0; ; attempt++) {
      const delay = Math.min(FIRST_DELAY_MS * 2 ** attempt, LONGEST_DELAY_MS);
      await new Promise((go) => setTimeout(go, delay * (1 + SPREAD * (2 * Math.random() - 1))));
      try {
        returned.push(await openWebSocket(others[(index + attempt) % others.length] ?? 0, offer));
        back.push(performance.now());
        return;
      } catch {
        refusals += 1;
      }
    }
  }

  return {
    ready: {},
    actions: {
      async arrive({ offers, port, others }: StormOrder) {
        const waiting = [...offers.entries()];
        returns = [];
        const worker = async () => {
          for (let next = waiting.pop(); next !== undefined; next = waiting.pop()) {
            const [index, offer] = next;
            const { closed } = await openWebSocket(port, offer);
            returns.push(
              closed.then(() => {
                lostAt ??= performance.now();
                return comeBack(offer, others, index);
              }),
            );
          }
        };
        await Promise.all(Array.from({ length: AT_ONCE }, worker));
      },
      /** Resolves when all are back. */
      async storm(): Promise<Storm> {
        await Promise.all(returns);
        const times = back.map((at) => at - (lostAt ?? Number.NaN)).sort((a, b) => a - b);
        const after = (share: number) => times[Math.ceil(share * times.length) - 1] ?? Number.NaN;
        return { halfMs: after(0.5), most99Ms: after(0.99), lastMs: after(1), refusals };
      },
    },
  };
});

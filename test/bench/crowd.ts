/** Many idle clients, in a process of their own: what they weigh is nobody's business but theirs. */

import { serveMeasured } from "./measured-process.ts";
import { type Offer, openWebSocket, type RawClient } from "./raw-client.ts";

const AT_ONCE = 64;

export interface CrowdOrder {
  readonly port: number;
  readonly offers: readonly Offer[];
}

serveMeasured(async () => {
  const clients: RawClient[] = [];
  return {
    ready: {},
    actions: {
      /** Opens more of them, and resolves when all are in. */
      async open({ port, offers }: CrowdOrder) {
        const waiting = [...offers];
        const worker = async () => {
          for (let offer = waiting.pop(); offer !== undefined; offer = waiting.pop()) {
            clients.push(await openWebSocket(port, offer, true));
          }
        };
        await Promise.all(Array.from({ length: AT_ONCE }, worker));
        return clients.length;
      },
      async leave() {
        for (const client of clients) client.close();
        await Promise.all(clients.splice(0).map(({ closed }) => closed));
      },
    },
  };
});

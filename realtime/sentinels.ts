/**
 * How a master is found by its sentinels: ioredis' own way, but for its failover detector, which gives the connections it makes no
 * error listener, so that each failure is printed to stderr as unhandled. Here they are heard, and told to whoever counts them.
 */
import { type Redis, SentinelConnector } from "ioredis";
import { surviveErrors } from "./connection.ts";

type SentinelOptions = ConstructorParameters<typeof SentinelConnector>[0];

/** For the option `Connector` of clients that have `sentinels`. @param onError a sentinel could not be reached, or left */
export function sentinelConnector(onError: (error: unknown) => void): new (options: unknown) => SentinelConnector {
  return class extends SentinelConnector {
    constructor(options: unknown) {
      super(options as SentinelOptions);
      const inside = this as unknown as Inside;
      const connect = inside.connectToSentinel.bind(this);
      inside.connectToSentinel = (...args) => {
        const sentinel = connect(...args);
        surviveErrors(sentinel);
        sentinel.on("error", onError);
        return sentinel;
      };
    }
  };
}

/** What ioredis has and its types do not show. */
interface Inside {
  connectToSentinel(...args: unknown[]): Redis;
}

/**
 * What somebody whom nobody knows yet may cost: how many connections and attempts per address, how many attempts per
 * connection. Counted in memory, per node, in buckets that refill; bounded however many addresses there are.
 */
import type { IncomingMessage } from "node:http";
import { BlockList, isIP, isIPv6 } from "node:net";
import { Refusal } from "#contract/refusal";
import { keepNewest } from "./keep-newest.ts";

export interface Limits {
  /** Connections that one address may open at once, and how many more each second. Default 200 and 20. */
  readonly connectionsPerAddress?: Rate | undefined;
  /** Failed attempts of one address, and how many are forgiven each second. Default 50 and 1. */
  readonly failuresPerAddress?: Rate | undefined;
  /** Namespaces that one connection may ask for, whether or not it is let in. Default 20. */
  readonly attemptsPerConnection?: number | undefined;
  /** Characters or bytes of one message before anybody on its connection is let in. Default 65,536. */
  readonly bytesBeforeAdmission?: number | undefined;
  /** How long a connection may stay open with nobody let in, besides what the lobby allows. Default 10,000. */
  readonly msBeforeAdmission?: number | undefined;
  /** Origins of the pages that may connect; any unless given. CORS does not cover WebSocket (CWE-1385). */
  readonly origins?: readonly string[] | undefined;
  /**
   * Addresses and networks (CIDR) of proxies whose `X-Forwarded-For` is believed. Default none: everybody is who the
   * connection comes from.
   */
  readonly trustedProxies?: readonly string[] | undefined;
}

export interface Rate {
  readonly burst: number;
  readonly perSecond: number;
}

const CONNECTIONS: Rate = { burst: 200, perSecond: 20 };
const FAILURES: Rate = { burst: 50, perSecond: 1 };
const ATTEMPTS = 20;
const BYTES_BEFORE_ADMISSION = 65_536;
const MS_BEFORE_ADMISSION = 10_000;
const MAX_ADDRESSES = 100_000;

export interface Gate {
  readonly bytesBeforeAdmission: number;
  readonly msBeforeAdmission: number;
  /** @throws {Refusal} `origin_forbidden` */
  checkOrigin(request: IncomingMessage): void;
  /** Whose request this is: the address that a trusted proxy vouches for, or the connection's own. */
  addressOf(request: Pick<IncomingMessage, "headers" | "socket">): string;
  /** @throws {Refusal} `too_many_attempts` */
  countConnection(address: string): void;
  /** Before an attempt is judged. @throws {Refusal} `too_many_attempts` after too many that failed */
  checkAddress(address: string): void;
  countFailure(address: string): void;
  /** @returns whether the connection has used up its attempts */
  countAttempt(connection: object): boolean;
}

export function createGate(limits: Limits): Gate {
  const connections = new Buckets(limits.connectionsPerAddress ?? CONNECTIONS);
  const failures = new Buckets(limits.failuresPerAddress ?? FAILURES);
  const attempts = new WeakMap<object, number>();
  const allowed = limits.attemptsPerConnection ?? ATTEMPTS;
  const proxies = blockListOf(limits.trustedProxies ?? []);
  const hasProxies = (limits.trustedProxies ?? []).length > 0;

  return {
    bytesBeforeAdmission: limits.bytesBeforeAdmission ?? BYTES_BEFORE_ADMISSION,
    msBeforeAdmission: limits.msBeforeAdmission ?? MS_BEFORE_ADMISSION,
    checkOrigin({ headers: { origin } }) {
      // Who sends none is no browser, and could write what it likes.
      if (origin === undefined || limits.origins === undefined || limits.origins.includes(origin)) return;
      throw new Refusal("origin_forbidden", { detail: "the page is of an origin that is not trusted" });
    },
    addressOf(request) {
      let address = request.socket.remoteAddress ?? "";
      if (!hasProxies) return networkOf(address);
      // From the right: each entry was added by the proxy before, and is believed as long as that one is.
      const forwarded = String(request.headers["x-forwarded-for"] ?? "").split(",");
      while (contains(proxies, address)) {
        const before = forwarded.pop()?.trim() ?? "";
        if (isIP(before) === 0) break;
        address = before;
      }
      return networkOf(address);
    },
    countConnection(address) {
      if (!connections.take(address)) throw tooMany(connections.waitSeconds(address));
    },
    checkAddress(address) {
      if (!failures.has(address)) throw tooMany(failures.waitSeconds(address));
    },
    countFailure(address) {
      failures.take(address);
    },
    countAttempt(connection) {
      const count = (attempts.get(connection) ?? 0) + 1;
      attempts.set(connection, count);
      return count > allowed;
    },
  };
}

function tooMany(waitSeconds: number): Refusal {
  return new Refusal("too_many_attempts", { retryAfterSeconds: waitSeconds });
}

interface Bucket {
  level: number;
  at: number;
}

/** Token buckets by name, oldest forgotten first when there are too many: then a flood only refills itself. */
class Buckets {
  readonly #rate: Rate;
  readonly #buckets = new Map<string, Bucket>();

  constructor(rate: Rate) {
    this.#rate = rate;
  }

  has(name: string): boolean {
    return this.#level(name) >= 1;
  }

  take(name: string): boolean {
    const level = this.#level(name);
    this.#buckets.delete(name);
    this.#buckets.set(name, { level: Math.max(0, level - 1), at: performance.now() });
    keepNewest(this.#buckets, MAX_ADDRESSES);
    return level >= 1;
  }

  waitSeconds(name: string): number {
    return Math.max(1, Math.ceil((1 - this.#level(name)) / this.#rate.perSecond));
  }

  #level(name: string): number {
    const bucket = this.#buckets.get(name);
    if (bucket === undefined) return this.#rate.burst;
    const refilled = ((performance.now() - bucket.at) / 1000) * this.#rate.perSecond;
    return Math.min(this.#rate.burst, bucket.level + refilled);
  }
}

function blockListOf(networks: readonly string[]): BlockList {
  const list = new BlockList();
  for (const network of networks) {
    const [address = "", prefix] = network.split("/");
    const family = isIPv6(address) ? "ipv6" : "ipv4";
    if (prefix === undefined) list.addAddress(address, family);
    else list.addSubnet(address, Number(prefix), family);
  }
  return list;
}

function contains(list: BlockList, address: string): boolean {
  return isIP(address) !== 0 && list.check(address, isIPv6(address) ? "ipv6" : "ipv4");
}

/** One home is one /64 in IPv6: its single addresses are free to anybody in it. */
function networkOf(address: string): string {
  // Nearly everybody's, and asked for several times in each handshake.
  if (!address.includes(":")) return address;
  const plain = address.replace(/^::ffff:(?=\d+\.)/i, "");
  if (!isIPv6(plain)) return plain;
  const [head = "", tail] = plain.split("::");
  const groups = head === "" ? [] : head.split(":");
  if (tail !== undefined) {
    const behind = tail === "" ? [] : tail.split(":");
    while (groups.length + behind.length < 8) groups.push("0");
    groups.push(...behind);
  }
  return `${groups.slice(0, 4).join(":")}::/64`;
}

/**
 * Where a request came from, as coarsely as it may be kept: never the full address, only the network that it lies in. Only
 * Cloudflare's own header is believed; anything a client can set says nothing.
 */
import { z } from "zod";

/** What may be stored of a caller. */
export interface Origin {
  /** The network: `203.0.113.0/24` or `2001:db8:1::/48`. Absent where no address is known, as in a local run. */
  readonly address?: string;
  /** ISO 3166-1 alpha-2, as Cloudflare sees it. */
  readonly country?: string;
  readonly region?: string;
  readonly city?: string;
  /** At most 256 characters. */
  readonly user_agent?: string;
}

const MAX_USER_AGENT = 256;
const country = z.string().regex(/^[A-Z0-9]{2}$/);
const place = z.string().min(1).max(64);

/** The caller's address as Cloudflare saw it, or undefined where no Cloudflare is in front. */
export function addressOf(request: Request): string | undefined {
  const text = request.headers.get("cf-connecting-ip");
  return text !== null && text.length <= 45 && (parseIpv4(text) ?? parseIpv6(text)) !== undefined ? text : undefined;
}

export function originOf(request: Request): Origin {
  const address = addressOf(request);
  const network = address === undefined ? undefined : networkOf(address, 24, 48);
  const seenIn = country.safeParse(request.cf?.country);
  const region = place.safeParse(request.cf?.region);
  const city = place.safeParse(request.cf?.city);
  const agent = request.headers.get("user-agent")?.slice(0, MAX_USER_AGENT);
  return {
    ...(network === undefined ? {} : { address: network }),
    ...(seenIn.success ? { country: seenIn.data } : {}),
    ...(region.success ? { region: region.data } : {}),
    ...(city.success ? { city: city.data } : {}),
    ...(agent === undefined || agent === "" ? {} : { user_agent: agent }),
  };
}

/** The network of an address in CIDR form, or undefined when it is none. An IPv4 address in IPv6 form is IPv4. */
export function networkOf(address: string, ipv4Bits: number, ipv6Bits: number): string | undefined {
  const ipv4 = parseIpv4(address.replace(/^::ffff:(?=[0-9.]+$)/i, ""));
  if (ipv4 !== undefined) return `${masked(ipv4, 8, ipv4Bits).join(".")}/${ipv4Bits}`;
  const ipv6 = parseIpv6(address);
  if (ipv6 === undefined) return undefined;
  const groups = masked(ipv6, 16, ipv6Bits).map((group) => group.toString(16));
  const kept = groups.slice(0, Math.ceil(ipv6Bits / 16));
  return `${kept.join(":")}${kept.length < 8 ? "::" : ""}/${ipv6Bits}`;
}

/** Whether an address is of this machine itself: then there is no Cloudflare in front, and nobody far away. */
export function isLoopback(address: string): boolean {
  return address === "::1" || parseIpv4(address.replace(/^::ffff:/i, ""))?.[0] === 127;
}

function parseIpv4(text: string): number[] | undefined {
  const parts = text.split(".");
  if (parts.length !== 4 || !parts.every((part) => /^(0|[1-9]\d{0,2})$/.test(part))) return undefined;
  const numbers = parts.map(Number);
  return numbers.every((number) => number <= 255) ? numbers : undefined;
}

function parseIpv6(text: string): number[] | undefined {
  // The URL parser is the one judge of what an IPv6 address is; a mapped IPv4 tail it writes in groups.
  const url = text.includes(":") && /^[0-9a-f:.]+$/i.test(text) ? URL.parse(`http://[${text}]`) : null;
  if (url === null) return undefined;
  const [head = "", tail] = url.hostname.slice(1, -1).split("::");
  const groupsOf = (part: string) => (part === "" ? [] : part.split(":").map((group) => Number.parseInt(group, 16)));
  const before = groupsOf(head);
  const after = tail === undefined ? [] : groupsOf(tail);
  return [...before, ...Array<number>(8 - before.length - after.length).fill(0), ...after];
}

function masked(parts: readonly number[], width: number, bits: number): number[] {
  return parts.map((part, index) => {
    const kept = Math.min(width, Math.max(0, bits - index * width));
    return part & ((2 ** kept - 1) << (width - kept));
  });
}

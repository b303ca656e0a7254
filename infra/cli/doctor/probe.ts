/**
 * One request as somebody outside makes it, and all that is to be seen of its answer: bounded, on a connection of its own, so that
 * a load balancer decides anew where each goes.
 */
import { request as requestHttp } from "node:http";
import { request as requestHttps } from "node:https";
import { unanswered } from "../../edge-failure.ts";

export interface Probe {
  readonly method?: string;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: string;
  readonly signal: AbortSignal;
}

export interface Seen {
  readonly status: number;
  header(name: string): string | undefined;
  readonly cookies: readonly string[];
  readonly body: string;
  /** Milliseconds since the epoch, by our clock, when it was sent and when it was answered. */
  readonly sentAt: number;
  readonly answeredAt: number;
}

const WITHIN_MS = 10_000;
const MAX_BYTES = 1024 * 1024;

/** @throws {EdgeUnreachable} */
export async function probe(url: string, { method = "GET", headers = {}, body, signal }: Probe): Promise<Seen> {
  const send = url.startsWith("https:") ? requestHttps : requestHttp;
  const deadline = AbortSignal.any([signal, AbortSignal.timeout(WITHIN_MS)]);
  const sentAt = Date.now();
  try {
    return await new Promise<Seen>((resolve, reject) => {
      const request = send(url, {
        method,
        headers: { ...headers, connection: "close" },
        agent: false,
        signal: deadline,
      });
      request.on("error", reject);
      request.on("response", (response) => {
        const answeredAt = Date.now();
        let text = "";
        response.setEncoding("utf8").on("error", reject);
        response.on("data", (chunk: string) => {
          text += chunk;
          if (text.length > MAX_BYTES) request.destroy(new Error("the answer is too long"));
        });
        response.on("end", () => {
          const header = (name: string) => {
            const value = response.headers[name];
            return Array.isArray(value) ? value.join(", ") : value;
          };
          const cookies = response.headers["set-cookie"] ?? [];
          resolve({ status: response.statusCode ?? 0, header, cookies, body: text, sentAt, answeredAt });
        });
      });
      request.end(body);
    });
  } catch (error) {
    signal.throwIfAborted();
    throw unanswered(`GET ${url}`, new URL(url).host, deadline.aborted ? deadline.reason : error);
  }
}

/** By how much a clock is off ours, milliseconds: 0 where its whole second fits into when we asked. Undefined without a `Date`. */
export function clockOffset({ header, sentAt, answeredAt }: Seen): number | undefined {
  const date = Date.parse(header("date") ?? "");
  return Number.isNaN(date) ? undefined : offsetOf(date, sentAt, answeredAt);
}

/** @param second the beginning of the whole second that a clock showed at some time between the two */
export function offsetOf(second: number, sentAt: number, answeredAt: number): number {
  if (second > answeredAt) return second - answeredAt;
  return second + 999 < sentAt ? second + 999 - sentAt : 0;
}

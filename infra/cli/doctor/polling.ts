/**
 * One Socket.IO session over long polling, spoken by hand (Engine.IO protocol 4): each request on a connection of its own, with the
 * cookies that a balancer sets, so that it is the balancer that keeps the session together or does not.
 */
import { jsonOf } from "./edge-checks.ts";
import { probe, type Seen } from "./probe.ts";

export interface PollingOutcome {
  /** `lost`: a request reached a node that does not know the session. `odd`: what answered spoke something else. */
  readonly outcome: "kept" | "lost" | "odd";
  readonly says: string;
}

/** Engine.IO's answer to a session that it does not have. */
const UNKNOWN_SESSION = 1;
const POLLS = 3;

export async function pollingSession(
  url: string,
  path: string,
  token: string,
  signal: AbortSignal,
): Promise<PollingOutcome> {
  const cookies = new Map<string, string>();
  const base = `${url}${path.replace(/\/?$/, "/")}?EIO=4&transport=polling`;
  const send = async (sid: string | undefined, body?: string): Promise<Seen> => {
    const cookie = [...cookies].map(([name, value]) => `${name}=${value}`).join("; ");
    const headers = {
      ...(cookie !== "" && { cookie }),
      ...(body !== undefined && { "content-type": "text/plain;charset=UTF-8" }),
    };
    const address = `${base}&t=${Math.random().toString(36).slice(2)}${sid === undefined ? "" : `&sid=${encodeURIComponent(sid)}`}`;
    const seen = await probe(address, {
      method: body === undefined ? "GET" : "POST",
      headers,
      signal,
      ...(body !== undefined && { body }),
    });
    for (const each of seen.cookies) {
      const [, name, value] = /^([^=;]+)=([^;]*)/.exec(each) ?? [];
      if (name !== undefined && value !== undefined) cookies.set(name, value);
    }
    return seen;
  };
  const opened = await send(undefined);
  const sid = sessionIn(opened);
  if (sid === undefined) return { outcome: "odd", says: `the handshake was answered HTTP ${opened.status}` };
  // A packet of a kind that nobody has (`6`, noop) keeps each request short; the connect is what makes the first answer.
  const requests = [`40${JSON.stringify({ token })}`, undefined, ...Array.from({ length: POLLS }, () => "6"), "41"];
  for (const body of requests) {
    const seen = await send(sid, body);
    if (isUnknownSession(seen)) return { outcome: "lost", says: "unknown session" };
    if (seen.status !== 200) return { outcome: "odd", says: `a request was answered HTTP ${seen.status}` };
  }
  return { outcome: "kept", says: "" };
}

function sessionIn({ status, body }: Seen): string | undefined {
  const packet = status === 200 && body.startsWith("0") ? jsonOf(body.slice(1)) : undefined;
  const { sid } = (typeof packet === "object" && packet !== null ? packet : {}) as { sid?: unknown };
  return typeof sid === "string" ? sid : undefined;
}

function isUnknownSession({ status, body }: Seen): boolean {
  const { code } = (jsonOf(body) ?? {}) as { code?: unknown };
  return status === 400 && code === UNKNOWN_SESSION;
}

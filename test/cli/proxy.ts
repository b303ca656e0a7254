/**
 * The way to the real edge, with what a test plants on it: an answer that is lost, late, changed, or somebody else's. Keeps what
 * passed.
 */
import { createServer, type IncomingHttpHeaders, request as send } from "node:http";
import type { AddressInfo } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import { onTestFinished } from "vitest";
import { stack } from "./people.ts";

export interface Passed {
  readonly method: string;
  /** With its query. */
  readonly path: string;
  readonly headers: Readonly<Record<string, string | string[] | undefined>>;
  readonly body: string;
}

/** What becomes of one request. */
export type Plant =
  /** The edge carries it out; the answer never arrives. */
  | { readonly lose: true }
  | { readonly delayMs: number }
  /** The edge never sees it. */
  | { readonly status: number; readonly headers?: Record<string, string>; readonly body?: string }
  /** The edge's own answer, with other headers. */
  | { readonly change: (headers: IncomingHttpHeaders) => IncomingHttpHeaders };

export interface Proxy {
  readonly url: string;
  readonly passed: readonly Passed[];
}

/** @param plant asked for each request, with how many like it came before */
export async function startProxy(
  plant: (request: Passed, before: number) => Plant | undefined = () => undefined,
): Promise<Proxy> {
  const passed: Passed[] = [];
  const server = createServer(async (incoming, outgoing) => {
    incoming.on("error", () => {});
    let body = "";
    for await (const chunk of incoming.setEncoding("utf8")) body += chunk;
    const request = { method: incoming.method ?? "", path: incoming.url ?? "", headers: incoming.headers, body };
    const before = passed.filter(({ method, path }) => method === request.method && path === request.path).length;
    passed.push(request);
    const planted = plant(request, before);
    if (planted && "delayMs" in planted) await sleep(planted.delayMs);
    if (planted && "status" in planted) {
      outgoing.writeHead(planted.status, planted.headers).end(planted.body);
      return;
    }
    const forwarded = send(new URL(request.path, stack.edgeUrl), {
      method: request.method,
      // The edge knows itself by its own name.
      headers: { ...incoming.headers, host: new URL(stack.edgeUrl).host },
    });
    forwarded.on("error", () => outgoing.destroy());
    forwarded.on("response", async (answer) => {
      if (planted && "lose" in planted) {
        answer.resume().on("end", () => outgoing.destroy());
        return;
      }
      const headers = planted && "change" in planted ? planted.change(answer.headers) : answer.headers;
      outgoing.writeHead(answer.statusCode ?? 0, headers);
      answer.pipe(outgoing);
      outgoing.on("close", () => forwarded.destroy());
    });
    forwarded.end(body);
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  onTestFinished(() => {
    server.closeAllConnections();
    server.close();
  });
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, passed };
}

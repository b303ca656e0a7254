/** The operator API as this administrator may call it: with their token, renewed where it has to be, and nothing asked twice for them. */
import type * as answers from "./answers.ts";
import type { OwnSession } from "./own-session.ts";
import { Refused } from "./refused.ts";
import { ask, askForStream, type Call } from "./wire.ts";

export type Query = Readonly<Record<string, string | number | undefined>>;

const AGAIN_MS = 1_000;

export class Api {
  readonly #session: OwnSession;

  constructor(session: OwnSession) {
    this.#session = session;
  }

  me(signal: AbortSignal): Promise<answers.Me> {
    return this.#json("/admin/me", { signal });
  }

  accounts(query: Query, signal: AbortSignal): Promise<answers.AccountPage> {
    return this.#json(`/admin/accounts${written(query)}`, { signal });
  }

  account(sub: string, signal: AbortSignal): Promise<answers.Account> {
    return this.#json(`/admin/accounts/${encodeURIComponent(sub)}`, { signal });
  }

  changeAccount(sub: string, body: object): Promise<answers.Account> {
    return this.#json(`/admin/accounts/${encodeURIComponent(sub)}`, { method: "PATCH", body });
  }

  sockets(sub: string, signal: AbortSignal): Promise<answers.Sockets> {
    return this.#json(`/admin/accounts/${encodeURIComponent(sub)}/sockets`, { signal });
  }

  /** A dry run: nothing is changed. */
  preview(request: answers.RevocationRequest, signal: AbortSignal): Promise<answers.Preview> {
    return this.#json("/admin/revocations", { method: "POST", body: { ...request, dry_run: true }, signal });
  }

  /** @param key of idempotency: with the same one it is carried out once, however often it is sent */
  revoke(request: answers.RevocationRequest, key: string): Promise<answers.Receipt> {
    return this.#json("/admin/revocations", { method: "POST", body: request, headers: { "idempotency-key": key } });
  }

  revocations(query: Query, signal: AbortSignal): Promise<answers.RevocationPage> {
    return this.#json(`/admin/revocations${written(query)}`, { signal });
  }

  receipt<T extends answers.Receipt | answers.BulkReceipt>(id: string, signal: AbortSignal): Promise<T> {
    return this.#json(`/admin/revocations/${encodeURIComponent(id)}`, { signal });
  }

  /** The receipt now and at every change, until nothing is left to wait for. A stream that breaks off is taken up again. */
  async *receipts(id: string, signal: AbortSignal): AsyncGenerator<answers.Receipt, void> {
    for (;;) {
      const path = `/admin/revocations/${encodeURIComponent(id)}`;
      const call = { headers: { accept: "text/event-stream" }, signal };
      const response = await this.#withToken((token) => askForStream(path, { ...call, token }));
      try {
        for await (const data of eventsIn(response)) {
          const receipt = JSON.parse(data) as answers.Receipt;
          yield receipt;
          if (receipt.state === "enforced" || receipt.state === "no_clusters") return;
        }
      } catch {
        signal.throwIfAborted();
      }
      await new Promise((resolve) => setTimeout(resolve, AGAIN_MS));
    }
  }

  audit(query: Query, signal: AbortSignal): Promise<answers.AuditPage> {
    return this.#json(`/admin/audit${written(query)}`, { signal });
  }

  verifyAudit(after: number, signal: AbortSignal): Promise<answers.Verification> {
    return this.#json(`/admin/audit/verify${written({ after })}`, { signal });
  }

  status(signal: AbortSignal): Promise<answers.Status> {
    return this.#json("/admin/status", { signal });
  }

  latency(query: Query, signal: AbortSignal): Promise<answers.Latency> {
    return this.#json(`/admin/latency${written(query)}`, { signal });
  }

  #json<T>(path: string, call: Call): Promise<T> {
    return this.#withToken((token) => ask<T>(path, { ...call, token }));
  }

  async #withToken<T>(attempt: (token: string) => Promise<T>): Promise<T> {
    const token = await this.#session.token();
    try {
      return await attempt(token);
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      const { advice, code } = error.problem;
      // One that is not valid any more may have been signed with a key that is gone.
      if (advice === "refresh" || code === "token_invalid") return await attempt(await this.#session.token(token));
      if (advice === "login") this.#session.end(error.problem);
      throw error;
    }
  }
}

function written(query: Query): string {
  const given = Object.entries(query).flatMap(([name, value]) =>
    value === undefined || value === "" ? [] : [[name, String(value)]],
  );
  return given.length === 0 ? "" : `?${new URLSearchParams(given)}`;
}

/** The data of the events of a stream (HTML Living Standard, section 9.2), as far as the edge makes use of it: one line of data each. */
async function* eventsIn(response: Response): AsyncGenerator<string, void> {
  const reader = response.body?.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done = true, value = "" } = (await reader?.read()) ?? {};
    if (done) return;
    const events = (rest + value).split("\n\n");
    rest = events.pop() ?? "";
    for (const event of events) {
      const data = event.split("\n").find((line) => line.startsWith("data: "));
      if (data !== undefined) yield data.slice("data: ".length);
    }
  }
}

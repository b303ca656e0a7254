/**
 * A receipt as Server-Sent Events (HTML Living Standard, section 9.2): as it is, and again at every change, until nothing is left to wait
 * for. Each look is a short call of its own, made when the reader has taken what was before: an object that dies on the way, or a
 * reader that goes, leaves nothing behind.
 */
import { logFailure } from "../log.ts";
import { isFinal, type Receipt } from "../revocations/receipt.ts";
import type { Exchange } from "./request.ts";

export const EVENT_STREAM = "text/event-stream";

/** After this long the reader has to come again. */
const LONGEST_MS = 5 * 60_000;
/** What passes between two lines, at most, so that proxies and readers know that somebody is there. */
const HEARTBEAT_MS = 15_000;
/** How long one look waits for a change. A reader that went is noticed after it. */
const LOOK_MS = 5_000;
const AFTER_FAILURE_MS = 1_000;

/** Looks at a receipt: until it is something else than `known`, as JSON, or `waitMs` are over. */
type Look = (waitMs: number, known: string) => Promise<Receipt>;

/** Whether the caller asks for a stream. */
export function wantsEventStream(c: Exchange): boolean {
  return c.req.header("accept")?.includes(EVENT_STREAM) === true;
}

/** @param first the receipt as it is: that there is none was said with a status */
export function receiptStream(c: Exchange, first: Receipt, look: Look): Response {
  const lines = follow(first, look);
  const encoder = new TextEncoder();
  const body = new ReadableStream<Uint8Array>({
    async pull(controller) {
      const { done, value } = await lines.next();
      if (done) controller.close();
      else controller.enqueue(encoder.encode(value));
    },
  });
  return c.body(body, 200, { "content-type": EVENT_STREAM });
}

async function* follow(first: Receipt, look: Look): AsyncGenerator<string, void> {
  const end = Date.now() + LONGEST_MS;
  let receipt = first;
  yield written(receipt);
  let writtenAt = Date.now();
  while (!isFinal(receipt) && Date.now() < end) {
    const next = await patient(look, receipt);
    if (JSON.stringify(next) !== JSON.stringify(receipt)) yield written(next);
    else if (Date.now() - writtenAt >= HEARTBEAT_MS) yield ":\n\n";
    else continue;
    receipt = next;
    writtenAt = Date.now();
  }
}

/** The log may be away for a moment; the reader need not know. */
async function patient(look: Look, receipt: Receipt): Promise<Receipt> {
  try {
    return await look(LOOK_MS, JSON.stringify(receipt));
  } catch (error) {
    logFailure("a receipt could not be followed", { revocation: receipt.id, request: receipt.request }, error);
    await scheduler.wait(AFTER_FAILURE_MS);
    return receipt;
  }
}

function written(receipt: Receipt): string {
  return `event: receipt\ndata: ${JSON.stringify(receipt)}\n\n`;
}

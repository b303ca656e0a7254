/** Server-Sent Events as a program reads them (HTML Living Standard, section 9.2.6): bounded, and never waited for in vain. */

/** The stream broke, fell silent, or is none: what it tells of may be asked for anew. */
export class BrokenStream extends Error {
  override readonly name = "BrokenStream";
}

/** Two of the edge's heartbeats: after that it is a dead link. */
const SILENCE_MS = 35_000;
const MAX_EVENT_LENGTH = 8 * 1024 * 1024;

/**
 * The data of each event, until the stream ends.
 *
 * @throws {BrokenStream}
 */
export async function* dataOfEvents(
  body: ReadableStream<Uint8Array>,
  signal: AbortSignal,
): AsyncGenerator<string, void> {
  const reader = body.getReader();
  const decoder = new TextDecoder();
  let left = "";
  try {
    for (;;) {
      const { done, value } = await unlessSilent(reader.read(), signal);
      if (done) return;
      left += decoder.decode(value, { stream: true });
      const events = left.split(/\r?\n\r?\n/);
      left = events.pop() ?? "";
      if (left.length > MAX_EVENT_LENGTH) throw new Error("an event has no end");
      for (const event of events) yield* dataOf(event);
    }
  } catch (error) {
    throw new BrokenStream("the stream of events broke off", { cause: error });
  } finally {
    await reader.cancel().catch(() => {}); // broken already
  }
}

function dataOf(event: string): string[] {
  const lines = event.split(/\r?\n/).filter((line) => line.startsWith("data:"));
  return lines.length === 0 ? [] : [lines.map((line) => line.slice("data:".length).trimStart()).join("\n")];
}

async function unlessSilent<T>(read: Promise<T>, signal: AbortSignal): Promise<T> {
  const silence = AbortSignal.any([signal, AbortSignal.timeout(SILENCE_MS)]);
  let stop = () => {};
  const silent = new Promise<never>((_, reject) => {
    stop = () => reject(silence.reason);
    if (silence.aborted) stop();
    else silence.addEventListener("abort", stop, { once: true });
  });
  try {
    return await Promise.race([read, silent]);
  } finally {
    silence.removeEventListener("abort", stop);
  }
}

/**
 * Watching a revocation until it is enforced. It stands from the moment that it is decided: whoever stops watching, or cannot, has
 * undone nothing, and is told how to look again.
 */
import type { Receipt } from "../edge-answers.ts";
import { EdgeRefusal } from "../edge-failure.ts";
import { EXIT, type ExitCode } from "./failure.ts";
import type { Invocation } from "./invocation.ts";
import { LiveDisplay } from "./live-display.ts";
import { isSettled, receiptLines, receiptNews, verdict } from "./receipt-view.ts";
import { dim, Text, t } from "./text.ts";
import { duration, numberOf } from "./times.ts";

export const WAIT = {
  value: "SECONDS",
  about: "how long to wait until it is enforced; 30",
} as const;

const DEFAULT_WAIT_SECONDS = 30;
const MAX_WAIT_SECONDS = 86_400;
const FRAME_MS = 100;

/** Shows a receipt as it fills. */
interface Watch {
  show(receipt: Receipt): void;
  end(receipt: Receipt): void;
}

/** @throws {UsageError} */
export function waitSeconds(given: string | undefined): number {
  return given === undefined ? DEFAULT_WAIT_SECONDS : numberOf(given, "--wait", 0, MAX_WAIT_SECONDS);
}

/**
 * Waits until a revocation is enforced, and shows how it goes; then its receipt as JSON, or what it came to.
 *
 * @param first the receipt as it is known
 */
export async function awaitEnforcement(invocation: Invocation, first: Receipt, seconds: number): Promise<ExitCode> {
  const { signal, json, output } = invocation;
  const watch = watchFor(invocation);
  const end = AbortSignal.any([signal, AbortSignal.timeout(seconds * 1000)]);
  let receipt = first;
  let blind: EdgeRefusal | undefined;
  watch.show(receipt);
  try {
    if (!isSettled(receipt) && seconds > 0) {
      const edge = await invocation.edge();
      for await (const next of edge.follow(receipt.id, end)) {
        receipt = next;
        watch.show(receipt);
      }
    }
  } catch (error) {
    if (!(error instanceof EdgeRefusal)) throw error;
    blind = error;
  } finally {
    watch.end(receipt);
  }
  if (json) output.json(receipt);
  if (receipt.state === "enforced") return EXIT.ok;
  if (receipt.state === "no_clusters") return EXIT.pending;
  output.note(unfinished(receipt, signal.aborted, blind));
  return signal.aborted ? EXIT.interrupted : EXIT.pending;
}

/** The receipt of a revocation that came about by something else, and then as {@link awaitEnforcement}. */
export async function awaitRevocation(invocation: Invocation, id: string, seconds: number): Promise<ExitCode> {
  try {
    const edge = await invocation.edge();
    return await awaitEnforcement(invocation, await edge.receipt(id), seconds);
  } catch (error) {
    if (!(error instanceof EdgeRefusal)) throw error;
    invocation.output.note(
      t`The revocation ${id} stands. Its receipt cannot be read by this credential (${error.code}).`,
    );
    return EXIT.pending;
  }
}

function unfinished({ id }: Receipt, interrupted: boolean, blind: EdgeRefusal | undefined): Text {
  const again = t`\`keycard receipts follow ${id}\` goes on watching.`;
  if (blind !== undefined) {
    const why = blind.code === "scope_insufficient" ? "this credential lacks revocations:read" : blind.code;
    return t`The revocation stands, but its receipt cannot be read (${why}). ${again}`;
  }
  return interrupted ? t`The revocation stands, whoever watches. ${again}` : t`The revocation stands. ${again}`;
}

function watchFor({ output, json }: Invocation): Watch {
  if (json) return { show: () => {}, end: () => {} };
  if (!output.isTerminal) {
    let before: Receipt | undefined;
    return {
      show(receipt) {
        output.lines(receiptNews(before, receipt));
        before = receipt;
      },
      end: (receipt) => output.line(verdict(receipt)),
    };
  }
  const display = new LiveDisplay(output);
  const began = performance.now();
  let latest: Receipt | undefined;
  let frame = 0;
  const draw = () => {
    if (latest === undefined) return;
    const hint = dim(t`  ${duration(performance.now() - began)}   Ctrl-C stops watching; the revocation stands`);
    display.show([...receiptLines(latest, frame++), ...(isSettled(latest) ? [] : ["", hint])]);
  };
  const timer = setInterval(draw, FRAME_MS);
  return {
    show(receipt) {
      latest = receipt;
      draw();
    },
    end(receipt) {
      clearInterval(timer);
      display.end([...receiptLines(receipt), ...(receipt.clusters.length > 0 ? [Text.of("")] : []), verdict(receipt)]);
    },
  };
}

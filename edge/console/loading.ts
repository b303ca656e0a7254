/**
 * A part of a view that shows what the edge answers: loading, there, refused with what can be done about it, or there and no longer
 * fresh. It is read again every so often if it is of that kind, and by itself when the network is back.
 */
import type { Desk } from "./desk.ts";
import { element, fill, refill } from "./dom.ts";
import { adviceOn, isPassing, Refused, Unreachable } from "./refused.ts";
import { network } from "./wire.ts";
import { momentText } from "./wording.ts";

export interface Loading<T> {
  load(signal: AbortSignal): Promise<T>;
  /** Shows a value; called again with every new one. */
  show(value: T): void;
  /** Again after so many milliseconds, while somebody looks. */
  readonly everyMs?: number;
}

export interface Loaded {
  /** What is the matter, if anything is; stands above the content. */
  readonly notice: HTMLElement;
  /** Reads it anew. */
  reload(): void;
}

/** @param content hidden until there is something to show */
export function loading<T>(desk: Desk, content: HTMLElement, { load, show, everyMs }: Loading<T>): Loaded {
  const notice = element("div", { className: "notice-place" }, waiting());
  let current: AbortController | undefined;
  let timer: ReturnType<typeof setTimeout> | undefined;
  let shownAt: number | undefined;
  content.hidden = true;

  async function read(): Promise<void> {
    clearTimeout(timer);
    current?.abort();
    current = new AbortController();
    const { signal } = current;
    const isOver = () => signal.aborted || desk.signal.aborted;
    try {
      const value = await load(AbortSignal.any([signal, desk.signal]));
      if (isOver()) return;
      shownAt = Date.now();
      fill(notice);
      content.hidden = false;
      show(value);
    } catch (error) {
      if (isOver()) return;
      refill(notice, shownAt === undefined || !isPassing(error) ? problem(error, reload) : stale(shownAt, error));
      // Asking again changes nothing, and would say the same aloud again and again.
      if (!isPassing(error)) {
        content.hidden = true;
        return;
      }
    }
    if (everyMs !== undefined) timer = setTimeout(again, everyMs);
  }

  /** Nobody looks at a hidden tab: it is read when it comes to the front. */
  function again(): void {
    if (!document.hidden) return void read();
    document.addEventListener("visibilitychange", () => void read(), { once: true, signal: desk.signal });
  }

  function reload(): void {
    void read();
  }

  network.addEventListener("change", () => network.isUp && reload(), { signal: desk.signal });
  desk.signal.addEventListener("abort", () => clearTimeout(timer));
  reload();
  return { notice, reload };
}

function waiting(): HTMLElement {
  return element("p", { className: "waiting", role: "status", textContent: "Loading…" });
}

function stale(shownAt: number, error: unknown): HTMLElement {
  const why = error instanceof Unreachable ? "the edge cannot be reached" : String((error as Error).message);
  const text = `As of ${momentText(shownAt)}; since then ${why.replace(/\.$/, "")}. It is tried again.`;
  return element("p", { className: "stale", role: "status", textContent: text });
}

/** What went wrong, what can be done, and by which number the edge's log knows it. */
export function problem(error: unknown, retry?: () => void): HTMLElement {
  const { message } = error as Error;
  const { problem: said, requestId } = error instanceof Refused ? error : { problem: undefined, requestId: undefined };
  const members = (said?.errors ?? []).map(({ member, problem }) => element("li", {}, `${member}: ${problem}`));
  const number = requestId !== undefined && ["request ", element("code", { textContent: requestId })];
  return element(
    "div",
    { className: "problem", role: "alert" },
    element("p", {}, element("strong", { textContent: message })),
    members.length > 0 && element("ul", {}, ...members),
    element("p", { textContent: adviceOn(error) }),
    said !== undefined &&
      element(
        "p",
        { className: "muted small" },
        element("code", { textContent: said.code }),
        number ? ", " : "",
        ...(number || []),
      ),
    retry !== undefined && element("button", { type: "button", textContent: "Try again", onclick: retry }),
  );
}

/** How long revocations took until they were enforced everywhere, over time: plots, and the same as a table. */
import type { Latency, LatencyBucket } from "./answers.ts";
import type { Desk } from "./desk.ts";
import { element, fill } from "./dom.ts";
import { loading } from "./loading.ts";
import { plot } from "./plot.ts";
import { counted, DAY_MS, grouped, lasting, momentText } from "./wording.ts";

/** How far back, and in steps of how many seconds. */
const SPANS = {
  hour: { ms: DAY_MS / 24, step: 60 },
  day: { ms: DAY_MS, step: 1_800 },
  week: { ms: 7 * DAY_MS, step: 10_800 },
} as const;
const EVERY_MS = 15_000;

export function latencySection(desk: Desk): HTMLElement {
  const select = element("select", {}, ...Object.keys(SPANS).map((name) => element("option", { textContent: name })));
  const content = element("div", { className: "stack" });
  const chart = plot();
  const summary = element("p", { className: "muted" });
  const figures = element("tbody");
  fill(content, summary, chart.element, alternative(figures));
  const { notice, reload } = loading(desk, content, {
    load(signal) {
      const { ms, step } = SPANS[select.value as keyof typeof SPANS];
      // Whole steps, so that a bucket is the same one when it is read again.
      const until = (Math.floor(Date.now() / 1000 / step) + 1) * step * 1000;
      return desk.api.latency({ since: until - ms, until, step }, signal);
    },
    show(latency) {
      summary.textContent = summaryOf(latency);
      chart.show(latency);
      fill(figures, ...latency.buckets.toReversed().map((bucket) => row(bucket)));
    },
    everyMs: EVERY_MS,
  });
  select.onchange = reload;
  return element(
    "section",
    { className: "panel" },
    element(
      "div",
      { className: "section-head" },
      element("h2", { textContent: "Until a revocation is enforced" }),
      element("label", { className: "inline" }, "the last", select),
    ),
    notice,
    content,
  );
}

function summaryOf({ buckets }: Latency): string {
  const count = buckets.reduce((sum, bucket) => sum + bucket.count, 0);
  if (count === 0) return "Nothing was revoked in this time.";
  const slowest = Math.max(...buckets.map(({ max }) => max));
  const expired = buckets.reduce((sum, bucket) => sum + bucket.expired, 0);
  const late = expired === 0 ? "" : ` ${counted(expired, "receipt")} ended only because every token had.`;
  return `${counted(count, "revocation")}, the slowest enforced after ${lasting(slowest)}.${late}`;
}

function alternative(body: HTMLElement): HTMLElement {
  const head = ["From", "Revocations", "p50", "p90", "Slowest"].map((text, index) =>
    element("th", { scope: "col", textContent: text, className: index === 0 ? "" : "number" }),
  );
  return element(
    "details",
    {},
    element("summary", { textContent: "The same as a table" }),
    element(
      "div",
      { className: "scroll", tabIndex: 0, role: "region", ariaLabel: "Revocation latency as a table" },
      element("table", {}, element("thead", {}, element("tr", {}, ...head)), body),
    ),
  );
}

function row({ at, count, p50, p90, max }: LatencyBucket): HTMLElement {
  const numbers = [grouped(count), ...[p50, p90, max].map(lasting)];
  return element(
    "tr",
    {},
    element("th", { scope: "row", textContent: momentText(at) }),
    ...numbers.map((text) => element("td", { className: "number", textContent: text })),
  );
}

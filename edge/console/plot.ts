/**
 * Revocation latency drawn: above, for each bucket of time, the median, nine of ten and the slowest on a logarithmic axis; below, how
 * many there were. It is drawn at the size that it has, so that its words stay readable on a phone; pointing at it, or the arrow keys,
 * read out one bucket.
 */
import type { Latency, LatencyBucket } from "./answers.ts";
import { drawn, element, fill } from "./dom.ts";
import { type Axis, counts, durations, time } from "./scale.ts";
import { counted, grouped, lasting, momentText, tickText } from "./wording.ts";

const LEFT = 56;
const RIGHT = 12;
const TOP = 12;
const PLOT_HEIGHT = 180;
const GAP = 22;
const BARS_HEIGHT = 52;
const BOTTOM = 24;
const HEIGHT = TOP + PLOT_HEIGHT + GAP + BARS_HEIGHT + BOTTOM;
/** Between two moments on the axis of time, at least. */
const TICK_ROOM = 84;
const SERIES = ["p50", "p90", "max"] as const;
const NAMES = { p50: "half of them within", p90: "nine of ten within", max: "the slowest" } as const;

export interface Plot {
  readonly element: HTMLElement;
  show(latency: Latency): void;
}

export function plot(): Plot {
  const place = element("div", { className: "plot", tabIndex: 0, role: "application" });
  const readout = element("p", { className: "readout muted", attributes: { "aria-live": "polite" } });
  place.setAttribute("aria-roledescription", "plot");
  let latency: Latency | undefined;
  let chosen: number | undefined;

  function draw(): void {
    if (latency === undefined || place.clientWidth === 0) return;
    place.ariaLabel = `Revocation latency, ${counted(latency.buckets.length, "bucket")} of ${lasting(latency.step * 1000)}. Arrow keys read them out.`;
    fill(place, drawing(latency, place.clientWidth, latency.buckets[chosen ?? -1]));
    readout.textContent =
      chosen === undefined ? "Point at the plot, or use the arrow keys, to read a value." : reading(latency, chosen);
  }

  function choose(index: number | undefined): void {
    if (index === chosen) return;
    chosen = index;
    draw();
  }

  place.onpointermove = ({ offsetX }) => latency && choose(nearest(latency, offsetX, place.clientWidth));
  place.onkeydown = (event) => {
    const move = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (move === undefined || latency === undefined || latency.buckets.length === 0) return;
    event.preventDefault();
    const last = latency.buckets.length - 1;
    choose(chosen === undefined ? last : Math.min(last, Math.max(0, chosen + move)));
  };
  new ResizeObserver(draw).observe(place);
  return {
    element: element("figure", {}, legend(), place, readout),
    show(fresh) {
      if (latency?.step !== fresh.step) chosen = undefined;
      latency = fresh;
      if (chosen !== undefined && chosen >= fresh.buckets.length) chosen = undefined;
      draw();
    },
  };
}

function legend(): HTMLElement {
  const keys = SERIES.map((name) => element("span", { className: `key ${name}`, textContent: NAMES[name] }));
  return element(
    "figcaption",
    { className: "legend" },
    ...keys,
    element("span", { className: "key bar", textContent: "how many" }),
  );
}

function reading({ buckets, step }: Latency, index: number): string {
  const bucket = buckets[index];
  if (bucket === undefined) return "";
  const { at, count, p50, p90, max } = bucket;
  const figures = `half within ${lasting(p50)}, nine of ten within ${lasting(p90)}, the slowest ${lasting(max)}`;
  return `${momentText(at)}, ${lasting(step * 1000)}: ${counted(count, "revocation")}, ${figures}`;
}

interface Axes {
  readonly x: Axis;
  readonly y: Axis;
  readonly n: Axis;
}

function axesOf({ since, until, buckets }: Latency, width: number): Axes {
  const room = Math.max(2, Math.floor((width - LEFT - RIGHT) / TICK_ROOM));
  const base = TOP + PLOT_HEIGHT + GAP + BARS_HEIGHT;
  const values = buckets.flatMap(({ p50, max }) => [p50, max]);
  return {
    x: time(since, until, LEFT, width - RIGHT, room),
    y: durations(values, TOP + PLOT_HEIGHT, TOP),
    n: counts(Math.max(0, ...buckets.map(({ count }) => count)), base, base - BARS_HEIGHT),
  };
}

function drawing(latency: Latency, width: number, chosen: LatencyBucket | undefined): SVGElement {
  const axes = axesOf(latency, width);
  const middle = (bucket: LatencyBucket) => axes.x.place(bucket.at + (latency.step * 1000) / 2);
  const bandWidth = axes.x.place(latency.since + latency.step * 1000) - axes.x.place(latency.since);
  const marks = latency.buckets.flatMap((bucket) => marksOf(bucket, middle(bucket), bandWidth, axes));
  const cursor = chosen && [drawn("line", { class: "cursor", ...vertical(middle(chosen), TOP, HEIGHT - BOTTOM) })];
  return drawn(
    "svg",
    { width, height: HEIGHT, viewBox: `0 0 ${width} ${HEIGHT}`, "aria-hidden": "true" },
    ...grid(axes, width),
    ...(cursor ?? []),
    ...median(latency, middle, axes.y),
    ...marks,
  );
}

function grid({ x, y, n }: Axes, width: number): SVGElement[] {
  const across = (at: number) => drawn("line", { class: "grid", x1: LEFT, x2: width - RIGHT, y1: at, y2: at });
  const beside = (at: number, text: string) =>
    drawn("text", { x: LEFT - 8, y: at, "text-anchor": "end", "dominant-baseline": "middle" }, text);
  const base = HEIGHT - BOTTOM;
  return [
    ...y.ticks.flatMap((tick) => [across(y.place(tick)), beside(y.place(tick), unitText(tick))]),
    ...n.ticks.flatMap((tick) => [across(n.place(tick)), beside(n.place(tick), grouped(tick))]),
    ...x.ticks.flatMap((tick) => [
      drawn("line", { class: "grid", ...vertical(x.place(tick), base, base + 4) }),
      drawn("text", { x: x.place(tick), y: base + 16, "text-anchor": anchor(x.place(tick), width) }, tickText(tick)),
    ]),
  ];
}

/** So that the first and the last word stay inside. */
function anchor(at: number, width: number): string {
  if (at > width - RIGHT - 24) return "end";
  return at < LEFT + 16 ? "start" : "middle";
}

function vertical(x: number, y1: number, y2: number) {
  return { x1: x, x2: x, y1, y2 };
}

/** From one bucket to the next only: where nothing was revoked nothing is known. */
function median({ buckets, step }: Latency, middle: (bucket: LatencyBucket) => number, y: Axis): SVGElement[] {
  return buckets.slice(1).flatMap((bucket, index) => {
    const before = buckets[index];
    if (before === undefined || bucket.at - before.at > step * 1000) return [];
    return [
      drawn("line", {
        ...{ class: "median", x1: middle(before), x2: middle(bucket) },
        ...{ y1: y.place(before.p50), y2: y.place(bucket.p50) },
      }),
    ];
  });
}

function marksOf({ count, p50, p90, max }: LatencyBucket, x: number, bandWidth: number, { y, n }: Axes): SVGElement[] {
  const barWidth = Math.max(2, Math.min(24, bandWidth - 2));
  return [
    drawn("line", { class: "stem", ...vertical(x, y.place(p50), y.place(max)) }),
    drawn("line", { class: "max", x1: x - 4, x2: x + 4, y1: y.place(max), y2: y.place(max) }),
    drawn("circle", { class: "p90", cx: x, cy: y.place(p90), r: 3.5 }),
    drawn("circle", { class: "p50", cx: x, cy: y.place(p50), r: 3.5 }),
    drawn("rect", {
      class: "bar",
      x: x - barWidth / 2,
      y: n.place(count),
      width: barWidth,
      height: n.place(0) - n.place(count),
    }),
  ];
}

function nearest(latency: Latency, offsetX: number, width: number): number | undefined {
  const { x } = axesOf(latency, width);
  const distances = latency.buckets.map(({ at }) => Math.abs(x.place(at + latency.step * 500) - offsetX));
  return distances.length === 0 ? undefined : distances.indexOf(Math.min(...distances));
}

function unitText(ms: number): string {
  return ms < 1000 ? `${ms} ms` : `${grouped(ms / 1000)} s`;
}

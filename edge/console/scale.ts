/** Where a value lies on an axis, and which values are written beside it. */

export interface Axis {
  /** Pixels from the left or the top. */
  place(value: number): number;
  readonly ticks: readonly number[];
}

/** To eleven days: no token lives as long, and so no revocation takes as long. */
const DECADES = Array.from({ length: 10 }, (_, power) => 10 ** power);

/**
 * Milliseconds on a logarithmic axis: a revocation takes some tens of them, or the seconds that a node needs to be fenced, and both
 * are to be read.
 *
 * @param from @param to pixels of the least and of the largest
 */
export function durations(values: readonly number[], from: number, to: number): Axis {
  const shown = values.length === 0 ? [10, 1_000] : values;
  const least = DECADES.findLast((decade) => decade <= Math.min(...shown)) ?? 1;
  const most = DECADES.find((decade) => decade >= Math.max(...shown, least * 10)) ?? 1e9;
  const [low, high] = [Math.log10(least), Math.log10(most)];
  return {
    place: (value) => from + ((Math.log10(Math.max(least, value)) - low) / (high - low)) * (to - from),
    ticks: DECADES.filter((decade) => decade >= least && decade <= most),
  };
}

/** Counts from nothing, with whole numbers beside it. */
export function counts(most: number, from: number, to: number): Axis {
  const step = niceStep(Math.max(1, most) / 2);
  const top = Math.ceil(Math.max(1, most) / step) * step;
  return {
    place: (value) => from + (value / top) * (to - from),
    ticks: Array.from({ length: Math.round(top / step) + 1 }, (_, index) => index * step),
  };
}

/** 1, 2, 5, 10, 20, 50, … */
function niceStep(rough: number): number {
  const power = 10 ** Math.floor(Math.log10(Math.max(1, rough)));
  return power * ([1, 2, 5].find((factor) => factor * power >= rough) ?? 10);
}

const MINUTE = 60_000;
const HOUR = 60 * MINUTE;
const STEPS = [
  5 * MINUTE,
  10 * MINUTE,
  15 * MINUTE,
  30 * MINUTE,
  HOUR,
  2 * HOUR,
  3 * HOUR,
  6 * HOUR,
  12 * HOUR,
  24 * HOUR,
  48 * HOUR,
];

/** Time, with at most `room` round moments of this machine's clock beside it. Milliseconds since the epoch. */
export function time(since: number, until: number, from: number, to: number, room: number): Axis {
  const step = STEPS.find((each) => (until - since) / each <= room) ?? 48 * HOUR;
  const offset = new Date(until).getTimezoneOffset() * MINUTE;
  const first = Math.ceil((since - offset) / step) * step + offset;
  const ticks: number[] = [];
  for (let at = first; at <= until; at += step) ticks.push(at);
  return { place: (value) => from + ((value - since) / (until - since)) * (to - from), ticks };
}

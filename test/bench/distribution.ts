/** What is said of many measurements: never a mean, since it is the slow ones that people feel. */
export interface Distribution {
  readonly p50: number;
  readonly p99: number;
  readonly max: number;
}

/** What is said of one figure that was measured in several rounds. */
export interface Spread {
  readonly median: number;
  /** Quartiles. */
  readonly q1: number;
  readonly q3: number;
}

export function distributionOf(samples: readonly number[]): Distribution {
  const sorted = ascending(samples);
  // Nearest rank.
  const at = (share: number) => round(sorted[Math.ceil(share * sorted.length) - 1] ?? Number.NaN);
  return { p50: at(0.5), p99: at(0.99), max: at(1) };
}

export function spreadOf(samples: readonly number[]): Spread {
  const sorted = ascending(samples);
  const at = (share: number) => {
    const place = share * (sorted.length - 1);
    const [low = Number.NaN, high = Number.NaN] = [sorted[Math.floor(place)], sorted[Math.ceil(place)]];
    return round(low + (high - low) * (place % 1));
  };
  return { median: at(0.5), q1: at(0.25), q3: at(0.75) };
}

/** Of each round by itself: what slows down a whole round slows both. */
export function ratioOf(samples: readonly number[], base: readonly number[]): Spread {
  return spreadOf(samples.map((sample, index) => sample / (base[index] ?? Number.NaN)));
}

/** `1.20 [1.14..1.31]`: the median, and between which the middle half of the rounds lie. */
export function spreadText({ median, q1, q3 }: Spread, digits = 2): string {
  return `${median.toFixed(digits)} [${q1.toFixed(digits)}..${q3.toFixed(digits)}]`;
}

export function round(value: number): number {
  return Math.round(value * 100) / 100;
}

function ascending(samples: readonly number[]): number[] {
  return [...samples].sort((a, b) => a - b);
}

/** Moments and durations as people write and read them. */
import { UsageError } from "./failure.ts";

const UNITS: Readonly<Record<string, number>> = { s: 1, m: 60, h: 3_600, d: 86_400 };
const MINUTE_MS = 60_000;
const DAY_MS = 86_400_000;

/**
 * A moment in milliseconds since the epoch: RFC 3339 or a date, seconds since the epoch, or how long ago (`30m`, `2h`, `7d`).
 *
 * @param option what it was given to, for the error
 */
export function momentOf(text: string, option: string, now = Date.now()): number {
  const [, amount, unit] = /^(\d{1,9})(s|m|h|d)$/.exec(text) ?? [];
  if (amount !== undefined && unit !== undefined) return now - Number(amount) * (UNITS[unit] ?? 0) * 1000;
  if (/^\d{9,11}$/.test(text)) return Number(text) * 1000;
  const parsed = /^\d{4}-\d{2}-\d{2}/.test(text) ? Date.parse(text) : Number.NaN;
  if (!Number.isNaN(parsed)) return parsed;
  throw new UsageError(
    `${option} cannot be "${text}".`,
    "It is how long ago (30m, 2h, 7d), a time as 2026-03-01T12:00:00Z, or seconds since the epoch.",
  );
}

/** A moment that is yet to come, in seconds since the epoch: as {@link momentOf}, but `2h` is in two hours. */
export function futureOf(text: string, option: string, now = Date.now()): number {
  const ago = momentOf(text, option, now);
  const moment = /^\d+[smhd]$/.test(text) ? 2 * now - ago : ago;
  if (moment <= now) throw new UsageError(`${option} ${text} has passed.`, "It is a time that is yet to come, as 2h.");
  return Math.floor(moment / 1000);
}

/** @throws {UsageError} for what is no whole number between the bounds */
export function numberOf(text: string, option: string, least: number, most: number): number {
  const number = /^\d{1,9}$/.test(text) ? Number(text) : Number.NaN;
  if (number >= least && number <= most) return number;
  throw new UsageError(`${option} cannot be "${text}".`, `It is a whole number from ${least} to ${most}.`);
}

/** `2026-03-01 12:00:05`, by this machine's clock and zone. */
export function clock(ms: number): string {
  const date = new Date(ms);
  if (Number.isNaN(date.getTime())) return "?";
  const two = (number: number) => String(number).padStart(2, "0");
  const day = [date.getFullYear(), two(date.getMonth() + 1), two(date.getDate())].join("-");
  return `${day} ${[date.getHours(), date.getMinutes(), date.getSeconds()].map(two).join(":")}`;
}

/** `12 ms`, `3.4 s`, `5 min`, `2 h`, `3 days`. */
export function duration(ms: number): string {
  if (ms < 1000) return `${Math.max(0, Math.round(ms))} ms`;
  if (ms < MINUTE_MS) return `${(ms / 1000).toFixed(1)} s`;
  if (ms < 60 * MINUTE_MS) return `${Math.round(ms / MINUTE_MS)} min`;
  if (ms < 2 * DAY_MS) return `${Math.round(ms / (60 * MINUTE_MS))} h`;
  return `${Math.round(ms / DAY_MS)} days`;
}

/** `3 min ago`, `in 2 h`. */
export function distance(ms: number, now = Date.now()): string {
  const away = Math.abs(now - ms);
  if (away < 1000) return "now";
  const span = away < MINUTE_MS ? `${Math.round(away / 1000)} s` : duration(away);
  return ms <= now ? `${span} ago` : `in ${span}`;
}

/** How times, durations, names and states are written, the same everywhere. */
import type { Receipt } from "./answers.ts";
import { element } from "./dom.ts";

/** The language of the page. Times are of this machine's clock. */
const LOCALE = "en-GB";
const CLOCK = new Intl.DateTimeFormat(LOCALE, { timeStyle: "medium" });
const SHORT_CLOCK = new Intl.DateTimeFormat(LOCALE, { hour: "2-digit", minute: "2-digit" });
const DAY = new Intl.DateTimeFormat(LOCALE, { day: "numeric", month: "short" });
const DAY_OF_YEAR = new Intl.DateTimeFormat(LOCALE, { day: "numeric", month: "short", year: "numeric" });
const FULL = new Intl.DateTimeFormat(LOCALE, { dateStyle: "full", timeStyle: "long" });

const SECOND = 1_000;
const MINUTE = 60 * SECOND;
const HOUR = 60 * MINUTE;
export const DAY_MS = 24 * HOUR;

/** A moment: the clock for today, with the day for others. @param at milliseconds since the epoch */
export function moment(at: number): HTMLTimeElement {
  const date = new Date(at);
  const written = element("time", { dateTime: date.toISOString(), title: FULL.format(date) });
  written.textContent = momentText(at);
  return written;
}

export function momentText(at: number): string {
  const [date, now] = [new Date(at), new Date()];
  if (date.toDateString() === now.toDateString()) return CLOCK.format(date);
  const day = date.getFullYear() === now.getFullYear() ? DAY : DAY_OF_YEAR;
  return `${day.format(date)}, ${CLOCK.format(date)}`;
}

/** A moment as short as an axis wants it: the minute, or at midnight the day. */
export function tickText(at: number): string {
  const date = new Date(at);
  return date.getHours() === 0 && date.getMinutes() === 0 ? DAY.format(date) : SHORT_CLOCK.format(date);
}

/** A number, its thousands apart. */
export function grouped(value: number): string {
  return value.toLocaleString(LOCALE);
}

/** A duration in the two units that matter. @param ms milliseconds */
export function lasting(ms: number): string {
  const whole = Math.max(0, ms);
  if (whole < SECOND) return `${Math.round(whole)} ms`;
  if (whole < 10 * SECOND) return `${(whole / SECOND).toFixed(1)} s`;
  if (whole < MINUTE) return `${Math.round(whole / SECOND)} s`;
  if (whole < HOUR) return `${Math.round(whole / MINUTE)} min`;
  if (whole < 2 * DAY_MS) {
    const minutes = Math.floor((whole % HOUR) / MINUTE);
    return `${Math.floor(whole / HOUR)} h${minutes > 0 ? ` ${minutes} min` : ""}`;
  }
  return `${Math.floor(whole / DAY_MS)} days`;
}

/** How long ago, or how long until. @param at milliseconds since the epoch */
export function distance(at: number, now: number = Date.now()): string {
  if (Math.abs(now - at) < 5 * SECOND) return "now";
  return at < now ? `${lasting(now - at)} ago` : `in ${lasting(at - now)}`;
}

/** On one line. */
export function unbroken(text: string): string {
  return text.replaceAll(" ", "\u00a0");
}

/** `1 socket`, `2 sockets`, `no sockets`. */
export function counted(count: number, noun: string): string {
  return `${count === 0 ? "no" : grouped(count)} ${noun}${count === 1 ? "" : "s"}`;
}

/** A name that a machine made: in its own type, whole, broken where it must. */
export function code(text: string): HTMLElement {
  return element("code", { textContent: text });
}

/** The telling end of a name that a machine made, the whole of it on pointing. */
export function short(text: string): HTMLElement {
  const tail = text.split(".").at(-1) ?? text;
  const shown = tail.length > 14 ? `${tail.slice(0, 12)}…` : tail;
  return element("code", { textContent: shown, title: text, className: "short" });
}

/** A state as a word with a colour; the word alone says it too. */
export function chip(text: string, tone: "good" | "warn" | "bad" | "plain"): HTMLElement {
  return element("span", { className: `chip ${tone}`, textContent: text });
}

const STATES: Record<Receipt["state"], readonly [text: string, tone: "good" | "warn" | "bad"]> = {
  pending: ["pending", "warn"],
  delivered: ["delivered", "warn"],
  enforced: ["enforced", "good"],
  no_clusters: ["no clusters", "bad"],
};

export function stateChip(state: string): HTMLElement {
  const [text, tone] = STATES[state as Receipt["state"]] ?? [state, "warn"];
  return chip(text, tone);
}

/** Whom a revocation hits, in words. */
export function targetText(target: Receipt["target"]): string {
  switch (target?.kind) {
    case "user":
    case "subject":
      return `person ${target.sub ?? ""}`;
    case "session":
      return `one session of ${personIn(target) ?? "somebody"}`;
    case "tenant":
      return `tenant ${target.tid ?? ""}`;
    case "token":
      return "one access token";
    case "key":
      return `signing key ${target.kid ?? ""}`;
    case "everyone":
      return "everyone";
    default:
      return "several people";
  }
}

/** The person that a revocation is about, where it is about one. */
export function personIn(target: Receipt["target"]): string | undefined {
  return target?.sub ?? target?.sid?.slice(0, target.sid.lastIndexOf("."));
}

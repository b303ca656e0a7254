/**
 * Text for a terminal. A string that comes from anywhere else than these sources may hold escape sequences that colour, move, hide
 * or retitle; so it is made harmless on its way into a `Text`, and nothing but a `Text` has styles. What is printed is a `Text` or
 * a string, never an escape sequence that somebody else wrote.
 */

type Style = "bold" | "dim" | "red" | "green" | "yellow" | "cyan";

interface Span {
  readonly text: string;
  readonly styles: readonly Style[];
}

const CODES: Readonly<Record<Style, readonly [on: number, off: number]>> = {
  bold: [1, 22],
  dim: [2, 22],
  red: [31, 39],
  green: [32, 39],
  yellow: [33, 39],
  cyan: [36, 39],
};

/** What a line cannot hold: ends of lines and tabs. */
const BREAKS = /[\t\n\v\f\r\u0085\u2028\u2029]+/g;
/** C0 and C1 controls, and what reorders or hides what stands around it. */
// biome-ignore lint/suspicious/noControlCharactersInRegex: they are what it looks for
const UNSAFE = /[\u0000-\u001f\u007f-\u009f\u00ad\u061c\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff\ufff9-\ufffb]/g;
const SURROGATES = /\p{Surrogate}/gu;
const WIDE =
  /\p{Emoji_Presentation}|[\u1100-\u115f\u2e80-\u303e\u3041-\ua4cf\ua960-\ua97c\uac00-\ud7a3\uf900-\ufaff\ufe30-\ufe6f\uff00-\uff60\uffe0-\uffe6]|[\u{20000}-\u{3fffd}]/u;
const MARKS = /^\p{M}+$/u;

export class Text {
  readonly #spans: readonly Span[];

  private constructor(spans: readonly Span[]) {
    this.#spans = spans;
  }

  /** A string from anywhere, on one line. */
  static of(value: string | number | Text): Text {
    if (value instanceof Text) return value;
    return new Text([{ text: harmless(String(value)), styles: [] }]);
  }

  static join(parts: readonly (string | number | Text)[], between: string | Text = ""): Text {
    const spans = parts.flatMap((part, index) => [
      ...(index === 0 ? [] : Text.of(between).#spans),
      ...Text.of(part).#spans,
    ]);
    return new Text(spans);
  }

  styled(style: Style): Text {
    return new Text(this.#spans.map(({ text, styles }) => ({ text, styles: [...styles, style] })));
  }

  /** In columns. */
  get width(): number {
    return this.#spans.reduce((sum, { text }) => sum + widthOf(text), 0);
  }

  padded(width: number, side: "left" | "right" = "right"): Text {
    const blanks = " ".repeat(Math.max(0, width - this.width));
    return Text.join(side === "right" ? [this, blanks] : [blanks, this]);
  }

  /** Cut off where it is longer than so many columns. */
  cut(width: number): Text {
    if (this.width <= width) return this;
    const spans: Span[] = [];
    let left = Math.max(0, width - 1);
    for (const { text, styles } of this.#spans) {
      const kept = fitting(text, left);
      spans.push({ text: kept, styles });
      left -= widthOf(kept);
      if (kept !== text) break;
    }
    return new Text([...spans, { text: "…", styles: [] }]);
  }

  rendered(colour: boolean): string {
    if (!colour) return this.#spans.map(({ text }) => text).join("");
    return this.#spans.map(({ text, styles }) => styles.reduce(wrapped, text)).join("");
  }

  toString(): string {
    return this.rendered(false);
  }
}

/** A line of fixed words around whatever is put in. */
export function t(words: TemplateStringsArray, ...values: readonly (string | number | Text)[]): Text {
  return Text.join(words.flatMap((word, index) => [word, ...(index < values.length ? [values[index] ?? ""] : [])]));
}

export const bold = (value: string | number | Text) => Text.of(value).styled("bold");
export const dim = (value: string | number | Text) => Text.of(value).styled("dim");
export const red = (value: string | number | Text) => Text.of(value).styled("red");
export const green = (value: string | number | Text) => Text.of(value).styled("green");
export const yellow = (value: string | number | Text) => Text.of(value).styled("yellow");
export const cyan = (value: string | number | Text) => Text.of(value).styled("cyan");

/** JSON that a terminal shows as it is: every character that is not printable is written as its escape. Nothing is lost by it. */
export function plainJson(value: unknown, indent?: number): string {
  return JSON.stringify(value, null, indent).replace(UNSAFE, (character) =>
    character === "\n" ? character : `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`,
  );
}

/** `1 socket`, `2 sockets`. */
export function counted(count: number, what: string, many = `${what}s`): string {
  return `${count.toLocaleString("en")} ${count === 1 ? what : many}`;
}

function harmless(value: string): string {
  return value.replace(BREAKS, " ").replace(UNSAFE, "\ufffd").replace(SURROGATES, "\ufffd");
}

function wrapped(text: string, style: Style): string {
  const [on, off] = CODES[style];
  return text === "" ? text : `\u001b[${on}m${text}\u001b[${off}m`;
}

const graphemes = new Intl.Segmenter("en", { granularity: "grapheme" });

function widthOf(text: string): number {
  let width = 0;
  for (const { segment } of graphemes.segment(text)) width += columnsOf(segment);
  return width;
}

function columnsOf(grapheme: string): number {
  if (MARKS.test(grapheme)) return 0;
  return WIDE.test(grapheme) ? 2 : 1;
}

function fitting(text: string, width: number): string {
  let [kept, left] = ["", width];
  for (const { segment } of graphemes.segment(text)) {
    left -= columnsOf(segment);
    if (left < 0) return kept;
    kept += segment;
  }
  return kept;
}

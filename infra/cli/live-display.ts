/** Lines at the foot of a terminal that are drawn anew in place, and stay as they were last. */
import type { Foot, Output } from "./output.ts";
import { Text } from "./text.ts";

const CURSOR_OFF = "\u001b[?25l";
const CURSOR_ON = "\u001b[?25h";
const CLEAR_BELOW = "\u001b[J";

export class LiveDisplay implements Foot {
  readonly #output: Output;
  #shown: readonly Text[] = [];
  /** Of those, which stand on the screen now. */
  #standing: readonly Text[] = [];

  constructor(output: Output) {
    this.#output = output;
    output.foot = this;
  }

  /** Shows these lines in place of those before. What does not fit on the screen is left out, from the middle. */
  show(lines: readonly (string | Text)[]): void {
    const { columns, rows } = this.#output;
    this.#shown = withinRows(lines.map(Text.of), rows - 1).map((line) => line.cut(columns - 1));
    this.#output.draw(CURSOR_OFF + this.#back(), this.#shown, "");
    this.#standing = this.#shown;
  }

  lift(): void {
    this.#output.draw(this.#back(), [], "");
    this.#standing = [];
  }

  putBack(): void {
    this.#output.draw("", this.#shown, "");
    this.#standing = this.#shown;
  }

  /** Leaves these lines standing, and gives the cursor back. */
  end(lines: readonly (string | Text)[]): void {
    this.#output.foot = undefined;
    this.#output.draw(this.#back(), lines.map(Text.of), CURSOR_ON);
    this.#standing = [];
  }

  /** To the first line that stands. One that a narrower window has broken takes more than one row. */
  #back(): string {
    const { columns } = this.#output;
    const height = this.#standing.reduce((sum, line) => sum + Math.max(1, Math.ceil(line.width / columns)), 0);
    return height === 0 ? "" : `\u001b[${height}A\r${CLEAR_BELOW}`;
  }
}

function withinRows(lines: readonly Text[], rows: number): readonly Text[] {
  if (lines.length <= rows) return lines;
  const tail = 2;
  const head = Math.max(0, rows - tail - 1);
  const left = lines.length - head - tail;
  return [...lines.slice(0, head), Text.of(`  … ${left} more lines`).styled("dim"), ...lines.slice(-tail)];
}

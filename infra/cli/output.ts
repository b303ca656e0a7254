/**
 * What the command says: results on standard output, everything about the work itself on standard error, so that a pipe gets the
 * result alone. Colour and redrawing only where a person looks on.
 */
import { plainJson, Text } from "./text.ts";

export interface OutputOptions {
  readonly stdout: NodeJS.WriteStream;
  readonly stderr: NodeJS.WriteStream;
  readonly env: Readonly<Record<string, string | undefined>>;
}

/** One row of a table; a string is as harmless as a `Text`. */
export type Row = readonly (string | number | Text)[];

const DEFAULT_COLUMNS = 80;
const DEFAULT_ROWS = 24;

/** Lines that stay the last ones. */
export interface Foot {
  lift(): void;
  putBack(): void;
}

export class Output {
  readonly #stdout: NodeJS.WriteStream;
  readonly #stderr: NodeJS.WriteStream;
  readonly #noColour: boolean;
  #foot: Foot | undefined;

  constructor({ stdout, stderr, env }: OutputOptions) {
    this.#stdout = stdout;
    this.#stderr = stderr;
    this.#noColour = (env.NO_COLOR ?? "") !== "" || env.TERM === "dumb";
    // Whoever reads may stop reading, as `head` does: that is no failure of ours.
    for (const stream of [stdout, stderr]) stream.on("error", () => {});
  }

  /** Whether a person looks at the result, and not another program. */
  get isTerminal(): boolean {
    return this.#stdout.isTTY === true;
  }

  get columns(): number {
    return this.#stdout.columns || DEFAULT_COLUMNS;
  }

  get rows(): number {
    return this.#stdout.rows || DEFAULT_ROWS;
  }

  line(value: string | Text = ""): void {
    this.#write(this.#stdout, value);
  }

  lines(values: readonly (string | Text)[]): void {
    for (const value of values) this.line(value);
  }

  /** About the work, not its result. */
  note(value: string | Text = ""): void {
    this.#write(this.#stderr, value);
  }

  /** One value, for programs. */
  json(value: unknown): void {
    this.#stdout.write(`${plainJson(value, this.isTerminal ? 2 : undefined)}\n`);
  }

  /** One of many values, one a line. */
  jsonLine(value: unknown): void {
    this.#stdout.write(`${plainJson(value)}\n`);
  }

  jsonNote(value: unknown): void {
    this.#stderr.write(`${plainJson(value)}\n`);
  }

  /** Columns as wide as what stands in them. The last one is cut at the edge of a terminal. */
  table(head: Row, rows: readonly Row[]): void {
    const limit = this.isTerminal ? this.columns : Number.POSITIVE_INFINITY;
    const titles = head.map((title) => Text.of(title).styled("dim"));
    for (const line of aligned([titles, ...rows])) this.line(line.cut(limit));
  }

  /** What stands at the foot of the terminal: put aside while anything else is said. */
  set foot(foot: Foot | undefined) {
    this.#foot = foot;
  }

  /** At the foot: lines between escape sequences of ours, that move and clear. */
  draw(before: string, lines: readonly Text[], after: string): void {
    const text = lines.map((line) => `${line.rendered(!this.#noColour)}\n`).join("");
    this.#stdout.write(before + text + after);
  }

  #write(stream: NodeJS.WriteStream, value: string | Text): void {
    this.#foot?.lift();
    stream.write(`${Text.of(value).rendered(stream.isTTY === true && !this.#noColour)}\n`);
    this.#foot?.putBack();
  }
}

/** Rows as lines, their columns two blanks apart. */
export function aligned(rows: readonly Row[]): Text[] {
  const widths: number[] = [];
  for (const row of rows) {
    row.forEach((cell, column) => {
      widths[column] = Math.max(widths[column] ?? 0, Text.of(cell).width);
    });
  }
  return rows.map((row) => {
    const cells = row.map((cell, column) => {
      const last = column === row.length - 1;
      return last
        ? Text.of(cell)
        : Text.of(cell).padded(widths[column] ?? 0, typeof cell === "number" ? "left" : "right");
    });
    return Text.join(cells, "  ");
  });
}

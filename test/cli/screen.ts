/**
 * What somebody sees after a terminal has printed all of this: the little of ECMA-48 that the command line uses. Anything else
 * that moves, clears or retitles is an error, so that no escape sequence of somebody else goes unnoticed.
 */

// biome-ignore lint/suspicious/noControlCharactersInRegex: a terminal's escape sequences
const PIECE = /\u001b\[([?0-9;]*)([A-Za-z])|\r|\n|[^\u0000-\u001f\u007f-\u009f]+|./gsu;

/** Lines as they stand, blanks at their ends cut off. @throws {Error} for a sequence that the command line does not use */
export function screenOf(output: string): string[] {
  const lines: string[] = [""];
  let [row, column] = [0, 0];
  for (const [piece, parameters, final] of output.matchAll(PIECE)) {
    if (piece === "\r") column = 0;
    else if (piece === "\n") {
      row += 1;
      lines[row] ??= "";
    } else if (final === "A") row = Math.max(0, row - Number(parameters || 1));
    else if (final === "J" && (parameters === "" || parameters === "0")) {
      lines.length = row + 1;
      lines[row] = (lines[row] ?? "").slice(0, column);
    } else if (final === "m" || (parameters === "?25" && (final === "l" || final === "h"))) continue;
    else if (isPrintable(piece)) {
      const before = (lines[row] ?? "").padEnd(column);
      lines[row] = before.slice(0, column) + piece + before.slice(column + piece.length);
      column += piece.length;
    } else if (final === "G" || final === "K" || final === "D" || final === "C")
      continue; // of readline, on the line that is asked at
    else throw new Error(`The terminal was sent ${JSON.stringify(piece)}.`);
  }
  return lines.map((line) => line.trimEnd());
}

function isPrintable(piece: string): boolean {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what it looks for
  return !/[\u0000-\u001f\u007f-\u009f]/.test(piece);
}

/** Tables that stay usable on a phone, where each row becomes a card, and whose rows stay where they are when they are read again. */
import { type Content, element, keep, refill } from "./dom.ts";

export interface Column<T> {
  readonly name: string;
  cell(row: T): Content | readonly Content[];
  /** Right-aligned. */
  readonly isNumber?: boolean;
  /** What names the row, and heads its card. */
  readonly isHead?: boolean;
}

export interface Table<T> {
  readonly element: HTMLElement;
  show(rows: readonly T[]): void;
}

/**
 * A table of columns, without rows.
 *
 * @param label what the table is of
 * @param empty what is said where it has no rows
 * @param className how its columns are laid out
 */
export function table<T>(
  label: string,
  columns: readonly Column<T>[],
  keyOf: (row: T) => string,
  empty: string,
  className = "",
): Table<T> {
  const body = element("tbody");
  const head = columns.map(({ name, isNumber }) =>
    element("th", { scope: "col", className: isNumber ? "number" : "" }, name === "" ? hidden("Actions") : name),
  );
  const whole = element(
    "table",
    { className: `cards ${className}` },
    element("caption", { className: "out", textContent: label }),
    element("thead", {}, element("tr", {}, ...head)),
    body,
  );
  const nothing = element("div", { className: "empty" }, empty);
  const container = element("div", { className: "table-place" }, whole, nothing);
  return {
    element: container,
    show(rows) {
      whole.hidden = rows.length === 0;
      nothing.hidden = rows.length > 0;
      keep(
        body,
        rows,
        keyOf,
        () => rowOf(columns),
        (row, value) => update(row, columns, value),
      );
    },
  };
}

function rowOf<T>(columns: readonly Column<T>[]): HTMLTableRowElement {
  const cells = columns.map(({ name, isHead, isNumber }) => {
    // On a phone the cell is its name and, as one, what it holds.
    const cell = element(isHead ? "th" : "td", { className: isNumber ? "number" : "" }, element("div"));
    if (isHead) cell.setAttribute("scope", "row");
    if (name !== "") cell.setAttribute("data-label", name);
    return cell;
  });
  return element("tr", {}, ...cells);
}

function update<T>(row: HTMLTableRowElement, columns: readonly Column<T>[], value: T): void {
  for (const [index, column] of columns.entries()) {
    const cell = row.cells[index]?.firstElementChild;
    const content = column.cell(value);
    if (cell) refill(cell, ...(Array.isArray(content) ? (content as readonly Content[]) : [content as Content]));
  }
}

function hidden(text: string): HTMLElement {
  return element("span", { className: "out", textContent: text });
}

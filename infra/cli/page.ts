/** One page of a list: a table for people, a value a line for programs, and how to go on. */
import type { Invocation } from "./invocation.ts";
import type { Row } from "./output.ts";
import { dim, t } from "./text.ts";

export interface Page<T> {
  readonly items: readonly T[];
  /** Where the next page begins. */
  readonly next: string | undefined;
  readonly head: Row;
  readonly row: (item: T) => Row;
  /** Said where there is nothing. */
  readonly empty: string;
}

export function printPage<T>({ output, json }: Invocation, { items, next, head, row, empty }: Page<T>): void {
  if (json) {
    for (const item of items) output.jsonLine(item);
    if (next !== undefined) output.jsonNote({ next });
    return;
  }
  if (items.length > 0) output.table(head, items.map(row));
  else if (next === undefined) output.line(empty);
  if (next !== undefined) output.note(dim(t`There are more: --after ${next}`));
}

/** How a number went while somebody looked: a small line beside its words, which say the same. */
import { drawn, element, fill } from "./dom.ts";
import { grouped, lasting } from "./wording.ts";

const WIDTH = 160;
const HEIGHT = 28;
/** Room for the thickness of the line. */
const EDGE = 2;
/** An hour, if it is read every five seconds. */
const KEPT = 720;

export interface Spark {
  readonly element: HTMLElement;
  /** @param at milliseconds since the epoch */
  add(at: number, value: number): void;
}

/** @param noun what is counted, in the plural */
export function spark(noun: string): Spark {
  const seen: { readonly at: number; readonly value: number }[] = [];
  const line = drawn("polyline", { class: "spark-line" });
  const drawing = drawn("svg", { width: WIDTH, height: HEIGHT, "aria-hidden": "true" }, line);
  const words = element("figcaption", { className: "muted small" });
  return {
    element: element("figure", { className: "spark" }, drawing, words),
    add(at, value) {
      seen.push({ at, value });
      if (seen.length > KEPT) seen.shift();
      const [first = at, values] = [seen[0]?.at, seen.map((each) => each.value)];
      const [least, most] = [Math.min(...values), Math.max(...values)];
      const x = (each: number) => EDGE + ((each - first) / Math.max(1, at - first)) * (WIDTH - 2 * EDGE);
      const y = (each: number) => HEIGHT - EDGE - ((each - least) / Math.max(1, most - least)) * (HEIGHT - 2 * EDGE);
      line.setAttribute("points", seen.map((each) => `${x(each.at)},${y(each.value)}`).join(" "));
      drawing.toggleAttribute("hidden", least === most);
      fill(
        words,
        `${grouped(value)} ${noun}`,
        seen.length > 1 && `, ${range(least, most)} in the last ${lasting(at - first)}`,
      );
    },
  };
}

function range(least: number, most: number): string {
  return least === most ? "unchanged" : `between ${grouped(least)} and ${grouped(most)}`;
}

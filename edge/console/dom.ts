/**
 * Elements out of code. Text only ever becomes text: nothing here, and nothing in the console, parses markup, so that a login name
 * or a device that somebody chose cannot become more than its letters. The page's policy (Trusted Types) holds everybody to it.
 */

/** What stands in an element; `false` and undefined leave nothing. */
export type Content = Node | string | number | false | undefined;

/** What code may set: neither what turns text into markup nor what the policy forbids. A form has an index signature: names only. */
type Member<P> = string extends P
  ? never
  : number extends P
    ? never
    : P extends "innerHTML" | "outerHTML" | "style" | "attributes" | "children" | "dataset"
      ? never
      : P;
type Properties<E> = { readonly [P in keyof E as Member<P>]?: E[P] } & {
  /** What has no property: `aria-*`, `for`, `data-*`. */
  readonly attributes?: Readonly<Record<string, string | undefined>>;
};

/** An element with properties and content. */
export function element<K extends keyof HTMLElementTagNameMap>(
  name: K,
  properties: Properties<HTMLElementTagNameMap[K]> = {},
  ...content: readonly Content[]
): HTMLElementTagNameMap[K] {
  const { attributes = {}, ...rest } = properties;
  const made = Object.assign(document.createElement(name), rest);
  setAttributes(made, attributes);
  made.append(...nodes(content));
  return made;
}

const SVG = "http://www.w3.org/2000/svg";

/** An element of a drawing. */
export function drawn<K extends keyof SVGElementTagNameMap>(
  name: K,
  attributes: Readonly<Record<string, string | number | undefined>> = {},
  ...content: readonly Content[]
): SVGElementTagNameMap[K] {
  const made = document.createElementNS(SVG, name);
  setAttributes(made, attributes);
  made.append(...nodes(content));
  return made;
}

/** Puts this content in place of what an element holds. */
export function fill(parent: Element, ...content: readonly Content[]): void {
  parent.replaceChildren(...nodes(content));
}

/** As {@link fill}, but what is the same as before stays, so that it keeps the focus, and what was unfolded stays so. */
export function refill(parent: Element, ...content: readonly Content[]): void {
  const fresh = document.createElement("div");
  fresh.append(...nodes(content));
  const [before, after] = [[...parent.childNodes], [...fresh.childNodes]];
  if (before.length !== after.length) parent.replaceChildren(...after);
  for (const [index, old] of before.entries()) {
    const node = after[index];
    if (node !== undefined && node.parentNode === fresh && !old.isEqualNode(node)) old.replaceWith(node);
  }
}

/**
 * Makes the children of an element those of `items`, and keeps the children that stay, so that a button that has the focus has it
 * still when the list was read again.
 *
 * @param make an element for an item that was not there
 * @param update makes an element show an item, new ones as well
 */
export function keep<T, E extends Element>(
  parent: Element,
  items: readonly T[],
  keyOf: (item: T) => string,
  make: (item: T) => E,
  update: (element: E, item: T) => void = () => {},
): void {
  const known = keptOf(parent) as Map<string, E>;
  const wanted = new Map(items.map((item) => [keyOf(item), item]));
  for (const [key, child] of known) {
    if (wanted.has(key)) continue;
    child.remove();
    known.delete(key);
  }
  let place: Element | null = parent.firstElementChild;
  for (const [key, item] of wanted) {
    const child = known.get(key) ?? make(item);
    known.set(key, child);
    update(child, item);
    // Only what is out of place is moved: moving takes the focus away.
    if (child === place) place = child.nextElementSibling;
    else parent.insertBefore(child, place);
  }
}

const kept = new WeakMap<Element, Map<string, Element>>();

function keptOf(parent: Element): Map<string, Element> {
  const known = kept.get(parent) ?? new Map<string, Element>();
  kept.set(parent, known);
  return known;
}

function nodes(content: readonly Content[]): (Node | string)[] {
  return content.flatMap((each) =>
    each === undefined || each === false ? [] : [typeof each === "number" ? String(each) : each],
  );
}

function setAttributes(made: Element, attributes: Readonly<Record<string, string | number | undefined>>): void {
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== undefined) made.setAttribute(name, String(value));
  }
}

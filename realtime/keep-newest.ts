/**
 * Bounds what is remembered, oldest out first. Not one at a time: a map keeps the places of its first entries when they are deleted, and looks
 * through all of those for the one that is first now.
 */

/** How many more than it may keep it is left with, as a share of them, until it is cut back. */
const SLACK = 0.1;

/** @param collection remembers in the order of adding, and at most a tenth more than `atMost` from here on */
export function keepNewest<Key>(
  collection: { readonly size: number; keys(): Iterable<Key>; delete(key: Key): boolean },
  atMost: number,
): void {
  if (collection.size <= atMost * (1 + SLACK)) return;
  for (const key of collection.keys()) {
    if (collection.size <= atMost) return;
    collection.delete(key);
  }
}

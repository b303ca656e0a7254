/** Waiting for a condition, never for a time. */
const POLL_MS = 5;

export interface UntilOptions {
  readonly withinMs?: number;
  readonly signal?: AbortSignal | undefined;
}

/**
 * Resolves as soon as the condition gives something other than false, undefined or null, with what it gave.
 *
 * @throws {Error} that names what was waited for, when the deadline has passed
 */
export async function until<T>(
  what: string,
  condition: () => T | Promise<T>,
  { withinMs = 30_000, signal }: UntilOptions = {},
): Promise<NonNullable<Exclude<T, false>>> {
  const deadline = performance.now() + withinMs;
  for (;;) {
    signal?.throwIfAborted();
    const outcome = await condition();
    if (outcome !== false && outcome !== undefined && outcome !== null) {
      return outcome as NonNullable<Exclude<T, false>>;
    }
    if (performance.now() > deadline) throw new Error(`Waited ${withinMs} ms in vain until ${what}.`);
    await new Promise((resolve) => setTimeout(resolve, POLL_MS));
  }
}

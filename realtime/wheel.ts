/** Hands over what is due in the second in which it is due, by the wall clock: one timer however many wait. */
export class SecondWheel<T> {
  readonly #bySecond = new Map<number, Set<T>>();
  readonly #onDue: (due: ReadonlySet<T>) => void;
  #timer: NodeJS.Timeout | undefined;

  constructor(onDue: (due: ReadonlySet<T>) => void) {
    this.#onDue = onDue;
    this.#arm();
  }

  /** @param second since the epoch; one that is past is due at the next turn */
  add(second: number, item: T): void {
    const waiting = this.#bySecond.get(second);
    if (waiting === undefined) this.#bySecond.set(second, new Set([item]));
    else waiting.add(item);
  }

  remove(second: number, item: T): void {
    const waiting = this.#bySecond.get(second);
    if (waiting?.delete(item) && waiting.size === 0) this.#bySecond.delete(second);
  }

  stop(): void {
    clearTimeout(this.#timer);
  }

  #arm(): void {
    // Just past the next whole second, since whole seconds are what `exp` speaks of.
    this.#timer = setTimeout(() => this.#turn(), 1000 - (Date.now() % 1000) + 1);
    this.#timer.unref();
  }

  /** Looks at every second that something waits in, so that one the machine slept through is not missed. */
  #turn(): void {
    const now = Math.floor(Date.now() / 1000);
    for (const [second, due] of this.#bySecond) {
      if (second > now) continue;
      this.#bySecond.delete(second);
      this.#onDue(due);
    }
    this.#arm();
  }
}

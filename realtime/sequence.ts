/** Which numbers of an edge's log are known, so that a hole shows. */
export class Sequence {
  #through = 0;
  /** Known beyond a hole. */
  readonly #beyond = new Set<number>();

  /** Everything up to here is known, or need not be. */
  get through(): number {
    return this.#through;
  }

  /** Whether something is known beyond something that is not. */
  get hasGap(): boolean {
    return this.#beyond.size > 0;
  }

  has(number: number): boolean {
    return number <= this.#through || this.#beyond.has(number);
  }

  add(number: number): void {
    if (number <= this.#through) return;
    if (number === this.#through + 1) this.#through = number;
    else this.#beyond.add(number);
    this.#closeUp();
    // Forgetting one only means to be told it again.
    if (this.#beyond.size > BEYOND_LIMIT) this.#beyond.clear();
  }

  /** What lies before need not be known. */
  advance(through: number): void {
    if (through <= this.#through) return;
    this.#through = through;
    for (const number of this.#beyond) if (number <= through) this.#beyond.delete(number);
    this.#closeUp();
  }

  /** The log is another one, which ends here. */
  restart(through: number): void {
    this.#through = through;
    this.#beyond.clear();
  }

  #closeUp(): void {
    while (this.#beyond.delete(this.#through + 1)) this.#through += 1;
  }
}

const BEYOND_LIMIT = 1_000_000;

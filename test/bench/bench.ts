/** What every benchmark gives back: its figures as data, how to show them at a terminal, and what the README says of them. */

/** A row of README's table of results. */
export interface Row {
  /** What was measured, and beside what. */
  readonly work: string;
  readonly goal: string;
  readonly measured: string;
  readonly met: boolean;
  /** What stands in the way, where it is not. */
  readonly because?: string;
}

export interface Outcome {
  /** Everything that was measured, as `--json` prints it. */
  readonly result: object;
  readonly rows: readonly Row[];
  print(): void;
}

export interface Bench {
  readonly about: string;
  /** @param tell called with how far it has come, a line each */
  run(tell: (text: string) => void): Promise<Outcome>;
}

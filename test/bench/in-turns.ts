/** Several things measured side by side in one run: in turns, and in the opposite order every other round, so that none is always first. */
export interface Turns {
  readonly rounds: number;
  /** Rounds before those, which are thrown away. */
  readonly warmUpRounds: number;
}

/** What one gave, and what the base gave right beside it. */
export interface Beside<Sample> {
  readonly sample: Sample;
  readonly base: Sample;
}

interface BesideBase<Name, Sample> {
  measure(name: Name): Promise<Sample>;
  measureBase(name: Name): Promise<Sample>;
  /** @param round below 0 while it warms up */
  onRound(round: number): void;
}

/**
 * Each beside the base, A B B A A B B A, for figures that are compared more closely than the machine is steady. The first pair of such a row is thrown away:
 * whoever has rested while others were measured needs a while. Which of them begins a round moves on by one each time.
 *
 * @param pairs how many of a row count
 * @returns what each gave, in the order in which it did
 */
export async function besideBase<Name extends string, Sample>(
  names: readonly Name[],
  { rounds, warmUpRounds, pairs }: Turns & { readonly pairs: number },
  { measure, measureBase, onRound }: BesideBase<Name, Sample>,
): Promise<Readonly<Record<Name, readonly Beside<Sample>[]>>> {
  const all = Object.fromEntries(names.map((name) => [name, [] as Beside<Sample>[]])) as Record<Name, Beside<Sample>[]>;
  for (let round = -warmUpRounds; round < rounds; round++) {
    onRound(round);
    const first = (round + warmUpRounds) % names.length;
    for (const name of [...names.slice(first), ...names.slice(0, first)]) {
      for (let pair = 0; pair <= pairs; pair++) {
        const before = pair % 2 === 0 ? await measureBase(name) : undefined;
        const sample = await measure(name);
        const base = before ?? (await measureBase(name));
        if (round >= 0 && pair > 0) all[name].push({ sample, base });
      }
    }
  }
  return all;
}

/** @returns what each gave, round by round, in the order of the rounds */
export async function inTurns<Name extends string, Sample>(
  names: readonly Name[],
  { rounds, warmUpRounds }: Turns,
  measure: (name: Name, round: number) => Promise<Sample>,
): Promise<Readonly<Record<Name, readonly Sample[]>>> {
  const samples = Object.fromEntries(names.map((name) => [name, [] as Sample[]])) as Record<Name, Sample[]>;
  for (let round = -warmUpRounds; round < rounds; round++) {
    for (const name of round % 2 === 0 ? names : names.toReversed()) {
      const sample = await measure(name, round);
      if (round >= 0) samples[name].push(sample);
    }
  }
  return samples;
}

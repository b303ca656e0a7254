/** Several things measured side by side in one run: in turns, and in the opposite order every other round, so that none is always first. */
export interface Turns {
  readonly rounds: number;
  /** Rounds before those, which are thrown away. */
  readonly warmUpRounds: number;
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

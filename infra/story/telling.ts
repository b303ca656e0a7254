/** How a story is told: steps, each with what was done, what was expected and what happened. */

/** One thing that was looked at after a step, and whether it was as it should be. */
export interface Fact {
  readonly holds: boolean;
  readonly text: string;
}

export interface StoryStep {
  readonly number: number;
  readonly title: string;
  readonly did: string;
  readonly expected: string;
  readonly happened: readonly Fact[];
  readonly held: boolean;
  readonly took_ms: number;
}

export interface StoryReport {
  /** Every step was told, and every step held. */
  readonly held: boolean;
  readonly took_ms: number;
  readonly steps: readonly StoryStep[];
}

/** A step could not be carried out, so that those after it would prove nothing. */
export class StoryBroken extends Error {
  override readonly name = "StoryBroken";
}

export class Telling {
  readonly #began = performance.now();
  readonly #steps: StoryStep[] = [];
  readonly #onStep: (step: StoryStep) => void;
  readonly #signal: AbortSignal | undefined;

  constructor(onStep: (step: StoryStep) => void, signal: AbortSignal | undefined) {
    this.#onStep = onStep;
    this.#signal = signal;
  }

  /** Carries a step out. One that does not hold is told and the story goes on; one that throws ends it. */
  async step(title: string, did: string, expected: string, act: () => Promise<readonly Fact[]>): Promise<void> {
    this.#signal?.throwIfAborted();
    const began = performance.now();
    const tell = (facts: readonly Fact[]) => {
      const step: StoryStep = {
        number: this.#steps.length + 1,
        title,
        did,
        expected,
        happened: facts,
        held: facts.every((fact) => fact.holds),
        took_ms: Math.round(performance.now() - began),
      };
      this.#steps.push(step);
      this.#onStep(step);
    };
    try {
      tell(await this.#unlessAborted(act()));
    } catch (error) {
      this.#signal?.throwIfAborted();
      tell([{ holds: false, text: error instanceof Error ? error.message : String(error) }]);
      throw new StoryBroken(`The story broke at "${title}".`, { cause: error });
    }
  }

  /** Rejects at once when the story is ended early; what is under way then is nobody's concern any more. */
  async #unlessAborted<T>(acting: Promise<T>): Promise<T> {
    const signal = this.#signal;
    if (signal === undefined) return acting;
    let abort = () => {};
    const aborted = new Promise<never>((_, reject) => {
      abort = () => reject(signal.reason);
      signal.addEventListener("abort", abort, { once: true });
    });
    try {
      return await Promise.race([acting, aborted]);
    } finally {
      signal.removeEventListener("abort", abort);
    }
  }

  report(complete: boolean): StoryReport {
    return {
      held: complete && this.#steps.every((step) => step.held),
      took_ms: Math.round(performance.now() - this.#began),
      steps: this.#steps,
    };
  }
}

/** What a check found, and how checks are run: each by itself, so that one that cannot be made keeps no other from being made. */
import { explain, Interrupted } from "../failure.ts";

export interface Finding {
  readonly check: string;
  /** What it was made of, where there are several: a cluster, an address. */
  readonly of?: string;
  readonly outcome: "pass" | "warn" | "fail";
  /** One sentence: what it means. */
  readonly says: string;
  /** One sentence: what to do. */
  readonly todo?: string | undefined;
  /** It could not be made here; `todo` says why. */
  readonly skipped?: true;
  /** Figures, for programs. */
  readonly measured?: Readonly<Record<string, unknown>>;
}

/** A finding whose check is named by whoever runs it. */
export type Result = Omit<Finding, "check">;

export interface Check<Site> {
  readonly name: string;
  /** Without it nothing else can be checked. */
  readonly vital?: true;
  /** Why it cannot be made here: it is then left out, and this is said. Undefined when it can. */
  without?(site: Site): string | undefined;
  run(site: Site): Promise<Result | readonly Result[]>;
}

export function pass(says: string, measured?: Finding["measured"]): Result {
  return { outcome: "pass", says, ...(measured && { measured }) };
}

export function warn(says: string, todo: string, measured?: Finding["measured"]): Result {
  return { outcome: "warn", says, todo, ...(measured && { measured }) };
}

export function fail(says: string, todo: string, measured?: Finding["measured"]): Result {
  return { outcome: "fail", says, todo, ...(measured && { measured }) };
}

/** It cannot be made here. @param obstacle what stands in the way */
export function skip(obstacle: string): Result {
  return { outcome: "warn", says: "Not checked.", todo: obstacle, skipped: true };
}

/** Makes the checks one after another, and tells what each found as soon as it is known. */
export async function* findings<Site>(checks: readonly Check<Site>[], site: Site): AsyncGenerator<Finding> {
  let lost: string | undefined;
  for (const check of checks) {
    const results = lost === undefined ? await resultsOf(check, site) : [skip(lost)];
    for (const result of results) {
      yield { check: check.name, ...result };
      if (check.vital && result.outcome === "fail") lost = `Without the ${check.name} nothing more can be seen.`;
    }
  }
}

async function resultsOf<Site>(check: Check<Site>, site: Site): Promise<readonly Result[]> {
  const obstacle = check.without?.(site);
  if (obstacle !== undefined) return [skip(obstacle)];
  try {
    return [await check.run(site)].flat();
  } catch (error) {
    if (error instanceof Interrupted) throw error;
    const { message, hint } = explain(error, []);
    return [fail(message, hint ?? "See --verbose.")];
  }
}

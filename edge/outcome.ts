/**
 * How a Durable Object says no. A class does not survive the call between objects, so a refusal travels as plain data
 * and becomes a `Refusal` again at the caller. Anything else that is thrown is a fault, of the platform or of ours.
 */
import { Refusal, type RefusalCode } from "#contract/refusal";

export type Outcome<T> =
  | { readonly value: T }
  | {
      readonly refused: {
        readonly code: RefusalCode;
        readonly detail: string | undefined;
        readonly retryAfterSeconds: number | undefined;
      };
    };

/** In the object: runs `work` and turns a refusal into data. `work` runs up to its first `await` before this returns. */
export async function answer<T>(work: () => T | Promise<T>): Promise<Outcome<T>> {
  try {
    return { value: await work() };
  } catch (error) {
    if (!(error instanceof Refusal)) throw error;
    const { code, detail, retryAfterSeconds } = error;
    return { refused: { code, detail, retryAfterSeconds } };
  }
}

/**
 * At the caller: the value, or the refusal thrown.
 *
 * @throws {Refusal} whatever the object refused with; `unavailable` when the platform says that a retry may help
 */
export async function ask<T>(call: PromiseLike<Outcome<T>>): Promise<T> {
  const outcome = await reach(call);
  if ("value" in outcome) return outcome.value;
  const { code, ...options } = outcome.refused;
  throw new Refusal(code, options);
}

async function reach<T>(call: PromiseLike<T>): Promise<T> {
  try {
    return await call;
  } catch (error) {
    if (isPassing(error)) {
      throw new Refusal("unavailable", { cause: error, detail: "an object cannot be reached", retryAfterSeconds: 1 });
    }
    throw error;
  }
}

/** developers.cloudflare.com/durable-objects/best-practices/error-handling */
function isPassing(error: unknown): boolean {
  if (typeof error !== "object" || error === null) return false;
  return ("retryable" in error && error.retryable === true) || ("overloaded" in error && error.overloaded === true);
}

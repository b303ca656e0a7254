/** How the edge says no, and how the console says that it could not be asked. */
import type { Advice, RefusalCode } from "#contract/refusal";

/** RFC 9457, as the edge fills it in; see PROTOCOL, "Refusals". */
export interface Problem {
  readonly code: RefusalCode;
  readonly advice: Advice;
  readonly title: string;
  readonly status: number;
  /** Seconds. */
  readonly retry_after?: number;
  readonly errors?: readonly { readonly member: string; readonly problem: string }[];
}

/** The edge said no. */
export class Refused extends Error {
  override readonly name = "Refused";
  readonly problem: Problem;
  /** `X-Request-Id`: finds it in the edge's log. */
  readonly requestId: string | undefined;

  constructor(problem: Problem, requestId: string | undefined) {
    super(problem.title);
    this.problem = problem;
    this.requestId = requestId;
  }
}

/** No answer was had: no network, or nothing at its other end. Whether a call was carried out is not known. */
export class Unreachable extends Error {
  override readonly name = "Unreachable";

  constructor(cause: unknown) {
    super("The edge cannot be reached.", { cause });
  }
}

/** Whether trying once more can help without anybody changing anything. */
export function isPassing(error: unknown): boolean {
  return error instanceof Unreachable || (error instanceof Refused && /^(retry|wait)$/.test(error.problem.advice));
}

/** What whoever sees it can do, in a sentence. */
export function adviceOn(error: unknown): string {
  if (!(error instanceof Refused)) return "It is tried again as soon as the network is back.";
  const { code, advice, retry_after } = error.problem;
  if (code === "scope_insufficient")
    return "Your account lacks a scope for this, or it concerns more than your tenant.";
  if (code === "not_found") return "It is gone, never was, or belongs to another tenant.";
  switch (advice) {
    case "login":
      return "Sign in again.";
    case "refresh":
    case "retry":
      return "Nothing is wrong with what you asked. Try again in a moment.";
    case "wait":
      return `Wait ${retry_after ?? 60} seconds before you try again.`;
    case "fix":
      return "Change what you asked for, and try again.";
  }
}

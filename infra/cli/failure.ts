/** Why a command did not do what it was asked for: a sentence on what happened, one on what to do, and an exit code. */
import { REFUSALS } from "#contract/refusal";
import { EdgeMisunderstood, EdgeRefusal, EdgeUnreachable } from "../edge-failure.ts";

/** What a process ends with. Scripts build on these: `keycard help exit-codes`. */
export const EXIT = { ok: 0, failed: 1, usage: 2, pending: 3, interrupted: 130 } as const;
export type ExitCode = (typeof EXIT)[keyof typeof EXIT];

/** The command was called in a way that makes no sense. Nothing was done. */
export class UsageError extends Error {
  override readonly name = "UsageError";
  readonly hint: string | undefined;

  constructor(message: string, hint?: string) {
    super(message);
    this.hint = hint;
  }
}

/** It made sense, and could not be done. */
export class CommandFailed extends Error {
  override readonly name = "CommandFailed";
  readonly hint: string | undefined;

  constructor(message: string, hint?: string, options?: ErrorOptions) {
    super(message, options);
    this.hint = hint;
  }
}

/** Ctrl-C. */
export class Interrupted extends Error {
  override readonly name = "Interrupted";

  constructor() {
    super("Interrupted.");
  }
}

export interface Explanation {
  readonly exit: ExitCode;
  readonly message: string;
  readonly hint?: string | undefined;
  /** The refusal's code, where the edge refused. */
  readonly code?: string;
  readonly requestId?: string | undefined;
}

/** @param needs the scopes of the command that failed */
export function explain(error: unknown, needs: readonly string[]): Explanation {
  if (error instanceof UsageError) return { exit: EXIT.usage, message: error.message, hint: error.hint };
  if (error instanceof CommandFailed) return { exit: EXIT.failed, message: error.message, hint: error.hint };
  if (error instanceof Interrupted) return { exit: EXIT.interrupted, message: error.message };
  if (error instanceof EdgeRefusal) return refused(error, needs);
  if (error instanceof EdgeUnreachable) {
    const doubt = "It may have been carried out all the same: look before you repeat it.";
    const help = error.mayHaveHappened
      ? doubt
      : "Check the address and the network; `keycard profiles` shows what is asked.";
    return { exit: EXIT.failed, message: error.message, hint: help };
  }
  if (error instanceof EdgeMisunderstood) {
    const help = "Check the address. If it is an edge, this keycard may be too old for it.";
    return { exit: EXIT.failed, message: sentence(error.message), hint: help, requestId: error.requestId };
  }
  const what = error instanceof Error ? error.message : String(error);
  return { exit: EXIT.failed, message: sentence(`keycard itself failed: ${what}`), hint: "--verbose shows where." };
}

function refused(refusal: EdgeRefusal, needs: readonly string[]): Explanation {
  const { code, problems, requestId } = refusal;
  const said = refusal.sentence ?? REFUSALS[code].message;
  const where = problems.map(({ member, problem }) => `${member}: ${problem}`).join("; ");
  const message = `The edge refused (${code}): ${said}${where === "" ? "" : ` ${sentence(where)}`}`;
  return { exit: EXIT.failed, message, hint: hintFor(refusal, needs), code, requestId };
}

/** From the refusal table's advice, in the words of this command line. */
function hintFor({ code, advice, retryAfterSeconds }: EdgeRefusal, needs: readonly string[]): string {
  if (code === "scope_insufficient") {
    const scopes = needs.length === 0 ? "" : ` This needs ${needs.join(" and ")}.`;
    return `Your credential may not do this.${scopes} \`keycard whoami\` shows what it may.`;
  }
  if (code === "credentials_wrong") return "Check the login name and the password.";
  if (code === "client_invalid") return "Check the client id and its secret, and that the client is not disabled.";
  if (code === "not_found") return "Check the spelling; what is of another tenant is not shown either.";
  if (advice === "login" || advice === "refresh") {
    return "Your credential is not taken any more: `keycard login` takes a new one.";
  }
  if (advice === "wait") {
    return `Wait ${retryAfterSeconds === undefined ? "a moment" : `${retryAfterSeconds} s`} and repeat it.`;
  }
  if (advice === "retry") return "Repeat it in a moment; `keycard status` and `keycard doctor` show what is wrong.";
  return "Change what is asked and repeat it.";
}

function sentence(text: string): string {
  return /[.!?]$/.test(text) ? text : `${text}.`;
}

/**
 * Giving an order to revoke: counted first where it is asked for, confirmed where it hits many, and never given twice. The order
 * has a key of its own and is sent again with it when an answer is lost; what came of it is for `enforcement.ts` to watch.
 */
import { randomUUID } from "node:crypto";
import type { Rehearsal } from "../edge-answers.ts";
import type { NamedTarget, RevocationOrder } from "../edge-client.ts";
import { EdgeMisunderstood, EdgeRefusal, EdgeUnreachable } from "../edge-failure.ts";
import { awaitEnforcement, waitSeconds } from "./enforcement.ts";
import { CommandFailed, EXIT, type ExitCode, Interrupted, UsageError } from "./failure.ts";
import type { Invocation } from "./invocation.ts";
import { nobody } from "./person.ts";
import { targetText } from "./receipt-view.ts";
import { bold, counted, dim, type Text, t, yellow } from "./text.ts";
import { numberOf } from "./times.ts";

export interface OrderOptions {
  readonly reason?: string;
  readonly "dry-run"?: boolean;
  readonly wait?: string;
  readonly margin?: string;
  readonly yes?: boolean;
  readonly "idempotency-key"?: string;
}

const MAX_MARGIN_SECONDS = 300;
const IDEMPOTENCY_KEY = /^[\x21\x23-\x5b\x5d-\x7e]{1,128}$/;

/** @param word what has to be typed at a terminal before many are thrown out */
export async function revoke(
  invocation: Invocation,
  about: Pick<RevocationOrder, "target" | "except" | "issued_before">,
  options: OrderOptions,
  word?: string,
): Promise<ExitCode> {
  const seconds = waitSeconds(options.wait);
  const key = orderKey(options);
  const draft = { ...about, ...mannerOf(options.margin) };
  if (options["dry-run"]) {
    const edge = await invocation.edge();
    const rehearsed = await edge.rehearse({ ...draft, reason: options.reason ?? "dry run" });
    if (invocation.json) invocation.output.json(rehearsed);
    else invocation.output.lines(rehearsalLines(rehearsed));
    return EXIT.ok;
  }
  const unasked = word === undefined || options.yes === true;
  if (!unasked) demandSomebody(invocation);
  const order = { ...draft, reason: await reasonFor(invocation, options.reason) };
  if (!unasked) await confirm(invocation, order, word);
  const { edge, name } = await invocation.desk();
  const receipt = await givenOnce(invocation, key, () => edge.order(order, key)).catch((error: unknown) => {
    const unknown = error instanceof EdgeRefusal && error.code === "not_found";
    throw unknown && order.target.kind === "user" ? nobody(order.target) : error;
  });
  if (!invocation.json) {
    invocation.output.line(t`Revoking ${targetText(shown(about.target))} at ${name}  ${dim(receipt.id)}`);
    if (invocation.output.isTerminal) invocation.output.line();
  }
  return await awaitEnforcement(invocation, receipt, seconds);
}

/**
 * Sends an order until it is answered.
 *
 * @throws {CommandFailed} that says how to find out, when nobody knows what came of it
 */
export async function givenOnce<T>(invocation: Invocation, key: string, send: () => Promise<T>): Promise<T> {
  const hint = `Repeat the command with \`--idempotency-key ${key}\`: that finds out, and never revokes twice.`;
  try {
    return await send();
  } catch (error) {
    if (error instanceof Interrupted) invocation.output.note(`Whether it was decided is not known. ${hint}`);
    if (!isUncertain(error)) throw error;
    throw new CommandFailed(`${error.message} Whether it was decided is not known.`, hint, { cause: error });
  }
}

function isUncertain(error: unknown): error is Error {
  if (error instanceof EdgeUnreachable) return error.mayHaveHappened;
  if (error instanceof EdgeMisunderstood) return true;
  const stillBusy = error instanceof EdgeRefusal && error.code === "conflict";
  return stillBusy || (error instanceof EdgeRefusal && error.status >= 500);
}

/** What a rehearsal counted. */
function rehearsalLines({ target, sessions, sockets, clusters }: Rehearsal): Text[] {
  const ends = sessions === null ? "sessions that nobody counts" : counted(sessions, "session");
  const open = sockets === null ? "open sockets that could not all be counted" : counted(sockets, "open socket");
  return [
    t`${bold("Dry run")}: ${targetText(target)} has ${ends} and ${open}. Nothing was changed.`,
    ...clusters.map(({ cluster, sockets, sessions, silent }) => {
      if (sockets === null) return t`  ${yellow("!")} ${cluster}  could not be asked`;
      const unheard = silent.length > 0 ? yellow(t`  no answer from ${silent.join(", ")}`) : "";
      return t`    ${cluster}  ${counted(sockets, "open socket")} of ${counted(sessions ?? 0, "session")}${unheard}`;
    }),
  ];
}

/** Shows how many it is, and goes on for nothing but the very word. */
async function confirm(invocation: Invocation, order: RevocationOrder, word: string): Promise<void> {
  const { output, prompt } = invocation;
  const { edge, edgeUrl, name } = await invocation.desk();
  for (const line of rehearsalLines(await edge.rehearse(order))) output.note(line);
  output.note(t`This is ${bold(name)}, ${edgeUrl}.`);
  const typed = await prompt.ask(`Type ${word} to go on: `);
  if (typed !== word) throw new CommandFailed("Nothing was revoked: that was not the word.");
}

function demandSomebody({ prompt }: Invocation): void {
  if (prompt.isInteractive) return;
  throw new UsageError(
    "This can throw out many people, and nobody is here to be asked.",
    "Say --yes if it is meant; --dry-run shows how many it is.",
  );
}

/** @throws {UsageError} */
export function mannerOf(margin: string | undefined): Pick<RevocationOrder, "mode" | "margin"> {
  if (margin === undefined) return {};
  return { mode: "reauthenticate", margin: numberOf(margin, "--margin", 1, MAX_MARGIN_SECONDS) };
}

/** The key of an order: a new one, or that of the order that is taken up. @throws {UsageError} */
export function orderKey({ "idempotency-key": given }: OrderOptions): string {
  if (given === undefined) return randomUUID();
  if (IDEMPOTENCY_KEY.test(given)) return given;
  throw new UsageError(
    "--idempotency-key has characters that it cannot have.",
    "It is what the failed command showed.",
  );
}

/** A token is a credential: it is not shown. */
function shown(target: NamedTarget): { kind: string } {
  return "token" in target ? { kind: target.kind } : target;
}

/** @throws {UsageError} where a reason is neither given nor can be asked for */
export async function reasonFor({ prompt }: Invocation, given: string | undefined): Promise<string> {
  const reason = given ?? (prompt.isInteractive ? await prompt.ask("Reason, for the audit trail: ") : "");
  if (reason.trim() === "") {
    throw new UsageError("A reason is missing.", 'Say why, for the audit trail: --reason "laptop stolen".');
  }
  return reason.trim();
}

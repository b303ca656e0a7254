/** Many people thrown out by one order: given once, as any order, and watched until it is enforced for each of them. */
import { setTimeout as sleep } from "node:timers/promises";
import type { BulkReceipt, Receipt } from "../edge-answers.ts";
import { type EdgeClient, EdgeRefusal } from "../edge-client.ts";
import { waitSeconds } from "./enforcement.ts";
import { EXIT, type ExitCode, UsageError } from "./failure.ts";
import type { Invocation } from "./invocation.ts";
import { LiveDisplay } from "./live-display.ts";
import { givenOnce, mannerOf, type OrderOptions, orderKey, reasonFor } from "./order.ts";
import { bold, counted, dim, green, Text, t, yellow } from "./text.ts";

/** In one call: PROTOCOL, "The edge". */
const MAX_USERS = 10_000;
const LOOK_MS = 500;

/** @param areSubjects whether the lines of standard input are subjects, and not logins */
export async function revokeListed(
  invocation: Invocation,
  areSubjects: boolean,
  options: OrderOptions,
): Promise<ExitCode> {
  const seconds = waitSeconds(options.wait);
  const key = orderKey(options);
  const names = [...new Set(await invocation.prompt.lines())];
  if (names.length === 0 || names.length > MAX_USERS) {
    throw new UsageError(
      `The list has ${counted(names.length, "person", "people")}.`,
      `It can have 1 to ${MAX_USERS}, one a line.`,
    );
  }
  if (options.yes !== true) {
    throw new UsageError(`This throws out ${names.length} people.`, "Say --yes if it is meant.");
  }
  const reason = await reasonFor(invocation, options.reason);
  const edge = await invocation.edge();
  const users = names.map((name) => (areSubjects ? name : { login: name }));
  const order = { users, reason, ...mannerOf(options.margin) };
  const receipt = await givenOnce(invocation, key, () => edge.orderInBulk(order, key));
  return await awaitBulk(invocation, receipt, seconds);
}

/** As `awaitEnforcement`, for many. */
export async function awaitBulk(invocation: Invocation, first: BulkReceipt, seconds: number): Promise<ExitCode> {
  const { output, json, signal } = invocation;
  const end = AbortSignal.any([signal, AbortSignal.timeout(seconds * 1000)]);
  const display = !json && output.isTerminal ? new LiveDisplay(output) : undefined;
  let receipt = first;
  try {
    for await (const next of looks(await invocation.edge(), first, end)) {
      receipt = next;
      display?.show(bulkLines(receipt));
    }
  } catch (error) {
    // Who may revoke need not be allowed to read receipts.
    if (!(error instanceof EdgeRefusal) || error.code !== "scope_insufficient") throw error;
  } finally {
    display?.end(bulkLines(receipt));
  }
  if (json) output.json(receipt);
  else if (display === undefined) output.lines(bulkLines(receipt));
  if (receipt.state === "enforced") return EXIT.ok;
  output.note(t`The revocation stands. \`keycard receipts follow ${receipt.id}\` goes on watching.`);
  return signal.aborted ? EXIT.interrupted : EXIT.pending;
}

/** The receipt now and again, until it is enforced or the signal says so. */
async function* looks(edge: EdgeClient, first: BulkReceipt, end: AbortSignal): AsyncGenerator<BulkReceipt, void> {
  yield first;
  let { state } = first;
  while (state !== "enforced" && !end.aborted) {
    await sleep(LOOK_MS, undefined, { signal: end }).catch(() => {}); // the end is looked at below
    if (end.aborted) return;
    const next = await edge.anyReceipt(first.id).catch((error: unknown) => {
      if (end.aborted) return undefined;
      throw error;
    });
    if (next === undefined || !isBulk(next)) return;
    state = next.state;
    yield next;
  }
}

export function isBulk(receipt: Receipt | BulkReceipt): receipt is BulkReceipt {
  return "users" in receipt;
}

/** How far it is. */
export function bulkLines({ id, state, users, revoked, not_found, remaining, clusters }: BulkReceipt): Text[] {
  const missing = not_found === 0 ? "" : t`, ${yellow(`${not_found} not found`)}`;
  const left = remaining === 0 ? "" : `, ${remaining} to go`;
  const done = state === "enforced";
  return [
    t`Revoking ${bold(counted(users, "person", "people"))}  ${dim(id)}`,
    t`  ${revoked} revoked${missing}${left}`,
    ...clusters.map(({ cluster, delivered }) => t`  ${bold(cluster)}  ${counted(delivered, "event")} delivered`),
    done
      ? t`${green("✓")} ${bold("Enforced")}: none of those who were found is in anywhere.`
      : t`${yellow("…")} ${bold(state === "pending" ? "Pending" : "Decided")}: not yet enforced everywhere.`,
  ].map(Text.of);
}

/** `keycard receipts`: what was revoked, and whether it is enforced. */
import type { BulkReceipt, Receipt } from "../../edge-answers.ts";
import { EdgeRefusal } from "../../edge-client.ts";
import { awaitBulk, bulkLines, isBulk } from "../bulk.ts";
import { command } from "../command.ts";
import { awaitEnforcement, WAIT, waitSeconds } from "../enforcement.ts";
import { CommandFailed, EXIT, type ExitCode } from "../failure.ts";
import type { Invocation } from "../invocation.ts";
import { printPage } from "../page.ts";
import { receiptDetails, targetText } from "../receipt-view.ts";
import { counted, dim, green, type Text, t, yellow } from "../text.ts";
import { clock, distance, duration, momentOf, numberOf } from "../times.ts";

const STATES = ["pending", "delivered", "enforced", "no_clusters"] as const;
const SCOPES = ["revocations:read"];

export const receiptCommands = [
  command({
    name: "receipts",
    summary: "list revocations, newest first",
    args: [],
    options: {
      state: { value: "STATE", choices: STATES, about: STATES.join(", ") },
      sub: { value: "SUB", about: "of this person" },
      tenant: { value: "TID", about: "of this tenant" },
      since: { value: "WHEN", about: "decided since: 2h (ago), or a time" },
      until: { value: "WHEN", about: "decided until" },
      limit: { value: "N", about: "how many; 20" },
      after: { value: "CURSOR", about: "go on where a list ended" },
    },
    about: ["Revocations are listed for seven days. Each is in the audit trail for longer."],
    examples: [
      ["keycard receipts --state pending", "what is not enforced everywhere yet"],
      ["keycard receipts --since 24h --json | jq .id", "for programs: one a line"],
    ],
    scopes: SCOPES,
    async run(invocation, { options }) {
      const edge = await invocation.edge();
      const { receipts, next } = await edge.receipts({
        state: options.state,
        sub: options.sub,
        tid: options.tenant,
        since: options.since && momentOf(options.since, "--since"),
        until: options.until && momentOf(options.until, "--until"),
        limit: numberOf(options.limit ?? "20", "--limit", 1, 100),
        after: options.after,
      });
      printPage(invocation, {
        ...{ items: receipts, next, row, empty: "Nothing was revoked, as far as was asked." },
        head: ["receipt", "decided", "state", "took", "closed", "target", "reason"],
      });
      return EXIT.ok;
    },
  }),
  command({
    name: "receipts show",
    summary: "show one receipt: each cluster, each node, and who is awaited",
    args: ["ID"],
    options: {},
    about: ["With --json it has the `proof`, a JWT by which others can check it."],
    examples: [["keycard receipts show rev_Zm9vYmFyYmF6cXV4MTIzNA", ""]],
    scopes: SCOPES,
    async run(invocation, { args: [id = ""] }) {
      const receipt = await receiptOf(invocation, id);
      if (invocation.json) invocation.output.json(receipt);
      else invocation.output.lines(isBulk(receipt) ? bulkDetails(receipt) : receiptDetails(receipt));
      return EXIT.ok;
    },
  }),
  command({
    name: "receipts follow",
    summary: "watch a revocation until it is enforced",
    args: ["ID"],
    options: { wait: WAIT },
    about: ["Ends as `keycard revoke` does: 0 when it is enforced, 3 when it is not by then."],
    examples: [["keycard receipts follow rev_Zm9vYmFyYmF6cXV4MTIzNA --wait 600", "for ten minutes at most"]],
    scopes: SCOPES,
    run: (invocation, { args: [id = ""], options }) => follow(invocation, id, options.wait),
  }),
];

async function follow(invocation: Invocation, id: string, wait: string | undefined): Promise<ExitCode> {
  const seconds = waitSeconds(wait);
  const receipt = await receiptOf(invocation, id);
  if (isBulk(receipt)) return await awaitBulk(invocation, receipt, seconds);
  return await awaitEnforcement(invocation, receipt, seconds);
}

async function receiptOf(invocation: Invocation, id: string): Promise<Receipt | BulkReceipt> {
  try {
    return await (await invocation.edge()).anyReceipt(id);
  } catch (error) {
    if (!(error instanceof EdgeRefusal) || error.code !== "not_found") throw error;
    throw new CommandFailed(
      `There is no receipt ${id}.`,
      "Receipts are kept for seven days; `keycard audit` remembers longer.",
    );
  }
}

function row(receipt: Receipt | BulkReceipt) {
  const { created_at, state, reason, id } = receipt;
  const done = state === "enforced";
  const what = isBulk(receipt) ? counted(receipt.users, "user") : targetText(receipt.target);
  const took =
    "enforced_at" in receipt && typeof receipt.enforced_at === "number"
      ? duration(receipt.enforced_at - created_at)
      : "";
  const closed = isBulk(receipt) ? "" : String(receipt.closed);
  return [id, distance(created_at), done ? green(state) : yellow(state), took, closed, what, dim(reason)];
}

function bulkDetails(receipt: BulkReceipt): Text[] {
  const { reason, created_at } = receipt;
  return [t`${dim("reason ")}  ${reason}`, t`${dim("decided")}  ${clock(created_at)}`, ...bulkLines(receipt)];
}

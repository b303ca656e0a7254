/** The receipts as administrators look through them: by state, person, tenant and time, and what is left open. */
import { z } from "zod";
import { Refusal } from "#contract/refusal";
import { ask } from "../outcome.ts";
import { revocationLog } from "../revocations/cutoffs.ts";
import { isFinal, type Receipt } from "../revocations/receipt.ts";
import { demandAdministrator } from "./administrator.ts";
import { moment, name, subject } from "./names.ts";
import { type Exchange, readQuery } from "./request.ts";
import { BULK_ID } from "./revocation.ts";

/** Where a page ended: `<milliseconds>-<number>`. */
const place = z
  .string()
  .regex(/^\d{1,15}-\d{1,15}$/, "not the next of a page")
  .transform((text) => {
    const [decided_at = 0, seq = 0] = text.split("-").map(Number);
    return { decided_at, seq };
  });

export const receiptsQuery = z.strictObject({
  after: place.optional(),
  limit: z.coerce.number().int().min(1).max(100).default(50),
  state: z.enum(["pending", "delivered", "enforced", "no_clusters"]).optional(),
  sub: subject.optional(),
  tid: name.optional(),
  batch: z.string().regex(BULK_ID, "not in the form of a bulk revocation").optional(),
  since: moment.optional(),
  until: moment.optional(),
});

/** `GET /admin/revocations` */
export async function listRevocations(c: Exchange): Promise<Response> {
  const principal = await demandAdministrator(c, "revocations:read");
  const asked = readQuery(c, receiptsQuery);
  // Whoever looks after one tenant sees that one, whatever they ask for.
  const query = principal.tid === undefined ? asked : { ...asked, tid: principal.tid };
  const { receipts, next } = await ask(revocationLog(c.env).receiptPage(query));
  const { state, sub, batch } = query;
  const each = sub !== undefined || batch !== undefined || (state !== undefined && !isFinal({ state }));
  const shown = each ? receipts : await Promise.all(receipts.map((receipt) => wholeOf(c, receipt, principal.tid)));
  return c.json({
    receipts: shown.filter((receipt) => state === undefined || receipt.state === state),
    ...(next && { next: `${next.decided_at}-${next.seq}` }),
  });
}

/** The bulk revocation that a receipt stands for; itself where it is a part of none, or of one that the asker may not see. */
async function wholeOf(c: Exchange, receipt: Receipt, tenant: string | undefined) {
  if (receipt.batch === undefined) return receipt;
  try {
    return await ask(c.env.BULK_REVOCATION.getByName(receipt.batch).receipt(tenant));
  } catch (error) {
    if (error instanceof Refusal && error.code === "not_found") return receipt;
    throw error;
  }
}

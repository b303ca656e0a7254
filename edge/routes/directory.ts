/** The directory as administrators search it. */
import { base64url } from "jose";
import { z } from "zod";
import { directory } from "../accounts/directory.ts";
import type { FoundAccount, Spot } from "../accounts/directory-table.ts";
import { ask } from "../outcome.ts";
import type { Principal } from "./administrator.ts";
import { name } from "./names.ts";
import type { Exchange } from "./request.ts";

const DEFAULT_LIMIT = 50;

/** Where a page ended: not to be read by anybody else. */
const spot = z
  .string()
  .max(1024)
  .regex(/^[A-Za-z0-9_-]*$/, "not the next of a page")
  .transform((text, context): Spot => {
    const read = z.tuple([z.string(), z.string()]).safeParse(textIn(text));
    if (read.success) return read.data;
    context.addIssue({ code: "custom", message: "not the next of a page" });
    return z.NEVER;
  });

export const directoryQuery = z.strictObject({
  query: z.string().max(254),
  tid: name,
  after: spot,
  limit: z.coerce.number().int().min(1).max(100),
});
const search = directoryQuery.partial();
type Search = z.output<typeof search>;

/** Accounts of which a name begins like that; everybody where nothing is said. */
export async function searchDirectory(
  c: Exchange,
  principal: Principal,
  { query = "", tid, after, limit = DEFAULT_LIMIT }: Search,
): Promise<Response> {
  // Whoever looks after one tenant sees that one, whatever they ask for.
  const asked = { query: query.trim(), tid: principal.tid ?? tid, after, limit };
  const { accounts, next } = await ask(directory(c.env).find(asked));
  return c.json({ accounts: accounts.map(shown), ...(next && { next: base64url.encode(JSON.stringify(next)) }) });
}

function shown({ login, tid, disabled_until, created_at, ...account }: FoundAccount) {
  return {
    ...account,
    ...(login !== null && { login }),
    ...(tid !== null && { tid }),
    ...(disabled_until !== null && { disabled_until }),
    ...(created_at !== null && { created_at }),
  };
}

function textIn(text: string): unknown {
  try {
    return JSON.parse(new TextDecoder().decode(base64url.decode(text)));
  } catch {
    return undefined; // then it is none
  }
}

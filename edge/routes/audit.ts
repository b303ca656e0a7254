/** For administrators: read the audit trail, take it away as JSON lines, and have its chain checked. */
import { z } from "zod";
import { Refusal } from "#contract/refusal";
import { AUDIT_TYPES, type AuditRecord, audit, trail } from "../audit/audit.ts";
import type { AuditPage, AuditQuery } from "../audit/audit-trail.ts";
import { originOf } from "../origin.ts";
import { ask } from "../outcome.ts";
import { isWithinRate } from "../throttle.ts";
import { demandAdministrator, demandAllTenants } from "./administrator.ts";
import { moment } from "./names.ts";
import { type Exchange, readQuery } from "./request.ts";

export const NDJSON = "application/x-ndjson";
/** Records that one step of an export reads. */
const EXPORT_STEP = 500;

const position = z.coerce.number().int().min(0).max(Number.MAX_SAFE_INTEGER);
export const auditQuery = z.strictObject({
  order: z.enum(["asc", "desc"]).default("asc"),
  after: position.optional(),
  limit: z.coerce.number().int().min(1).max(500).default(100),
  type: z.enum(AUDIT_TYPES).optional(),
  sub: z.string().min(1).max(64).optional(),
  tid: z.string().min(1).max(128).optional(),
  since: moment.optional(),
  until: moment.optional(),
});

export const verifyQuery = z.strictObject({ after: position.default(0) });

/** `Accept: application/x-ndjson` gives everything from `after` on, one record a line; else one page of JSON. */
export async function readAudit(c: Exchange): Promise<Response> {
  const admin = await demandAdministrator(c, "audit:read");
  const asked = readQuery(c, auditQuery);
  // Whoever looks after one tenant sees that one, whatever they ask for.
  const query: AuditQuery = admin.tid === undefined ? asked : { ...asked, tid: admin.tid };
  c.header("vary", "Accept", { append: true });
  if (c.req.header("accept")?.includes(NDJSON)) return exported(c, query);
  const page = await ask(trail(c.env).read(query));
  return c.json(page);
}

/**
 * Records who was turned away from the admin calls. Whoever tries it all day is recorded so many times a minute and no more: a
 * flood must not fill the trail.
 */
export async function recordRefusedAdministrators(c: Exchange, next: () => Promise<void>): Promise<void> {
  await next();
  const { error } = c;
  if (!(error instanceof Refusal) || (error.code !== "token_invalid" && error.code !== "scope_insufficient")) return;
  if (!(await isWithinRate(c.env, "LOGIN_RATE", c.req.raw, "admin "))) return;
  audit(c.env, {
    type: "admin_refused",
    actor: { kind: "admin", id: "unknown" },
    reason: `${c.req.method} ${c.req.path}: ${error.detail ?? error.code}`,
    from: originOf(c.req.raw),
    request: c.var.requestId,
  });
}

/** Whether the chain is as it was written, from `after` on, as far as one call goes. */
export async function verifyAudit(c: Exchange): Promise<Response> {
  demandAllTenants(await demandAdministrator(c, "audit:read"));
  return c.json(await ask(trail(c.env).verify(readQuery(c, verifyQuery).after)));
}

/** As a stream: an export may be larger than what fits into memory. `limit` is how many in all, where it was given. */
async function exported(c: Exchange, query: AuditQuery): Promise<Response> {
  const left = c.req.query("limit") === undefined ? Number.POSITIVE_INFINITY : query.limit;
  // The first page before the status: a trail that cannot be reached is an error, not an empty export.
  const first = await ask(trail(c.env).read({ ...query, limit: Math.min(left, EXPORT_STEP) }));
  const lines = pages(c.env, query, first, left);
  const body = new ReadableStream<Uint8Array>({
    async pull(controller) {
      const { done, value } = await lines.next();
      if (done) controller.close();
      else controller.enqueue(new TextEncoder().encode(value.map((record) => `${JSON.stringify(record)}\n`).join("")));
    },
  });
  return c.body(body, 200, { "content-type": NDJSON, "content-disposition": 'attachment; filename="audit.ndjson"' });
}

async function* pages(
  env: Env,
  query: AuditQuery,
  first: AuditPage,
  limit: number,
): AsyncGenerator<readonly AuditRecord[]> {
  let page = first;
  let left = limit;
  for (;;) {
    left -= page.records.length;
    if (page.records.length > 0) yield page.records;
    if (page.next === undefined || left <= 0) return;
    page = await ask(trail(env).read({ ...query, after: page.next, limit: Math.min(left, EXPORT_STEP) }));
  }
}

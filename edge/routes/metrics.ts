/**
 * `GET /metrics`: how the edge stands, for a Prometheus that scrapes it as an administrator. A Worker remembers nothing between two
 * scrapes, so what is counted is counted in the revocation log; infra/observability.md says what each name means.
 */
import { trail } from "../audit/audit.ts";
import { EXPOSITION_MEDIA_TYPE, exposition, type MetricFamily } from "../exposition.ts";
import { logFailure } from "../log.ts";
import { ask } from "../outcome.ts";
import { revocationLog } from "../revocations/cutoffs.ts";
import { gauge } from "../revocations/log-gauges.ts";
import { demandAdministrator, demandAllTenants } from "./administrator.ts";
import type { Exchange } from "./request.ts";

/** For whoever may read revocations of every tenant: the figures are of all of them. */
export async function showMetrics(c: Exchange): Promise<Response> {
  demandAllTenants(await demandAdministrator(c, "revocations:read"));
  const [log, audit] = await Promise.all([ask(revocationLog(c.env).metrics()), auditFamilies(c)]);
  return c.body(exposition([...log, ...audit]), 200, { "content-type": EXPOSITION_MEDIA_TYPE });
}

/** A trail that cannot be reached is a figure, not a failure: the others are needed just then. */
async function auditFamilies(c: Exchange): Promise<readonly MetricFamily[]> {
  const reachable = (value: number) => gauge("keycard_edge_audit_reachable", "1 while the audit trail answers.", value);
  try {
    const { anchor, head, bytes } = await ask(trail(c.env).ends());
    return [
      reachable(1),
      gauge("keycard_edge_audit_head", "The position of the last record of the audit trail.", head),
      gauge("keycard_edge_audit_anchor", "The position up to which the retention has removed records.", anchor),
      gauge("keycard_edge_audit_bytes", "What the audit trail holds.", bytes),
    ];
  } catch (error) {
    logFailure("the audit trail could not be asked how it stands", { request: c.var.requestId }, error);
    return [reachable(0)];
  }
}

/** How soon revocations were enforced, over time, for those who look after all tenants. */
import { z } from "zod";
import { Refusal } from "#contract/refusal";
import { ask } from "../outcome.ts";
import { revocationLog } from "../revocations/cutoffs.ts";
import { demandAdministrator, demandAllTenants } from "./administrator.ts";
import { moment } from "./names.ts";
import { type Exchange, readQuery } from "./request.ts";

const DAY_SECONDS = 86_400;
const MAX_BUCKETS = 500;
/** Where nobody says how long a step is to be. */
const USUAL_BUCKETS = 100;
/** Steps that divide an hour or a day. */
const USUAL_STEPS = [1, 2, 5, 10, 15, 30, 60, 120, 240, 720].map((minutes) => minutes * 60);

export const latencyQuery = z.strictObject({
  since: moment.optional(),
  until: moment.optional(),
  /** Seconds. */
  step: z.coerce.number().int().min(60).max(DAY_SECONDS).multipleOf(60, "whole minutes").optional(),
});

/** `GET /admin/latency` */
export async function showLatency(c: Exchange): Promise<Response> {
  demandAllTenants(await demandAdministrator(c, "revocations:read"));
  const asked = readQuery(c, latencyQuery);
  const until = asked.until ?? Date.now();
  const since = asked.since ?? until - DAY_SECONDS * 1000;
  if (since > until) throw malformed("since", "lies after until");
  const buckets = (step: number) => Math.floor(until / 1000 / step) - Math.floor(since / 1000 / step) + 1;
  const step = asked.step ?? USUAL_STEPS.find((each) => buckets(each) <= USUAL_BUCKETS) ?? DAY_SECONDS;
  if (buckets(step) > MAX_BUCKETS) throw malformed("step", `gives more than ${MAX_BUCKETS} buckets`);
  const query = { since, until, step };
  return c.json({ ...query, buckets: await ask(revocationLog(c.env).latency(query)) });
}

function malformed(member: string, problem: string): Refusal {
  return new Refusal("request_malformed", { detail: `${member}: ${problem}`, problems: [{ member, problem }] });
}

/**
 * The cutoffs as an isolate knows them, at most a second old, so that a refresh does not have to ask the one log of the whole
 * edge. Being late is harmless: a token keeps the time at which its session began, and every node judges it exactly.
 */
import type { Standing } from "../accounts/account.ts";
import { ask } from "../outcome.ts";
import { REVOCATION_LOG_NAME } from "./revocation-log.ts";

const FRESH_MS = 1_000;
/** Entries. When there are more, all are asked for again. */
const MAX_KEPT = 10_000;

interface Kept {
  readonly cutoff: number;
  readonly at: number;
}

const kept = new Map<string | null, Kept>();
/** The tenants of subjects that were met here. An account never changes its tenant. */
const tenants = new Map<string, string | null>();

/** The cutoff for a tenant's sessions, seconds since the epoch, 0 when there is none. */
export async function cutoffFor(env: Env, tid: string | null): Promise<number> {
  const known = kept.get(tid);
  if (known !== undefined && Date.now() - known.at < FRESH_MS) return known.cutoff;
  const { cutoff } = await ask(revocationLog(env).standing(tid));
  if (kept.size >= MAX_KEPT) kept.clear();
  kept.set(tid, { cutoff, at: Date.now() });
  return cutoff;
}

/** How matters stand with a subject's tenant, as far as is known here: an account that has another one will say so. */
export async function standingOf(env: Env, sub: string): Promise<Standing> {
  const tid = tenants.get(sub) ?? null;
  return { tid, cutoff: await cutoffFor(env, tid) };
}

export function rememberTenant(sub: string, tid: string | null): void {
  if (tenants.size >= MAX_KEPT) tenants.clear();
  tenants.set(sub, tid);
}

/** After a cutoff that this isolate brought about itself. */
export function forgetCutoffs(): void {
  kept.clear();
}

export function revocationLog(env: Env) {
  return env.REVOCATION_LOG.getByName(REVOCATION_LOG_NAME);
}

/**
 * A flood guard per address, by Cloudflare's Rate Limiting binding: counted per location of theirs, without a call over the
 * network, and only roughly. What protects a password is the exact count in its Credential; this keeps one address from using up
 * the password hashes, and the objects, of everybody.
 *
 * It fails open: where the binding is absent or fails, nobody is turned away, and the log says so. An IPv6 address counts as its
 * /64, as that is what one customer gets. A loopback address is not counted: on Cloudflare nobody has one.
 */
import { Refusal } from "#contract/refusal";
import { logFailure } from "./log.ts";
import { addressOf, isLoopback, networkOf } from "./origin.ts";

/** The bindings of wrangler.jsonc. */
export type Rate = "LOGIN_RATE" | "TOKEN_RATE";

/** They may be absent. */
export type Limits = Partial<Record<Rate, RateLimit>>;

/** The `period` in wrangler.jsonc. */
const PERIOD_SECONDS = 60;

const missing = new Set<Rate>();

/**
 * Counts a request against its address.
 *
 * @throws {Refusal} `too_many_attempts`
 */
export async function demandRate(env: Limits, rate: Rate, request: Request): Promise<void> {
  if (!(await isWithinRate(env, rate, request))) {
    throw new Refusal("too_many_attempts", {
      detail: `too many from one address: ${rate}`,
      retryAfterSeconds: PERIOD_SECONDS,
    });
  }
}

/** Counts a request against its address, and says whether that was one too many. @param use counts for itself */
export async function isWithinRate(env: Limits, rate: Rate, request: Request, use = ""): Promise<boolean> {
  const address = addressOf(request);
  if (address === undefined || isLoopback(address)) return true;
  return await isWithin(env, rate, `${use}${networkOf(address, 32, 64) ?? address}`);
}

async function isWithin(env: Limits, rate: Rate, key: string): Promise<boolean> {
  const limiter = env[rate];
  if (limiter === undefined) {
    if (!missing.has(rate)) logFailure("a rate limit is not bound, so that addresses are not limited", { rate });
    missing.add(rate);
    return true;
  }
  try {
    return (await limiter.limit({ key })).success;
  } catch (error) {
    logFailure("a rate limit could not be asked", { rate }, error);
    return true;
  }
}

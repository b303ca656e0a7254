/** Whose access token a request bears, and that the log has not revoked it. Whether its session lives is for the Account to say. */
import type { VerifiedClaims } from "#contract/access-token";
import { Refusal } from "#contract/refusal";
import { readAccessToken } from "../keys/issuer.ts";
import { ask } from "../outcome.ts";
import { revocationLog } from "../revocations/cutoffs.ts";
import { bearer, type Exchange } from "./request.ts";

/** Somebody's claims that were judged, and the cutoff that they were held against, seconds since the epoch. */
export interface Bearer {
  readonly claims: VerifiedClaims;
  readonly cutoff: number;
}

/** The session of the bearer. @throws {Refusal} as `readAccessToken`; `session_revoked`, `token_revoked` */
export async function bearerSession(c: Exchange): Promise<{ sub: string; sid: string; cutoff: number }> {
  const { claims, cutoff } = await judgedBearer(c, c.var.config.audience);
  return { sub: claims.sub, sid: claims.sid, cutoff };
}

/**
 * @param audience the one of our two that its token must be for
 * @throws {Refusal} as `readAccessToken`; `session_revoked`, `token_revoked`
 */
export async function judgedBearer(c: Exchange, audience: string): Promise<Bearer> {
  const token = bearer(c);
  if (token === undefined) throw new Refusal("token_missing");
  const claims = await readAccessToken(c.env, token, { audience });
  const { cutoff, tokenRevoked } = await ask(revocationLog(c.env).standing(claims.tid ?? null, claims.jti));
  if (claims.auth_time <= cutoff) throw new Refusal("session_revoked", { detail: "it began before a cutoff" });
  if (tokenRevoked) throw new Refusal("token_revoked");
  return { claims, cutoff };
}

/** For realtime nodes: the log itself, straight from the edge, for when Redis cannot be trusted to bring everything, or is away. */
import { z } from "zod";
import { JWT_MEDIA_TYPE, MAX_FEED_WAIT_MS, signFeedPage, verifyFeedQuery } from "#contract/cluster";
import { signingKey } from "../keys/issuer.ts";
import { ask } from "../outcome.ts";
import { revocationLog } from "../revocations/cutoffs.ts";
import { bearer, type Exchange, readQuery } from "./request.ts";

export const feedQuery = z.strictObject({
  after: z.coerce.number().int().min(0).max(Number.MAX_SAFE_INTEGER).default(0),
  /** Seconds. */
  wait: z.coerce
    .number()
    .int()
    .min(0)
    .max(MAX_FEED_WAIT_MS / 1000)
    .default(0),
});

/** `GET /revocations`. Whoever is no node of a cluster is turned away before the log is asked: there is only one. */
export async function followRevocations(c: Exchange): Promise<Response> {
  const { issuer, clusters } = c.var.config;
  const secretsOf = (cluster: string) => clusters.find(({ id }) => id === cluster)?.secrets;
  const query = await verifyFeedQuery(bearer(c), issuer, secretsOf);
  const { after, wait } = readQuery(c, feedQuery);
  const page = await ask(revocationLog(c.env).feed(query, after, wait * 1000));
  const issuedAt = Math.floor(Date.now() / 1000);
  const envelope = { issuer, audience: query.cluster, issuedAt, nonce: query.nonce };
  const body = await signFeedPage(page, envelope, await signingKey(c.env));
  return c.body(body, 200, { "content-type": JWT_MEDIA_TYPE });
}

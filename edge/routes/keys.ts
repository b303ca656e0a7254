/** For administrators: which signing keys there are, and to replace one, in good order or at once. */
import { z } from "zod";
import { forgetKeys } from "../keys/issuer.ts";
import type { KeySummary } from "../keys/key-ring.ts";
import { EVENTS_ALGORITHM, KEY_RING_NAME } from "../keys/signing-key.ts";
import { ask } from "../outcome.ts";
import { actOfAdministrator, demandAdministrator, demandAllTenants } from "./administrator.ts";
import { type Exchange, readBody } from "./request.ts";

export const rotationBody = z.strictObject({
  /** Which line of keys; RS256 for events, whatever ACCESS_TOKEN_ALG says for access tokens. */
  purpose: z.enum(["access", "events"]).default("access"),
  /** At once: what the key signed is dead everywhere. */
  retire: z.boolean().default(false),
  /** With `retire`: the key that is meant, so that two who say so at once retire one key. By default the current one. */
  kid: z
    .string()
    .regex(/^[A-Za-z0-9_-]{1,128}$/)
    .optional(),
  reason: z.string().trim().min(1).max(500),
});

export async function listKeys(c: Exchange): Promise<Response> {
  demandAllTenants(await demandAdministrator(c, "keys:write"));
  const keys: readonly KeySummary[] = await ask(keyRing(c).list());
  return c.json({ keys });
}

/** 200 with the keys as they are now, and the id of the revocation where one was retired. */
export async function rotateKeys(c: Exchange): Promise<Response> {
  const admin = await demandAdministrator(c, "keys:write");
  demandAllTenants(admin);
  const { purpose, retire, kid, reason } = await readBody(c, rotationBody);
  const alg = purpose === "events" ? EVENTS_ALGORITHM : c.var.config.algorithm;
  const order = { purpose, alg, retire, kid, reason, ...actOfAdministrator(c, admin) };
  const { keys, revocation } = await ask(keyRing(c).rotate(order));
  forgetKeys(c.env);
  return c.json({ keys, ...(revocation === undefined ? {} : { revocation }) });
}

function keyRing({ env }: Exchange) {
  return env.KEY_RING.getByName(KEY_RING_NAME);
}

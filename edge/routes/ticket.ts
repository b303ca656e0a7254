/** For clients that can set nothing but a URL: a ticket in the place of an access token, good for one handshake. */
import { signTicket, TICKET_LIFETIME } from "#contract/access-token";
import { randomName } from "../identifiers.ts";
import { readAccessToken, signingKey } from "../keys/issuer.ts";
import { ask } from "../outcome.ts";
import { bearerSession } from "./bearer.ts";
import { bearer, type Exchange } from "./request.ts";

/** What the ticket lets in lives as long as the access token that asked for it, and is revoked with it. */
export async function giveTicket(c: Exchange): Promise<Response> {
  const { sub, sid, cutoff } = await bearerSession(c);
  // Asking for the sessions is how an account says that this one is over.
  await ask(c.env.ACCOUNT.getByName(sub).sessions(sid, cutoff));
  const { kid: _, ...claims } = await readAccessToken(c.env, bearer(c) ?? "");
  const { jti, exp } = claims;
  const iat = Math.max(Math.floor(Date.now() / 1000), claims.auth_time);
  const ticket = { ...claims, iat, exp: iat + TICKET_LIFETIME, jti: randomName(128), access: { jti, exp } };
  return c.json({ ticket: await signTicket(ticket, await signingKey(c.env)), expires_in: TICKET_LIFETIME });
}

/**
 * Global Token Revocation (draft-parecki-oauth-global-token-revocation-06; Okta calls it Universal Logout): an identity provider or a
 * security tool names a person, and every session and token of that person dies.
 */
import { z } from "zod";
import { Refusal } from "#contract/refusal";
import { normaliseLogin } from "../accounts/credential.ts";
import { assertionAudiences, issuerOf } from "../clients/oauth.ts";
import { isClientId, linkName, newRevocationId } from "../identifiers.ts";
import { ask } from "../outcome.ts";
import { actOfAdministrator, demandAdministrator, type Principal, principalFor } from "./administrator.ts";
import { subject } from "./names.ts";
import { bearer, type Exchange, readBody } from "./request.ts";

/** Subject identifiers (RFC 9493 section 3.2) that can name a person here. */
export const subjectIdentifier = z.discriminatedUnion("format", [
  z.object({ format: z.literal("email"), email: z.string().min(1).max(254) }),
  z.object({ format: z.literal("iss_sub"), iss: z.string().min(1).max(512), sub: z.string().min(1).max(255) }),
  z.object({ format: z.literal("opaque"), id: z.string().min(1).max(255) }),
]);
export type SubjectIdentifier = z.output<typeof subjectIdentifier>;

/** `subject` is what the draft called it until its second version, and what Auth0 and older Okta documents send. */
export const globalRevocationBody = z
  .object({ sub_id: subjectIdentifier.optional(), subject: subjectIdentifier.optional() })
  .refine(({ sub_id, subject }) => (sub_id === undefined) !== (subject === undefined), {
    path: ["sub_id"],
    message: "exactly one of sub_id and subject",
  });

/** `POST /global-token-revocation` */
export async function revokeGlobally(c: Exchange): Promise<Response> {
  const principal = await revoker(c);
  const { sub_id, subject } = await readBody(c, globalRevocationBody);
  const identifier = sub_id ?? subject;
  if (identifier === undefined) throw new Refusal("request_malformed");
  const sub = await subjectNamed(c.env, c.var.config, identifier);
  await ask(
    c.env.ACCOUNT.getByName(sub).revokeUser({
      id: newRevocationId(),
      reason: "Global Token Revocation",
      by: actOfAdministrator(c, principal),
      tenant: principal.tid,
    }),
  );
  return c.body(null, 204);
}

/** Okta's bearer is no access token but the client's own signed assertion (section 4.1 of the draft leaves it open). */
async function revoker(c: Exchange): Promise<Principal> {
  const token = bearer(c);
  const claimed = token === undefined ? undefined : issuerOf(token);
  if (token === undefined || claimed === undefined || !isClientId(claimed)) {
    return await demandAdministrator(c, "revocations:write");
  }
  const proof = { assertion: token, audiences: assertionAudiences(c.var.config) };
  const principal = principalFor(await ask(c.env.CLIENT.getByName(claimed).authenticate(proof)));
  if (!principal.scopes.includes("revocations:write")) throw new Refusal("scope_insufficient");
  return principal;
}

/**
 * Whom an identifier names.
 *
 * @throws {Refusal} `not_found`; `unprocessable` for an issuer with which nobody here is linked
 */
export async function subjectNamed(
  env: Env,
  config: { readonly issuer: string; readonly trustedIssuers: readonly { readonly issuer: string }[] },
  identifier: SubjectIdentifier,
): Promise<string> {
  switch (identifier.format) {
    case "email":
      return await ask(env.CREDENTIAL.getByName(normaliseLogin(identifier.email)).subject());
    case "opaque":
      return ownSubject(identifier.id);
    case "iss_sub": {
      const { iss, sub } = identifier;
      if (iss === config.issuer) return ownSubject(sub);
      if (!config.trustedIssuers.some(({ issuer }) => issuer === iss)) {
        throw new Refusal("unprocessable", { detail: "the issuer is not one that accounts here are linked with" });
      }
      return await ask(env.LINK.getByName(linkName({ issuer: iss, subject: sub })).subject());
    }
  }
}

function ownSubject(text: string): string {
  const sub = subject.safeParse(text);
  if (!sub.success) throw new Refusal("not_found", { detail: "not in the form of a subject" });
  return sub.data;
}

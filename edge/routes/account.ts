/** Accounts: what their holders may change, and what administrators and trusted backends do with them. */
import { z } from "zod";
import { Refusal } from "#contract/refusal";
import { linkName, newRevocationId } from "../identifiers.ts";
import { networkOf } from "../origin.ts";
import { ask } from "../outcome.ts";
import { cutoffFor } from "../revocations/cutoffs.ts";
import type { Order } from "../revocations/revocation-log.ts";
import {
  actOfAdministrator,
  demandAdministrator,
  demandGivable,
  demandTenant,
  type Principal,
} from "./administrator.ts";
import { bearerSession } from "./bearer.ts";
import { demandTrustedOrigin } from "./browser.ts";
import { directoryQuery, searchDirectory } from "./directory.ts";
import { actOf, device, loginName, password, recordingFailure, signedIn } from "./login.ts";
import { name, reason, scope, subject } from "./names.ts";
import { type Exchange, pathPart, readBody, readQuery } from "./request.ts";

/** NIST SP 800-63B section 3.1.1.2 asks for 8 at least, where there may be a second factor; only how long it is counts. */
const newPassword = z.string().min(8, "at least 8 characters").max(1024, "at most 1024 characters");
/** OpenID Connect Core section 2: a `sub` has at most 255 characters. */
const identity = z.strictObject({
  issuer: z.url({ protocol: /^https?$/ }).max(512),
  subject: z.string().regex(/^[\x21-\x7e]{1,255}$/, "1 to 255 printable characters"),
});
const details = { sub: subject.optional(), tid: name.optional(), scope: scope.optional() };

export const passwordBody = z.strictObject({ current_password: password, new_password: newPassword });

/** Opened by a password, or by an identity at another issuer. */
export const accountBody = z.strictObject({
  login: loginName.optional(),
  password: password.optional(),
  link: identity.optional(),
  ...details,
});

/** One account by its login name, or by issuer and subject; else those in the directory. */
export const accountQuery = z.strictObject({
  login: loginName.optional(),
  ...identity.partial().shape,
  ...directoryQuery.partial().shape,
});

export const accountChangeBody = z
  .strictObject({
    disabled: z.boolean().optional(),
    /** Seconds since the epoch. */
    until: z.int().positive().max(253_402_300_799).optional(),
    scope: scope.nullable().optional(),
    reason: reason.default("changed by an administrator"),
  })
  .refine(({ disabled, scope }) => disabled !== undefined || scope !== undefined, "nothing is to be changed")
  .refine(({ disabled, until }) => until === undefined || disabled === true, {
    path: ["until"],
    message: "goes with disabled: true",
  });

export const accountDeletionBody = z.strictObject({ reason: reason.default("deleted by an administrator") });

export const sessionBody = z.strictObject({
  sub: subject,
  create: z.strictObject({ tid: name.optional(), scope: scope.optional() }).optional(),
  device: device.optional(),
  scope: scope.optional(),
  /** Of the user, as the backend saw them. */
  user_agent: z.string().max(256).optional(),
  address: z.union([z.ipv4(), z.ipv6()]).optional(),
});

/** `POST /password` */
export async function changePassword(c: Exchange): Promise<Response> {
  demandTrustedOrigin(c);
  const { current_password, new_password } = await readBody(c, passwordBody);
  const { sub, sid, cutoff } = await bearerSession(c);
  const login = await ask(c.env.ACCOUNT.getByName(sub).login(sid, cutoff));
  const change = { sub, keep: sid, by: actOf(c, sub), current: current_password, next: new_password };
  const told = await recordingFailure(c, "password_change_failed", sub, () => {
    return ask(c.env.CREDENTIAL.getByName(login).change(change));
  });
  return c.body(null, told ? 204 : 202);
}

/** `POST /admin/accounts` */
export async function createAccount(c: Exchange): Promise<Response> {
  const principal = await demandAdministrator(c, "accounts:write");
  const { login, password, link, sub: wanted, tid = principal.tid, scope } = await readBody(c, accountBody);
  demandTenant(principal, tid ?? null);
  demandGivable(principal, scope);
  const account = { sub: wanted, tid: tid ?? null, scope: scope ?? null };
  const by = actOfAdministrator(c, principal);
  const made = (sub: string) => {
    const opener = { ...(login && { login }), ...(link && { link }) };
    const location = { location: `/admin/accounts/${sub}` };
    return c.json({ sub, ...opener, ...(tid && { tid }), ...(scope && { scope }) }, 201, location);
  };
  if (login !== undefined && password !== undefined && link === undefined) {
    return made(await ask(c.env.CREDENTIAL.getByName(login).create({ login, password, ...account }, by)));
  }
  if (link !== undefined && login === undefined && password === undefined) {
    return made(await ask(c.env.LINK.getByName(linkName(link)).create(link, account, by)));
  }
  throw malformed("login", "login and password, or link");
}

/** `GET /admin/accounts?login=`, or `?issuer=&subject=`: that one; else those whose names begin with `query`. */
export async function findAccounts(c: Exchange): Promise<Response> {
  const principal = await demandAdministrator(c, "accounts:read");
  const { login, issuer, subject, ...search } = readQuery(c, accountQuery);
  const exact = [login, issuer, subject].filter((each) => each !== undefined);
  if (exact.length === 0) return await searchDirectory(c, principal, search);
  const isSearch = Object.keys(search).length > 0;
  if (login !== undefined && exact.length === 1 && !isSearch) {
    return await account(c, principal, await ask(c.env.CREDENTIAL.getByName(login).subject()));
  }
  if (issuer !== undefined && subject !== undefined && exact.length === 2 && !isSearch) {
    return await account(c, principal, await ask(c.env.LINK.getByName(linkName({ issuer, subject })).subject()));
  }
  throw malformed("login", "login, or issuer and subject, or none of them");
}

/** `GET /admin/accounts/:sub` */
export async function showAccount(c: Exchange): Promise<Response> {
  const principal = await demandAdministrator(c, "accounts:read");
  return await account(c, principal, subjectInPath(c));
}

/** `PATCH /admin/accounts/:sub` */
export async function changeAccount(c: Exchange): Promise<Response> {
  const principal = await demandAdministrator(c, "accounts:write");
  const sub = subjectInPath(c);
  const { reason, ...change } = await readBody(c, accountChangeBody);
  demandGivable(principal, change.scope);
  if (change.until !== undefined && change.until * 1000 <= Date.now()) {
    throw malformed("until", "must be in the future");
  }
  const { decision } = await ask(c.env.ACCOUNT.getByName(sub).change(change, orderOf(c, principal, reason)));
  return await account(c, principal, sub, decision?.id);
}

/** `DELETE /admin/accounts/:sub` */
export async function deleteAccount(c: Exchange): Promise<Response> {
  const principal = await demandAdministrator(c, "accounts:write");
  const { reason } = await readBody(c, accountDeletionBody);
  const decision = await ask(c.env.ACCOUNT.getByName(subjectInPath(c)).delete(orderOf(c, principal, reason)));
  return c.json({ revocation: decision.id }, 200);
}

/** `POST /admin/sessions`: a trusted backend opens a session for its own user. */
export async function openSession(c: Exchange): Promise<Response> {
  const principal = await demandAdministrator(c, "sessions:write");
  const { sub, create, device, scope, user_agent, address } = await readBody(c, sessionBody);
  const object = c.env.ACCOUNT.getByName(sub);
  if (create !== undefined) {
    const tid = create.tid ?? principal.tid ?? null;
    demandTenant(principal, tid);
    demandGivable(principal, create.scope);
    const owner = { sub, login: null, tid, scope: create.scope ?? null };
    await ask(object.ensure(owner, actOfAdministrator(c, principal)));
  }
  const network = address === undefined ? undefined : networkOf(address, 24, 48);
  const origin = { ...(network && { address: network }), ...(user_agent && { user_agent }) };
  const opened = await ask(object.open({ method: "backend", device, scope, origin, tenant: principal.tid }));
  return await signedIn(c, opened, { inCookie: false }, actOfAdministrator(c, principal));
}

async function account(c: Exchange, principal: Principal, sub: string, revocation?: string): Promise<Response> {
  const { tid, scope, login, disabled_until, sessions, ...rest } = await ask(
    c.env.ACCOUNT.getByName(sub).summary(principal.tid),
  );
  const cutoff = await cutoffFor(c.env, tid);
  return c.json({
    ...rest,
    ...(login !== null && { login }),
    ...(tid !== null && { tid }),
    ...(scope !== null && { scope }),
    ...(disabled_until !== null && { disabled_until }),
    sessions: sessions.filter(({ created_at }) => created_at > cutoff),
    ...(revocation && { revocation }),
  });
}

function malformed(member: string, problem: string): Refusal {
  return new Refusal("request_malformed", { detail: `${member}: ${problem}`, problems: [{ member, problem }] });
}

/** @throws {Refusal} `not_found` */
export function subjectInPath(c: Exchange): string {
  const sub = subject.safeParse(pathPart(c, "sub"));
  if (!sub.success) throw new Refusal("not_found", { detail: "not in the form of a subject" });
  return sub.data;
}

function orderOf(c: Exchange, principal: Principal, reason: string): Order {
  return { id: newRevocationId(), reason, by: actOfAdministrator(c, principal), tenant: principal.tid };
}

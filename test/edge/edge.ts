/** The edge as its callers see it, and the people of the tests. Every test makes its own accounts. */
import { env, exports } from "cloudflare:workers";
import { decodeJwt } from "jose";
import { expect } from "vitest";
import type { AccessTokenClaims } from "#contract/access-token";
import type { RefusalCode } from "#contract/refusal";

export const ISSUER = "https://keycard.test";
export const ADMIN = { authorization: "Bearer an-admin-token-that-only-the-tests-have" };
export const PASSWORD = "correct horse battery staple";

export interface Tokens {
  readonly access_token: string;
  readonly token_type: "Bearer";
  readonly expires_in: number;
  readonly scope?: string;
  readonly refresh_token: string;
  readonly refresh_token_expires_in: number;
  readonly sid: string;
  readonly sub: string;
}

export interface Person {
  readonly sub: string;
}

export interface Member extends Person {
  readonly login: string;
}

export type Headers = Readonly<Record<string, string>>;

export function call(method: string, path: string, body?: unknown, headers: Headers = {}): Promise<Response> {
  const raw = typeof body === "string" || body instanceof URLSearchParams;
  const json = body === undefined || raw ? {} : { "content-type": "application/json" };
  const text = body === undefined ? null : raw ? body.toString() : JSON.stringify(body);
  return exports.default.fetch(new Request(ISSUER + path, { method, body: text, headers: { ...json, ...headers } }));
}

export function post(path: string, body: unknown, headers: Headers = {}): Promise<Response> {
  return call("POST", path, body, headers);
}

export function bearer(token: string): Headers {
  return { authorization: `Bearer ${token}` };
}

export function newLogin(): string {
  return `${crypto.randomUUID()}@example.test`;
}

/** Whoever signs in elsewhere: hashing a password takes more time than most tests. */
export async function newPerson(more: { tid?: string; scope?: string; sub?: string } = {}): Promise<Person> {
  const link = { issuer: "https://people.test", subject: crypto.randomUUID() };
  const response = await post("/admin/accounts", { link, ...more }, ADMIN);
  expect(response.status).toBe(201);
  return await response.json();
}

/** Somebody with a login name, and with the password of all of them. */
export async function newMember(more: { tid?: string; scope?: string; sub?: string } = {}): Promise<Member> {
  const response = await post("/admin/accounts", { login: newLogin(), password: PASSWORD, ...more }, ADMIN);
  expect(response.status).toBe(201);
  return await response.json();
}

/** Opens a session, as a trusted backend does for its user. */
export async function login(person: Person, device?: string): Promise<Tokens> {
  return await ok(await post("/admin/sessions", { sub: person.sub, ...(device && { device }) }, ADMIN));
}

/** Opens a session with the password. */
export async function signIn(member: Pick<Member, "login">, device?: string): Promise<Tokens> {
  return await ok(await post("/login", { login: member.login, password: PASSWORD, ...(device && { device }) }));
}

export function refresh(token: string): Promise<Response> {
  return post("/refresh", { refresh_token: token });
}

/** The body of an answer that must be a success. */
export async function ok<T>(response: Response): Promise<T> {
  expect(response.ok, `${response.status}`).toBe(true);
  return await response.json();
}

export async function refreshed(token: string): Promise<Tokens> {
  return await ok(await refresh(token));
}

/** The code of an answer that must be a refusal in the form that the protocol gives it. */
export async function refusal(response: Response): Promise<RefusalCode> {
  expect(response.headers.get("content-type")).toBe("application/problem+json");
  const problem: { code: RefusalCode; type: string; status: number } = await response.json();
  expect(problem).toMatchObject({ type: `urn:keycard:refusal:${problem.code}`, status: response.status });
  return problem.code;
}

export function claims(tokens: Tokens): AccessTokenClaims {
  return decodeJwt<AccessTokenClaims>(tokens.access_token);
}

export function account(sub: string) {
  return env.ACCOUNT.getByName(sub);
}

export function revocationLog() {
  return env.REVOCATION_LOG.getByName("log");
}

export interface ReceiptBody {
  readonly id: string;
  readonly seq: number;
  readonly state: "pending" | "delivered" | "enforced";
  readonly enforced_at?: number;
  readonly closed: number;
  readonly proof?: string;
  readonly target: unknown;
  readonly reason: string;
  readonly request?: string;
  readonly code: string;
  readonly clusters: readonly {
    cluster: string;
    delivered_at?: number;
    attempts: number;
    last_error?: string;
    enforced_at?: number;
    expired?: true;
    expected: string[];
    applied: { node: string; applied_at: number; closed: number }[];
    pending: string[];
    fenced: { node: string; fenced_at: number }[];
  }[];
}

export async function revoke(target: unknown, headers: Headers = {}): Promise<ReceiptBody> {
  const response = await post("/admin/revocations", { target, reason: "a test" }, { ...ADMIN, ...headers });
  expect(response.status).toBe(202);
  return await response.json();
}

export async function receipt(id: string, headers: Headers = {}): Promise<ReceiptBody> {
  return await ok(await call("GET", `/admin/revocations/${id}`, undefined, { ...ADMIN, ...headers }));
}

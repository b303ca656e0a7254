/** Admin clients as the tests make them, and tokens for them. */
import { ADMIN, call, type Headers, ok, post } from "./edge.ts";

export interface AdminClient {
  readonly client_id: string;
  readonly client_secret: string;
}

export async function newClient(scopes: readonly string[], more: Record<string, unknown> = {}): Promise<AdminClient> {
  return await ok(await post("/admin/clients", { name: "a tool", scopes, ...more }, ADMIN));
}

/** A form that is posted (`application/x-www-form-urlencoded`). */
export function postForm(path: string, form: Record<string, string>, headers: Headers = {}): Promise<Response> {
  const type = { "content-type": "application/x-www-form-urlencoded" };
  return call("POST", path, new URLSearchParams(form), { ...type, ...headers });
}

/** RFC 6749 section 2.3.1. */
export function basic({ client_id, client_secret }: AdminClient): Headers {
  return { authorization: `Basic ${btoa(`${encodeURIComponent(client_id)}:${encodeURIComponent(client_secret)}`)}` };
}

export async function clientToken(client: AdminClient, scope?: string): Promise<string> {
  const form = { grant_type: "client_credentials", ...(scope && { scope }) };
  const { access_token } = await ok<{ access_token: string }>(await postForm("/oauth/token", form, basic(client)));
  return access_token;
}

/** The headers of a new client that may do this. */
export async function asClient(scopes: readonly string[], more: Record<string, unknown> = {}): Promise<Headers> {
  return { authorization: `Bearer ${await clientToken(await newClient(scopes, more))}` };
}

/** The error code of an answer that must be an OAuth error (RFC 6749 section 5.2). */
export async function oauthError(response: Response): Promise<[status: number, error: string]> {
  const body: { error: string; error_description?: string } = await response.json();
  if (response.headers.get("cache-control") !== "no-store") throw new Error("an OAuth error may be kept");
  return [response.status, body.error];
}

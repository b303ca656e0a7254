/**
 * Where the credential is in a handshake. The `auth` payload first, since every client can set it; then the
 * `Authorization` header, for clients that can set headers; then, where the app has opted in, a cookie, a single-use
 * ticket or, at the app's own risk, a token in the query. Finding is all: what was found may be anything at all.
 */
import { Refusal } from "#contract/refusal";

/** What Socket.IO knows of a handshake, as far as a credential can be in it. */
export interface Handshake {
  readonly auth: Readonly<Record<string, unknown>>;
  readonly query: Readonly<Record<string, unknown>>;
  readonly headers: {
    readonly authorization?: string | undefined;
    readonly cookie?: string | undefined;
    readonly origin?: string | undefined;
    readonly host?: string | undefined;
  };
}

/** Ways in besides the `auth` payload and the `Authorization` header; each is off unless given. */
export interface CredentialSources {
  /**
   * A cookie that holds an access token. A browser sends it for any page, so the page must be of one of these origins
   * (cross-site WebSocket hijacking, CWE-1385).
   */
  readonly cookie?: { readonly name: string; readonly origins: readonly string[] } | undefined;
  /** `?ticket=`: from the edge's `POST /ticket`, good once and for seconds. */
  readonly ticket?: boolean | undefined;
  /** `?token=`: an access token in the URL, where proxies log it. For clients that can do nothing else. */
  readonly queryToken?: boolean | undefined;
}

export interface Credential {
  readonly kind: "token" | "ticket";
  /** Whatever was offered. */
  readonly value: unknown;
}

const BEARER = /^Bearer +/i;

/**
 * @returns undefined when there is none
 * @throws {Refusal} `origin_forbidden` when the only credential is a cookie on a request from a page that is not trusted
 */
export function findCredential(handshake: Handshake, sources: CredentialSources): Credential | undefined {
  const { auth, query, headers } = handshake;
  const offered: unknown = auth?.token ?? headers.authorization;
  if (isOffered(offered)) return token(typeof offered === "string" ? offered.replace(BEARER, "") : offered);
  if (sources.ticket && isOffered(query.ticket)) return { kind: "ticket", value: query.ticket };
  if (sources.queryToken && isOffered(query.token)) return token(query.token);
  if (sources.cookie === undefined) return undefined;
  const cookie = cookieNamed(sources.cookie.name, headers.cookie);
  if (cookie === undefined) return undefined;
  if (!sources.cookie.origins.includes(headers.origin ?? "")) {
    throw new Refusal("origin_forbidden", { detail: "a cookie from a page that is not trusted" });
  }
  return token(cookie);
}

/** The token of an `Authorization: Bearer` header, if there is one. */
export function bearerOf(headers: { readonly authorization?: string | undefined }): string | undefined {
  return BEARER.test(headers.authorization ?? "") ? headers.authorization?.replace(BEARER, "") : undefined;
}

function token(value: unknown): Credential {
  return { kind: "token", value };
}

function isOffered(value: unknown): boolean {
  return value !== undefined && value !== null && value !== "";
}

/** RFC 6265 section 4.2.1. The first of that name wins, as browsers send the most specific first. */
function cookieNamed(name: string, header: string | undefined): string | undefined {
  for (const pair of header?.split(";") ?? []) {
    const [key, value] = pair.split("=", 2);
    if (key?.trim() === name) return value?.trim().replace(/^"(.*)"$/, "$1");
  }
  return undefined;
}

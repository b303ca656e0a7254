/**
 * Where the token is in a handshake: the `auth` payload first, since every client can set it, then the
 * `Authorization` header, for clients that can set headers. Finding is all: what was found may be anything at all.
 */

/** What Socket.IO knows of a handshake, as far as a credential can be in it. */
export interface Handshake {
  readonly auth: Readonly<Record<string, unknown>>;
  readonly headers: { readonly authorization?: string | undefined };
}

const BEARER = /^Bearer +/i;

export function findToken(handshake: Handshake): unknown {
  const offered: unknown = handshake.auth?.token ?? handshake.headers.authorization;
  return typeof offered === "string" ? offered.replace(BEARER, "") : offered;
}

/**
 * What is different for a browser: its refresh token lives in a cookie that no script can read, and a request that bears the
 * cookie must come from a page that we trust. SameSite=Strict keeps other sites out; this keeps out other origins of one site.
 */
import { getCookie, setCookie } from "hono/cookie";
import { Refusal } from "#contract/refusal";
import type { Config } from "../config.ts";
import type { Exchange } from "./request.ts";

/** Administration has its own, so that a page of an app, which may use the other, cannot make itself an administrator with it. */
const cookieFor = (administration: boolean) => (administration ? "keycard-administration" : "keycard");
const ATTRIBUTES = { prefix: "host", path: "/", httpOnly: true, secure: true, sameSite: "Strict" } as const;

/** Whether a browser sends this. Others have no use for a cookie, and browsers cannot hide these headers. */
export function isBrowser(c: Exchange): boolean {
  return c.req.header("origin") !== undefined || c.req.header("sec-fetch-site") !== undefined;
}

/** The refresh token in the cookie of that kind. */
export function refreshCookie(c: Exchange, administration: boolean): string | undefined {
  return getCookie(c, cookieFor(administration), "host");
}

export function giveRefreshCookie(c: Exchange, token: string, maxAgeSeconds: number, administration: boolean): void {
  setCookie(c, cookieFor(administration), token, { ...ATTRIBUTES, maxAge: maxAgeSeconds });
}

export function clearRefreshCookie(c: Exchange, administration: boolean): void {
  setCookie(c, cookieFor(administration), "", { ...ATTRIBUTES, maxAge: 0 });
}

/**
 * Lets a request pass that bears a cookie, or would be given one, only from a page of ours or one that is trusted.
 *
 * @throws {Refusal} `origin_forbidden`
 */
export function demandTrustedOrigin(c: Exchange): void {
  const origin = c.req.header("origin");
  if (origin === undefined || !c.var.config.allowedOrigins.includes(origin)) demandOwnOrigin(c);
}

/**
 * As `demandTrustedOrigin`, but only from a page of ours: for what is for administration.
 *
 * @throws {Refusal} `origin_forbidden`
 */
export function demandOwnOrigin(c: Exchange): void {
  const bearsCookie = [true, false].some((administration) => refreshCookie(c, administration) !== undefined);
  if (!bearsCookie && !isBrowser(c)) return;
  const origin = c.req.header("origin");
  const own = origin === undefined || isOwnOrigin(c, origin);
  const site = c.req.header("sec-fetch-site");
  // Without either header nothing says where it comes from; with the cookie that is not enough.
  const sameOrigin = site === "same-origin" || site === "none" || (site === undefined && origin !== undefined);
  if (!own || !sameOrigin) throw new Refusal("origin_forbidden", { detail: `sec-fetch-site: ${site ?? "absent"}` });
}

function isOwnOrigin(c: Exchange, origin: string): boolean {
  // Behind a proxy that ends TLS the request's own URL says http.
  return origin === new URL(c.req.url).origin || origin === new URL(c.var.config.issuer).origin;
}

/** CORS for the trusted origins, with credentials. The origin's page may then read the answer; nobody else's may. */
export function corsHeaders(config: Config, origin: string | undefined): Record<string, string> {
  if (origin === undefined || !config.allowedOrigins.includes(origin)) return {};
  return {
    "access-control-allow-origin": origin,
    "access-control-allow-credentials": "true",
    "access-control-expose-headers": "Retry-After, X-Request-Id",
  };
}

/** The answer to a preflight from a trusted origin (Fetch standard, "CORS-preflight fetch"). */
export const PREFLIGHT_HEADERS: Readonly<Record<string, string>> = {
  "access-control-allow-methods": "GET, POST, DELETE",
  "access-control-allow-headers": "Authorization, Content-Type",
  "access-control-max-age": "600",
};

/** The edge as anybody outside sees it: reachable, who it says that it is, its keys, which pages may use it, its cookie, its clock. */
import { decodeJwt, type JSONWebKeySet } from "jose";
import { z } from "zod";
import { type Check, fail, pass, type Result, skip, warn } from "./finding.ts";
import { clockOffset, offsetOf, probe, type Seen } from "./probe.ts";
import type { Site } from "./site.ts";

/** Nodes and edge allow each other some seconds; past these, fresh tokens look unborn or ended ones alive. */
const SKEW_WARN_MS = 1_000;
const SKEW_FAIL_MS = 5_000;
const STRANGER = "https://keycard-doctor.invalid";
/** Members of a JWK that only its owner may know: RFC 7518 section 6. */
const PRIVATE = ["d", "p", "q", "dp", "dq", "qi", "k", "oth"];

const jwkSet = z.looseObject({
  keys: z.array(z.looseObject({ kid: z.string(), alg: z.string(), use: z.string(), kty: z.string() })),
});

export const edgeChecks: readonly Check<Site>[] = [
  {
    name: "edge",
    vital: true,
    async run({ options: { edgeUrl, anybody, signal } }) {
      await anybody.health();
      const { sentAt, answeredAt, header } = await probe(`${edgeUrl}/healthz`, { signal });
      const ms = answeredAt - sentAt;
      if (edgeUrl.startsWith("http:")) {
        return pass(`It answers after ${ms} ms, in the clear: fine on this machine alone.`, { ms });
      }
      if (header("strict-transport-security") === undefined) {
        return warn(
          "It answers, and its Strict-Transport-Security is taken away.",
          "Let the proxy in front of it pass its headers on.",
        );
      }
      return pass(`It answers over TLS after ${ms} ms.`, { ms });
    },
  },
  {
    name: "discovery",
    async run(site) {
      const { edgeUrl, anybody } = site.options;
      const metadata = await anybody.metadata();
      site.issuer = metadata.issuer;
      if (metadata.issuer !== edgeUrl) {
        const says = `It calls itself ${metadata.issuer}: clients that look for it at ${edgeUrl} must refuse that (RFC 8414).`;
        return fail(says, "Set ISSUER to the address by which it is reached, or name that address.");
      }
      const astray = [metadata.token_endpoint, metadata.jwks_uri].filter((uri) => !uri.startsWith(`${edgeUrl}/`));
      if (astray.length > 0) return fail(`It sends clients to ${astray.join(", ")}.`, "Check ISSUER.");
      return pass("It says who it is, and where its endpoints and keys are.");
    },
  },
  {
    name: "keys",
    async run(site) {
      const { edgeUrl, signal } = site.options;
      const seen = await probe(`${edgeUrl}/.well-known/jwks.json`, { signal });
      const parsed = jwkSet.safeParse(jsonOf(seen.body));
      if (seen.status !== 200 || !parsed.success || parsed.data.keys.length === 0) {
        return fail(
          `Its JWK Set cannot be read (HTTP ${seen.status}): no node can verify a token.`,
          "Look at the edge's log.",
        );
      }
      const { keys } = parsed.data;
      site.jwks = parsed.data as JSONWebKeySet;
      if (keys.some((key) => PRIVATE.some((member) => member in key))) {
        return fail(
          "Its JWK Set holds a private key: whoever read it can sign tokens.",
          "Retire that key at once: `keycard keys retire`.",
        );
      }
      const odd = keys.filter(({ use, alg }) => use !== "sig" || !["RS256", "ES256", "EdDSA"].includes(alg));
      if (odd.length > 0) {
        return fail(
          `A key is for something else (${odd.map(({ alg }) => alg).join(", ")}).`,
          "Check what answers at that address.",
        );
      }
      const algorithms = [...new Set(keys.map(({ alg }) => alg))].join(", ");
      if (!/max-age=\d+/.test(seen.header("cache-control") ?? "")) {
        return warn(
          "Its JWK Set may not be cached: every node asks for it again and again.",
          "Let the proxy pass Cache-Control on.",
        );
      }
      return pass(`${keys.length} public ${keys.length === 1 ? "key" : "keys"}, ${algorithms}.`, { keys: keys.length });
    },
  },
  {
    name: "cors",
    async run({ options: { edgeUrl, origins, signal } }) {
      const preflight = (origin: string) => {
        const headers = {
          origin,
          "access-control-request-method": "POST",
          "access-control-request-headers": "authorization,content-type",
        };
        return probe(`${edgeUrl}/refresh`, { method: "OPTIONS", headers, signal });
      };
      const stranger = (await preflight(STRANGER)).header("access-control-allow-origin");
      if (stranger === "*" || stranger === STRANGER) {
        return fail(
          "Any page may use it with its visitors' cookies.",
          "Name your pages in ALLOWED_ORIGINS, and add no CORS headers in a proxy.",
        );
      }
      const results = await Promise.all(
        origins.map(async (origin) => ({ of: origin, ...corsFor(origin, await preflight(origin)) })),
      );
      if (results.length > 0) return results;
      return pass("Pages of strangers are kept out. --origin https://app.example.com checks that yours is let in.");
    },
  },
  {
    name: "cookie",
    without: ({ noGuest }) => noGuest,
    run: checkCookie,
  },
  {
    name: "clock",
    async run({ options: { edgeUrl, signal }, guest, noGuest }) {
      const seen = await probe(`${edgeUrl}/healthz`, { signal });
      const { iat } = guest === undefined ? {} : decodeJwt(guest.tokens.access_token);
      const byToken =
        guest === undefined || iat === undefined ? undefined : offsetOf(iat * 1000, guest.askedAt, guest.givenAt);
      const offset = byToken ?? clockOffset(seen);
      // Where no proxy adds a Date, only a fresh token shows what time it is there.
      return offset === undefined && noGuest !== undefined ? skip(noGuest) : clockResult(offset, "The edge's clock");
    },
  },
];

/** What a clock that is off by so much means. */
export function clockResult(offsetMs: number | undefined, whose: string): Result {
  if (offsetMs === undefined) {
    return warn(`${whose} is not to be seen: its answers have no Date.`, "Let the proxy in front of it pass Date on.");
  }
  const measured = { offset_ms: offsetMs };
  const seconds = `${Math.abs(offsetMs / 1000).toFixed(1)} s ${offsetMs > 0 ? "ahead of" : "behind"} ours`;
  const todo = "Have all machines keep time by NTP; this one too.";
  if (Math.abs(offsetMs) > SKEW_FAIL_MS) {
    return fail(`${whose} is ${seconds}: tokens are refused as unborn, or live too long.`, todo, measured);
  }
  if (Math.abs(offsetMs) > SKEW_WARN_MS) return warn(`${whose} is ${seconds}.`, todo, measured);
  return pass(`${whose} and ours agree to the second.`, measured);
}

function corsFor(origin: string, seen: Seen): Result {
  const allowed = seen.header("access-control-allow-origin");
  const todo = `Add ${origin} to ALLOWED_ORIGINS of the edge, exactly as the browser writes it.`;
  if (allowed !== origin) return fail("Its pages cannot sign in: the edge does not know this origin.", todo);
  if (seen.header("access-control-allow-credentials") !== "true") {
    return fail("Its pages cannot send the cookie.", "Let no proxy change the CORS headers.");
  }
  const headers = (seen.header("access-control-allow-headers") ?? "").toLowerCase();
  if (!headers.includes("authorization") || !headers.includes("content-type")) {
    return fail("Its pages cannot send Authorization or JSON.", "Let no proxy change the CORS headers.");
  }
  return pass("Its pages can sign in, with the cookie.");
}

/** Signs the guest in as a browser does. */
async function checkCookie({ options: { edgeUrl, origins, signal }, guest }: Site): Promise<Result> {
  const [origin = edgeUrl] = origins;
  const headers = {
    "content-type": "application/json",
    origin: new URL(origin).origin,
    "sec-fetch-site": origins.length === 0 ? "same-origin" : "cross-site",
  };
  const body = JSON.stringify({ login: guest?.login, password: guest?.password, device: "keycard doctor" });
  const seen = await probe(`${edgeUrl}/login`, { method: "POST", headers, body, signal });
  if (seen.status !== 200) {
    return fail(
      `A browser at ${origin} cannot sign in (HTTP ${seen.status}).`,
      "Look at the edge's log; check ALLOWED_ORIGINS and ISSUER.",
    );
  }
  if (seen.body.includes('"refresh_token"')) {
    return fail(
      "A browser is given its refresh token where scripts can read it.",
      "Let the proxy pass Origin and Sec-Fetch-Site on.",
    );
  }
  const cookie = seen.cookies.find((each) => each.startsWith("__Host-keycard="));
  if (cookie === undefined) {
    return fail("A browser is given no cookie: it cannot stay signed in.", "Let the proxy pass Set-Cookie on.");
  }
  const attributes = cookie.split(";").map((part) => part.trim().toLowerCase());
  const missing = ["httponly", "secure", "samesite=strict", "path=/"].filter((each) => !attributes.includes(each));
  if (missing.length > 0 || attributes.some((each) => each.startsWith("domain="))) {
    return fail(
      `The cookie is not as it was made (${missing.join(", ") || "Domain"}).`,
      "Let no proxy change Set-Cookie.",
    );
  }
  return pass("The refresh token goes into a cookie that no script, no other site and no other host can read.");
}

export function jsonOf(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined; // judged as what it is by whoever asked
  }
}

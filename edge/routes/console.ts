/**
 * The console: a page for administrators. This serves it and says what it may do, which is little: run its own script, talk to its
 * own edge, and nothing else. It has no rights of its own: whoever sits at it signs in, and every call is judged like anybody's.
 */
import { html } from "hono/html";
import { Refusal } from "#contract/refusal";
import { CONSOLE_FILES } from "../dist/console.js";
import { type Exchange, pathPart } from "./request.ts";

/** No script but its own, and no text that turns into markup or code (Trusted Types): a name that somebody chose stays a name. */
const POLICY = [
  "default-src 'none'",
  "script-src 'self'",
  "style-src 'self'",
  "img-src 'self'",
  "connect-src 'self'",
  "base-uri 'none'",
  "form-action 'none'",
  "frame-ancestors 'none'",
  "require-trusted-types-for 'script'",
  "trusted-types 'none'",
].join("; ");

const PAGE_HEADERS = {
  "content-security-policy": POLICY,
  "cross-origin-opener-policy": "same-origin",
  "cross-origin-resource-policy": "same-origin",
  "permissions-policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
  "x-frame-options": "DENY",
};

/** `GET /console` */
export async function consolePage(c: Exchange): Promise<Response> {
  const { issuer } = c.var.config;
  const page = html`<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="issuer" content="${issuer}">
<title>Keycard console</title>
<link rel="icon" href="/console/icon.svg" type="image/svg+xml">
<link rel="stylesheet" href="/console/style.css">
<script type="module" src="/console/console.js"></script>
</head>
<body><noscript>The console needs JavaScript. The API behind it does not: see /docs.</noscript></body>
</html>`;
  return c.html(page, 200, PAGE_HEADERS);
}

/** `GET /console/:file`: looked for again each time, and sent again only when it has changed. */
export function consoleFile(c: Exchange): Response {
  const name = pathPart(c, "file");
  if (!isFile(name)) throw new Refusal("not_found", { detail: "no such file of the console" });
  const { type, body, etag } = CONSOLE_FILES[name];
  const headers = { ...PAGE_HEADERS, "cache-control": "no-cache", "content-type": type, etag };
  // Weak where something on the way has compressed it.
  if (c.req.header("if-none-match")?.replace(/^W\//, "") === etag) return c.body(null, 304, headers);
  return c.body(body, 200, headers);
}

function isFile(name: string): name is keyof typeof CONSOLE_FILES {
  return Object.hasOwn(CONSOLE_FILES, name);
}

/** The console as it is served: what its page may do, and that nothing of it is kept longer than it is true. */
import { expect, test } from "vitest";
import { call, ISSUER, refusal } from "./edge.ts";

const get = (path: string, headers = {}) => call("GET", path, undefined, headers);

test("the page may run its own script, ask its own edge, be framed by nobody, and turn no text into markup", async () => {
  const response = await get("/console");
  expect(response.status).toBe(200);
  const policy = response.headers.get("content-security-policy")?.split("; ");
  expect(policy).toEqual([
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
  ]);
  expect(response.headers.get("x-content-type-options")).toBe("nosniff");
  expect(response.headers.get("cross-origin-opener-policy")).toBe("same-origin");
  expect(response.headers.get("cache-control")).toBe("no-store");
  const page = await response.text();
  expect(page).toContain(`<meta name="issuer" content="${ISSUER}">`);
  expect(page).not.toMatch(/<style|style=|<script>|onload=|https?:\/\/(?!keycard\.test)/);
});

test("its files are looked for each time, and sent again only when they have changed", async () => {
  const page = await (await get("/console")).text();
  const paths = [...page.matchAll(/(?:src|href)="(\/console\/[^"]+)"/g)].map(([, path]) => path ?? "");
  expect(paths).toHaveLength(3);
  for (const path of paths) {
    const first = await get(path);
    expect(first.status).toBe(200);
    expect(first.headers.get("cache-control")).toBe("no-cache");
    expect((await first.text()).length).toBeGreaterThan(100);
    const etag = first.headers.get("etag") ?? "";
    expect((await get(path, { "if-none-match": etag })).status).toBe(304);
    expect((await get(path, { "if-none-match": `W/${etag}` })).status).toBe(304);
    expect((await get(path, { "if-none-match": '"another"' })).status).toBe(200);
  }
});

test.for(["/console/worker.js", "/console/__proto__", "/console/..%2fworker.ts"])(
  "%s is no file of it",
  async (path) => {
    expect(await refusal(await get(path))).toBe("not_found");
  },
);

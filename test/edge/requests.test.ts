/** Bad requests and bad settings: a clear answer, and nothing changes. */
import { createExecutionContext } from "cloudflare:test";
import { env, exports } from "cloudflare:workers";
import { expect, test, vi } from "vitest";
import { app } from "../../edge/app.ts";
import { ADMIN, call, type Headers, ISSUER, newLogin, PASSWORD, post, refusal } from "./edge.ts";

function send(path: string, body: BodyInit, headers: Headers = { "content-type": "application/json" }) {
  return exports.default.fetch(new Request(ISSUER + path, { method: "POST", body, headers }));
}

/** The same edge, with other settings. */
function withSettings(settings: Record<string, string | undefined>, path: string, init?: RequestInit) {
  return Promise.resolve(
    app.fetch(new Request(ISSUER + path, init), { ...env, ...settings }, createExecutionContext()),
  );
}

test.for([
  ["GET", "/login", "POST"],
  ["DELETE", "/refresh", "POST"],
  ["PUT", "/logout", "POST"],
  ["POST", "/sessions", "GET, HEAD"],
  ["GET", "/sessions/x", "DELETE"],
  ["POST", "/.well-known/jwks.json", "GET, HEAD"],
  ["PATCH", "/admin/accounts", "GET, HEAD, POST"],
  ["OPTIONS", "/admin/revocations", "GET, HEAD, POST"],
] as const)("%s %s is not a method of it, and the answer says what is", async ([method, path, allowed]) => {
  const response = await call(method, path);
  expect(response.headers.get("allow")).toBe(allowed);
  expect(await refusal(response)).toBe("method_not_allowed");
});

test.for(["/", "/nowhere", "/admin", "/login/x", "/sessions/a/b"])("there is nothing at %s", async (path) => {
  expect(await refusal(await call("GET", path))).toBe("not_found");
});

test.for<[string, string, Headers]>([
  ["no content type", "{}", {}],
  ["plain text", "{}", { "content-type": "text/plain" }],
  ["a form", "login=a&password=b", { "content-type": "application/x-www-form-urlencoded" }],
])("a body with %s is not supported", async ([, body, headers]) => {
  const bytes = new TextEncoder().encode(body);
  for (const path of ["/login", "/refresh", "/logout"]) {
    expect(await refusal(await send(path, bytes, headers))).toBe("media_type_unsupported");
  }
});

test.for<[string, BodyInit]>([
  ["broken JSON", '{"login":'],
  ["an array", "[]"],
  ["a string", '"login"'],
  ["null", "null"],
  ["bytes that are not UTF-8", new Uint8Array([0x7b, 0x22, 0xff, 0x22, 0x7d])],
  ["a member that is not known", '{"login":"a","password":"b","admin":true}'],
  ["a number for a name", '{"login":1,"password":"b"}'],
  ["no password", '{"login":"a"}'],
  ["an empty name", '{"login":"  ","password":"b"}'],
  ["a name of 255 characters", JSON.stringify({ login: "a".repeat(255), password: "b" })],
  ["a password of 1025 characters", JSON.stringify({ login: "a", password: "b".repeat(1025) })],
  ["an array for a password", '{"login":"a","password":["b"]}'],
  ["a device of 129 characters", JSON.stringify({ login: "a", password: "b", device: "c".repeat(129) })],
  ["a deep nest", `{"login":${"[".repeat(5000)}${"]".repeat(5000)}}`],
])("a login with %s is malformed", async ([, body]) => {
  expect(await refusal(await send("/login", body))).toBe("request_malformed");
});

test("a megabyte is too large, with its length or without", async () => {
  const chunk = new Uint8Array(64 * 1024).fill(0x20);
  let left = 16;
  const stream = new ReadableStream({
    pull(controller) {
      if (left-- > 0) controller.enqueue(chunk);
      else controller.close();
    },
  });
  expect(await refusal(await send("/login", new Uint8Array(1024 * 1024)))).toBe("request_too_large");
  expect(await refusal(await send("/login", stream))).toBe("request_too_large");
});

test("sixteen kibibytes are not too large, and one byte more is", async () => {
  const body = JSON.stringify({ login: "a" });
  expect(await refusal(await send("/login", body.padEnd(16 * 1024, " ")))).toBe("request_malformed");
  expect(await refusal(await send("/login", body.padEnd(16 * 1024 + 1, " ")))).toBe("request_too_large");
});

test.for([
  ["no target", { reason: "x" }],
  ["no reason", { target: { kind: "everyone" } }],
  ["an empty reason", { target: { kind: "everyone" }, reason: " " }],
  ["a long reason", { target: { kind: "everyone" }, reason: "x".repeat(501) }],
  ["a kind that is not known", { target: { kind: "planet" }, reason: "x" }],
  ["a session that is no session", { target: { kind: "session", sid: "x" }, reason: "x" }],
  ["two names of one user", { target: { kind: "user", sub: "a", login: "b" }, reason: "x" }],
  ["everyone, but only one", { target: { kind: "everyone", sub: "a" }, reason: "x" }],
  ["a tenant without a name", { target: { kind: "tenant", tid: "" }, reason: "x" }],
])("a revocation with %s is malformed", async ([, body]) => {
  expect(await refusal(await post("/admin/revocations", body, ADMIN))).toBe("request_malformed");
});

test.for<[string, Record<string, string>]>([
  ["a subject with a dot", { sub: "a.b" }],
  ["a scope with a quote", { scope: 'chat"' }],
  ["a tenant with a space", { tid: "a b" }],
])("an account with %s is malformed", async ([, more]) => {
  const response = await post("/admin/accounts", { login: newLogin(), password: PASSWORD, ...more }, ADMIN);
  expect(await refusal(response)).toBe("request_malformed");
});

const ADMIN_CALLS = [
  ["POST", "/admin/accounts"],
  ["GET", "/admin/accounts/x"],
  ["POST", "/admin/revocations"],
  ["GET", "/admin/revocations/x"],
] as const;

test.for(ADMIN_CALLS)("%s %s is for administrators", async ([method, path]) => {
  expect(await refusal(await call(method, path))).toBe("token_missing");
  for (const wrong of ["Bearer wrong", "Bearer an-admin-token-that-only-the-tests-hav", "Basic YTpi"]) {
    const code = await refusal(await call(method, path, undefined, { authorization: wrong }));
    expect(code).toBe(wrong.startsWith("Bearer") ? "token_invalid" : "token_missing");
  }
});

test.for(ADMIN_CALLS)("%s %s is refused where nobody is an administrator", async ([method, path]) => {
  const response = await withSettings({ ADMIN_TOKEN: undefined }, path, { method, headers: ADMIN });
  expect(await refusal(response)).toBe("unavailable");
});

test("wrong settings are all named at once, in the log, without their values", async () => {
  const log = vi.spyOn(console, "error").mockImplementation(() => undefined);
  const settings = {
    ISSUER: "https://keycard.test/",
    KEYCARD_SECRET: "too short",
    ACCESS_TOKEN_ALG: "none",
    ACCESS_TOKEN_TTL_SECONDS: "1",
    CLUSTERS: '[{"id":"a","endpoints":["ftp://hidden"]}]',
    ALLOWED_ORIGINS: "https://app.test/path",
  };
  const response = await withSettings(settings, "/healthz");
  expect(await refusal(response)).toBe("unavailable");
  const line = log.mock.calls.flat().join();
  for (const name of Object.keys(settings)) expect(line).toContain(name);
  for (const value of ["too short", "hidden", "none"]) expect(line).not.toContain(value);
  log.mockRestore();
});

test("what is refused is logged with its code, and never with what was sent", async () => {
  const log = vi.spyOn(console, "warn").mockImplementation(() => undefined);
  const response = await post(
    "/login",
    { login: "a-login-name", password: "a-secret", "a-key": "a-value" },
    { authorization: "Bearer a-token", cookie: "__Host-keycard=a-cookie", origin: ISSUER },
  );
  const [line] = log.mock.calls.flat();
  expect(JSON.parse(line)).toMatchObject({
    code: "request_malformed",
    path: "/login",
    request: response.headers.get("x-request-id"),
  });
  for (const secret of ["a-secret", "a-token", "a-cookie", "a-key", "a-value"]) expect(line).not.toContain(secret);
  log.mockRestore();
});

test("every answer is safe to show and is not kept", async () => {
  for (const response of [await call("GET", "/healthz"), await call("GET", "/nowhere")]) {
    expect(response.headers.get("cache-control")).toBe("no-store");
    expect(response.headers.get("x-content-type-options")).toBe("nosniff");
    expect(response.headers.get("content-security-policy")).toContain("default-src 'none'");
    expect(response.headers.get("x-request-id")).toBeTruthy();
  }
});

test("a refusal that asks for a credential says which kind", async () => {
  expect((await call("GET", "/sessions")).headers.get("www-authenticate")).toBe("Bearer");
});

test.for<[string, Headers, string]>([
  ["nothing", {}, "token_missing"],
  ["another scheme", { authorization: "Basic YTpi" }, "token_missing"],
  ["garbage", { authorization: "Bearer garbage" }, "token_invalid"],
  ["an unsigned token", { authorization: "Bearer eyJhbGciOiJub25lIiwidHlwIjoiYXQrand0In0.e30." }, "token_invalid"],
  ["nine thousand characters", { authorization: `Bearer ${"a".repeat(9000)}` }, "token_invalid"],
])("a session list for %s is refused", async ([, headers, code]) => {
  expect(await refusal(await call("GET", "/sessions", undefined, headers))).toBe(code);
});

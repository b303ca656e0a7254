/** Browsers: the cookie, who may send it, and who may read the answer. */
import { expect, test } from "vitest";
import { call, type Headers, ISSUER, newMember, ok, PASSWORD, post, refusal, signIn, type Tokens } from "./edge.ts";

const APP = "https://app.keycard.test";
const SAME_ORIGIN: Headers = { origin: ISSUER, "sec-fetch-site": "same-origin" };
const FROM_APP: Headers = { origin: APP, "sec-fetch-site": "same-site" };

function cookieOf(response: Response): string {
  return response.headers.get("set-cookie")?.split(";")[0] ?? "";
}

async function browserLogin(headers: Headers = SAME_ORIGIN): Promise<{ cookie: string; response: Response }> {
  const person = await newMember();
  const response = await post("/login", { login: person.login, password: PASSWORD }, headers);
  return { cookie: cookieOf(response), response };
}

test("a browser gets its refresh token in a cookie that no script can read, and nowhere else", async () => {
  const { response } = await browserLogin();
  expect(response.headers.get("set-cookie")).toMatch(
    /^__Host-keycard=kcr\.[^;]+; Max-Age=1209[56][09][0-9]; Path=\/; HttpOnly; Secure; SameSite=Strict$/,
  );
  expect(await ok(response)).not.toHaveProperty("refresh_token");
});

test("everybody else gets it in the body, and no cookie", async () => {
  const { response } = await browserLogin({});
  expect(response.headers.get("set-cookie")).toBeNull();
  expect(await ok(response)).toHaveProperty("refresh_token");
});

test("a browser refreshes with the cookie and nothing in the body, and gets the next cookie", async () => {
  const { cookie } = await browserLogin();
  const response = await call("POST", "/refresh", undefined, { ...SAME_ORIGIN, cookie });
  expect(cookieOf(response)).toMatch(/^__Host-keycard=kcr\./);
  expect(cookieOf(response)).not.toBe(cookie);
  expect(await ok(response)).not.toHaveProperty("refresh_token");
});

test("logging out ends the session and takes the cookie away", async () => {
  const { cookie } = await browserLogin();
  const response = await call("POST", "/logout", undefined, { ...SAME_ORIGIN, cookie });
  expect(response.status).toBe(204);
  expect(response.headers.get("set-cookie")).toMatch(/^__Host-keycard=; Max-Age=0; Path=\/; HttpOnly; Secure/);
  const after = await call("POST", "/refresh", undefined, { ...SAME_ORIGIN, cookie });
  expect(await refusal(after)).toBe("session_revoked");
});

test.for<[string, Headers]>([
  ["its own origin", SAME_ORIGIN],
  ["its own origin, in a browser without Sec-Fetch-Site", { origin: ISSUER }],
  ["its own origin, without an Origin", { "sec-fetch-site": "same-origin" }],
  ["the person, with no page", { "sec-fetch-site": "none" }],
  ["an origin on the list", FROM_APP],
  ["an app on the list", { origin: "capacitor://localhost", "sec-fetch-site": "cross-site" }],
])("the cookie is accepted from %s", async ([, headers]) => {
  const { cookie } = await browserLogin();
  expect((await call("POST", "/refresh", undefined, { ...headers, cookie })).status).toBe(200);
});

test.for<[string, Headers]>([
  ["another site", { origin: "https://evil.test", "sec-fetch-site": "cross-site" }],
  ["another origin of the same site", { origin: "https://blog.keycard.test", "sec-fetch-site": "same-site" }],
  ["a page without an origin", { origin: "null", "sec-fetch-site": "cross-site" }],
  ["another site that hides its origin", { "sec-fetch-site": "cross-site" }],
  ["the same site without an origin", { "sec-fetch-site": "same-site" }],
  ["our own origin, as another site would forge it", { origin: ISSUER, "sec-fetch-site": "cross-site" }],
  ["our own origin over http", { origin: "http://keycard.test", "sec-fetch-site": "same-site" }],
  ["who knows where", {}],
])("the cookie is refused from %s, and the session lives on", async ([, headers]) => {
  const { cookie } = await browserLogin();
  for (const path of ["/refresh", "/logout", "/login"]) {
    expect(await refusal(await post(path, {}, { ...headers, cookie }))).toBe("origin_forbidden");
  }
  expect((await call("POST", "/refresh", undefined, { ...SAME_ORIGIN, cookie })).status).toBe(200);
});

test("a browser's cookie is what counts, whatever the body says", async () => {
  const { cookie } = await browserLogin();
  const body = { refresh_token: "something else" };
  expect((await post("/refresh", body, { ...SAME_ORIGIN, cookie })).status).toBe(200);
});

test("a browser that brings its token in the body is moved to the cookie", async () => {
  const { refresh_token } = await signIn(await newMember());
  const response = await post("/refresh", { refresh_token }, SAME_ORIGIN);
  expect(cookieOf(response)).toMatch(/^__Host-keycard=kcr\./);
  expect((await ok<Tokens>(response)).refresh_token).toBeUndefined();
});

async function administratorLogin(headers: Headers = SAME_ORIGIN): Promise<Response> {
  const person = await newMember({ scope: "audit:read" });
  return await post("/login", { login: person.login, password: PASSWORD, resource: ISSUER }, headers);
}

test("administration has a cookie of its own, which gives no other tokens, and which no other gives", async () => {
  const response = await administratorLogin();
  expect(response.headers.get("set-cookie")).toMatch(
    /^__Host-keycard-administration=kcr\.[^;]+; Max-Age=\d+; Path=\/; HttpOnly; Secure; SameSite=Strict$/,
  );
  expect(await ok(response)).not.toHaveProperty("refresh_token");
  const [cookie, { cookie: ordinary }] = [cookieOf(response), await browserLogin()];
  const both = { ...SAME_ORIGIN, cookie: `${ordinary}; ${cookie}` };
  expect(await refusal(await post("/refresh", {}, { ...SAME_ORIGIN, cookie }))).toBe("token_missing");
  const crossed = await post("/refresh", { resource: ISSUER }, { ...SAME_ORIGIN, cookie: ordinary });
  expect(await refusal(crossed)).toBe("token_missing");
  const ofAdministrator = await ok<Tokens>(await post("/refresh", { resource: ISSUER }, both));
  const ofPerson = await ok<Tokens>(await post("/refresh", {}, both));
  expect(ofAdministrator.sub).not.toBe(ofPerson.sub);
  const over = await post("/logout", { resource: ISSUER }, both);
  expect(over.headers.get("set-cookie")).toMatch(/^__Host-keycard-administration=; Max-Age=0;/);
  expect((await post("/refresh", {}, both)).status).toBe(200);
  expect(await refusal(await post("/refresh", { resource: ISSUER }, both))).toBe("session_revoked");
});

test("a page of an app makes nobody an administrator, though it may use the other cookie", async () => {
  const headers = { ...FROM_APP, cookie: cookieOf(await administratorLogin()) };
  for (const path of ["/refresh", "/logout"]) {
    expect(await refusal(await post(path, { resource: ISSUER }, headers))).toBe("origin_forbidden");
  }
  expect(await refusal(await administratorLogin(FROM_APP))).toBe("origin_forbidden");
  expect((await post("/refresh", { resource: ISSUER }, { ...headers, ...SAME_ORIGIN })).status).toBe(200);
});

test("a login from a page that is not trusted is refused before anything is judged", async () => {
  const response = await post("/login", {}, { origin: "https://evil.test", "sec-fetch-site": "cross-site" });
  expect(await refusal(response)).toBe("origin_forbidden");
});

test("an origin on the list may read answers, refusals included, with credentials", async () => {
  const response = await call("GET", "/sessions", undefined, FROM_APP);
  expect(response.headers.get("access-control-allow-origin")).toBe(APP);
  expect(response.headers.get("access-control-allow-credentials")).toBe("true");
  expect(response.headers.get("vary")).toBe("Origin");
});

test("an origin on the list passes the preflight", async () => {
  const response = await call("OPTIONS", "/refresh", undefined, {
    ...FROM_APP,
    "access-control-request-method": "POST",
    "access-control-request-headers": "content-type",
  });
  expect(response.status).toBe(204);
  expect(response.headers.get("access-control-allow-methods")).toContain("POST");
  expect(response.headers.get("access-control-allow-headers")).toContain("Content-Type");
});

test("any other origin may read nothing", async () => {
  for (const method of ["GET", "OPTIONS"]) {
    const response = await call(method, "/sessions", undefined, { origin: "https://evil.test" });
    expect(response.headers.get("access-control-allow-origin")).toBeNull();
  }
});

/** The description of the edge, held against the edge: every route is in it, and what it says of an answer is true. */
import { expect, test } from "vitest";
import type { z } from "zod";
import { ROUTES } from "../../edge/app.ts";
import { problem } from "../../edge/reference/answers.ts";
import { OPERATIONS } from "../../edge/reference/operations.ts";
import { basic, newClient } from "./clients.ts";
import { aNode, jwtIn, queryToken } from "./cluster.ts";
import {
  ADMIN,
  bearer,
  call,
  type Headers,
  login,
  newLogin,
  newMember,
  ok,
  PASSWORD,
  post,
  type Tokens,
} from "./edge.ts";
import { OpenIdProvider } from "./issuer.ts";

interface Document {
  readonly openapi: string;
  readonly paths: Readonly<Record<string, Readonly<Record<string, DocumentedOperation>>>>;
}
interface DocumentedOperation {
  readonly responses: Readonly<Record<string, unknown>>;
  readonly requestBody?: {
    readonly content: Readonly<Record<string, { readonly schema: object; readonly example: object }>>;
  };
}

/** What a call needs to succeed. */
interface Sample {
  readonly path?: string;
  readonly body?: unknown;
  readonly headers?: Headers;
}

const POLL = "urn:ietf:rfc:8936";
/** The pages are for people. */
const UNDOCUMENTED = ["GET /docs", "GET /console", "GET /console/:file"];

async function document(): Promise<Document> {
  return await ok<Document>(await call("GET", "/openapi.json"));
}

/** One call that works, for every operation, each with people of its own. */
const SAMPLES: Readonly<Record<string, () => Promise<Sample>>> = {
  "POST /login": async () => ({ body: { login: (await newMember()).login, password: PASSWORD } }),
  "POST /refresh": async () => ({ body: { refresh_token: (await person()).refresh_token } }),
  "POST /logout": async () => ({ body: { refresh_token: (await person()).refresh_token } }),
  "POST /password": async () => ({
    body: { current_password: PASSWORD, new_password: "another one that is long" },
    headers: bearer((await person()).access_token),
  }),
  "POST /ticket": async () => ({ headers: bearer((await person()).access_token) }),
  "GET /sessions": async () => ({ headers: bearer((await person()).access_token) }),
  "DELETE /sessions/:sid": async () => {
    const { sid, access_token } = await person();
    return { path: `/sessions/${sid}`, headers: bearer(access_token) };
  },
  "POST /oauth/token": async () => form({ grant_type: "refresh_token", refresh_token: (await person()).refresh_token }),
  "POST /oauth/revoke": async () => form({ token: (await person()).refresh_token }),
  "POST /oauth/introspect": async () =>
    form({ token: (await person()).access_token }, basic(await newClient(["sessions:read"]))),
  "GET /.well-known/oauth-authorization-server": nothing,
  "GET /.well-known/openid-configuration": nothing,
  "GET /.well-known/jwks.json": nothing,
  "GET /healthz": nothing,
  "GET /revocations": async () => ({ headers: bearer(await queryToken(aNode("south"))) }),
  "GET /openapi.json": nothing,
  "GET /.well-known/ssf-configuration": nothing,
  "POST /ssf/streams": async () => admin({ body: { delivery: { method: POLL }, description: "x" } }),
  "GET /ssf/streams": async () => admin({ path: `/ssf/streams?stream_id=${await aStream()}` }),
  "DELETE /ssf/streams": async () => admin({ path: `/ssf/streams?stream_id=${await aStream()}` }),
  "GET /ssf/status": async () => admin({ path: `/ssf/status?stream_id=${await aStream()}` }),
  "POST /ssf/verification": async () => admin({ body: { stream_id: await aStream(), state: "x" } }),
  "POST /ssf/poll/:stream_id": async () => admin({ path: `/ssf/poll/${await aStream()}`, body: {} }),
  "POST /ssf/events": async () => {
    const events = { "https://schemas.openid.net/secevent/ssf/event-type/verification": {} };
    const claims = { aud: "the edge", sub: undefined, exp: undefined, jti: crypto.randomUUID(), events };
    const body = await new OpenIdProvider("transmitter").idToken(claims, { typ: "secevent+jwt" });
    return { body, headers: { "content-type": "application/secevent+jwt" } };
  },
  "POST /global-token-revocation": async () =>
    admin({ body: { sub_id: { format: "email", email: (await newMember()).login } } }),
  "POST /admin/accounts": async () => admin({ body: { login: newLogin(), password: PASSWORD, tid: "acme" } }),
  "GET /admin/accounts": async () =>
    admin({ path: `/admin/accounts?login=${encodeURIComponent((await newMember()).login)}` }),
  "GET /admin/accounts/:sub": async () => admin({ path: `/admin/accounts/${(await person()).sub}` }),
  "PATCH /admin/accounts/:sub": async () =>
    admin({ path: `/admin/accounts/${(await newMember()).sub}`, body: { disabled: true, until: 4_000_000_000 } }),
  "DELETE /admin/accounts/:sub": async () => admin({ path: `/admin/accounts/${(await newMember()).sub}` }),
  "GET /admin/accounts/:sub/sockets": async () => admin({ path: `/admin/accounts/${(await person()).sub}/sockets` }),
  "POST /admin/sessions": async () => admin({ body: { sub: (await newMember()).sub, device: "a phone" } }),
  "POST /admin/revocations": async () =>
    admin({ body: { target: { kind: "user", sub: (await newMember()).sub }, reason: "x" } }),
  "GET /admin/revocations": async () => {
    await ok(await post("/admin/revocations", { target: { kind: "token", jti: "x" }, reason: "x" }, ADMIN));
    return admin({ path: "/admin/revocations?limit=5" });
  },
  "POST /admin/revocations/bulk": async () => admin({ body: { users: [(await newMember()).sub], reason: "x" } }),
  "GET /admin/revocations/:id": async () => {
    const body = { target: { kind: "token", jti: "x" }, reason: "x" };
    const { id } = await ok<{ id: string }>(await post("/admin/revocations", body, ADMIN));
    return admin({ path: `/admin/revocations/${id}`, headers: { prefer: "wait=5" } });
  },
  "POST /admin/clients": async () => admin({ body: { name: "x", scopes: ["audit:read"], tid: "acme" } }),
  "GET /admin/clients/:client_id": aClient,
  "PATCH /admin/clients/:client_id": async () => ({ ...(await aClient()), body: { disabled: true } }),
  "DELETE /admin/clients/:client_id": aClient,
  "GET /admin/status": async () => admin({}),
  "GET /admin/latency": async () => admin({}),
  "GET /admin/me": async () => admin({}),
  "GET /admin/audit": async () => admin({ path: "/admin/audit?limit=5" }),
  "GET /admin/audit/verify": async () => admin({}),
  "GET /metrics": async () => admin({}),
  "GET /admin/keys": async () => admin({}),
  "POST /admin/keys/rotate": async () => admin({ body: { purpose: "events", retire: true, reason: "x" } }),
};

async function nothing(): Promise<Sample> {
  return {};
}

async function person(): Promise<Tokens> {
  return await login(await newMember(), "a phone");
}

async function aStream(): Promise<string> {
  return (await ok<{ stream_id: string }>(await post("/ssf/streams", { delivery: { method: POLL } }, ADMIN))).stream_id;
}

async function aClient(): Promise<Sample> {
  return admin({ path: `/admin/clients/${(await newClient(["audit:read"])).client_id}` });
}

function admin(sample: Sample): Sample {
  return { ...sample, headers: { ...ADMIN, ...sample.headers } };
}

function form(fields: Record<string, string>, headers: Headers = {}): Sample {
  const type = { "content-type": "application/x-www-form-urlencoded" };
  return { body: new URLSearchParams(fields), headers: { ...type, ...headers } };
}

/** Whether a value has the shape, and no member that the shape does not name. */
function expectShape(schema: z.ZodType, value: unknown): void {
  expect(schema.safeParse(value)).toEqual({ success: true, data: value });
}

test("every route is described, and nothing that is no route", () => {
  const routes = ROUTES.flatMap(([path, methods]) => Object.keys(methods).map((method) => `${method} ${path}`));
  expect(Object.keys(OPERATIONS).sort()).toEqual(routes.filter((route) => !UNDOCUMENTED.includes(route)).sort());
});

test("the document is OpenAPI 3.1, with every operation and an example for every body", async () => {
  const { openapi, paths } = await document();
  expect(openapi).toBe("3.1.0");
  for (const [name, { body }] of Object.entries(OPERATIONS)) {
    const [method = "", path = ""] = name.split(" ");
    const operation = paths[path.replaceAll(/:(\w+)/g, "{$1}")]?.[method.toLowerCase()];
    expect(operation, name).toBeDefined();
    if (body === undefined) continue;
    expect(body.schema.safeParse(body.example).error, name).toBeUndefined();
    expect(operation?.requestBody?.content[body.media]).toMatchObject({
      schema: expect.any(Object),
      example: body.example,
    });
  }
});

test.for(Object.keys(OPERATIONS))("%s answers as it is described", async (name) => {
  const [method = "", template = ""] = name.split(" ");
  const sample = await SAMPLES[name]?.();
  if (sample === undefined) throw new Error(`there is no sample call of ${name}`);
  const response = await call(method, sample.path ?? template, sample.body, sample.headers);
  const answers = OPERATIONS[name]?.answers;
  expect(Object.keys(answers ?? {})).toContain(String(response.status));
  const schema = answers?.[response.status];
  if (schema === null || schema === undefined) expect(await response.text()).toBe("");
  else expectShape(schema, OPERATIONS[name]?.media === undefined ? await response.json() : await jwtIn(response));
});

test.for(Object.keys(OPERATIONS))("%s is refused as it is described", async (name) => {
  const [method = "", template = ""] = name.split(" ");
  const { access } = OPERATIONS[name] ?? {};
  if (access === "anybody") return;
  const response = await call(method, template, undefined, { authorization: "Bearer wrong" });
  const documented = (await document()).paths[template.replaceAll(/:(\w+)/g, "{$1}")]?.[method.toLowerCase()];
  if (template.startsWith("/oauth/")) expect(await response.json()).toHaveProperty("error");
  else {
    expect(Object.keys(documented?.responses ?? {})).toContain(String(response.status));
    expectShape(problem, await response.json());
  }
});

test("the page shows every operation, without a script and with nothing from elsewhere", async () => {
  const response = await call("GET", "/docs");
  const policy = response.headers.get("content-security-policy") ?? "";
  expect(policy).toMatch(/^default-src 'none'; style-src 'sha256-[A-Za-z0-9+/]{43}=';/);
  const page = await response.text();
  for (const name of Object.keys(OPERATIONS)) expect(page).toContain(`<code>${name}</code>`);
  expect(page).not.toMatch(/<script|javascript:|(src|href)="?(https?:|\/\/)|onclick|@import|url\(/);
  const [, style = ""] = /<style>([\s\S]*)<\/style>/.exec(page) ?? [];
  const hash = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(style));
  expect(policy).toContain(btoa(String.fromCharCode(...new Uint8Array(hash))));
});

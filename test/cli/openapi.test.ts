/**
 * Every call that the command line makes, held against the description that the running edge gives of itself: path, method, query
 * and body. Recorded on the way from real commands to the real edge.
 */
import { afterAll, expect, test } from "vitest";
import { z } from "zod";
import { EDGE_OPERATIONS } from "../../infra/edge-client.ts";
import { newMachine } from "./machine.ts";
import { edge, newPerson, stack } from "./people.ts";
import { type Passed, startProxy } from "./proxy.ts";
import { APP_ORIGIN } from "./shared-stack.ts";

interface Described {
  readonly parameters?: readonly {
    readonly name: string;
    readonly in: string;
    readonly required?: boolean;
    readonly schema: object;
  }[];
  readonly requestBody?: { readonly content: Readonly<Record<string, { readonly schema: object }>> };
}
type Description = { readonly paths: Readonly<Record<string, Readonly<Record<string, Described>>>> };

const description: Description = await (await fetch(`${stack.edgeUrl}/openapi.json`)).json();
const seen = new Set<string>();

/** The operation that a request is of, `GET /admin/accounts/:sub`; a preflight asks about one and is none. */
function operationOf({ method, path }: Passed): { name: string; described: Described } | undefined {
  const { pathname } = new URL(path, stack.edgeUrl);
  const parts = pathname.split("/");
  const fits = (template: string) => {
    const names = template.split("/");
    return names.length === parts.length && names.every((name, i) => name === parts[i] || name.startsWith("{"));
  };
  // What is written out comes before what stands for anything.
  const templates = Object.keys(description.paths)
    .filter(fits)
    .sort((a, b) => a.split("{").length - b.split("{").length);
  const [template = ""] = templates;
  const described = description.paths[template]?.[method.toLowerCase()];
  return described && { name: `${method} ${template.replaceAll(/\{(\w+)\}/g, ":$1")}`, described };
}

/** What is wrong with a request, by the description. */
function problemsOf(request: Passed): string[] {
  const operation = operationOf(request);
  if (operation === undefined) return [`${request.method} ${request.path} is not described`];
  const { name, described } = operation;
  seen.add(name);
  return [...queryProblems(request, described), ...bodyProblems(request, described)].map(
    (problem) => `${name}: ${problem}`,
  );
}

function queryProblems({ path }: Passed, { parameters = [] }: Described): string[] {
  return [...new URL(path, stack.edgeUrl).searchParams].flatMap(([name, value]) => {
    const parameter = parameters.find((each) => each.in === "query" && each.name === name);
    if (parameter === undefined) return [`there is no ${name} in the query`];
    const schema = z.fromJSONSchema(parameter.schema as Parameters<typeof z.fromJSONSchema>[0]);
    // A number comes as text.
    return [value, Number(value)].some((each) => schema.safeParse(each).success) ? [] : [`${name} cannot be ${value}`];
  });
}

function bodyProblems({ body, headers }: Passed, { requestBody }: Described): string[] {
  if (body === "") return [];
  const media = String(headers["content-type"]).split(";")[0] ?? "";
  const schema = requestBody?.content[media]?.schema;
  if (schema === undefined) return [`no ${media} is taken`];
  const value = media === "application/json" ? JSON.parse(body) : Object.fromEntries(new URLSearchParams(body));
  const { error } = z.fromJSONSchema(schema as Parameters<typeof z.fromJSONSchema>[0]).safeParse(value);
  return error === undefined
    ? []
    : [`${error.issues.map(({ path, message }) => `${path.join(".")}: ${message}`).join("; ")}`];
}

/** Runs command lines one after another, through a proxy that keeps what they ask. */
async function recorded(lines: readonly (readonly [line: string, input?: string])[]): Promise<void> {
  const proxy = await startProxy();
  const machine = newMachine({ KEYCARD_EDGE: proxy.url, KEYCARD_TOKEN: stack.adminToken });
  for (const [line, input] of lines) {
    const { code, stderr } = await machine.run(line.split(" "), { input: input ?? "" });
    expect({ line, code, stderr: code === 0 ? "" : stderr }).toEqual({ line, code: 0, stderr: "" });
  }
  expect(proxy.passed.flatMap(problemsOf)).toEqual([]);
}

test("of people and their sessions", async () => {
  const person = await newPerson();
  const login = `described-${process.pid}@example.com`;
  await recorded([
    [`accounts create ${login} --tenant acme --scope chat`, "a long password"],
    ["accounts search desc --tenant acme --limit 5"],
    [`accounts show ${login}`],
    [`sessions ${person.login}`],
    [`accounts disable --sub ${person.sub} --until 2h -r why`],
    [`accounts enable --sub ${person.sub} -r why`],
    [`accounts delete ${login} --yes -r why`],
    [`revoke user ${person.login} --issued-before 1h -r why`],
    [`revoke user ${person.login} --margin 5 -r why --wait 0 --dry-run`],
    ["revoke token --jti some-token -r why"],
    ["revoke users --subjects --yes -r why", person.sub],
  ]);
});

test("of receipts, the trail, keys, clients and the state of things", async () => {
  const { client_id } = await edge.createClient({ name: "described", scopes: ["audit:read"] });
  const { receipts } = await edge.receipts({ limit: 1 });
  await recorded([
    ["receipts --state enforced --sub ada --since 1h --until 2030-01-01 --limit 3"],
    [`receipts follow ${receipts[0]?.id}`],
    ["audit --type revocation --sub ada --tenant acme --since 1h --until 2030-01-01 --limit 3"],
    ["audit --after 2"],
    ["audit verify"],
    ["keys"],
    ["keys rotate --purpose events -r why"],
    ["clients create tool --scope audit:read --scope keys:write --tenant acme"],
    [`clients show ${client_id}`],
    [`clients disable ${client_id}`],
    [`clients enable ${client_id}`],
    [`clients delete ${client_id}`],
    ["status"],
    ["whoami"],
  ]);
});

test("of signing in, as whoever one is", async () => {
  const proxy = await startProxy();
  const machine = newMachine();
  const person = await newPerson({ scope: "accounts:read" });
  const { client_id, client_secret = "" } = await edge.createClient({ name: "described", scopes: ["audit:read"] });
  for (const [args, input] of [
    [["login", proxy.url, "-p", "person", "--login", person.login], person.password],
    [["login", proxy.url, "-p", "client", "--client-id", client_id], client_secret],
    [["audit", "-p", "client"], ""],
    [["logout", "person"], ""],
  ] as const) {
    expect(await machine.run(args, { input })).toMatchObject({ code: 0 });
  }
  expect(proxy.passed.flatMap(problemsOf)).toEqual([]);
});

test("of the doctor", async () => {
  const proxy = await startProxy();
  const machine = newMachine({ KEYCARD_EDGE: proxy.url, KEYCARD_TOKEN: stack.adminToken });
  await machine.run(["doctor", "--origin", APP_ORIGIN]);
  const own = proxy.passed.filter(({ method }) => method !== "OPTIONS");
  expect(own.length).toBeGreaterThan(10);
  expect(own.flatMap(problemsOf)).toEqual([]);
});

afterAll(() => {
  // Nothing is left that no command of these asked.
  const refreshed = "POST /refresh";
  expect(EDGE_OPERATIONS.filter((operation) => !seen.has(operation) && operation !== refreshed)).toEqual([]);
});

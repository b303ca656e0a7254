/** What the running edge says of its operations, and whether a request is one of them: path, method, query and body. */
import { z } from "zod";
import { stack } from "./people.ts";
import type { Passed } from "./proxy.ts";

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
/** Operations that were asked. */
export const asked = new Set<string>();

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
export function problemsOf(request: Passed): string[] {
  const operation = operationOf(request);
  if (operation === undefined) return [`${request.method} ${request.path} is not described`];
  const { name, described } = operation;
  asked.add(name);
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

/** What every route does with a request: reads its body within bounds, finds its bearer token, knows its settings. */
import type { Context } from "hono";
import type { z } from "zod";
import { type MemberProblem, Refusal } from "#contract/refusal";
import { parseJson, readAtMost } from "../bounded-body.ts";
import type { Config } from "../config.ts";

export interface Keycard {
  Bindings: Env;
  Variables: { config: Config; requestId: string };
}
export type Exchange = Context<Keycard>;

const MAX_BODY_BYTES = 16 * 1024;
/** Members that are wrong beyond these are not told. */
const MAX_PROBLEMS = 20;

/**
 * The body, judged by a schema. An empty one counts as `{}`.
 *
 * @param maxBytes more than the usual 16 KiB where a route is made for it
 * @throws {Refusal} `request_too_large`, `media_type_unsupported`, `request_malformed`
 */
export async function readBody<T extends z.ZodType>(
  c: Exchange,
  schema: T,
  maxBytes: number = MAX_BODY_BYTES,
): Promise<z.output<T>> {
  const bytes = await readBytes(c, maxBytes);
  return judged(schema, bytes.byteLength === 0 ? {} : json(c, bytes));
}

/**
 * A form (`application/x-www-form-urlencoded`), judged by a schema. What the schema does not name is left aside, and a
 * parameter without a value counts as absent (RFC 6749 section 3.2).
 *
 * @throws {Refusal} `request_too_large`, `media_type_unsupported`, `request_malformed`, for a parameter given twice as well
 */
export async function readForm<T extends z.ZodType>(c: Exchange, schema: T): Promise<z.output<T>> {
  const bytes = await readBytes(c, MAX_BODY_BYTES);
  if (mediaType(c) !== "application/x-www-form-urlencoded") throw new Refusal("media_type_unsupported");
  const given = [...new URLSearchParams(new TextDecoder().decode(bytes))].filter(([, value]) => value !== "");
  const twice = given.some(([name], index) => given.findIndex(([other]) => other === name) !== index);
  if (twice) throw new Refusal("request_malformed", { detail: "a parameter is given twice" });
  return judged(schema, Object.fromEntries(given));
}

/** @throws {Refusal} `request_malformed`, naming every member that is wrong */
function judged<T extends z.ZodType>(schema: T, value: unknown): z.output<T> {
  const parsed = schema.safeParse(value);
  if (parsed.success) return parsed.data;
  const problems = parsed.error.issues.slice(0, MAX_PROBLEMS).map(memberProblem);
  const detail = problems.map(({ member, problem }) => `${member}: ${problem}`).join("; ");
  throw new Refusal("request_malformed", { detail, problems });
}

/** Which member and which rule, but neither what stood there nor members that we do not know: both may be secrets. */
function memberProblem(issue: z.core.$ZodIssue): MemberProblem {
  const problem = issue.code === "unrecognized_keys" ? "has a member that is not known" : issue.message;
  return { member: issue.path.join(".") || "body", problem };
}

/** @throws {Refusal} `request_too_large` */
export async function readBytes(c: Exchange, maxBytes: number): Promise<Uint8Array> {
  const announced = c.req.header("content-length");
  const length = Number(announced ?? 0);
  if (!(length > maxBytes)) {
    // No more come than were announced (RFC 9112 section 6.3), and all at once cost a fraction of one piece after the other.
    const isBounded = announced !== undefined && length >= 0;
    const bytes = isBounded
      ? new Uint8Array(await c.req.raw.arrayBuffer())
      : await readAtMost(c.req.raw.body, maxBytes);
    if (bytes !== undefined && bytes.byteLength <= maxBytes) return bytes;
  }
  throw new Refusal("request_too_large", { detail: `more than ${maxBytes} bytes` });
}

/** The media type of the body, without parameters. */
export function mediaType(c: Exchange): string | undefined {
  return c.req.header("content-type")?.split(";")[0]?.trim().toLowerCase();
}

function json(c: Exchange, bytes: Uint8Array): unknown {
  if (mediaType(c) !== "application/json") throw new Refusal("media_type_unsupported");
  const value = parseJson(bytes);
  if (value === undefined) throw new Refusal("request_malformed", { detail: "the body is not JSON in UTF-8" });
  return value;
}

/** The token of `Authorization: Bearer` (RFC 6750 section 2.1), or undefined when there is no such header. */
export function bearer(c: Exchange): string | undefined {
  return /^Bearer +([A-Za-z0-9._~+/-]+=*) *$/i.exec(c.req.header("authorization") ?? "")?.[1];
}

/** A part of the path that the route demands. */
export function pathPart(c: Exchange, name: string): string {
  return c.req.param(name) ?? "";
}

/**
 * The query, judged by a schema.
 *
 * @throws {Refusal} `request_malformed`, for a parameter that is given twice as well
 */
export function readQuery<T extends z.ZodType>(c: Exchange, schema: T): z.output<T> {
  const given = Object.entries(c.req.queries());
  if (given.some(([, values]) => values.length > 1)) {
    throw new Refusal("request_malformed", { detail: "a parameter is given twice" });
  }
  return judged(schema, Object.fromEntries(given.map(([name, values]) => [name, values[0] ?? ""])));
}

/** What every route does with a request: reads its body within bounds, finds its bearer token, knows its settings. */
import type { Context } from "hono";
import type { z } from "zod";
import { Refusal } from "#contract/refusal";
import { parseJson, readAtMost } from "../bounded-body.ts";
import type { Config } from "../config.ts";

export interface Keycard {
  Bindings: Env;
  Variables: { config: Config; requestId: string };
}
export type Exchange = Context<Keycard>;

const MAX_BODY_BYTES = 16 * 1024;

/**
 * The body, judged by a schema. An empty one counts as `{}`.
 *
 * @throws {Refusal} `request_too_large`, `media_type_unsupported`, `request_malformed`
 */
export async function readBody<T extends z.ZodType>(c: Exchange, schema: T): Promise<z.output<T>> {
  const bytes = await readBytes(c);
  const parsed = schema.safeParse(bytes.byteLength === 0 ? {} : json(c, bytes));
  if (parsed.success) return parsed.data;
  // Which member and which rule, but neither what stood there nor members that we do not know: both may be secrets.
  const problems = parsed.error.issues.map(({ path, code }) => `${path.join(".") || "body"}: ${code}`);
  throw new Refusal("request_malformed", { detail: problems.join("; ") });
}

async function readBytes(c: Exchange): Promise<Uint8Array> {
  const tooLarge = new Refusal("request_too_large", { detail: `more than ${MAX_BODY_BYTES} bytes` });
  if (Number(c.req.header("content-length") ?? 0) > MAX_BODY_BYTES) throw tooLarge;
  const bytes = await readAtMost(c.req.raw.body, MAX_BODY_BYTES);
  if (bytes === undefined) throw tooLarge;
  return bytes;
}

function json(c: Exchange, bytes: Uint8Array): unknown {
  const mediaType = c.req.header("content-type")?.split(";")[0]?.trim().toLowerCase();
  if (mediaType !== "application/json") throw new Refusal("media_type_unsupported");
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

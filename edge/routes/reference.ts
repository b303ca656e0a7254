/** The reference: for machines as OpenAPI, for people as a page. */
import { openApiDocument } from "../reference/openapi.ts";
import { REFERENCE_PAGE_POLICY, referencePage } from "../reference/reference-page.ts";
import type { Exchange } from "./request.ts";

const CACHED = { "cache-control": "public, max-age=300" };

export function openApi(c: Exchange): Response {
  return c.json(openApiDocument(c.var.config.issuer), 200, CACHED);
}

export function docs(c: Exchange): Response {
  return c.html(referencePage(), 200, { ...CACHED, "content-security-policy": REFERENCE_PAGE_POLICY });
}

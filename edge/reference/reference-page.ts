/**
 * The reference as a page for people: no script, nothing from elsewhere, light or dark as the reader has it, and usable with a
 * keyboard because everything on it is a link or a `details`.
 */

import { createHash } from "node:crypto";
import { html, raw } from "hono/html";
import { REFUSALS } from "#contract/refusal";
import { isScope, refusalsOf } from "./openapi.ts";
import { OPERATIONS, type Operation } from "./operations.ts";

const STYLE = `
:root { color-scheme: light dark; --quiet: light-dark(#57606a, #9aa4af); --line: light-dark(#d0d7de, #3d444d);
  --panel: light-dark(#f6f8fa, #161b22); --mark: light-dark(#0550ae, #79c0ff); }
body { font: 16px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 60rem; padding: 1.5rem; }
h1 { margin-bottom: 0; } h2 { border-bottom: 1px solid var(--line); margin-top: 2.5rem; }
nav ul { columns: 3 12rem; list-style: none; padding: 0; } a { color: var(--mark); }
details { border: 1px solid var(--line); border-radius: 6px; margin: .5rem 0; padding: .5rem .75rem; }
summary { cursor: pointer; } summary code { font-weight: 600; } .quiet { color: var(--quiet); }
pre { background: var(--panel); border-radius: 6px; overflow: auto; padding: .75rem; }
table { border-collapse: collapse; } td, th { border-bottom: 1px solid var(--line); padding: .25rem .75rem .25rem 0; text-align: left; vertical-align: top; }
:focus-visible { outline: 2px solid var(--mark); outline-offset: 2px; }
`;

/** For the page alone: its own style, by its hash, and nothing else. */
export const REFERENCE_PAGE_POLICY = [
  "default-src 'none'",
  `style-src 'sha256-${btoa(String.fromCharCode(...createHash("sha256").update(STYLE).digest()))}'`,
  "base-uri 'none'",
  "form-action 'none'",
  "frame-ancestors 'none'",
].join("; ");

/** The whole page. */
export function referencePage(): string {
  const operations = Object.entries(OPERATIONS);
  const tags = [...new Set(operations.map(([, { tag }]) => tag))];
  const page = html`<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>Keycard edge: reference</title><style>${raw(STYLE)}</style>
</head>
<body>
<header><h1>Keycard edge</h1><p class="quiet">Every operation. For machines: <a href="/openapi.json">openapi.json</a></p></header>
<nav aria-label="Parts"><ul>${tags.map((tag) => html`<li><a href="#${tag}">${tag}</a></li>`)}
<li><a href="#refusals">Refusals</a></li></ul></nav>
<main>${tags.map((tag) => {
    const own = operations.filter(([, operation]) => operation.tag === tag);
    return html`<section id="${tag}"><h2>${tag}</h2>${own.map(([name, each]) => operationSection(name, each))}</section>`;
  })}
<section id="refusals"><h2>Refusals</h2><table><thead><tr><th>Code</th><th>Status</th><th>Advice</th><th>Meaning</th></tr></thead>
<tbody>${Object.entries(REFUSALS).map(([code, { status, advice, message }]) => {
    return html`<tr><td><code>${code}</code></td><td>${status}</td><td>${advice}</td><td>${message}</td></tr>`;
  })}</tbody></table></section>
</main>
</body>
</html>`;
  return String(page);
}

function operationSection(name: string, operation: Operation) {
  const { summary, access, body, headers = [], answers } = operation;
  return html`<details><summary><code>${name}</code> <span class="quiet">${summary}</span></summary>
<p>For ${audience(access)}.</p>
${headers.map(([header, description]) => html`<p><code>${header}</code> ${description}</p>`)}
${body && html`<p>In: <code>${body.media}</code></p><pre tabindex="0">${example(body)}</pre>`}
<p>Out: ${Object.keys(answers).join(", ")}. Refusals: ${refusalsOf(operation).join(", ")}.</p></details>`;
}

function example({ media, example }: NonNullable<Operation["body"]>): string {
  if (typeof example === "string") return example;
  if (media === "application/json") return JSON.stringify(example, null, 2);
  return Object.entries(example as Record<string, string>)
    .map(([name, value]) => `${name}=${value}`)
    .join("&");
}

function audience(access: string): string {
  if (isScope(access)) return `administrators with ${access}`;
  if (access === "administrator") return "administrators";
  if (access === "bearer") return "the holder of an access token";
  if (access === "node") return "the nodes of a cluster";
  return access === "client" ? "OAuth clients" : "anybody";
}

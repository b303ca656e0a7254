/** The audit trail, the newest first: who did what, to whom, why and from where; and whether anything in it was changed or taken out. */

import type { AuditPage, AuditRecord } from "./answers.ts";
import { AUDIT_TYPES } from "./audit-types.ts";
import type { Desk } from "./desk.ts";
import { type Content, element, fill } from "./dom.ts";
import { loading } from "./loading.ts";
import { table } from "./table.ts";
import { verification } from "./verification.ts";
import { DAY_MS, moment, short } from "./wording.ts";

const PAGE = 50;
const SPANS: readonly (readonly [label: string, ms: number | undefined])[] = [
  ["any time", undefined],
  ["the last hour", DAY_MS / 24],
  ["the last day", DAY_MS],
  ["the last week", 7 * DAY_MS],
];

export function audit(desk: Desk, _part: string, query: URLSearchParams): HTMLElement {
  desk.title("Audit trail");
  const filters = filterBar(desk, query);
  const list = recordTable();
  const older = element("button", { type: "button", textContent: "Show older", hidden: true });
  const content = element("div", {}, list.element, older);
  let shown: AuditRecord[] = [];
  let next: number | undefined;

  const load = (signal: AbortSignal, after?: number) =>
    desk.api.audit({ ...filters.asked(), order: "desc", after, limit: PAGE }, signal);
  const show = (page: AuditPage, before: readonly AuditRecord[] = []) => {
    shown = [...before, ...page.records];
    next = page.next;
    older.hidden = next === undefined;
    list.show(shown);
  };
  const { notice, reload } = loading(desk, content, { load: (signal) => load(signal), show: (page) => show(page) });
  older.onclick = async () => {
    older.disabled = true;
    await load(desk.signal, next).then((page) => show(page, shown), reload);
    older.disabled = false;
  };
  filters.element.onsubmit = (event) => {
    event.preventDefault();
    desk.remember(filters.remembered());
    reload();
  };
  filters.element.onchange = () => filters.element.requestSubmit();
  return element(
    "div",
    { className: "stack" },
    filters.element,
    desk.me.tid === undefined && verification(desk),
    element("section", { className: "panel" }, notice, content),
  );
}

function filterBar(desk: Desk, query: URLSearchParams) {
  const option = (value: string, text: string) => element("option", { value, textContent: text });
  const type = element(
    "select",
    { name: "type" },
    option("", "everything"),
    ...AUDIT_TYPES.map((name) => option(name, typeText(name))),
  );
  const sub = element("input", { name: "sub", maxLength: 64, autocomplete: "off", placeholder: "any" });
  const tid = element("input", { name: "tid", maxLength: 128, autocomplete: "off", placeholder: "any" });
  const span = element("select", { name: "span" }, ...SPANS.map(([label], index) => option(String(index), label)));
  const fields = { type, sub, tid, span };
  for (const [name, field] of Object.entries(fields)) field.value = query.get(name) ?? (name === "span" ? "0" : "");
  if (desk.me.tid !== undefined) Object.assign(tid, { value: desk.me.tid, readOnly: true });
  const form = element(
    "form",
    { className: "search filters" },
    element("label", {}, "What", type),
    element("label", {}, "Whom (subject)", sub),
    element("label", {}, "Tenant", tid),
    element("label", {}, "When", span),
    element("button", { type: "submit", className: "primary", textContent: "Look" }),
  );
  return {
    element: form,
    asked() {
      const [, ms] = SPANS[Number(span.value)] ?? [];
      return {
        ...{ type: type.value, sub: sub.value.trim(), tid: tid.value.trim() },
        since: ms === undefined ? undefined : Date.now() - ms,
      };
    },
    remembered: () => Object.fromEntries(Object.entries(fields).map(([name, { value }]) => [name, value.trim()])),
  };
}

function recordTable() {
  return table<AuditRecord>(
    "Audit records",
    [
      { name: "When", isHead: true, cell: ({ at }) => moment(at) },
      { name: "What", cell: whatParts },
      { name: "By", cell: ({ actor }) => byParts(actor) },
      { name: "Whom", cell: whomParts },
      {
        name: "Why",
        cell: ({ reason }) => element("span", { className: "free", textContent: reason ?? "", title: reason ?? "" }),
      },
      { name: "From", cell: ({ from = {} }) => [from.address, from.country].filter(Boolean).join(", ") || "–" },
      { name: "Record", isNumber: true, cell: recordButton },
    ],
    ({ id }) => id,
    "Nothing in the trail fits that.",
  );
}

function typeText(type: string): string {
  return type.replaceAll("_", " ");
}

function byParts({ kind, id }: AuditRecord["actor"]): Content[] {
  const isPerson = (kind === "user" || kind === "account") && id !== "unknown";
  return [element("span", {}, kind, " ", isPerson ? personLink(id) : short(id))];
}

function whatParts({ type, revocation }: AuditRecord): Content {
  if (revocation === undefined) return typeText(type);
  return element("a", { href: `#/revocations/${encodeURIComponent(revocation)}`, textContent: typeText(type) });
}

function whomParts({ sub, tid, client, kid }: AuditRecord): Content {
  const parts: Content[] = [
    sub !== undefined && personLink(sub),
    client !== undefined && element("span", {}, "client ", short(client)),
    kid !== undefined && element("span", {}, "key ", short(kid)),
    tid !== undefined && element("span", { className: "muted", textContent: `in ${tid}` }),
  ].filter((part) => part !== false);
  return parts.length === 0 ? "–" : element("span", {}, ...parts.flatMap((part) => [part, " "]));
}

function personLink(sub: string): HTMLElement {
  return element("a", { href: `#/people/${encodeURIComponent(sub)}` }, short(sub));
}

function recordButton(record: AuditRecord): Content {
  return element("button", {
    ...{ type: "button", className: "quiet", textContent: String(record.position) },
    attributes: { "aria-label": `Record ${record.position}, whole` },
    onclick: () => openRecord(record),
  });
}

/** The record as the chain has it, for whoever wants to check it. */
function openRecord(record: AuditRecord): void {
  const dialog = element("dialog", { attributes: { "aria-labelledby": "record-title" } });
  const close = element("button", { type: "button", textContent: "Close", onclick: () => dialog.close() });
  fill(
    dialog,
    element("h2", { className: "title", id: "record-title", textContent: `Record ${record.position}` }),
    element("pre", { tabIndex: 0, textContent: JSON.stringify(record, null, 2) }),
    element("div", { className: "actions" }, close),
  );
  dialog.addEventListener("close", () => dialog.remove());
  window.addEventListener("hashchange", () => dialog.close(), { once: true });
  document.body.append(dialog);
  dialog.showModal();
  close.focus();
}

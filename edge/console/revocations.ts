/** What was revoked lately, the newest first, and one revocation's receipt. */
import type { BulkReceipt, Receipt } from "./answers.ts";
import type { Desk } from "./desk.ts";
import { type Content, element, fill } from "./dom.ts";
import { loading } from "./loading.ts";
import { receiptPanel, whomParts } from "./receipt.ts";
import { type Column, table } from "./table.ts";
import { code, grouped, lasting, moment, short, stateChip } from "./wording.ts";

const PAGE = 50;
/** What one call gives. */
const MOST = 100;
const EVERY_MS = 5_000;
const BULK_EVERY_MS = 1_000;

type Line = Receipt | BulkReceipt;

/** The list. */
export function revocations(desk: Desk, _part: string, query: URLSearchParams): HTMLElement {
  desk.title("Revocations");
  const state = element(
    "select",
    { name: "state" },
    ...["", "pending", "delivered", "enforced"].map((value) =>
      element("option", { value, textContent: value || "any state" }),
    ),
  );
  state.value = query.get("state") ?? "";
  const list = revocationTable("Revocations", "Nothing was revoked in the last seven days.", true);
  const older = element("button", { type: "button", textContent: "Show older", hidden: true });
  const content = element("div", {}, list.element, older);
  let shown: Line[] = [];
  let next: string | undefined;
  /** What is read again and again are the newest; older ones stay below them. */
  let isPaged = false;

  const load = (signal: AbortSignal, after?: string, limit = PAGE) =>
    desk.api.revocations({ state: state.value, after, limit }, signal);
  const { notice, reload } = loading(desk, content, {
    load: (signal) => load(signal, undefined, Math.min(MOST, Math.max(PAGE, shown.length))),
    show(page) {
      const fresh = new Set(page.receipts.map(({ id }) => id));
      shown = isPaged ? [...page.receipts, ...shown.filter(({ id }) => !fresh.has(id))] : [...page.receipts];
      if (!isPaged) next = page.next;
      older.hidden = next === undefined;
      list.show(shown);
    },
    everyMs: EVERY_MS,
  });
  older.onclick = async () => {
    older.disabled = true;
    isPaged = true;
    try {
      const page = await load(desk.signal, next);
      shown = [...shown, ...page.receipts];
      next = page.next;
      older.hidden = next === undefined;
      list.show(shown);
    } catch {
      reload();
    }
    older.disabled = false;
  };
  state.onchange = () => {
    isPaged = false;
    desk.remember({ state: state.value });
    reload();
  };
  const bar = element(
    "div",
    { className: "search" },
    element("label", { className: "inline" }, "Show", state),
    starter(desk, reload),
  );
  return element("div", { className: "stack" }, bar, element("section", { className: "panel" }, notice, content));
}

/** For a revocation that does not begin at a person: a tenant, everyone, a token that was found. */
function starter(desk: Desk, reload: () => void): HTMLElement {
  const may = desk.may("revocations:write");
  return element("button", {
    ...{ type: "button", className: "danger push", textContent: "Revoke…", disabled: !may },
    title: may ? "" : "Needs revocations:write",
    onclick: () => desk.revoke({}, reload),
  });
}

/** @param isWide with everything there is to say of each, or beside something else */
export function revocationTable(label: string, empty: string, isWide: boolean) {
  const when: Column<Line> = {
    ...{ name: "Decided", isHead: true },
    cell: ({ id, created_at }) => element("a", { href: `#/revocations/${encodeURIComponent(id)}` }, moment(created_at)),
  };
  const state: Column<Line> = { name: "State", cell: (line) => [stateChip(line.state), timeTaken(line)] };
  const reason: Column<Line> = {
    name: "Reason",
    cell: (line) => element("span", { className: "free", textContent: line.reason, title: line.reason }),
  };
  const whole: Column<Line>[] = [
    when,
    {
      name: "Whom",
      cell: (line) => ("users" in line ? peopleText(line.users) : whomParts(line.target)),
    },
    reason,
    { name: "By", cell: (line) => ("users" in line ? "–" : actorParts(line.actor)) },
    state,
    { name: "Closed", isNumber: true, cell: (line) => ("users" in line ? "–" : grouped(line.closed)) },
  ];
  return table<Line>(label, isWide ? whole : [when, reason, state], ({ id }) => id, empty);
}

function peopleText(count: number): string {
  return count === 1 ? "one person" : `${grouped(count)} people`;
}

function actorParts(actor: Receipt["actor"]): Content {
  return actor === undefined ? "the person" : element("span", {}, actor.kind, " ", short(actor.id));
}

function timeTaken(line: Line): HTMLElement | false {
  if ("users" in line || line.enforced_at === undefined) return false;
  return element("span", {
    className: "muted small",
    textContent: ` in ${lasting(line.enforced_at - line.created_at)}`,
  });
}

/** One of them. */
export function revocation(desk: Desk, id: string): HTMLElement {
  desk.title("Receipt");
  const content = id.startsWith("blk_") ? bulk(desk, id) : receiptPanel(desk, id, desk.signal);
  return element(
    "div",
    { className: "stack" },
    element("p", {}, element("a", { href: "#/revocations", textContent: "All revocations" })),
    element("section", { className: "panel" }, content),
  );
}

function bulk(desk: Desk, id: string): HTMLElement {
  const content = element("div", { className: "receipt" });
  const { notice } = loading(desk, content, {
    load: (signal) => desk.api.receipt<BulkReceipt>(id, signal),
    show: (receipt) => fill(content, ...bulkParts(receipt)),
    everyMs: BULK_EVERY_MS,
  });
  const parts = revocationTable("Revocations of these people", "None of them is decided yet.", true);
  const each = loading(desk, parts.element, {
    load: (signal) => desk.api.revocations({ batch: id, limit: MOST }, signal),
    show: ({ receipts }) => parts.show(receipts),
    everyMs: EVERY_MS,
  });
  return element("div", { className: "stack" }, notice, content, each.notice, parts.element);
}

function bulkParts({ id, reason, created_at, state, users, revoked, not_found, remaining, clusters }: BulkReceipt) {
  const fact = (term: string, ...content: (Node | string)[]) => [
    element("dt", {}, term),
    element("dd", {}, ...content),
  ];
  const bar = element("progress", { max: Math.max(1, users), value: users - remaining });
  bar.setAttribute("aria-label", "People who are dealt with");
  return [
    element("h2", { className: "name" }, `${peopleText(users)} `, stateChip(state)),
    bar,
    element(
      "dl",
      { className: "facts" },
      ...fact("Decided", moment(created_at)),
      ...fact("Why", reason),
      ...fact("Revoked", grouped(revoked)),
      ...fact("Not found", grouped(not_found)),
      ...fact("Remaining", grouped(remaining)),
      ...clusters.flatMap(({ cluster, delivered }) => fact(cluster, `${grouped(delivered)} delivered`)),
      ...fact("Id", code(id)),
    ),
  ];
}

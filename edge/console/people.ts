/** Find a person: by the beginning of their login name, of their subject, or of a subject at another issuer. */
import type { AccountLine, AccountPage } from "./answers.ts";
import type { Desk } from "./desk.ts";
import { element } from "./dom.ts";
import { loading } from "./loading.ts";
import { table } from "./table.ts";
import { chip, counted, moment } from "./wording.ts";

const PAUSE_MS = 250;
const PAGE = 50;

export function people(desk: Desk, _part: string, query: URLSearchParams): HTMLElement {
  desk.title("People");
  const field = element("input", {
    ...{ type: "search", name: "query", value: query.get("query") ?? "", maxLength: 254, autocomplete: "off" },
    placeholder: "Login name or subject",
  });
  Object.assign(field, { autocapitalize: "none", spellcheck: false });
  const list = accountTable();
  const more = element("button", { type: "button", textContent: "Show more", hidden: true });
  const content = element("div", {}, list.element, more);
  let shown: AccountLine[] = [];
  let next: string | undefined;

  const load = (after?: string) => (signal: AbortSignal) =>
    desk.api.accounts({ query: field.value.trim(), after, limit: PAGE }, signal);
  const show = ({ accounts, next: following }: AccountPage, before: readonly AccountLine[] = []) => {
    shown = [...before, ...accounts];
    next = following;
    more.hidden = next === undefined;
    list.show(shown);
    desk.say(`${counted(shown.length, "account")}${next === undefined ? "" : " and more"}`);
  };
  const { notice, reload } = loading(desk, content, { load: (signal) => load()(signal), show: (page) => show(page) });
  more.onclick = async () => {
    more.disabled = true;
    await load(next)(desk.signal).then((page) => show(page, shown), reload);
    more.disabled = false;
  };

  let timer: ReturnType<typeof setTimeout>;
  const search = () => {
    clearTimeout(timer);
    desk.remember({ query: field.value.trim() });
    reload();
  };
  field.oninput = () => {
    clearTimeout(timer);
    timer = setTimeout(search, PAUSE_MS);
  };
  const submit = (event: SubmitEvent) => {
    event.preventDefault();
    search();
  };
  const form = element(
    "form",
    { className: "search", role: "search", onsubmit: submit },
    element("label", { className: "grow" }, element("span", { className: "out", textContent: "Search people" }), field),
    element("button", { type: "submit", className: "primary", textContent: "Search" }),
  );
  return element("div", { className: "stack" }, form, element("section", { className: "panel" }, notice, content));
}

function accountTable() {
  return table<AccountLine>(
    "People",
    [
      { name: "Login name", isHead: true, cell: ({ sub, login }) => personLink(sub, login ?? sub) },
      { name: "Subject", cell: ({ sub }) => element("code", { className: "clip", textContent: sub, title: sub }) },
      { name: "Tenant", cell: ({ tid }) => tid ?? "–" },
      { name: "State", cell: ({ disabled }) => (disabled ? chip("disabled", "bad") : chip("active", "good")) },
      { name: "Since", cell: ({ created_at }) => (created_at === undefined ? "–" : moment(created_at * 1000)) },
    ],
    ({ sub }) => sub,
    "Nobody by that name. A search finds how a login name or a subject begins.",
  );
}

function personLink(sub: string, text: string): HTMLElement {
  return element("a", {
    className: "free",
    title: text,
    href: `#/people/${encodeURIComponent(sub)}`,
    textContent: text,
  });
}

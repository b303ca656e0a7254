/** The choice of whom: for a revocation that does not begin at somebody. */
import type { Target } from "./answers.ts";
import type { Desk } from "./desk.ts";
import { element } from "./dom.ts";

interface Kind {
  readonly name: string;
  readonly label: string;
  readonly hint: string;
  /** Undefined while the text cannot be one. */
  of(text: string): Target | undefined;
  /** Whether whoever looks after one tenant may name it. */
  readonly inTenant: boolean;
}

const KINDS: readonly Kind[] = [
  {
    ...{ name: "person", label: "Login name", inTenant: true },
    hint: "Every session of theirs, on every device.",
    of: (login) => ({ kind: "user", login }),
  },
  {
    ...{ name: "subject", label: "Subject (sub)", inTenant: true },
    hint: "Every session of theirs, on every device.",
    of: (sub) => (/^[A-Za-z0-9_-]{1,64}$/.test(sub) ? { kind: "user", sub } : undefined),
  },
  {
    ...{ name: "session", label: "Session (sid)", inTenant: true },
    hint: "One sign-in on one device.",
    of: (sid) => (/^[A-Za-z0-9_-]{1,64}\.[A-Za-z0-9_-]{22}$/.test(sid) ? { kind: "session", sid } : undefined),
  },
  {
    ...{ name: "token", label: "Access token, or its jti", inTenant: true },
    hint: "One access token. Its session goes on, and may fetch another.",
    of: (text) => (text.split(".").length === 3 ? { kind: "token", token: text } : { kind: "token", jti: text }),
  },
  {
    ...{ name: "tenant", label: "Tenant", inTenant: true },
    hint: "Everybody of an organisation who is signed in now.",
    of: (tid) => ({ kind: "tenant", tid }),
  },
  {
    ...{ name: "everyone", label: "", inTenant: false },
    hint: "Everybody who is signed in now, of every tenant. This session too.",
    of: () => ({ kind: "everyone" }),
  },
];

const PAUSE_MS = 300;

/** @param onChange told when something else was named */
export function targetChoice(desk: Desk, onChange: () => void) {
  const kinds = KINDS.filter(({ inTenant }) => inTenant || desk.me.tid === undefined);
  const select = element(
    "select",
    { name: "kind" },
    ...kinds.map(({ name }) => element("option", { value: name }, name)),
  );
  const text = element("input", { name: "target", required: true, maxLength: 8192, autocomplete: "off" });
  const label = element("span");
  const field = element("label", {}, label, text);
  const hint = element("p", { className: "muted small" });
  const kind = () => kinds.find(({ name }) => name === select.value) ?? kinds[0];
  let timer: ReturnType<typeof setTimeout>;

  function show(): void {
    const chosen = kind();
    label.textContent = chosen?.label ?? "";
    hint.textContent = chosen?.hint ?? "";
    field.hidden = chosen?.label === "";
    text.required = !field.hidden;
    text.value = chosen?.name === "tenant" ? (desk.me.tid ?? "") : "";
    text.readOnly = chosen?.name === "tenant" && desk.me.tid !== undefined;
  }

  select.onchange = () => {
    show();
    onChange();
  };
  text.oninput = () => {
    text.setCustomValidity("");
    clearTimeout(timer);
    timer = setTimeout(onChange, PAUSE_MS);
  };
  show();
  return {
    first: select,
    element: element("div", { className: "target" }, element("label", {}, "Whom", select), field, hint),
    target(): Target | undefined {
      const given = text.value.trim();
      const chosen = kind();
      if (chosen === undefined || (given === "" && !field.hidden)) return undefined;
      const target = chosen.of(given);
      text.setCustomValidity(target === undefined ? `That has not the form of a ${chosen.name}.` : "");
      return target;
    },
  };
}

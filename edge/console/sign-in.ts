/** The way in: where everybody begins, and where one ends up whose session is over, told why. */
import { element, fill } from "./dom.ts";
import { problem } from "./loading.ts";
import type { OwnSession } from "./own-session.ts";
import { type Problem, Refused } from "./refused.ts";

/** @param ended why the session before is over; null for whoever signed out; absent at the first visit */
export function signInPage(session: OwnSession, ended?: Problem | null): HTMLElement {
  const login = element("input", { name: "login", required: true, maxLength: 254, autocomplete: "username" });
  const password = element("input", {
    ...{ name: "password", type: "password", required: true, maxLength: 1024 },
    autocomplete: "current-password",
  });
  Object.assign(login, { autocapitalize: "none", spellcheck: false });
  const button = element("button", { type: "submit", className: "primary", textContent: "Sign in" });
  const outcome = element("div", { className: "outcome" });
  if (ended !== undefined) fill(outcome, farewell(ended));

  async function submit(event: SubmitEvent): Promise<void> {
    event.preventDefault();
    button.disabled = true;
    fill(outcome);
    try {
      await session.signIn(login.value.trim(), password.value);
    } catch (error) {
      fill(outcome, refusal(error));
      password.value = "";
      password.focus();
    } finally {
      button.disabled = false;
    }
  }

  const form = element(
    "form",
    { method: "post", onsubmit: (event) => void submit(event) },
    element("label", {}, "Login name", login),
    element("label", {}, "Password", password),
    button,
  );
  queueMicrotask(() => login.focus());
  return element(
    "main",
    { className: "sign-in" },
    element("img", { src: "/console/icon.svg", alt: "", width: 44, height: 44 }),
    element("h1", { textContent: "Keycard console" }),
    element("p", { className: "muted", textContent: "For accounts with admin scopes." }),
    outcome,
    form,
  );
}

function farewell(ended: Problem | null): HTMLElement {
  if (ended === null) return element("p", { role: "status", className: "muted", textContent: "You are signed out." });
  return element(
    "div",
    { className: "problem", role: "alert" },
    element("p", {}, element("strong", { textContent: "You are signed out." })),
    element("p", { textContent: `${ended.title} Sign in again to go on where you were.` }),
  );
}

function refusal(error: unknown): HTMLElement {
  if (!(error instanceof Refused)) return problem(error);
  const { code, title, retry_after } = error.problem;
  const texts: Partial<Record<typeof code, string>> = {
    scope_insufficient: "This account has no admin scopes. Whoever looks after accounts can give it some.",
    too_many_attempts: `Too many attempts. Wait ${retry_after ?? 60} seconds before you try again.`,
    account_disabled: "This account is disabled. Another administrator can enable it.",
    credentials_wrong: title,
  };
  const text = texts[code];
  if (text === undefined) return problem(error);
  return element(
    "div",
    { className: "problem", role: "alert" },
    element("p", {}, element("strong", { textContent: text })),
  );
}

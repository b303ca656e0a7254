/** Disables an account, so that whoever was thrown out stays out, or enables it again. */
import type { Desk } from "./desk.ts";
import { element, fill } from "./dom.ts";
import { problem } from "./loading.ts";

interface Subject {
  readonly sub: string;
  readonly name: string;
  readonly disabled: boolean;
}

/** Opens the dialog. @param onDone told when it was changed */
export function openStatusChange(desk: Desk, { sub, name, disabled }: Subject, onDone: () => void): void {
  const verb = disabled ? "Enable" : "Disable";
  const dialog = element("dialog", { attributes: { "aria-labelledby": "standing-title" } });
  const reason = element("textarea", { name: "reason", required: true, maxLength: 500, rows: 2 });
  const outcome = element("div");
  const submit = element("button", { type: "submit", className: disabled ? "primary" : "danger", textContent: verb });

  async function change(event: SubmitEvent): Promise<void> {
    event.preventDefault();
    submit.disabled = true;
    try {
      await desk.api.changeAccount(sub, { disabled: !disabled, reason: reason.value.trim() });
      dialog.close();
      desk.say(`${name} is ${disabled ? "enabled" : "disabled"}.`);
      onDone();
    } catch (error) {
      fill(outcome, problem(error));
      submit.disabled = false;
    }
  }

  const effect = disabled
    ? "They can sign in again. Sessions that were ended stay ended."
    : "All sessions end now, on every node, and no new one is opened until the account is enabled again.";
  const cancel = element("button", { type: "button", textContent: "Cancel", onclick: () => dialog.close() });
  fill(
    dialog,
    element(
      "form",
      { method: "dialog", onsubmit: (event) => void change(event) },
      element("h2", { className: "title", id: "standing-title", textContent: `${verb} the account of ${name}` }),
      element("p", { className: "muted", textContent: effect }),
      element("label", {}, "Reason", reason),
      outcome,
      element("div", { className: "actions" }, cancel, submit),
    ),
  );
  dialog.addEventListener("close", () => dialog.remove());
  desk.signal.addEventListener("abort", () => dialog.close());
  document.body.append(dialog);
  dialog.showModal();
  reason.focus();
}

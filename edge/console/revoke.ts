/**
 * The dialog in which somebody is thrown out: who, why, how; what would go right now (a dry run); and, where that is many, a word to be
 * typed before it is done. It is sent under one key of idempotency, so that trying again after a lost answer cannot do it twice.
 */
import type { Me, Receipt, RevocationRequest, Target } from "./answers.ts";
import type { Desk, RevocationWish } from "./desk.ts";
import { element, fill } from "./dom.ts";
import { problem } from "./loading.ts";
import { previewOf, type Reach } from "./preview.ts";
import { receiptPanel } from "./receipt.ts";
import { Unreachable } from "./refused.ts";
import { targetChoice } from "./target.ts";
import { counted } from "./wording.ts";

/** With so many sockets or more a word has to be typed. */
const MANY_SOCKETS = 100;
const DEFAULT_MARGIN_SECONDS = 30;

/** Opens the dialog. @param onDone told when something was revoked */
export function openRevocation(desk: Desk, wish: RevocationWish, onDone: () => void = () => {}): void {
  const open = new AbortController();
  const dialog = element("dialog", { className: "revocation", attributes: { "aria-labelledby": "revocation-title" } });
  const form = new RevocationForm(desk, wish, open.signal, {
    close: () => dialog.close(),
    done: (receipt) => {
      fill(dialog, ...outcomeOf(desk, receipt, open.signal, () => dialog.close()));
      dialog.querySelector("h2")?.focus();
      onDone();
      // By then it is enforced, or at least further.
      dialog.addEventListener("close", onDone);
    },
  });
  fill(dialog, form.element);
  dialog.addEventListener("close", () => {
    open.abort();
    dialog.remove();
  });
  // The view behind it is gone, for instance because the session is over.
  desk.signal.addEventListener("abort", () => dialog.close(), { signal: open.signal });
  document.body.append(dialog);
  dialog.showModal();
  form.begin();
}

function outcomeOf(desk: Desk, receipt: Receipt, signal: AbortSignal, close: () => void): HTMLElement[] {
  return [
    element("h2", { className: "title", id: "revocation-title", tabIndex: -1, textContent: "Revoked" }),
    receiptPanel(desk, receipt.id, signal, receipt),
    element(
      "div",
      { className: "actions" },
      element("a", { href: `#/revocations/${receipt.id}`, textContent: "Open the receipt", onclick: close }),
      element("button", { type: "button", className: "primary", textContent: "Done", onclick: close }),
    ),
  ];
}

interface Ends {
  close(): void;
  done(receipt: Receipt): void;
}

class RevocationForm {
  readonly element: HTMLFormElement;
  readonly #desk: Desk;
  readonly #wish: RevocationWish;
  readonly #signal: AbortSignal;
  readonly #ends: Ends;
  readonly #choice: ReturnType<typeof targetChoice> | undefined;
  readonly #reason = element("textarea", { name: "reason", required: true, maxLength: 500, rows: 2 });
  readonly #fresh = element("input", { type: "checkbox", name: "reauthenticate" });
  readonly #margin = element("input", {
    type: "number",
    name: "margin",
    min: "1",
    max: "300",
    value: String(DEFAULT_MARGIN_SECONDS),
  });
  readonly #word = element("input", { name: "word", autocomplete: "off" });
  readonly #wordPlace = element("label", { className: "confirm", hidden: true });
  readonly #preview = element("div", { className: "preview", attributes: { "aria-live": "polite" } });
  readonly #oneself = element("p", { className: "stale", hidden: true });
  readonly #outcome = element("div");
  readonly #submit = element("button", { type: "submit", className: "danger", textContent: "Revoke" });
  #counting: AbortController | undefined;
  #needed: string | undefined;
  /** For whom that was found out. */
  #counted: Target | undefined;
  /** What was sent under which key: the same request is sent under the same one again. */
  #sent: { readonly text: string; readonly key: string } | undefined;

  constructor(desk: Desk, wish: RevocationWish, signal: AbortSignal, ends: Ends) {
    this.#desk = desk;
    this.#wish = wish;
    this.#signal = signal;
    this.#ends = ends;
    this.#choice = wish.target === undefined ? targetChoice(desk, () => this.#count()) : undefined;
    this.element = this.#form();
  }

  begin(): void {
    (this.#choice?.first ?? this.#reason).focus();
    this.#count();
  }

  #form(): HTMLFormElement {
    const { whom = "somebody", hint } = this.#wish;
    this.#fresh.onchange = () => {
      this.#margin.disabled = !this.#fresh.checked;
      this.#margin.required = this.#fresh.checked;
    };
    this.#margin.disabled = true;
    this.#word.oninput = () => this.#word.setCustomValidity("");
    return element(
      "form",
      { method: "dialog", onsubmit: (event) => void this.#revoke(event) },
      element("h2", { className: "title", id: "revocation-title", textContent: `Revoke ${whom}` }),
      hint !== undefined && element("p", { className: "muted", textContent: hint }),
      this.#choice?.element,
      this.#oneself,
      element(
        "label",
        {},
        "Reason",
        this.#reason,
        element("small", {}, "Stands in the receipt and in the audit trail."),
      ),
      element(
        "fieldset",
        { className: "manner" },
        element("legend", { className: "out", textContent: "How" }),
        element("label", { className: "check" }, this.#fresh, "Give open sockets time to bring a fresh token"),
        element("label", { className: "inline" }, "within", this.#margin, "seconds"),
      ),
      element("h3", { className: "label", textContent: "What would go right now" }),
      this.#preview,
      this.#wordPlace,
      this.#outcome,
      element(
        "div",
        { className: "actions" },
        element("button", { type: "button", textContent: "Cancel", onclick: () => this.#ends.close() }),
        this.#submit,
      ),
    );
  }

  /** A dry run of what the form says now. */
  #count(): void {
    this.#counting?.abort();
    this.#counting = new AbortController();
    const request = this.#request();
    this.#demand(undefined, request?.target);
    this.#warnOfOneself(request?.target, request?.except);
    this.#submit.disabled = false;
    if (request === undefined) {
      fill(this.#preview, element("p", { className: "muted" }, "Say whom."));
      return;
    }
    // Nobody should close a thousand sockets because they were faster than the count.
    this.#submit.disabled = true;
    this.#counted = request.target;
    const signal = AbortSignal.any([this.#counting.signal, this.#signal]);
    fill(this.#preview, element("p", { className: "waiting" }, "Asking every node…"));
    const { mode: _, margin: __, ...counted } = request;
    this.#desk.api.preview({ ...counted, reason: "preview" }, signal).then(
      (preview) => {
        if (signal.aborted) return;
        const { element: shown, ...reach } = previewOf(preview);
        fill(this.#preview, shown);
        this.#demand(reach, request.target);
        this.#submit.disabled = false;
      },
      (error) => {
        if (signal.aborted) return;
        const again = () => this.#count();
        fill(this.#preview, problem(error, again));
        this.#submit.disabled = false;
      },
    );
  }

  /** Whoever throws themselves out should mean it. */
  #warnOfOneself(target: Target | undefined, except: string | undefined): void {
    const { me } = this.#desk;
    this.#oneself.hidden = target === undefined || !hits(target, me) || (except !== undefined && except === me.sid);
    this.#oneself.textContent = "This ends your own session too: you will be signed out of the console.";
  }

  /** Which word has to be typed: of a tenant or everyone, and of whatever is many. */
  #demand(reach: Reach | undefined, target: Target | undefined): void {
    const isMany = (reach?.sockets ?? 0) >= MANY_SOCKETS;
    this.#needed =
      target?.kind === "everyone"
        ? "everyone"
        : target?.kind === "tenant"
          ? target.tid
          : isMany
            ? String(reach?.sockets)
            : undefined;
    this.#wordPlace.hidden = this.#needed === undefined;
    this.#word.required = this.#needed !== undefined;
    if (this.#needed !== undefined)
      fill(this.#wordPlace, "To be sure, type ", element("b", {}, this.#needed), this.#word);
    this.#submit.textContent = reach?.sockets ? `Revoke and close ${counted(reach.sockets, "socket")}` : "Revoke";
  }

  #request(): RevocationRequest | undefined {
    const target = this.#wish.target ?? this.#choice?.target();
    if (target === undefined) return undefined;
    const { except } = this.#wish;
    return {
      ...{ target, reason: this.#reason.value.trim() },
      ...(except !== undefined && { except }),
      ...(this.#fresh.checked && { mode: "reauthenticate", margin: Number(this.#margin.value) }),
    };
  }

  async #revoke(event: SubmitEvent): Promise<void> {
    event.preventDefault();
    const request = this.#request();
    if (request === undefined) return this.#choice?.first.focus();
    if (JSON.stringify(request.target) !== JSON.stringify(this.#counted)) return this.#count();
    if (this.#needed !== undefined && this.#word.value.trim() !== this.#needed) {
      this.#word.setCustomValidity(`Type ${this.#needed} to go on.`);
      return void this.#word.reportValidity();
    }
    this.#submit.disabled = true;
    fill(this.#outcome);
    try {
      this.#ends.done(await this.#desk.api.revoke(request, this.#keyOf(request)));
    } catch (error) {
      if (this.#signal.aborted) return;
      fill(this.#outcome, problem(error), error instanceof Unreachable && this.#unknown());
      this.#submit.disabled = false;
    }
  }

  #unknown(): HTMLElement {
    const text = "It may have been carried out. Revoke once more when the network is back: it is not done twice.";
    return element("p", { className: "stale", textContent: text });
  }

  #keyOf(request: RevocationRequest): string {
    const text = JSON.stringify(request);
    if (this.#sent?.text !== text) this.#sent = { text, key: crypto.randomUUID() };
    return this.#sent?.key ?? "";
  }
}

/** Whether somebody's own session is among those that a revocation ends. */
function hits(target: Target, { id, login, tid, sid }: Me): boolean {
  switch (target.kind) {
    case "everyone":
      return true;
    case "tenant":
      return target.tid === tid;
    case "user":
      return "sub" in target ? target.sub === id : target.login === login;
    case "session":
      return target.sid === sid;
    default:
      return false;
  }
}

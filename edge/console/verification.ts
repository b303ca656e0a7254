/** Has the chain of the audit trail computed again, stretch by stretch, and says whether it holds. */
import type { Verification } from "./answers.ts";
import type { Desk } from "./desk.ts";
import { element, fill } from "./dom.ts";
import { problem } from "./loading.ts";
import { chip, code, counted, grouped } from "./wording.ts";

export function verification(desk: Desk): HTMLElement {
  const outcome = element("div", { className: "grow", attributes: { "aria-live": "polite" } });
  const button = element("button", { type: "button", textContent: "Verify the chain" });
  fill(outcome, element("p", { className: "muted" }, "Every record is chained to the one before it."));

  async function verify(): Promise<void> {
    button.disabled = true;
    let checked = 0;
    try {
      for (let after: number | undefined = 0; after !== undefined; ) {
        const part: Verification = await desk.api.verifyAudit(after, desk.signal);
        checked += part.checked;
        after = part.intact ? part.next : undefined;
        fill(outcome, after === undefined ? verdict(part, checked) : `${counted(checked, "record")} so far…`);
      }
    } catch (error) {
      if (!desk.signal.aborted) fill(outcome, problem(error));
    }
    button.disabled = false;
  }

  button.onclick = () => void verify();
  return element("section", { className: "panel verification" }, outcome, button);
}

function verdict({ intact, head, anchor, broken }: Verification, checked: number): HTMLElement {
  if (!intact) {
    const where = broken === undefined ? "" : ` Record ${broken.position} is ${broken.problem}.`;
    return element("p", {}, chip("broken", "bad"), ` The chain does not hold.${where}`);
  }
  const before = anchor.position === 0 ? "" : `, behind the ${grouped(anchor.position)} that the retention removed`;
  return element(
    "p",
    {},
    chip("intact", "good"),
    ` ${counted(checked, "record")} checked${before}. Keep the head elsewhere, to show later that nothing was changed: `,
    code(`${head.position} ${head.hash}`),
  );
}

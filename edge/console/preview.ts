/** What a dry run found: how many sessions and sockets a revocation would end right now, and who did not answer. */
import type { Preview } from "./answers.ts";
import { element } from "./dom.ts";
import { counted } from "./wording.ts";

export interface Reach {
  /** Null where nobody could count them. */
  readonly sockets: number | null;
}

export function previewOf({ sessions, sockets, clusters }: Preview): Reach & { readonly element: HTMLElement } {
  const total = sockets === null ? "an unknown number of sockets" : counted(sockets, "socket");
  const signed = sessions === null ? "every session that it reaches" : counted(sessions, "session");
  const rows = clusters.map(({ cluster, sockets, silent }) =>
    element(
      "li",
      {},
      element("b", {}, cluster),
      ` ${sockets === null ? "cannot be asked; it is told as soon as it can be reached" : counted(sockets, "socket")}`,
      silent.length > 0 && element("span", { className: "warn-text" }, `, without ${silent.join(", ")}: no answer`),
    ),
  );
  return {
    sockets,
    element: element(
      "div",
      {},
      element(
        "p",
        { className: "total" },
        `${signed[0]?.toUpperCase()}${signed.slice(1)}, `,
        element("strong", {}, total),
      ),
      clusters.length === 0
        ? element("p", { className: "warn-text" }, "No cluster is configured: nobody's sockets would be closed.")
        : element("ul", {}, ...rows),
    ),
  };
}

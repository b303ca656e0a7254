/** The receipt of a revocation as it fills: decided, delivered, enforced; for each cluster which node closed how many, and who is awaited. */
import type { ClusterReceipt, Receipt } from "./answers.ts";
import type { Desk } from "./desk.ts";
import { type Content, element, fill, refill } from "./dom.ts";
import { problem } from "./loading.ts";
import { Unreachable } from "./refused.ts";
import { network } from "./wire.ts";
import { chip, code, counted, grouped, lasting, moment, personIn, stateChip, targetText } from "./wording.ts";

/**
 * A receipt that goes on until it is enforced.
 *
 * @param first what is known of it already
 */
export function receiptPanel(desk: Desk, id: string, signal: AbortSignal, first?: Receipt): HTMLElement {
  const panel = element("div", { className: "receipt" });
  let last = first?.state;
  const show = (receipt: Receipt) => {
    refill(panel, ...receiptParts(receipt));
    if (receipt.state !== last) desk.say(spoken(receipt));
    last = receipt.state;
  };
  if (first !== undefined) show(first);
  else fill(panel, element("p", { className: "waiting", role: "status", textContent: "Loading…" }));

  async function follow(): Promise<void> {
    try {
      for await (const receipt of desk.api.receipts(id, signal)) show(receipt);
    } catch (error) {
      if (signal.aborted) return;
      const again = () => void follow();
      if (last === undefined || !(error instanceof Unreachable)) fill(panel, problem(error, again));
      if (!(error instanceof Unreachable)) return;
      // It goes on without us; we look again when we can.
      await network.back(signal);
      if (!signal.aborted) again();
    }
  }
  void follow();
  return panel;
}

function spoken({ state, closed }: Receipt): string {
  if (state === "enforced") return `Enforced. ${counted(closed, "socket")} closed.`;
  if (state === "no_clusters") return "Decided. No cluster is configured, so no socket was closed.";
  return state === "delivered" ? "Delivered to every cluster." : "Decided. Not delivered everywhere yet.";
}

function receiptParts(receipt: Receipt): Content[] {
  const clusters = receipt.clusters.map((line) => clusterPart(line, receipt));
  return [
    figures(receipt),
    stages(receipt),
    element(
      "div",
      { className: "detail" },
      element(
        "div",
        { className: "clusters" },
        element("h2", { className: "out", textContent: "Clusters" }),
        ...clusters,
      ),
      facts(receipt),
    ),
  ];
}

function figures({ state, created_at, enforced_at, closed, clusters }: Receipt): HTMLElement {
  const expected = new Set(clusters.flatMap(({ cluster, expected }) => expected.map((node) => `${cluster} ${node}`)));
  const settled = clusters.reduce((sum, { applied, fenced }) => sum + applied.length + fenced.length, 0);
  const figure = (strong: Content, text: string) =>
    element("p", {}, element("strong", {}, strong), element("span", {}, text));
  const time = enforced_at === undefined ? "–" : lasting(enforced_at - created_at);
  return element(
    "div",
    { className: "figures" },
    figure(stateChip(state), state === "enforced" ? "nobody it covers is in, anywhere" : "not over yet"),
    figure(time, "from decision to enforced"),
    figure(`${settled} of ${expected.size}`, "nodes applied it or were fenced"),
    figure(grouped(closed), closed === 1 ? "socket closed" : "sockets closed"),
  );
}

function stages({ created_at, clusters, enforced_at, state }: Receipt): HTMLElement {
  const delivered = clusters.map(({ delivered_at }) => delivered_at);
  const allDelivered = delivered.every((at) => at !== undefined)
    ? Math.max(created_at, ...(delivered as number[]))
    : undefined;
  const stage = (name: string, at: number | undefined, text: string) =>
    element("li", { className: at === undefined ? "" : "done" }, element("b", {}, name), element("span", {}, text));
  const after = (at: number | undefined) => (at === undefined ? "not yet" : `after ${lasting(at - created_at)}`);
  const reached = state === "pending" ? undefined : allDelivered;
  return element(
    "ol",
    { className: "stages" },
    element("li", { className: "done" }, element("b", {}, "decided"), element("span", {}, moment(created_at))),
    stage("delivered", reached, after(reached)),
    stage("enforced", enforced_at, after(enforced_at)),
  );
}

function clusterPart(line: ClusterReceipt, { created_at }: Receipt): HTMLElement {
  const { cluster, applied, fenced, pending, expected } = line;
  const rows = [
    ...applied.map(({ node, applied_at, closed }) => ({
      ...{ node, state: chip("applied", "good"), when: `after ${lasting(applied_at - created_at)}` },
      closed: String(closed),
    })),
    ...fenced.map(({ node, fenced_at }) => ({
      ...{ node, state: chip("fenced", "warn"), when: `after ${lasting(fenced_at - created_at)}`, closed: "its own" },
    })),
    ...pending.map((node) => ({ node, state: chip("pending", "warn"), when: "not yet", closed: "–" })),
  ].sort((one, other) => one.node.localeCompare(other.node, "en", { numeric: true }));
  const done = applied.length + fenced.length;
  const bar = element("progress", {
    max: Math.max(1, expected.length),
    value: expected.length === 0 && line.enforced_at ? 1 : done,
  });
  bar.setAttribute("aria-label", `Nodes of ${cluster} that are done`);
  return element(
    "section",
    { className: "cluster" },
    element("h3", {}, cluster, " ", clusterChip(line)),
    bar,
    line.last_error !== undefined &&
      line.delivered_at === undefined &&
      element("p", { className: "stale" }, `${counted(line.attempts, "attempt")} so far. The last: ${line.last_error}`),
    rows.length > 0 && nodeTable(rows),
  );
}

function clusterChip({ delivered_at, enforced_at, expired }: ClusterReceipt): HTMLElement {
  if (expired) return chip("over: every token has ended", "good");
  if (enforced_at !== undefined) return chip("enforced", "good");
  return delivered_at === undefined ? chip("not delivered", "bad") : chip("delivered", "warn");
}

interface NodeRow {
  readonly node: string;
  readonly state: HTMLElement;
  readonly when: string;
  readonly closed: string;
}

function nodeTable(rows: readonly NodeRow[]): HTMLElement {
  const head = ["Node", "State", "When", "Closed"].map((text) => element("th", { scope: "col", textContent: text }));
  head.at(-1)?.classList.add("number");
  const body = rows.map(({ node, state, when, closed }) =>
    element(
      "tr",
      {},
      element("th", { scope: "row", textContent: node }),
      element("td", {}, state),
      element("td", {}, when),
      element("td", { className: "number" }, closed),
    ),
  );
  return element("table", {}, element("thead", {}, element("tr", {}, ...head)), element("tbody", {}, ...body));
}

function facts(receipt: Receipt): HTMLElement {
  const { id, target, reason, actor, mode, margin, seq, batch, request, proof } = receipt;
  const fact = (term: string, ...content: Content[]) => [element("dt", {}, term), element("dd", {}, ...content)];
  return element(
    "dl",
    { className: "facts" },
    ...fact("Whom", ...whomParts(target)),
    ...fact("Why", reason),
    ...fact("By", actor === undefined ? "the person" : `${actor.kind} ${actor.id}`),
    ...fact("How", mode === "disconnect" ? "disconnected at once" : `asked for a fresh token within ${margin} s`),
    ...fact("Id", code(id), seq !== undefined && `, number ${seq} of the log`),
    ...(batch === undefined ? [] : fact("Part of", link(batch, `#/revocations/${encodeURIComponent(batch)}`))),
    ...(request === undefined ? [] : fact("Request", code(request))),
    ...(proof === undefined ? [] : fact("Proof", proofPart(proof))),
  );
}

/** Whom it hits; a person as a way to look at them. */
export function whomParts(target: Receipt["target"]): Content[] {
  const [text, sub] = [targetText(target), personIn(target)];
  if (sub === undefined) return [text];
  return [text.slice(0, text.length - sub.length), link(sub, `#/people/${encodeURIComponent(sub)}`)];
}

function link(text: string, href: string): HTMLElement {
  return element("a", { href, textContent: text });
}

function proofPart(proof: string): HTMLElement {
  return element(
    "details",
    {},
    element("summary", { textContent: "signed receipt (JWT)" }),
    element("pre", { tabIndex: 0, textContent: proof }),
  );
}

/** A receipt for people's eyes: the whole of it as it is now, and what is new in it. Pure, so that what is drawn can be tested. */
import type { ClusterLine, Receipt, Target } from "../edge-answers.ts";
import { bold, counted, cyan, dim, green, red, Text, t, yellow } from "./text.ts";
import { clock, duration } from "./times.ts";

const SPINNER = ["⠋", "⠙", "⠹", "⠸", "⠼", "⠴", "⠦", "⠧", "⠇", "⠏"];

/** Whom it is about, in words. */
export function targetText(target: Target | undefined): Text {
  if (target === undefined) return dim("somebody");
  const { kind, sub, login, sid, tid, jti, kid } = target;
  const name = [login, sub, sid, tid, jti, kid].find((each) => typeof each === "string");
  const word = kind === "subject" ? "user" : kind;
  return typeof name === "string" ? t`${word} ${bold(name)}` : Text.of(word === "everyone" ? bold("everyone") : word);
}

/** Whether there is nothing more to wait for. */
export function isSettled({ state }: Receipt): boolean {
  return state === "enforced" || state === "no_clusters";
}

/** Every cluster and node. @param frame turns the spinner; absent where nothing turns */
export function receiptLines(receipt: Receipt, frame?: number): Text[] {
  const width = Math.max(0, ...receipt.clusters.map(({ cluster }) => Text.of(cluster).width));
  const nodes = Math.max(0, ...receipt.clusters.flatMap(nodesOf).map((node) => Text.of(node).width));
  return receipt.clusters.flatMap((line) => [
    clusterText(line, width, frame),
    ...nodesOf(line).map((node) => nodeText(line, node, nodes, receipt.created_at)),
  ]);
}

/** What it comes to, in one sentence. */
export function verdict(receipt: Receipt): Text {
  const { state, closed, created_at, enforced_at, clusters } = receipt;
  const expired = clusters.some((line) => line.expired === true);
  if (state === "enforced") {
    const time = enforced_at === undefined ? "" : ` after ${duration(enforced_at - created_at)}`;
    const how = expired ? "the last token it covers has expired" : "nobody it covers is in anywhere";
    return t`${green("✓")} ${bold("Enforced")}${time}: ${how}. ${counted(closed, "socket")} closed.`;
  }
  if (state === "no_clusters") {
    return t`${yellow("!")} ${bold("Decided")}: it holds at the edge. No cluster is configured, so no node was told.`;
  }
  const awaited = clusters.filter((line) => line.enforced_at === undefined && line.expired !== true);
  return t`${yellow("…")} ${bold("Pending")}: decided, and not yet enforced in ${Text.join(
    awaited.map(({ cluster }) => bold(cluster)),
    ", ",
  )}.`;
}

/** All about it. */
export function receiptDetails(receipt: Receipt): Text[] {
  const { id, target, reason, actor, created_at, margin, request, batch } = receipt;
  const facts: (readonly [string, string | Text])[] = [
    ["receipt", id],
    ["target", targetText(target)],
    ["reason", reason],
    ...(actor ? ([["by", `${actor.kind} ${actor.id}`]] as const) : []),
    ["decided", clock(created_at)],
    ...(margin === undefined ? [] : ([["margin", `${margin} s to bring a new token`]] as const)),
    ...(typeof request === "string" ? ([["request", request]] as const) : []),
    ...(typeof batch === "string" ? ([["part of", batch]] as const) : []),
    ...(receipt.proof === undefined ? [] : ([["proof", "signed; --json shows it"]] as const)),
  ];
  return [...facts.map(([name, value]) => t`${dim(Text.of(name).padded(8))}  ${value}`), Text.of("")].concat(
    receiptLines(receipt),
    receipt.clusters.length > 0 ? [Text.of("")] : [],
    [verdict(receipt)],
  );
}

/** What happened between two states of one receipt, a line each. */
export function receiptNews(before: Receipt | undefined, after: Receipt): Text[] {
  return after.clusters.flatMap((line) => {
    const old = before?.clusters.find(({ cluster }) => cluster === line.cluster);
    return [
      ...(line.last_error !== undefined && line.last_error !== old?.last_error
        ? [t`${line.cluster}: not delivered yet: ${line.last_error}`]
        : []),
      ...line.applied
        .filter(({ node }) => !old?.applied.some((each) => each.node === node))
        .map(({ node, closed, applied_at }) => {
          return t`${line.cluster}: ${node} closed ${counted(closed, "socket")} after ${duration(applied_at - after.created_at)}`;
        }),
      ...line.fenced
        .filter(({ node }) => !old?.fenced.some((each) => each.node === node))
        .map(({ node }) => t`${line.cluster}: ${node} is fenced: it has let go of all its sockets`),
    ];
  });
}

function nodesOf({ expected, applied, pending, fenced }: ClusterLine): string[] {
  const all = [...expected, ...applied.map(({ node }) => node), ...pending, ...fenced.map(({ node }) => node)];
  return [...new Set(all)].sort((a, b) => a.localeCompare(b, "en", { numeric: true }));
}

function clusterText(line: ClusterLine, width: number, frame: number | undefined): Text {
  const { cluster, delivered_at, last_error, applied, enforced_at, expired } = line;
  const closed = applied.reduce((sum, each) => sum + each.closed, 0);
  const waiting = frame === undefined ? "…" : (SPINNER[frame % SPINNER.length] ?? "…");
  const name = bold(Text.of(cluster).padded(width));
  if (enforced_at !== undefined || expired === true) {
    const note = expired === true ? dim("  every token it hits has expired") : "";
    return t`${green("✓")} ${name}  ${counted(closed, "socket")} closed on ${counted(nodesOf(line).length, "node")}${note}`;
  }
  if (delivered_at === undefined) {
    const why = last_error === undefined ? dim("being delivered") : red(t`not delivered: ${last_error}`);
    return t`${yellow(waiting)} ${name}  ${why}`;
  }
  return t`${yellow(waiting)} ${name}  delivered; ${counted(applied.length, "node")} of ${nodesOf(line).length} done`;
}

function nodeText({ applied, fenced }: ClusterLine, node: string, width: number, createdAt: number): Text {
  const word = applied.find((each) => each.node === node);
  const name = Text.of(node).padded(width);
  if (word !== undefined) {
    return t`    ${green("✓")} ${name}  ${counted(word.closed, "socket")} closed  ${dim(duration(word.applied_at - createdAt))}`;
  }
  const gone = fenced.find((each) => each.node === node);
  if (gone !== undefined) {
    return t`    ${cyan("–")} ${name}  fenced: it is cut off and has let go of all its sockets`;
  }
  return t`    ${yellow("…")} ${name}  ${dim("no word yet")}`;
}

/** What a chaos run comes to: figures for people and for programs, and how a violation came about. */
import { styleText } from "node:util";
import { type Distribution, distributionOf } from "../bench/distribution.ts";
import type { ChaosReport } from "./chaos.ts";
import type { Promised, Verdict, Violation } from "./checker.ts";
import { type Decision, Evidence } from "./evidence.ts";
import { type Entry, ofKind } from "./history.ts";

export interface Summary {
  readonly seed: number;
  readonly seconds: number;
  readonly held: boolean;
  /** How many violations there are of each promise; the first of them are told. */
  readonly broken: Verdict["broken"];
  readonly violations: readonly Violation[];
  readonly stakes: Verdict["stakes"];
  readonly sockets: number;
  readonly packets: number;
  /** Answers to handshakes and renewals, by code. */
  readonly told: Readonly<Record<string, number>>;
  readonly faults: Readonly<Record<string, number>>;
  /** From the order until the receipt says enforced, milliseconds, by what was broken meanwhile. */
  readonly enforced: Readonly<Record<string, Distribution & { readonly revocations: number }>>;
}

const PROMISES: Readonly<Record<Promised, string>> = {
  1: "Once a receipt says enforced, no token it covers is accepted and no socket it covers is open, on any node.",
  2: "A revocation that was answered 2xx is never lost.",
  3: "Nothing that was not revoked is ever disconnected by a revocation.",
  4: "A socket never outlives its token's end.",
  recovery: "When nothing is broken any more, everything works.",
};
const QUIET = "nothing broken";

export function summarise({ plan, verdict, entries }: ChaosReport): Summary {
  const evidence = new Evidence(entries);
  return {
    ...{ seed: plan.seed, seconds: plan.seconds },
    ...{ held: verdict.violations.length === 0, ...verdict },
    sockets: evidence.sockets.length,
    packets: ofKind(entries, "handled").length,
    told: counted(ofKind(entries, "told").map(({ code }) => code)),
    faults: counted(ofKind(entries, "fault").map(({ what }) => kindOf(what))),
    enforced: enforcedBySituation(evidence),
  };
}

/** The command that does the same again, as far as a machine does anything twice. */
export function commandFor({ seed, seconds }: Pick<Summary, "seed" | "seconds">): string {
  return `npm run chaos -- --seed ${seed} --minutes ${Math.round((seconds / 60) * 1000) / 1000}`;
}

function enforcedBySituation(evidence: Evidence): Summary["enforced"] {
  const samples = new Map<string, number[]>();
  for (const decision of evidence.decisions) {
    const { enforcedFrom, askedAt, id } = decision;
    if (enforcedFrom === undefined || !id?.startsWith("rev_")) continue;
    for (const situation of ["all", ...situationsOf(evidence.entries, decision)]) {
      samples.set(situation, [...(samples.get(situation) ?? []), enforcedFrom - askedAt]);
    }
  }
  return Object.fromEntries(
    [...samples].map(([situation, all]) => [situation, { revocations: all.length, ...distributionOf(all) }]),
  );
}

/** What was broken at some time between the order and the receipt that says enforced. */
function situationsOf(entries: readonly Entry[], { askedAt, enforcedFrom = askedAt }: Decision): string[] {
  const healed = new Map(ofKind(entries, "healed").map(({ fault, at }) => [fault, at]));
  const isMeanwhile = ({ at, fault }: { at: number; fault: string }) =>
    at < enforcedFrom && (healed.get(fault) ?? Number.POSITIVE_INFINITY) > askedAt;
  const kinds = ofKind(entries, "fault").filter(isMeanwhile).map(situationOf);
  return kinds.length === 0 ? [QUIET] : [...new Set(kinds)];
}

function situationOf({ what, on }: { what: string; on: string }): string {
  const [place = on, way] = on.split(":");
  const where = way === undefined ? PART_NAMES.find(([name]) => name.test(place))?.[1] : wayNameOf(place, way);
  return `${kindOf(what)} ${where}`;
}

const PART_NAMES: readonly (readonly [RegExp, string])[] = [
  [/^edge$/, "the edge"],
  [/-\d+$/, "a node"],
  // What befalls a cluster befalls its Redis.
  [/./, "Redis"],
];

function wayNameOf(place: string, way: string): string {
  if (place === "people" || place === "admin") return `${place} to edge`;
  const names: Readonly<Record<string, string>> = { front: "people to node", push: "edge to node" };
  return names[way] ?? `node to ${way}`;
}

function kindOf(what: string): string {
  return what.split(" ")[0] ?? what;
}

function counted(names: readonly string[]): Record<string, number> {
  const counts: Record<string, number> = {};
  for (const name of names) counts[name] = (counts[name] ?? 0) + 1;
  return Object.fromEntries(Object.entries(counts).sort(([, a], [, b]) => b - a));
}

export function printSummary(summary: Summary, beganAt: number): void {
  const { stakes, enforced, sockets, packets } = summary;
  line("revocations", `${stakes.revocations} answered 2xx`);
  for (const [situation, { revocations, p50, p99, max }] of Object.entries(enforced)) {
    const figures = `p50 ${Math.round(p50)}  p99 ${Math.round(p99)}  max ${Math.round(max)} ms`;
    line("", `${situation.padEnd(22)} ${String(revocations).padStart(4)} enforced   ${figures}`);
  }
  line("sockets", `${sockets}: ${stakes.coveredSockets} revoked, ${stakes.expiredSockets} expired; ${packets} packets`);
  line("told", listed(summary.told));
  line("faults", listed(summary.faults));
  for (const violation of summary.violations.slice(0, 1)) printViolation(violation, beganAt);
  const violations = Object.entries(summary.broken).map(([promise, count]) => `${count} of ${nameOf(promise)}`);
  const verdict = summary.held
    ? paint("green", "Every promise was kept")
    : paint("red", `Violations: ${violations.join(", ")}`);
  console.log(`\n${verdict}.  ${commandFor(summary)}`);
}

function printViolation({ promise, what, timeline, at }: Violation, beganAt: number): void {
  console.log(`\n${paint("red", `${nameOf(String(promise))} is broken:`)} ${PROMISES[promise]}\n`);
  for (const entry of timeline) console.log(`  ${seconds(entry.at - beganAt)}  ${told(entry)}`);
  console.log(`  ${seconds(at - beganAt)}  ${paint("red", what)}`);
}

function nameOf(promise: string): string {
  return promise === "recovery" ? promise : `promise ${promise}`;
}

/** An entry of a history for people: its kind, and what else it says. */
function told({ kind, at: _, ...rest }: Entry): string {
  const said = Object.entries(rest).map(([name, value]) => {
    return `${paint("dim", name)} ${typeof value === "object" ? JSON.stringify(value) : value}`;
  });
  return `${kind.padEnd(12)} ${said.join("  ")}`;
}

function listed(counts: Readonly<Record<string, number>>): string {
  return Object.entries(counts)
    .map(([name, count]) => `${count} ${name}`)
    .join(", ");
}

function line(label: string, text: string): void {
  console.log(`${paint("dim", label.padEnd(13))}${text}`);
}

export function seconds(ms: number): string {
  return `${(ms / 1000).toFixed(3).padStart(8)} s`;
}

/** `styleText` itself looks at the stream and at NO_COLOR. */
function paint(style: "green" | "red" | "dim", text: string): string {
  return styleText(style, text, { stream: process.stdout });
}

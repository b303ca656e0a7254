/** The whole examination: every check in turn, what each found as soon as it is known, and at the end nothing left behind. */
import type { EdgeClient } from "../../edge-client.ts";
import { troublesOf } from "../cluster-troubles.ts";
import { EXIT, type ExitCode, UsageError } from "../failure.ts";
import type { Invocation } from "../invocation.ts";
import { bold, counted, dim, green, red, Text, t, yellow } from "../text.ts";
import { canaryChecks } from "./canary.ts";
import { doorChecks } from "./door-checks.ts";
import { edgeChecks } from "./edge-checks.ts";
import { type Check, type Finding, fail, findings, pass, warn } from "./finding.ts";
import { Site } from "./site.ts";

const MARKS = { pass: green("✓"), warn: yellow("!"), fail: red("✗") } as const;
const NAME_COLUMNS = 11;

const byName = new Map(edgeChecks.map((check) => [check.name, check]));
const edgeCheck = (name: string): Check<Site> => byName.get(name) as Check<Site>;

const CHECKS: readonly Check<Site>[] = [
  ...["edge", "discovery", "keys", "cors"].map(edgeCheck),
  {
    name: "credential",
    without: ({ options, noCredential }) => (options.edge === undefined ? noCredential : undefined),
    async run(site) {
      site.me = await (site.options.edge as EdgeClient).me();
      const { kind, id, tid } = site.me;
      const bound = tid === undefined ? "" : ` of tenant ${tid}`;
      const lacking = site.lacks("accounts:write", "revocations:write", "revocations:read");
      if (lacking.length === 0) {
        return pass(`We are ${kind === "root" ? kind : `${kind} ${id}`}${bound}, and may do all that is needed.`);
      }
      return warn(`We are ${kind} ${id}${bound}.`, `For the whole of it the credential lacks ${lacking.join(", ")}.`);
    },
  },
  {
    name: "cluster",
    without: (site) => {
      if (site.noCredential !== undefined) return site.noCredential;
      const may = site.lacks("revocations:read").length === 0 && site.me?.tid === undefined;
      return may ? undefined : "The credential lacks revocations:read for every tenant.";
    },
    async run(site) {
      const status = await (site.options.edge as EdgeClient).status();
      site.status = status;
      if (status.clusters.length === 0) {
        return fail("The edge knows of no cluster.", "Set CLUSTERS and CLUSTER_SECRETS of the edge.");
      }
      return status.clusters.map((cluster) => {
        const troubles = troublesOf(cluster);
        const of = cluster.cluster;
        if (troubles.length > 0) {
          return {
            of,
            ...fail(troubles.join(" "), "`keycard status` shows each node; the runbook says what each state means."),
          };
        }
        return { of, ...pass(`${counted(cluster.nodes.length, "node")}, all ready and told of everything.`) };
      });
    },
  },
  {
    name: "guest",
    without: (site) => (site.lacks("accounts:write").length > 0 ? site.noGuest : undefined),
    async run(site) {
      await site.invite();
      return pass("A throw-away account was made and signed in.");
    },
  },
  ...["cookie", "clock"].map(edgeCheck),
  ...doorChecks,
  ...canaryChecks,
];

type Place = Pick<Site["options"], "origins" | "realtime" | "scope" | "path">;

/** The edge that is named, or that of the profile. A credential for another edge is not shown to this one. */
async function siteOf(invocation: Invocation, named: string | undefined, place: Place): Promise<Site> {
  const desk = await invocation.desk().catch((error: unknown) => {
    if (named !== undefined && error instanceof UsageError) return undefined;
    throw error;
  });
  const ours = desk !== undefined && (named === undefined || named === desk.edgeUrl);
  const edgeUrl = named ?? desk?.edgeUrl ?? "";
  return new Site({
    ...{ ...place, edgeUrl, signal: invocation.signal },
    edge: ours ? desk.edge : undefined,
    lasting: ours ? invocation.connect(edgeUrl, desk.credential, "whatever happens") : undefined,
    anybody: invocation.connect(edgeUrl),
  });
}

/**
 * Examines a deployment.
 *
 * @param edgeUrl by default that of the credential
 */
export async function examine(invocation: Invocation, edgeUrl: string | undefined, place: Place): Promise<ExitCode> {
  const { output, json } = invocation;
  const site = await siteOf(invocation, edgeUrl, place);
  const all: Finding[] = [];
  const tell = (finding: Finding) => {
    all.push(finding);
    if (!json && finding.skipped === undefined) output.lines(findingLines(finding));
  };
  if (!json) output.lines([t`${bold("Examining")} ${site.options.edgeUrl}`, ""]);
  try {
    for await (const finding of findings(CHECKS, site)) tell(finding);
  } finally {
    const cleaned = await cleanUp(site);
    if (cleaned !== undefined) tell(cleaned);
  }
  const made = all.filter(({ skipped }) => skipped === undefined);
  const failed = made.filter(({ outcome }) => outcome === "fail").length;
  const warned = made.filter(({ outcome }) => outcome === "warn").length;
  const skipped = all.length - made.length;
  if (json) {
    const counts = { passed: made.length - failed - warned, warned, failed, skipped };
    output.json({ edge: site.options.edgeUrl, ...counts, checks: all });
  } else output.lines([...skippedLines(all), "", summary(made.length, warned, failed, skipped)]);
  return failed > 0 ? EXIT.failed : EXIT.ok;
}

async function cleanUp(site: Site): Promise<Finding | undefined> {
  const check = "cleanup";
  try {
    const sub = await site.putAway();
    return sub === undefined ? undefined : { check, ...pass("The throw-away account is deleted.") };
  } catch {
    const sub = site.guest?.sub ?? "";
    return {
      check,
      ...fail(
        "The throw-away account could not be deleted.",
        `Delete it: \`keycard accounts delete --sub ${sub} --yes -r doctor\`.`,
      ),
    };
  }
}

function findingLines({ check, of, outcome, says, todo }: Finding): Text[] {
  const where = of === undefined ? "" : t`  ${dim(of)}`;
  return [
    t`${MARKS[outcome]} ${bold(Text.of(check).padded(NAME_COLUMNS))}  ${says}${where}`,
    ...(todo === undefined ? [] : [t`${" ".repeat(NAME_COLUMNS + 4)}${dim("→")} ${todo}`]),
  ];
}

/** What could not be checked, by what stands in the way. */
function skippedLines(all: readonly Finding[]): Text[] {
  const skipped = all.filter((finding) => finding.skipped === true);
  const obstacles = [...new Set(skipped.map(({ todo }) => todo ?? ""))];
  return obstacles.flatMap((obstacle) => {
    const checks = skipped.filter(({ todo }) => todo === obstacle).map(({ check }) => check);
    return [
      t`${MARKS.warn} ${bold(Text.of("not checked").padded(NAME_COLUMNS))}  ${checks.join(", ")}`,
      t`${" ".repeat(NAME_COLUMNS + 4)}${dim("→")} ${obstacle}`,
    ];
  });
}

function summary(checks: number, warned: number, failed: number, skipped: number): Text {
  const doubts = warned === 0 ? "" : `, ${counted(warned, "doubt")}`;
  const unseen = skipped === 0 ? "" : `; ${skipped} could not be made`;
  if (failed > 0) {
    return t`${red("✗")} ${bold(counted(failed, "failure"))}${doubts} in ${counted(checks, "check")}${unseen}.`;
  }
  return t`${green("✓")} ${bold("Sound")}: nothing failed in ${counted(checks, "check")}${doubts}${unseen}.`;
}

/** `keycard audit`: who did what, to whom, why and from where; as it is recorded, and whether it is still whole. */
import { setTimeout as sleep } from "node:timers/promises";
import type { AuditRecord, AuditVerification } from "../../edge-answers.ts";
import type { EdgeClient } from "../../edge-client.ts";
import { command } from "../command.ts";
import { EXIT, type ExitCode } from "../failure.ts";
import type { Invocation } from "../invocation.ts";
import { bold, counted, dim, green, red, Text, t } from "../text.ts";
import { clock, momentOf, numberOf } from "../times.ts";

const SCOPES = ["audit:read"];
const FOLLOW_MS = 1_000;
const PAGE = 500;
const DEFAULT_SINCE = "24h";
/** What came in while the first question was on its way. */
const FOLLOW_SINCE = "10s";

/** The longest of the kinds that there are often. */
const TYPE_COLUMNS = 19;

type Filter = Readonly<Record<string, string | number | undefined>>;

export const auditCommands = [
  command({
    name: "audit",
    summary: "read the audit trail, or follow it",
    args: [],
    options: {
      follow: { short: "f", about: "go on with what is recorded from now on" },
      type: { value: "TYPE", about: "of this kind: revocation, sign_in_failed, account_disabled, …" },
      sub: { value: "SUB", about: "about this person" },
      tenant: { value: "TID", about: "about this tenant" },
      since: { value: "WHEN", about: `happened since; ${DEFAULT_SINCE}` },
      until: { value: "WHEN", about: "happened until" },
      after: { value: "POSITION", about: "recorded after this one" },
      limit: { value: "N", about: "how many at most; 100" },
    },
    about: ["With --json each record is a line, exactly as it is kept, so that its hash can be checked."],
    examples: [
      ["keycard audit --type revocation --since 7d", "who threw out whom in a week, and why"],
      ["keycard audit --follow --json | jq .type", ""],
    ],
    scopes: SCOPES,
    async run(invocation, { options }) {
      const { type, sub, tenant: tid, follow } = options;
      const since =
        options.since ?? (options.after === undefined ? (follow ? FOLLOW_SINCE : DEFAULT_SINCE) : undefined);
      const filter: Filter = {
        ...{ type, sub, tid },
        since: since && momentOf(since, "--since"),
        until: options.until && momentOf(options.until, "--until"),
      };
      const after = numberOf(options.after ?? "0", "--after", 0, 999_999_999);
      const limit = numberOf(options.limit ?? "100", "--limit", 1, 100_000);
      return await (follow ? followTrail(invocation, filter, after) : readTrail(invocation, filter, after, limit));
    },
  }),
  command({
    name: "audit verify",
    summary: "check that nothing was changed in the trail or taken out of it",
    args: [],
    options: {},
    about: [
      "Keep the `head` that it prints somewhere else: with it can be shown later that nothing before it was changed.",
    ],
    examples: [["keycard audit verify", "exit code 1 when the chain is broken"]],
    scopes: SCOPES,
    run: (invocation) => verify(invocation),
  }),
];

async function readTrail(invocation: Invocation, filter: Filter, after: number, limit: number): Promise<ExitCode> {
  const edge = await invocation.edge();
  let left = limit;
  let shown = 0;
  for await (const records of pages(edge, filter, after, () => left)) {
    print(invocation, records);
    shown += records.length;
    left -= records.length;
    const last = records.at(-1);
    if (left <= 0 && last !== undefined) invocation.output.note(dim(t`There may be more: --after ${last.position}`));
  }
  if (shown === 0 && !invocation.json) invocation.output.line("Nothing was recorded, as far as was asked.");
  return EXIT.ok;
}

/** Pages until there is nothing more, or nothing more is wanted. A page may be empty and have a next one. */
async function* pages(
  edge: EdgeClient,
  filter: Filter,
  after: number,
  left: () => number,
): AsyncGenerator<readonly AuditRecord[]> {
  let from: number | undefined = after;
  while (from !== undefined && left() > 0) {
    const page: Awaited<ReturnType<EdgeClient["audit"]>> = await edge.audit({
      ...filter,
      after: from,
      limit: Math.min(left(), PAGE),
    });
    if (page.records.length > 0) yield page.records;
    from = page.next;
  }
}

/** Until Ctrl-C. The position of the last record is where the next question begins, so that none is shown twice or missed. */
async function followTrail(invocation: Invocation, filter: Filter, after: number): Promise<ExitCode> {
  const edge = await invocation.edge();
  let from = after;
  while (!invocation.signal.aborted) {
    for await (const records of pages(edge, filter, from, () => PAGE)) {
      print(invocation, records);
      from = records.at(-1)?.position ?? from;
    }
    await sleep(FOLLOW_MS, undefined, { signal: invocation.signal }).catch(() => {}); // the loop looks whether to go on
  }
  return EXIT.interrupted;
}

/** In as many calls as it takes. */
async function verify(invocation: Invocation): Promise<ExitCode> {
  const { output, json } = invocation;
  const edge = await invocation.edge();
  let checked = 0;
  let after: number | undefined;
  for (;;) {
    const part = await edge.verifyAudit(after);
    checked += part.checked;
    if (part.intact && part.next !== undefined) {
      after = part.next;
      continue;
    }
    if (json) output.json({ ...part, checked });
    else output.lines(verdict(part, checked));
    return part.intact ? EXIT.ok : EXIT.failed;
  }
}

function verdict({ intact, anchor, head, broken }: AuditVerification, checked: number): Text[] {
  if (!intact) {
    const where = broken === undefined ? "" : ` at position ${broken.position}: ${broken.problem}`;
    return [
      t`${red("✗")} ${bold("The trail is broken")}${where}.`,
      t`  Somebody changed what is stored. Keep it as it is, and look who can.`,
    ];
  }
  const removed =
    anchor.position === 0 ? "" : ` Up to position ${anchor.position} it was let go of, as its retention says.`;
  return [
    t`${green("✓")} ${bold("Intact")}: ${counted(checked, "record")} checked, each chained to the one before.${removed}`,
    t`  head  ${head.position}  ${head.hash}  ${dim("keep it elsewhere: nothing before it can be changed unseen")}`,
  ];
}

function print({ output, json }: Invocation, records: readonly AuditRecord[]): void {
  for (const record of records) {
    if (json) output.jsonLine(record);
    else output.line(line(record));
  }
}

const TROUBLE = ["sign_in_failed", "refresh_reused", "password_change_failed", "admin_refused", "event_refused"];

function line({ at, type, actor, sub, tid, kid, client, reason, from, revocation }: AuditRecord): Text {
  const about = sub ?? client ?? kid ?? tid;
  const name = TROUBLE.includes(type) ? red(type) : bold(type);
  const place = [from?.address, from?.country].filter((part) => part !== undefined).join(" ");
  return Text.join(
    [
      dim(clock(at)),
      name.padded(TYPE_COLUMNS),
      `${actor.kind} ${actor.id}`,
      ...(about === undefined || about === actor.id ? [] : [t`→ ${about}`]),
      ...(revocation === undefined ? [] : [revocation]),
      ...(reason === undefined ? [] : [t`“${reason}”`]),
      ...(place === "" ? [] : [dim(`from ${place}`)]),
    ],
    "  ",
  );
}

/** `keycard revoke`: each kind of target that can be thrown out, and how it is named. */
import type { NamedTarget } from "../../edge-client.ts";
import { revokeListed } from "../bulk.ts";
import { command, type Options } from "../command.ts";
import { WAIT } from "../enforcement.ts";
import { revoke } from "../order.ts";
import { personOf, SUB } from "../person.ts";
import { momentOf } from "../times.ts";

const OPTIONS = {
  reason: { value: "TEXT", short: "r", about: "why, for the audit trail and the receipt; asked for at a terminal" },
  "dry-run": { about: "count whom it would hit, and change nothing" },
  wait: WAIT,
  margin: { value: "SECONDS", about: "let open sockets bring a new token within this time before they are closed" },
  yes: { short: "y", about: "do not ask before many are thrown out" },
  "idempotency-key": { value: "KEY", about: "take up an order whose answer was lost, with the key that was shown" },
} as const satisfies Options;
const { "dry-run": _, ...WITHOUT_REHEARSAL } = OPTIONS;
const ISSUED_BEFORE = {
  value: "WHEN",
  about: "only sessions that began by then: 2h (ago), 2026-03-01T12:00:00Z or seconds since the epoch",
} as const;
const SCOPES = ["revocations:write"];

export const revokeCommands = [
  command({
    name: "revoke user",
    summary: "throw a person out: every session and socket",
    args: ["[LOGIN]"],
    options: {
      sub: SUB,
      except: { value: "SID", about: "all of the person's sessions but this one" },
      "issued-before": ISSUED_BEFORE,
      ...OPTIONS,
    },
    about: ["The person can sign in again. To keep them out, use `keycard accounts disable`."],
    examples: [
      ['keycard revoke user ada@example.com --reason "laptop stolen"', "and wait until it is enforced"],
      ["keycard revoke user --sub u_5XkPz0TqWm2RbN8c --dry-run", "how many sessions and sockets that is"],
    ],
    scopes: SCOPES,
    run: (invocation, { args: [login], options }) => {
      const target = { kind: "user" as const, ...personOf(login, options.sub) };
      return revoke(
        invocation,
        { target, except: options.except, issued_before: cutoff(options["issued-before"]) },
        options,
      );
    },
  }),
  command({
    name: "revoke users",
    summary: "throw out everybody on a list, one login a line on standard input",
    args: [],
    options: { subjects: { about: "the lines are subjects" }, ...WITHOUT_REHEARSAL },
    about: ["At most 10,000 at once. Needs --yes. Ends with 0 when it is enforced for all who were found."],
    examples: [['keycard revoke users --yes -r "breach" < logins.txt', ""]],
    scopes: SCOPES,
    run: (invocation, { options }) => revokeListed(invocation, options.subjects === true, options),
  }),
  command({
    name: "revoke session",
    summary: "end one session and its sockets",
    args: ["SID"],
    options: OPTIONS,
    about: ["`keycard sessions LOGIN` lists a person's."],
    examples: [
      ['keycard revoke session u_5XkPz0TqWm2RbN8c.Zm9vYmFyYmF6cXV4MTIzNA -r "lost phone"', "that device alone"],
    ],
    scopes: SCOPES,
    run: (invocation, { args: [sid = ""], options }) =>
      revoke(invocation, { target: { kind: "session", sid } }, options),
  }),
  command({
    name: "revoke token",
    summary: "kill one access token; its session may refresh",
    args: [],
    options: { jti: { value: "JTI", about: "the token's `jti`, where the token itself is not at hand" }, ...OPTIONS },
    about: [
      "Without --jti the token is read from standard input: it is a credential, and does not belong into arguments.",
    ],
    examples: [['keycard revoke token -r "seen in a log" < token.txt', "the token from a file"]],
    scopes: SCOPES,
    run: async (invocation, { options }) => {
      const { jti } = options;
      const target: NamedTarget =
        jti === undefined
          ? { kind: "token", token: (await invocation.prompt.secret("Access token: ", "access token")).trim() }
          : { kind: "token", jti };
      return await revoke(invocation, { target }, options);
    },
  }),
  command({
    name: "revoke tenant",
    summary: "throw out everybody of a tenant",
    args: ["TID"],
    options: { "issued-before": ISSUED_BEFORE, ...OPTIONS },
    about: ["At a terminal it shows how many that is, and asks. In a script it needs --yes."],
    examples: [['keycard revoke tenant acme -r "contract ended" --yes', "in a script"]],
    scopes: SCOPES,
    run: (invocation, { args: [tid = ""], options }) => {
      return revoke(
        invocation,
        { target: { kind: "tenant", tid }, issued_before: cutoff(options["issued-before"]) },
        options,
        tid,
      );
    },
  }),
  command({
    name: "revoke key",
    summary: "kill every token that a signing key signed",
    args: ["KID"],
    options: OPTIONS,
    about: ["A fresh key signs from then on. Sessions go on: their holders refresh. `keycard keys` lists the keys."],
    examples: [['keycard revoke key sig_2026 -r "key leaked"', ""]],
    scopes: [...SCOPES, "keys:write"],
    run: (invocation, { args: [kid = ""], options }) =>
      revoke(invocation, { target: { kind: "key", kid } }, options, kid),
  }),
  command({
    name: "revoke everyone",
    summary: "throw everybody out, of every tenant",
    args: [],
    options: { "issued-before": ISSUED_BEFORE, ...OPTIONS },
    about: ["At a terminal it shows how many that is, and asks. In a script it needs --yes."],
    examples: [
      ['keycard revoke everyone --issued-before 2026-03-01T12:00:00Z -r "breach"', "sessions from before the mend"],
    ],
    scopes: SCOPES,
    run: (invocation, { options }) => {
      const order = { target: { kind: "everyone" as const }, issued_before: cutoff(options["issued-before"]) };
      return revoke(invocation, order, options, "everyone");
    },
  }),
];

function cutoff(when: string | undefined): number | undefined {
  return when === undefined ? undefined : Math.floor(momentOf(when, "--issued-before") / 1000);
}

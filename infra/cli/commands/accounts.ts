/** `keycard accounts`: find people, make accounts, and keep somebody out for a time or for good. */
import type { Account, AccountPage } from "../../edge-answers.ts";
import { command } from "../command.ts";
import { awaitRevocation, WAIT, waitSeconds } from "../enforcement.ts";
import { CommandFailed, EXIT, type ExitCode, UsageError } from "../failure.ts";
import type { Invocation } from "../invocation.ts";
import { reasonFor } from "../order.ts";
import { printPage } from "../page.ts";
import { findAccount, personOf, SUB } from "../person.ts";
import { bold, counted, dim, green, red, Text, t } from "../text.ts";
import { clock, distance, futureOf, numberOf } from "../times.ts";

const REASON = { value: "TEXT", short: "r", about: "why, for the audit trail; asked for at a terminal" } as const;
const READ = ["accounts:read"];
const WRITE = ["accounts:read", "accounts:write"];

export const accountCommands = [
  command({
    name: "accounts search",
    summary: "find people by how their login or subject begins",
    args: ["[BEGINNING]"],
    options: {
      tenant: { value: "TID", about: "of this tenant" },
      limit: { value: "N", about: "how many; 20" },
      after: { value: "CURSOR", about: "go on where a list ended" },
    },
    about: ["Without a beginning: everybody, by login."],
    examples: [["keycard accounts search ada", "ada@example.com, adam@example.com, …"]],
    scopes: READ,
    async run(invocation, { args: [query], options }) {
      const limit = numberOf(options.limit ?? "20", "--limit", 1, 100);
      const edge = await invocation.edge();
      const { accounts, next } = await edge.accounts({
        query: query ?? "",
        tid: options.tenant,
        after: options.after,
        limit,
      });
      const head = ["login", "subject", "tenant", "state", "since"];
      printPage(invocation, { items: accounts, next, head, row, empty: "Nobody begins like that." });
      return EXIT.ok;
    },
  }),
  command({
    name: "accounts show",
    summary: "show one account",
    args: ["[LOGIN]"],
    options: { sub: SUB },
    about: [],
    examples: [["keycard accounts show ada@example.com", ""]],
    scopes: READ,
    async run(invocation, { args: [login], options }) {
      const account = await findAccount(await invocation.edge(), personOf(login, options.sub));
      if (invocation.json) invocation.output.json(account);
      else invocation.output.lines(details(account));
      return EXIT.ok;
    },
  }),
  command({
    name: "accounts create",
    summary: "make an account; its password is asked for, or read from standard input",
    args: ["LOGIN"],
    options: {
      tenant: { value: "TID", about: "the tenant that it belongs to" },
      scope: { value: "SCOPES", about: "what its tokens may do, separated by spaces" },
      sub: { value: "SUB", about: "its subject; made up unless given" },
    },
    about: ["An account with admin scopes can sign in here (`keycard login --login`) and at the console."],
    examples: [
      ["keycard accounts create ada@example.com --tenant acme", "asks for the password"],
      ["pwgen -s 24 1 | keycard accounts create bot@example.com --scope chat", "in a script"],
    ],
    scopes: ["accounts:write"],
    async run(invocation, { args: [login = ""], options }) {
      const password = await newPassword(invocation);
      const account = { login, password, tid: options.tenant, scope: options.scope, sub: options.sub };
      const made = await (await invocation.edge()).createAccount(account);
      if (invocation.json) invocation.output.json(made);
      else invocation.output.line(t`${green("✓")} ${bold(made.login ?? login)} can sign in.  ${dim(made.sub)}`);
      return EXIT.ok;
    },
  }),
  command({
    name: "accounts disable",
    summary: "throw somebody out and keep them out, for a time or until enabled",
    args: ["[LOGIN]"],
    options: {
      sub: SUB,
      until: { value: "WHEN", about: "it comes back by itself then: 2h (from now), 7d, or a time" },
      reason: REASON,
      wait: WAIT,
    },
    about: ["Waits until it is enforced, as `keycard revoke` does."],
    examples: [['keycard accounts disable ada@example.com --until 7d -r "under investigation"', ""]],
    scopes: WRITE,
    async run(invocation, { args: [login], options }) {
      const until = options.until === undefined ? undefined : futureOf(options.until, "--until");
      const seconds = waitSeconds(options.wait);
      const edge = await invocation.edge();
      const { sub } = await findAccount(edge, personOf(login, options.sub));
      const reason = await reasonFor(invocation, options.reason);
      const account = await edge.changeAccount(sub, { disabled: true, until, reason });
      return await changed(invocation, account, seconds);
    },
  }),
  command({
    name: "accounts enable",
    summary: "let somebody sign in again",
    args: ["[LOGIN]"],
    options: { sub: SUB, reason: REASON },
    about: [],
    examples: [['keycard accounts enable ada@example.com -r "cleared"', ""]],
    scopes: WRITE,
    async run(invocation, { args: [login], options }) {
      const edge = await invocation.edge();
      const { sub } = await findAccount(edge, personOf(login, options.sub));
      const reason = await reasonFor(invocation, options.reason);
      return await changed(invocation, await edge.changeAccount(sub, { disabled: false, reason }), 0);
    },
  }),
  command({
    name: "accounts delete",
    summary: "delete an account for good; its subject is never given out again",
    args: ["[LOGIN]"],
    options: { sub: SUB, reason: REASON, wait: WAIT, yes: { short: "y", about: "do not ask" } },
    about: ["At a terminal it asks. In a script it needs --yes."],
    examples: [['keycard accounts delete ada@example.com -r "asked for by the person"', ""]],
    scopes: [...WRITE, "revocations:read"],
    async run(invocation, { args: [login], options }) {
      const seconds = waitSeconds(options.wait);
      const edge = await invocation.edge();
      const account = await findAccount(edge, personOf(login, options.sub));
      const reason = await reasonFor(invocation, options.reason);
      if (options.yes !== true) await confirmDeletion(invocation, account);
      const { revocation } = await edge.deleteAccount(account.sub, reason);
      if (!invocation.json) {
        invocation.output.line(t`${bold(account.login ?? account.sub)} is deleted.  ${dim(revocation)}`);
      }
      return await awaitRevocation(invocation, revocation, seconds);
    },
  }),
];

async function newPassword({ prompt }: Invocation): Promise<string> {
  const password = await prompt.secret("Password: ", "password");
  if (!prompt.isInteractive) return password;
  if ((await prompt.secret("The same again: ", "password")) === password) return password;
  throw new UsageError("The two were not the same.", "Nothing was made.");
}

async function confirmDeletion({ prompt }: Invocation, { login, sub, sessions }: Account): Promise<void> {
  const name = login ?? sub;
  if (!prompt.isInteractive) throw new UsageError("Nobody is here to be asked.", "Say --yes if it is meant.");
  const question = t`${name} has ${counted(sessions.length, "session")}. Type ${name} to delete it: `;
  if ((await prompt.ask(question.toString())) !== name) {
    throw new CommandFailed("Nothing was deleted: that was not the name.");
  }
}

/** What a change came to; where it ended sessions, once that is enforced. */
async function changed(invocation: Invocation, account: Account, seconds: number): Promise<ExitCode> {
  const { output, json } = invocation;
  const { disabled, disabled_until, login, sub, revocation } = account;
  const end = disabled_until === undefined ? "" : ` until ${clock(disabled_until * 1000)}`;
  const what = disabled
    ? t`${bold(login ?? sub)} is disabled${end}.`
    : t`${green("✓")} ${bold(login ?? sub)} can sign in.`;
  if (revocation === undefined) {
    if (json) output.json(account);
    else output.line(what);
    return EXIT.ok;
  }
  if (!json) output.line(t`${what}  ${dim(revocation)}`);
  return await awaitRevocation(invocation, revocation, seconds);
}

function row({ login, tid, disabled, created_at, sub }: AccountPage["accounts"][number]) {
  return [
    login === undefined ? dim("by link") : bold(login),
    sub,
    tid ?? dim("none"),
    disabled ? red("disabled") : green("active"),
    created_at === undefined ? dim("unknown") : distance(created_at * 1000),
  ];
}

function details({ sub, login, tid, scope, disabled, disabled_until, links, sessions, generation }: Account): Text[] {
  const end = disabled_until === undefined ? "" : ` until ${clock(disabled_until * 1000)}`;
  const facts: (readonly [string, string | Text])[] = [
    ["subject", sub],
    ["login", login ?? dim("none")],
    ["tenant", tid ?? dim("none")],
    ["scope", scope ?? dim("none")],
    ["state", disabled ? red(`disabled${end}`) : green("active")],
    ...links.map(({ issuer, subject }) => ["link", `${subject} at ${issuer}`] as const),
    ["generation", String(generation)],
    ["sessions", sessions.length === 0 ? "none" : `${sessions.length}; \`keycard sessions --sub ${sub}\` lists them`],
  ];
  return facts.map(([name, value]) => t`${dim(Text.of(name).padded(10))}  ${value}`);
}

/** `keycard login`, `logout`, `profiles`, `whoami`: the credentials that are kept on this machine, and who they say that we are. */
import { hostname } from "node:os";
import { REFUSALS } from "#contract/refusal";
import type { Me } from "../../edge-answers.ts";
import { EdgeRefusal } from "../../edge-client.ts";
import { command } from "../command.ts";
import { accessOf, edgeAddress, LOCAL, secretOf } from "../credential.ts";
import { CommandFailed, EXIT, UsageError } from "../failure.ts";
import type { Invocation } from "../invocation.ts";
import { nearest } from "../nearest.ts";
import type { Profile, Secret } from "../profiles.ts";
import { bold, dim, green, t, yellow } from "../text.ts";

const NAME = /^[A-Za-z0-9][A-Za-z0-9._:@-]{0,99}$/;

export const loginCommands = [
  command({
    name: "login",
    summary: "keep an admin credential on this machine",
    args: ["EDGE"],
    options: {
      login: { value: "LOGIN", about: "sign in as a person whose account has admin scopes; asks for the password" },
      "client-id": { value: "ID", about: "use an admin client; asks for its secret" },
      "secret-command": {
        value: "COMMAND",
        about: "keep no secret: run this each time, and take the first line that it prints",
      },
    },
    about: [
      "Three kinds: a person (--login), an admin client (--client-id), or else a token such as ADMIN_TOKEN. The secret is asked for at a terminal, or read from standard input; never from an argument.",
      "It is kept as a profile, named by --profile or after the edge, in a file that only you can read (XDG_CONFIG_HOME/keycard/profiles.json), and is used from now on. For the keyring of your system, let --secret-command read it.",
      "In CI nothing needs to be kept: KEYCARD_EDGE and KEYCARD_TOKEN are used before any profile.",
    ],
    examples: [
      ["keycard login https://auth.example.com --login ada@example.com", "as a person"],
      ["keycard login https://auth.example.com --client-id c_Zm9vYmFyYmF6cXV4MTIzNA < secret.txt", "as a tool"],
      [
        'keycard login https://auth.example.com -p prod --secret-command "secret-tool lookup keycard prod"',
        "from the keyring of a Linux desktop",
      ],
      [
        'keycard login https://auth.example.com -p prod --secret-command "security find-generic-password -s keycard -w"',
        "from the keychain of macOS",
      ],
    ],
    scopes: [],
    async run(invocation, { args: [address = ""], options }) {
      const edgeUrl = edgeAddress(address);
      const name = invocation.profile ?? new URL(edgeUrl).host;
      demandName(name);
      const { issuer } = await invocation.connect(edgeUrl).metadata();
      if (issuer !== edgeUrl) invocation.output.note(t`${yellow("!")} This edge calls itself ${issuer}.`);
      const profile = await profileFrom(invocation, edgeUrl, issuer, options);
      const me = await introduced(invocation, profile);
      await invocation.profiles.change((book) => {
        book.profiles[name] = profile;
        book.current = name;
      });
      if (invocation.json) invocation.output.json({ profile: name, edge: edgeUrl, ...me });
      else {
        invocation.output.line(t`${green("✓")} ${bold(name)} is kept, and used from now on.`);
        showMe(invocation, me);
      }
      return EXIT.ok;
    },
  }),
  command({
    name: "logout",
    summary: "forget a credential; a person's session ends as well",
    args: ["[PROFILE]"],
    options: { all: { about: "every one" } },
    about: ["Without PROFILE it is the current one."],
    examples: [["keycard logout prod", ""]],
    scopes: [],
    async run(invocation, { args: [given], options }) {
      const { current, profiles } = await invocation.profiles.read();
      const name = given ?? invocation.profile ?? current;
      if (name === undefined && options.all !== true) throw new UsageError("There is no credential on this machine.");
      const names = options.all ? Object.keys(profiles) : [demandProfile(profiles, name ?? "")];
      for (const each of names) await forget(invocation, each);
      if (invocation.json) invocation.output.json({ forgotten: names });
      else for (const each of names) invocation.output.line(t`${bold(each)} is forgotten.`);
      return EXIT.ok;
    },
  }),
  command({
    name: "profiles",
    summary: "list the credentials on this machine",
    args: [],
    options: {},
    about: [
      "The one with a mark is used unless --profile, KEYCARD_PROFILE or KEYCARD_EDGE and KEYCARD_TOKEN say otherwise.",
      `In a checkout, \`${LOCAL}\` is the stack that \`npm start\` runs there.`,
    ],
    examples: [["keycard profiles", ""]],
    scopes: [],
    async run({ output, json, profiles: store }) {
      const { current, profiles } = await store.read();
      const entries = Object.entries(profiles);
      if (json) {
        for (const [name, profile] of entries) {
          output.jsonLine({ name, current: name === current, ...described(profile) });
        }
        return EXIT.ok;
      }
      if (entries.length === 0) output.line("No credential is kept here. `keycard login EDGE` takes one.");
      else {
        output.table(
          ["", "profile", "edge", "who"],
          entries.map(([name, profile]) => [
            name === current ? green("*") : " ",
            bold(name),
            profile.edge,
            described(profile).who,
          ]),
        );
      }
      return EXIT.ok;
    },
  }),
  command({
    name: "profiles use",
    summary: "use another credential from now on",
    args: ["PROFILE"],
    options: {},
    about: [],
    examples: [["keycard profiles use prod", ""]],
    scopes: [],
    async run({ output, profiles: store }, { args: [name = ""] }) {
      await store.change((book) => {
        book.current = demandProfile(book.profiles, name);
      });
      output.note(t`${bold(name)} is used from now on.`);
      return EXIT.ok;
    },
  }),
  command({
    name: "whoami",
    summary: "show which edge is asked, as whom, and what that may do",
    args: [],
    options: {},
    about: [],
    examples: [["keycard whoami --profile prod", ""]],
    scopes: [],
    async run(invocation) {
      const { edge, name, edgeUrl } = await invocation.desk();
      const me = await edge.me();
      if (invocation.json) invocation.output.json({ profile: name, edge: edgeUrl, ...me });
      else {
        invocation.output.line(t`${bold(name)}  ${edgeUrl}`);
        showMe(invocation, me);
      }
      return EXIT.ok;
    },
  }),
];

interface LoginOptions {
  readonly login?: string;
  readonly "client-id"?: string;
  readonly "secret-command"?: string;
}

async function profileFrom(
  invocation: Invocation,
  edge: string,
  issuer: string,
  options: LoginOptions,
): Promise<Profile> {
  const { login, "client-id": clientId, "secret-command": secretCommand } = options;
  if (login !== undefined && (clientId !== undefined || secretCommand !== undefined)) {
    throw new UsageError(
      "--login goes with neither --client-id nor --secret-command.",
      "A person's password is asked for, and not kept.",
    );
  }
  if (login !== undefined) return await personProfile(invocation, edge, issuer, login);
  const what = clientId === undefined ? "admin token" : "client secret";
  const secret: Secret =
    secretCommand === undefined
      ? { kept: (await invocation.prompt.secret(`${what[0]?.toUpperCase()}${what.slice(1)}: `, what)).trim() }
      : { command: secretCommand };
  return clientId === undefined
    ? { kind: "token", edge, secret }
    : { kind: "client", edge, client_id: clientId, secret };
}

/** Signs the person in, for a token that admin calls take and no realtime node does. The password is not kept. */
async function personProfile(invocation: Invocation, edge: string, issuer: string, login: string): Promise<Profile> {
  const password = await invocation.prompt.secret(`Password of ${login}: `, "password");
  const device = `keycard on ${hostname()}`.slice(0, 128);
  try {
    const tokens = await invocation.connect(edge).login(login, password, device, issuer);
    return { kind: "person", edge, issuer, login, refresh_token: tokens.refresh_token, access: accessOf(tokens) };
  } catch (error) {
    if (!(error instanceof EdgeRefusal) || error.code !== "scope_insufficient") throw error;
    throw new CommandFailed(
      `${login} has no admin scope.`,
      "Somebody with accounts:write can give one, as `revocations:write`.",
    );
  }
}

/** Who the edge says that this is. What it does not take is not kept. */
async function introduced(invocation: Invocation, profile: Profile): Promise<Me> {
  const token = async () => {
    if (profile.kind === "person") return profile.access?.token ?? "";
    const secret = await secretOf(profile.secret);
    if (profile.kind === "token") return secret;
    return (await invocation.connect(profile.edge).clientToken(profile.client_id, secret)).access_token;
  };
  try {
    return await invocation.connect(profile.edge, { token }).me();
  } catch (error) {
    if (!(error instanceof EdgeRefusal) || error.code !== "token_invalid") throw error;
    throw new CommandFailed(
      `${REFUSALS.token_invalid.message} Nothing was kept.`,
      "Check that it is an admin token of this very edge.",
    );
  }
}

/** A person's session ends at the edge too; that an edge cannot be asked is no reason to keep a secret. */
async function forget(invocation: Invocation, name: string): Promise<void> {
  const gone = await invocation.profiles.change((book) => {
    const profile = book.profiles[name];
    delete book.profiles[name];
    if (book.current === name) delete book.current;
    return profile;
  });
  if (gone?.kind !== "person") return;
  try {
    await invocation.connect(gone.edge).logout(gone.refresh_token);
  } catch (error) {
    const { output } = invocation;
    output.note(
      t`${yellow("!")} The session at ${gone.edge} could not be ended: ${error instanceof Error ? error.message : "no answer"}`,
    );
  }
}

function described(profile: Profile): { edge: string; kind: string; who: string } {
  const { edge, kind } = profile;
  const who = kind === "person" ? profile.login : kind === "client" ? `client ${profile.client_id}` : "a token";
  const where = kind !== "person" && "command" in profile.secret ? ", from a command" : "";
  return { edge, kind, who: `${who}${where}` };
}

function showMe({ output }: Invocation, { kind, id, scopes, tid, login, name }: Me): void {
  const who = kind === "root" ? "root: every scope, every tenant" : `${kind} ${login ?? name ?? id}`;
  output.line(t`  ${who}${tid === undefined ? "" : t`, bound to tenant ${bold(tid)}`}`);
  if (kind !== "root") output.line(t`  ${dim(scopes.join(" "))}`);
}

function demandProfile(profiles: Readonly<Record<string, Profile>>, name: string): string {
  if (Object.hasOwn(profiles, name)) return name;
  const near = nearest(name, Object.keys(profiles));
  throw new UsageError(
    `There is no profile "${name}".`,
    near ? `Did you mean ${near}?` : "`keycard profiles` lists them.",
  );
}

function demandName(name: string): void {
  if (name === LOCAL || !NAME.test(name)) {
    throw new UsageError(
      `A profile cannot be called "${name}".`,
      name === LOCAL ? "That is the stack of `npm start`." : "Letters, digits and . _ : @ - are fine.",
    );
  }
}

/** `keycard clients`: credentials for tools, each with the scopes that it needs and no more. */
import type { Client } from "../../edge-answers.ts";
import { command } from "../command.ts";
import { EXIT } from "../failure.ts";
import type { Invocation } from "../invocation.ts";
import { bold, dim, green, red, Text, t } from "../text.ts";
import { clock } from "../times.ts";

const SCOPES = ["clients:write"];

export const clientCommands = [
  command({
    name: "clients create",
    summary: "make a credential for a tool; its secret is shown once",
    args: ["NAME"],
    options: {
      scope: { value: "SCOPE", multiple: true, about: "what it may do; repeat it for more" },
      tenant: { value: "TID", about: "bind it to one tenant" },
    },
    about: [
      "Scopes: revocations:read, revocations:write, sessions:read, sessions:write, accounts:read, accounts:write, audit:read, keys:write, clients:write.",
      "`keycard login URL --client-id ID` uses it here.",
    ],
    examples: [
      ["keycard clients create 'support desk' --scope revocations:write --scope accounts:read --tenant acme", ""],
    ],
    scopes: SCOPES,
    async run(invocation, { args: [name = ""], options }) {
      const scopes = (options.scope ?? []).flatMap((scope) => scope.split(/[ ,]+/)).filter((scope) => scope !== "");
      const client = await (await invocation.edge()).createClient({ name, scopes, tid: options.tenant });
      show(invocation, client);
      return EXIT.ok;
    },
  }),
  command({
    name: "clients show",
    summary: "show a client",
    args: ["ID"],
    options: {},
    about: [
      "Clients cannot be listed: the audit trail has them all (`keycard audit --type client_created --since 365d`).",
    ],
    examples: [],
    scopes: SCOPES,
    async run(invocation, { args: [id = ""] }) {
      show(invocation, await (await invocation.edge()).client(id));
      return EXIT.ok;
    },
  }),
  command({
    name: "clients disable",
    summary: "turn a client away from now on; its tokens are dead at once",
    args: ["ID"],
    options: {},
    about: [],
    examples: [],
    scopes: SCOPES,
    async run(invocation, { args: [id = ""] }) {
      show(invocation, await (await invocation.edge()).changeClient(id, true));
      return EXIT.ok;
    },
  }),
  command({
    name: "clients enable",
    summary: "let a client in again",
    args: ["ID"],
    options: {},
    about: [],
    examples: [],
    scopes: SCOPES,
    async run(invocation, { args: [id = ""] }) {
      show(invocation, await (await invocation.edge()).changeClient(id, false));
      return EXIT.ok;
    },
  }),
  command({
    name: "clients delete",
    summary: "delete a client for good; its tokens are dead at once",
    args: ["ID"],
    options: {},
    about: [],
    examples: [],
    scopes: SCOPES,
    async run(invocation, { args: [id = ""] }) {
      await (await invocation.edge()).deleteClient(id);
      if (invocation.json) invocation.output.json({ client_id: id, deleted: true });
      else invocation.output.line(t`${bold(id)} is deleted.`);
      return EXIT.ok;
    },
  }),
];

function show({ output, json }: Invocation, client: Client): void {
  if (json) {
    output.json(client);
    return;
  }
  const { client_id, name, scopes, tid, authentication, disabled, created_at, client_secret } = client;
  const facts: (readonly [string, string | Text])[] = [
    ["client", client_id],
    ...(client_secret === undefined ? [] : [["secret", bold(client_secret)] as const]),
    ["name", name],
    ["scopes", scopes.join(" ")],
    ["tenant", tid ?? dim("every one")],
    ["proves itself by", authentication],
    ["state", disabled ? red("disabled") : green("active")],
    ["made", clock(created_at)],
  ];
  for (const [fact, value] of facts) output.line(t`${dim(Text.of(fact).padded(16))}  ${value}`);
  if (client_secret !== undefined) output.note(dim("The secret is shown this once, and cannot be shown again."));
}

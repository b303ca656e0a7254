/** `keycard sessions`: where a person is signed in, and which of their sockets are open on which node. */
import type { Account, Session, Sockets } from "../../edge-answers.ts";
import { command } from "../command.ts";
import { EXIT } from "../failure.ts";
import type { Invocation } from "../invocation.ts";
import { findAccount, personOf, SUB } from "../person.ts";
import { bold, counted, dim, red, Text, t, yellow } from "../text.ts";
import { distance } from "../times.ts";

const DEVICE_COLUMNS = 28;

export const sessionCommands = [
  command({
    name: "sessions",
    summary: "list a person's sessions and open sockets",
    args: ["[LOGIN]"],
    options: { sub: SUB, "no-sockets": { about: "do not ask the nodes" } },
    about: ["Each session is one sign-in on one device. Sockets are asked of the nodes as they are now."],
    examples: [
      ["keycard sessions ada@example.com", ""],
      ["keycard sessions --sub u_5XkPz0TqWm2RbN8c --json", "for programs"],
    ],
    scopes: ["accounts:read", "sessions:read"],
    async run(invocation, { args: [login], options }) {
      const edge = await invocation.edge();
      const account = await findAccount(edge, personOf(login, options.sub));
      const sockets = options["no-sockets"] ? undefined : await edge.sockets(account.sub);
      if (invocation.json) {
        invocation.output.json({ sub: account.sub, sessions: account.sessions, ...(sockets && { sockets }) });
      } else show(invocation, account, sockets);
      return EXIT.ok;
    },
  }),
];

function show({ output }: Invocation, account: Account, sockets: Sockets | undefined): void {
  const { login, sub } = account;
  const name = login === undefined || login === sub ? bold(sub) : t`${bold(login)}  ${dim(sub)}`;
  output.line(t`${name}  ${account.disabled ? red("disabled") : ""}`);
  output.line();
  if (account.sessions.length === 0) output.line("No session is open.");
  else {
    const held = countBySession(sockets);
    output.table(
      ["session", "device", "sockets", "signed in", "last used", "ends", "from"],
      account.sessions.map((session) => sessionRow(session, held)),
    );
  }
  if (sockets !== undefined) {
    output.line();
    output.lines(socketLines(sockets));
  }
}

function sessionRow(session: Session, held: ReadonlyMap<string, number> | undefined) {
  const { device, user_agent, origin, created_at, last_used_at, expires_at, sid } = session;
  const from = [origin.city, origin.country, origin.address].filter((part) => part !== undefined).join(", ");
  return [
    sid,
    Text.of(device ?? user_agent ?? "unnamed").cut(DEVICE_COLUMNS),
    held === undefined ? dim("?") : String(held.get(sid) ?? 0),
    distance(created_at * 1000),
    distance(last_used_at * 1000),
    distance(expires_at * 1000),
    dim(from === "" ? "unknown" : from),
  ];
}

/** Undefined where not all of them are listed. */
function countBySession(sockets: Sockets | undefined): ReadonlyMap<string, number> | undefined {
  if (sockets === undefined || sockets.sockets === null) return undefined;
  const listed = sockets.clusters.flatMap(({ nodes }) => nodes.flatMap((node) => node.listed));
  if (listed.length < sockets.sockets) return undefined;
  const counts = new Map<string, number>();
  for (const { sid } of listed) if (sid !== undefined) counts.set(sid, (counts.get(sid) ?? 0) + 1);
  return counts;
}

function socketLines({ sockets, clusters }: Sockets): Text[] {
  const total = sockets === null ? "Open sockets, as far as could be asked:" : `${counted(sockets, "open socket")}`;
  return [
    Text.of(total),
    ...clusters.flatMap(({ cluster, nodes, silent, error }) => [
      ...(error === undefined ? [] : [t`  ${yellow("!")} ${bold(cluster)}  could not be asked: ${error}`]),
      ...nodes.flatMap(({ node, sockets, listed }) => [
        t`  ${bold(cluster)}  ${node}  ${counted(sockets, "socket")}`,
        ...listed.map(({ nsp, transport, connected_at, sid }) => {
          return t`      ${nsp}  ${transport}  open since ${distance(connected_at * 1000)}  ${dim(sid ?? "")}`;
        }),
        ...(listed.length < sockets ? [dim(t`      and ${sockets - listed.length} more`)] : []),
      ]),
      ...(silent.length > 0 ? [t`  ${yellow("!")} ${bold(cluster)}  no answer from ${silent.join(", ")}`] : []),
    ]),
  ];
}

/** Help, made from the commands themselves: what there is, how it is used, and an example for each. */
import { type Command, GLOBAL_OPTIONS, type Options } from "./command.ts";
import { aligned } from "./output.ts";
import { bold, cyan, dim, Text, t } from "./text.ts";

const WIDTH = 88;

/** What is not a command, and still has to be known. */
const TOPICS: Readonly<Record<string, readonly string[]>> = {
  "exit-codes": [
    "0    done; of a revocation: enforced, and the receipt proves it",
    "1    failed; of `status` and `doctor`: something is wrong",
    "2    called in a way that makes no sense; nothing was done",
    "3    the revocation stands, and is not enforced everywhere yet (or no cluster is configured that could)",
    "130  Ctrl-C; what was decided stands",
  ],
  environment: [
    "KEYCARD_EDGE, KEYCARD_TOKEN  the edge and an admin token; both, before any profile: for CI",
    "KEYCARD_PROFILE              the profile to use, where --profile does not say",
    "XDG_CONFIG_HOME              where keycard/profiles.json is kept; ~/.config",
    "NO_COLOR                     no colours",
    "NODE_EXTRA_CA_CERTS          certificates to trust besides, for a private edge",
  ],
};

/** Groups of the overview, by the first word of what stands in them. */
const GROUPS: readonly (readonly [title: string, words: readonly string[]])[] = [
  ["Throw somebody out", ["revoke", "receipts"]],
  ["Look after people", ["sessions", "accounts"]],
  ["Look after the deployment", ["status", "doctor", "audit", "keys", "clients"]],
  ["This machine", ["login", "logout", "profiles", "whoami", "completion", "help"]],
];

/** Everything there is, one line each. */
export function overview(commands: readonly Command[]): Text[] {
  const width = Math.max(...commands.map(({ name, args }) => [name, ...args].join(" ").length));
  return [
    t`${bold("keycard")}: throw people out of a Keycard deployment, and see that they are out.`,
    ...GROUPS.flatMap(([title, words]) => [
      Text.of(""),
      bold(title),
      ...commands
        .filter(({ name }) => words.includes(name.split(" ")[0] ?? ""))
        .map(({ name, args, summary }) => t`  ${cyan(Text.of([name, ...args].join(" ")).padded(width))}  ${summary}`),
    ]),
    Text.of(""),
    bold("Begin"),
    t`  keycard login https://auth.example.com         ${dim("keep an admin credential")}`,
    t`  keycard revoke user ada@example.com --dry-run  ${dim("whom it would hit")}`,
    t`  keycard revoke user ada@example.com            ${dim("out, everywhere, with a receipt")}`,
    Text.of(""),
    t`\`keycard help COMMAND\` explains one; also: ${Object.keys(TOPICS)
      .map((topic) => `keycard help ${topic}`)
      .join(", ")}`,
  ];
}

/** One command, a group of them, or a topic. Undefined when there is none of that name. */
export function helpOn(name: string, commands: readonly Command[]): Text[] | undefined {
  const topic = Object.hasOwn(TOPICS, name) ? TOPICS[name] : undefined;
  if (topic !== undefined) return topic.map(Text.of);
  const group = commands.filter((each) => each.name === name || each.name.startsWith(`${name} `));
  const [only] = group;
  if (group.length === 1 && only !== undefined) return explained(only);
  const exact = group.find((each) => each.name === name);
  const others = group.filter((each) => each !== exact);
  if (others.length === 0) return undefined;
  const list = aligned(
    others.map(({ name, args, summary }) => [cyan(t`  keycard ${[name, ...args].join(" ")}`), summary]),
  );
  const hint = dim(t`\`keycard help ${others[0]?.name ?? ""}\` explains one.`);
  return exact === undefined
    ? [...list, Text.of(""), hint]
    : [...explained(exact), Text.of(""), bold("And"), ...list, Text.of(""), hint];
}

/** Names that `help` knows. */
export function helpNames(commands: readonly Command[]): string[] {
  const names = commands.flatMap(({ name }) => [name, name.split(" ")[0] ?? ""]);
  return [...new Set([...names, ...Object.keys(TOPICS)])];
}

function explained({ name, args, summary, about, options, examples, scopes }: Command): Text[] {
  const usage = ["keycard", name, ...args, Object.keys(options).length > 0 ? "[OPTIONS]" : ""].join(" ").trim();
  return [
    t`${bold(usage)}`,
    Text.of(`${summary[0]?.toUpperCase()}${summary.slice(1)}.`),
    ...about.flatMap((paragraph) => ["", ...folded(paragraph)]).map(Text.of),
    ...section("Options", optionLines(options)),
    ...section("For every command", optionLines(GLOBAL_OPTIONS)),
    ...section(
      "Examples",
      examples.flatMap(([line, what]) => [t`  ${cyan(line)}`, ...(what === "" ? [] : [dim(t`      ${what}`)])]),
    ),
    ...(scopes.length === 0 ? [] : [Text.of(""), dim(t`Needs ${scopes.join(", ")}.`)]),
  ];
}

function section(title: string, lines: readonly Text[]): Text[] {
  return lines.length === 0 ? [] : [Text.of(""), bold(title), ...lines];
}

function optionLines(options: Options): Text[] {
  return aligned(
    Object.entries(options).map(([name, { short, value, about }]) => [
      t`  ${short === undefined ? "    " : `-${short}, `}--${name}${value === undefined ? "" : ` ${value}`}`,
      about,
    ]),
  );
}

function folded(paragraph: string): string[] {
  const lines: string[] = [];
  let line = "";
  for (const word of paragraph.split(" ")) {
    if (line !== "" && line.length + word.length + 1 > WIDTH) {
      lines.push(line);
      line = "";
    }
    line = line === "" ? word : `${line} ${word}`;
  }
  return [...lines, line];
}

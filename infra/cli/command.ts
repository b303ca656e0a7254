/**
 * What a command is: a name, what it takes, what it says of itself, and what it does. How arguments are read, the help, the
 * suggestions and the shell completion are all made from this.
 */
import { type ParseArgsConfig, parseArgs } from "node:util";
import { type ExitCode, UsageError } from "./failure.ts";
import type { Invocation } from "./invocation.ts";
import { nearest } from "./nearest.ts";

export interface Option {
  /** What stands for its value in the help, as SECONDS. Absent: the option has none. */
  readonly value?: string;
  readonly short?: string;
  readonly multiple?: true;
  /** Values that it can have; for completion. */
  readonly choices?: readonly string[];
  readonly about: string;
}
export type Options = Readonly<Record<string, Option>>;

type ValueOf<O extends Option> = O extends { value: string }
  ? O extends { multiple: true }
    ? string[]
    : string
  : boolean;

/** What was given on the command line. */
export interface Given<O extends Options> {
  readonly args: readonly string[];
  readonly options: { readonly [Name in keyof O]?: ValueOf<O[Name]> };
}

export interface Command<O extends Options = Options> {
  /** One word or two: `receipts show`. */
  readonly name: string;
  readonly summary: string;
  /** Its arguments in order; one in brackets may be left out. */
  readonly args: readonly string[];
  readonly options: O;
  /** Paragraphs for the help. */
  readonly about: readonly string[];
  readonly examples: readonly (readonly [line: string, what: string])[];
  /** Admin scopes that it needs. */
  readonly scopes: readonly string[];
  run(invocation: Invocation, given: Given<O>): Promise<ExitCode>;
}

/** Lets the options' names and kinds be known to `run`. */
export function command<const O extends Options>(each: Command<O>): Command {
  return each as unknown as Command;
}

export const GLOBAL_OPTIONS = {
  profile: { value: "NAME", short: "p", about: "whose credential to use; see `keycard profiles`" },
  json: { about: "print JSON, for programs" },
  timeout: {
    value: "SECONDS",
    about: "how long one answer of the edge may take; 15. A call is tried again for three times that",
  },
  verbose: { short: "v", about: "show each call to the edge with its request id" },
  help: { short: "h", about: "explain the command" },
} as const satisfies Options;

export interface Parsed {
  readonly command: Command;
  readonly given: Given<Options>;
  readonly global: Given<typeof GLOBAL_OPTIONS>["options"];
}

/**
 * Finds the command and reads what it was given. Options may stand anywhere.
 *
 * @returns undefined when nothing was asked for
 * @throws {UsageError} with the nearest thing that there is
 */
export function parseCommandLine(argv: readonly string[], commands: readonly Command[]): Parsed | undefined {
  const { words, unknown } = leadingWords(argv, commands);
  if (words.length === 0 && unknown === undefined) return undefined;
  const found = findCommand(words, commands, unknown);
  const size = found.name.split(" ").length;
  const all: Options = { ...found.options, ...GLOBAL_OPTIONS };
  const { values, args } = read(argv, all, found);
  const rest = args.slice(size);
  if (values.help !== true) demandArguments(found, rest);
  return { command: found, given: { args: rest, options: values }, global: values };
}

/** The first words that are no options, however many options stand between them; and the first option that no command has. */
function leadingWords(argv: readonly string[], commands: readonly Command[]) {
  const every: Options = Object.assign({}, GLOBAL_OPTIONS, ...commands.map(({ options }) => options));
  const settings = {
    args: [...argv],
    options: described(every),
    strict: false,
    allowPositionals: true,
    tokens: true,
  } as const;
  const { positionals, tokens } = parseArgs(settings);
  const odd = tokens.find((token) => token.kind === "option" && !Object.hasOwn(every, token.name));
  return { words: positionals.slice(0, 2), unknown: odd?.kind === "option" ? odd.rawName : undefined };
}

/** @param unknown an option that may have hidden the word that follows it */
function findCommand(
  [first = "", second]: readonly string[],
  commands: readonly Command[],
  unknown: string | undefined,
): Command {
  const named = (name: string) => commands.find((each) => each.name === name);
  const found = (second === undefined ? undefined : named(`${first} ${second}`)) ?? named(first);
  const group = commands.filter(({ name }) => name.startsWith(`${first} `)).map(({ name }) => name);
  const mistyped = found?.name === first && found.args.length === 0 && second !== undefined && group.length > 0;
  if (found !== undefined && !mistyped) return found;
  if (unknown !== undefined) throw unknownOption(unknown, "", GLOBAL_OPTIONS);
  if (group.length > 0) {
    const seconds = group.map((name) => name.split(" ")[1] ?? "");
    const near = second === undefined ? undefined : nearest(second, seconds);
    const hint =
      near === undefined
        ? `There is ${group.map((name) => `\`keycard ${name}\``).join(", ")}.`
        : `Did you mean \`keycard ${first} ${near}\`?`;
    throw new UsageError(
      second === undefined ? `keycard ${first} needs one word more.` : `There is no command "${first} ${second}".`,
      hint,
    );
  }
  const near = nearest(first, [...new Set(commands.map(({ name }) => name.split(" ")[0] ?? ""))]);
  const hint = near === undefined ? "`keycard help` lists what there is." : `Did you mean \`keycard ${near}\`?`;
  throw new UsageError(`There is no command "${first}".`, hint);
}

function read(argv: readonly string[], options: Options, { name }: Command) {
  const settings = {
    args: [...argv],
    options: described(options),
    strict: false,
    allowPositionals: true,
    tokens: true,
  } as const;
  const { values, positionals, tokens } = parseArgs(settings);
  for (const token of tokens) {
    if (token.kind !== "option") continue;
    const option = Object.hasOwn(options, token.name) ? options[token.name] : undefined;
    if (option === undefined) throw unknownOption(token.rawName, name, options);
    if (option.value !== undefined && token.value === undefined) {
      throw new UsageError(`${token.rawName} needs a value, ${option.value}.`, helpFor(name));
    }
    if (option.value === undefined && token.value !== undefined) {
      throw new UsageError(`${token.rawName} takes no value.`, helpFor(name));
    }
    if (option.choices !== undefined && !option.choices.includes(token.value ?? "")) {
      const near = nearest(token.value ?? "", option.choices);
      const known = `It is one of ${option.choices.join(", ")}.`;
      throw new UsageError(`${token.rawName} cannot be "${token.value}".`, near ? `Did you mean ${near}?` : known);
    }
  }
  return { values: values as Given<Options>["options"] & Given<typeof GLOBAL_OPTIONS>["options"], args: positionals };
}

function unknownOption(rawName: string, name: string, options: Options): UsageError {
  const near = nearest(rawName.replace(/^-+/, ""), Object.keys(options));
  const hint = near === undefined ? helpFor(name) : `Did you mean --${near}?`;
  return new UsageError(`${`keycard ${name}`.trim()} has no option ${rawName}.`, hint);
}

function demandArguments({ name, args }: Command, given: readonly string[]): void {
  const needed = args.filter((arg) => !arg.startsWith("["));
  const missing = needed[given.length];
  if (missing !== undefined) throw new UsageError(`keycard ${name} needs ${missing}.`, helpFor(name));
  const surplus = given[args.length];
  if (surplus !== undefined) {
    throw new UsageError(`keycard ${name} does not know what to do with "${surplus}".`, helpFor(name));
  }
}

function helpFor(name: string): string {
  return `\`${`keycard help ${name}`.trim()}\` explains it.`;
}

function described(options: Options): NonNullable<ParseArgsConfig["options"]> {
  return Object.fromEntries(
    Object.entries(options).map(([name, { value, short, multiple }]) => [
      name,
      { type: value === undefined ? "boolean" : "string", ...(short && { short }), ...(multiple && { multiple }) },
    ]),
  );
}

/**
 * Who may import whom, as a function over paths and sources, so that the rules themselves can be tested with planted
 * violations. Type-only imports count: a type is as much a dependency of the reader as a value is.
 */
import { posix } from "node:path";

/** Path from the repository's root → source text. */
export type SourceTree = ReadonlyMap<string, string>;

interface Import {
  readonly from: string;
  /** A path from the root for a file of ours (`edge/contract/refusal.ts`), else the bare specifier. */
  readonly to: string;
  readonly specifier: string;
  readonly ours: boolean;
}

const ROOMS = ["edge/contract", "edge/console", "edge", "realtime/client", "realtime", "infra", "test"] as const;
type Room = (typeof ROOMS)[number];

/** What each room may name that is not ours. A room that is not listed may use any package. */
const PACKAGES: Partial<Record<Room, readonly RegExp[]>> = {
  "edge/contract": [/^jose$/],
  // It runs in a browser, and brings along nothing that is not ours.
  "edge/console": [],
  edge: [/^jose$/, /^hono(\/|$)/, /^zod$/, /^cloudflare:/, /^node:crypto$/],
  "realtime/client": [/^socket\.io-client$/],
  realtime: [
    /^jose$/,
    /^zod$/,
    /^pino$/,
    /^prom-client$/,
    /^node:/,
    /^socket\.io$/,
    /^@socket\.io\/redis-adapter$/,
    /^ioredis$/,
  ],
};

/** Which rooms each room may reach into, itself included. */
const REACH: Record<Room, readonly Room[]> = {
  "edge/contract": ["edge/contract"],
  "edge/console": ["edge/console", "edge/contract"],
  edge: ["edge", "edge/contract"],
  "realtime/client": ["realtime/client", "edge/contract"],
  realtime: ["realtime", "edge/contract"],
  infra: ["infra", "realtime", "edge", "edge/contract"],
  test: ["test", "infra", "realtime", "realtime/client", "edge", "edge/console", "edge/contract"],
};

/** Entries: they start things when they are loaded. */
const ENTRIES = ["edge/worker.ts", "realtime/main.ts"];

const FORBIDDEN_NAMES = ["utils", "util", "helpers", "helper", "common", "shared", "types", "constants", "index"];

const TOP_LEVEL = [
  "LICENSE",
  "README.md",
  "edge",
  "infra",
  "package-lock.json",
  "package.json",
  "realtime",
  "test",
  "tsconfig.json",
];

/** Every broken rule as one sentence; empty when all hold. */
export function brokenImportRules(tree: SourceTree): string[] {
  const imports = [...tree].flatMap(([path, source]) => importsOf(path, source));
  return [
    ...imports.flatMap((each) => brokenBy(each, tree)),
    ...[...tree.keys()].filter(hasForbiddenName).map((path) => `${path}: the name says nothing`),
    ...(["edge", "realtime"] as const).flatMap((folder) => cyclesIn(folder, imports)),
  ];
}

/** What is too many or too few at the repository's top level; what is installed, built or begins with a dot is left aside. */
export function brokenTopLevel(names: readonly string[]): string[] {
  const present = names.filter((name) => !name.startsWith(".") && name !== "node_modules" && name !== "dist");
  return [
    ...present.filter((name) => !TOP_LEVEL.includes(name)).map((name) => `${name} has no place at the top level`),
    ...TOP_LEVEL.filter((name) => !present.includes(name)).map((name) => `${name} is missing at the top level`),
  ];
}

function brokenBy(each: Import, tree: SourceTree): string[] {
  const room = roomOf(each.from);
  const says = (what: string) => [`${each.from} imports ${each.specifier}: ${what}`];
  if (!each.ours) {
    const allowed = PACKAGES[room];
    return allowed?.some((pattern) => pattern.test(each.to)) === false ? says(`not for ${room}`) : [];
  }
  const reached = roomOf(each.to);
  if (!REACH[room].includes(reached)) return says(`${room} may not reach into ${reached}`);
  if (reached === "edge/contract" && room !== reached && !each.specifier.startsWith("#contract/")) {
    return says("the contract is reached as #contract/* only");
  }
  if (ENTRIES.includes(each.to) && room !== "infra" && room !== "test") return says("an entry is imported by nobody");
  return tree.has(each.to) || !each.to.endsWith(".ts") ? [] : says("there is no such file");
}

function roomOf(path: string): Room {
  const room = ROOMS.find((each) => path.startsWith(`${each}/`));
  if (room === undefined) throw new Error(`${path} is in no room`);
  return room;
}

function hasForbiddenName(path: string): boolean {
  return path.split("/").some((part) => FORBIDDEN_NAMES.includes(part.split(".")[0] ?? ""));
}

const COMMENT = /\/\*[\s\S]*?\*\/|(?<=^|\s)\/\/.*$/gm;
const IMPORT = /^\s*(?:import|export)\b[^;"'`]*?\bfrom\s*["']([^"']+)["']|^\s*import\s*["']([^"']+)["']/gm;
const DYNAMIC_IMPORT = /\b(?:import|require)\s*\(\s*["']([^"']+)["']/g;

function importsOf(from: string, source: string): Import[] {
  const code = source.replace(COMMENT, "");
  const specifiers = [...code.matchAll(IMPORT), ...code.matchAll(DYNAMIC_IMPORT)].map(
    (match) => match[1] ?? match[2] ?? "",
  );
  return specifiers.map((specifier) => {
    const to = resolve(from, specifier);
    return { from, to: to ?? specifier, specifier, ours: to !== undefined };
  });
}

function resolve(from: string, specifier: string): string | undefined {
  if (specifier.startsWith("#contract/")) return `edge/contract/${specifier.slice("#contract/".length)}.ts`;
  if (specifier.startsWith(".")) return posix.join(posix.dirname(from), specifier);
  return undefined;
}

/** Every import that closes a circle, told with the circle. */
function cyclesIn(folder: string, imports: readonly Import[]): string[] {
  const inside = imports.filter((each) => each.from.startsWith(`${folder}/`) && each.to.startsWith(`${folder}/`));
  const done = new Set<string>();
  const found: string[] = [];
  const visit = (path: string, trail: readonly string[]): void => {
    const start = trail.indexOf(path);
    if (start >= 0) found.push(`a circle: ${[...trail.slice(start), path].join(" → ")}`);
    if (start >= 0 || done.has(path)) return;
    for (const each of inside) if (each.from === path) visit(each.to, [...trail, path]);
    done.add(path);
  };
  for (const each of inside) visit(each.from, []);
  return found;
}

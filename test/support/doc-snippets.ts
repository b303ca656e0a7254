/**
 * The TypeScript and JavaScript of the documents as whole programs: each place that a snippet can be meant for gives it the names that
 * it takes for granted, and afterwards tries what it promises. So one file is both what the compiler judges and what runs.
 */
import { execFile } from "node:child_process";
import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import type { DocBlock } from "./doc-blocks.ts";

const run = promisify(execFile);
const WITHIN_MS = 60_000;

/** What stands before and behind a snippet, by the word behind its language. */
interface Place {
  readonly imports: Readonly<Record<string, string>>;
  readonly before: string;
  readonly after: string;
}

/** What a client is given, whoever makes it. */
const ASKING = `
const { EDGE = "", NODE = "", NODES = "", LOGIN = "", PASSWORD = "" } = process.env;
async function signIn() {
  const response = await fetch(EDGE + "/login", {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ login: LOGIN, password: PASSWORD }),
  });
  if (!response.ok) throw new Error("login: " + response.status);
  return (await response.json()) as { access_token: string; refresh_token: string; sid: string; sub: string };
}
void [NODE, NODES, signIn];
`;

export const PLACES: Readonly<Record<string, Place>> = {
  /** An app's own Socket.IO server, with a protecting call in it: somebody signs in, comes in, and is heard. */
  server: {
    imports: { "node:http": "createServer", "socket.io": "Server", ioredis: "Redis" },
    before: `${ASKING}
const httpServer = createServer();
const io = new Server(httpServer);
`,
    after: `
const { io: connectTo } = await import("socket.io-client");
const { address } = await new Promise<{ address: { port: number } }>((resolve) =>
  httpServer.listen(0, "127.0.0.1", () => resolve({ address: httpServer.address() as { port: number } })),
);
await door.ready();
const { access_token } = await signIn();
const client = connectTo("http://127.0.0.1:" + address.port, { auth: { token: access_token } });
await new Promise<void>((resolve, reject) => client.once("connect", resolve).once("connect_error", reject));
const stranger = connectTo("http://127.0.0.1:" + address.port, { forceNew: true });
await new Promise<void>((resolve, reject) =>
  stranger.once("connect_error", () => resolve()).once("connect", () => reject(new Error("a stranger is in"))),
);
client.close();
stranger.close();
await door.close();
process.exit(0);
`,
  },
  /** A program by itself: it ends well, or it throws. */
  script: { imports: {}, before: ASKING, after: "\nprocess.exit(0);\n" },
  /** A page: run in a browser elsewhere, and judged here. */
  page: {
    imports: { "socket.io-client": "io" },
    before: "const showLogin = (code: string): void => console.log(code);\nvoid [io, showLogin];\n",
    after: "\nvoid socket;\n",
  },
};

export interface Snippet {
  readonly at: string;
  readonly place: string;
  /** Relative to the directory. */
  readonly file: string;
  readonly code: string;
}

/** What of a document is put in when it is run: the hosts that it names are nobody's. */
export type Substitutions = readonly (readonly [text: string, with_: string])[];

/** Writes every snippet as a program, for {@link compile} and {@link execute}. */
export async function writeSnippets(dir: string, blocks: readonly DocBlock[], put: Substitutions): Promise<Snippet[]> {
  const folder = join(dir, "snippets");
  await mkdir(folder, { recursive: true });
  const contract = ["access-token", "cluster", "refusal", "revocation"];
  await writeFile(join(folder, "contract.ts"), contract.map((name) => `export * from "#contract/${name}";\n`).join(""));
  const config = {
    extends: "../tsconfig.json",
    compilerOptions: {
      ...{ types: ["node"], lib: ["ES2023", "DOM"], checkJs: true, allowJs: true, noImplicitAny: false },
      ...{ noUnusedLocals: false, noUnusedParameters: false, noImplicitReturns: false },
    },
    include: ["*.ts"],
  };
  await writeFile(join(folder, "tsconfig.json"), JSON.stringify(config));
  return await Promise.all(
    blocks.map(async (block) => {
      const place = [...block.marks.keys()].find((mark) => mark in PLACES) ?? "";
      const file = `${block.at.replaceAll(/\W+/g, "-")}.ts`;
      const code = put.reduce((text, [from, to]) => text.replaceAll(from, to), block.code);
      await writeFile(join(folder, file), program(code, PLACES[place]));
      return { at: block.at, place, file: join("snippets", file), code };
    }),
  );
}

/** A snippet that imports by itself what its place would give it keeps its own import. */
function program(code: string, place: Place = { imports: {}, before: "", after: "" }): string {
  const imports = [...code.matchAll(/^import .*;$/gm)].map(([line]) => line);
  const rest = code.replaceAll(/^import .*;\n/gm, "");
  const given = Object.entries(place.imports)
    .filter(([from]) => imports.every((line) => !line.includes(`"${from}"`)))
    .map(([from, names]) => `import { ${names} } from "${from}";`);
  return [...given, ...imports, place.before, rest, place.after, "export {};\n"].join("\n");
}

/** @returns what the compiler says of them all; nothing when they are good */
export async function compile(dir: string): Promise<string> {
  const tsc = join(dir, "node_modules", ".bin", "tsc");
  return await run(tsc, ["-p", join(dir, "snippets"), "--pretty", "false"], { cwd: dir, timeout: WITHIN_MS }).then(
    () => "",
    (error: { stdout?: string; message: string }) => error.stdout || error.message,
  );
}

/** Runs one as a program of its own. @returns what it printed. @throws {Error} with that, when it does not end well */
export async function execute(dir: string, file: string, env: Readonly<Record<string, string>>): Promise<string> {
  const options = { cwd: dir, env: { ...process.env, ...env }, timeout: WITHIN_MS };
  try {
    const { stdout } = await run(process.execPath, [join(dir, file)], options);
    return stdout;
  } catch (error) {
    const { stdout = "", stderr = "" } = error as { stdout?: string; stderr?: string };
    throw new Error(`${file}:\n${stdout}${stderr}`, { cause: error });
  }
}

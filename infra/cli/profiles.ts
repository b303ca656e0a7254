/**
 * The credentials that somebody keeps on this machine: one file that only they can read, in `$XDG_CONFIG_HOME/keycard`. A file
 * that others can read is refused. It is replaced as a whole, and changed by one process at a time, because a refresh token that
 * is written over by its predecessor ends the session.
 *
 * The keyring of the system is reached by naming the tool that reads it (`--secret-command`), not by code for each: a command line
 * runs on servers without one, and a secret on another tool's arguments would be worse than this file.
 */
import { chmod, mkdir, open, rename, rm } from "node:fs/promises";
import { homedir } from "node:os";
import { join } from "node:path";
import { z } from "zod";
import { takeLock } from "../lock.ts";
import { until } from "../until.ts";
import { CommandFailed } from "./failure.ts";

/** Where a secret is: here, or told by a command. */
const secret = z.union([z.strictObject({ kept: z.string() }), z.strictObject({ command: z.string() })]);
export type Secret = z.output<typeof secret>;

/** Seconds since the epoch. */
const access = z.strictObject({ token: z.string(), expires_at: z.number() });
export type Access = z.output<typeof access>;

const profile = z.discriminatedUnion("kind", [
  z.strictObject({ kind: z.literal("token"), edge: z.url(), secret }),
  z.strictObject({
    kind: z.literal("client"),
    edge: z.url(),
    client_id: z.string(),
    secret,
    access: access.optional(),
  }),
  z.strictObject({
    kind: z.literal("person"),
    edge: z.url(),
    /** The edge's own name for itself: what the token is asked for. */
    issuer: z.string(),
    login: z.string(),
    refresh_token: z.string(),
    access: access.optional(),
  }),
]);
export type Profile = z.output<typeof profile>;

const book = z.strictObject({ current: z.string().optional(), profiles: z.record(z.string(), profile) });
export type Book = z.output<typeof book>;

const MAX_BYTES = 1024 * 1024;
const OTHERS = 0o077;
const FILE = "profiles.json";
const LOCK = "profiles.lock";
const LOCKED_WITHIN_MS = 30_000;

export class Profiles {
  readonly #dir: string;

  constructor(env: Readonly<Record<string, string | undefined>>) {
    this.#dir = join(env.XDG_CONFIG_HOME || join(homedir(), ".config"), "keycard");
  }

  get path(): string {
    return join(this.#dir, FILE);
  }

  /** @throws {CommandFailed} when others can read it, or it cannot be read */
  async read(): Promise<Book> {
    const text = await readPrivate(this.path);
    if (text === undefined) return { profiles: {} };
    const { success, data } = book.safeParse(parsed(text));
    if (success) return data;
    throw new CommandFailed(
      `${this.path} is not in a form that this keycard knows.`,
      "A newer keycard may have written it. Move it away and `keycard login` again.",
    );
  }

  /** Changes it, alone. What the change is made from is what stands there by then. */
  async change<T>(how: (book: Book) => Promise<T> | T): Promise<T> {
    await mkdir(this.#dir, { recursive: true, mode: 0o700 });
    await chmod(this.#dir, 0o700);
    const lock = await until(
      `${join(this.#dir, LOCK)} is given back by another keycard`,
      () => {
        const taken = takeLock(this.#dir, LOCK);
        return "lock" in taken && taken.lock;
      },
      { withinMs: LOCKED_WITHIN_MS },
    );
    try {
      const now = await this.read();
      const outcome = await how(now);
      await this.#write(now);
      return outcome;
    } finally {
      lock.release();
    }
  }

  async #write(content: Book): Promise<void> {
    const draft = `${this.path}.${process.pid}`;
    await rm(draft, { force: true });
    const file = await open(draft, "wx", 0o600);
    try {
      await file.writeFile(`${JSON.stringify(content, null, 2)}\n`);
      await file.sync();
    } finally {
      await file.close();
    }
    await rename(draft, this.path);
  }
}

/**
 * A file that holds a secret, or undefined when there is none.
 *
 * @throws {CommandFailed} when it is not its owner's alone
 */
export async function readPrivate(path: string): Promise<string | undefined> {
  const file = await open(path, "r").catch((error: NodeJS.ErrnoException) => {
    if (error.code === "ENOENT" || error.code === "ENOTDIR") return undefined;
    throw new CommandFailed(`${path} cannot be read (${error.code}).`, "Check whose it is.");
  });
  if (file === undefined) return undefined;
  try {
    const { mode, uid, size } = await file.stat();
    const own = process.getuid?.();
    if (own !== undefined && uid !== own && own !== 0) {
      throw new CommandFailed(
        `${path} belongs to somebody else.`,
        "It is not used: whose credentials these are is not known.",
      );
    }
    if (own !== undefined && (mode & OTHERS) !== 0) {
      const shown = (mode & 0o777).toString(8).padStart(4, "0");
      throw new CommandFailed(
        `${path} holds secrets and others on this machine can read it (mode ${shown}), so it is not used.`,
        `Mend it with \`chmod 600 ${path}\`, and replace the secrets in it if somebody else may have read them.`,
      );
    }
    if (size > MAX_BYTES) throw new CommandFailed(`${path} is too large to be what it should be.`);
    return await file.readFile("utf8");
  } finally {
    await file.close();
  }
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined; // judged as what it is by the schema
  }
}

/**
 * The secrets of one deployment, in a directory that only its owner can enter: what was made here or was given, so that a run that broke off goes on
 * with the same ones, and so that the edge and the nodes are told the same. What stands in it is never printed.
 *
 * Containers read some of the files as users of their own, so those are readable by all; the directory keeps everybody else out.
 */
import { createHash, randomBytes } from "node:crypto";
import { chmod, mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { MIN_CLUSTER_SECRET } from "#contract/cluster";

/** By the name of its file. */
export type SecretName =
  | "keycard-secret"
  | "admin-token"
  | "cluster-secret"
  | "redis-password"
  | "redis-url"
  | "redis.acl"
  | "tls.pem";

/** Files that containers mount. */
const MOUNTED: readonly SecretName[] = ["cluster-secret", "redis-password", "redis-url", "redis.acl", "tls.pem"];

export interface Vault {
  readonly dir: string;
  path(name: SecretName): string;
  /** Undefined when there is none. */
  read(name: SecretName): Promise<string | undefined>;
  /** @throws {Error} when it is too short to be one */
  keep(name: SecretName, value: string): Promise<string>;
}

export async function openVault(dir: string): Promise<Vault> {
  await mkdir(dir, { recursive: true, mode: 0o700 });
  await chmod(dir, 0o700);
  const path = (name: SecretName) => join(dir, name);
  return {
    dir,
    path,
    async read(name) {
      try {
        return (await readFile(path(name), "utf8")).trim();
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code !== "ENOENT") throw error;
        return undefined;
      }
    },
    async keep(name, value) {
      const mode = MOUNTED.includes(name) ? 0o444 : 0o600;
      const text = value.trim();
      if (/-(secret|token)$/.test(name) && text.length < MIN_CLUSTER_SECRET) {
        throw new Error(`${name}: at least ${MIN_CLUSTER_SECRET} characters.`);
      }
      await writeFile(path(name), `${text}\n`, { mode, flag: "wx" });
      // Whatever the umask is.
      await chmod(path(name), mode);
      return text;
    },
  };
}

/** 256 bits. */
export function strongSecret(): string {
  return randomBytes(32).toString("base64url");
}

/** The users of `infra/redis.acl` with a password for `keycard`, as its hash; the others stay without one, so that nobody is let in as them. */
export function redisUsers(acl: string, password: string): string {
  const hash = createHash("sha256").update(password).digest("hex");
  const line = /^user keycard on /m;
  if (!line.test(acl)) throw new Error("infra/redis.acl has no user keycard.");
  return acl.replace(line, `user keycard on #${hash} `);
}

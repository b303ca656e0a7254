/** The secrets of a local stack: made at its first start, each in a file that only its owner can read. */
import { randomBytes } from "node:crypto";
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";

export interface Secrets {
  readonly keycardSecret: string;
  readonly adminToken: string;
  /** Between the nodes of the cluster, and between them and the edge. */
  readonly clusterSecret: string;
}

/** The secrets of this state directory. */
export async function keepSecrets(dir: string): Promise<Secrets> {
  return {
    keycardSecret: await keep(join(dir, "keycard-secret")),
    adminToken: await keep(join(dir, "admin-token")),
    clusterSecret: await keep(join(dir, "cluster-secret")),
  };
}

/** The password of this state directory's administrator: to be read from a terminal and typed. */
export function keepPassword(dir: string): Promise<string> {
  return keep(join(dir, "console-password"), () =>
    randomBytes(10)
      .toString("hex")
      .replace(/.{5}(?=.)/g, "$&-"),
  );
}

async function keep(path: string, make = () => randomBytes(32).toString("base64url")): Promise<string> {
  try {
    return (await readFile(path, "utf8")).trim();
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ENOENT") throw error;
  }
  const secret = make();
  await writeFile(path, `${secret}\n`, { mode: 0o600, flag: "wx" });
  return secret;
}

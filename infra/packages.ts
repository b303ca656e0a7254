/** Programs of this machine: found, or installed by its package manager where that needs no password and no answer. */
import { execFile } from "node:child_process";
import { access, constants } from "node:fs/promises";
import { delimiter, join } from "node:path";
import { promisify } from "node:util";

const run = promisify(execFile);

const USUAL_PLACES = ["/usr/bin", "/usr/local/bin", "/opt/homebrew/bin", "/usr/sbin", "/usr/local/sbin", "/snap/bin"];
const INSTALL_WITHIN_MS = 300_000;

/** Package names to try, in this order, by package manager. */
export type Packages = Partial<Readonly<Record<keyof typeof MANAGERS, readonly string[]>>>;

interface Manager {
  readonly command: string;
  readonly install: readonly string[];
  /** What to do once when an install fails, before it is tried again. */
  readonly refresh?: readonly string[];
  /** Homebrew refuses root; the others need it. */
  readonly asRoot: boolean;
}

const MANAGERS = {
  apt: {
    command: "apt-get",
    install: ["install", "-y", "-qq", "--no-install-recommends"],
    refresh: ["update", "-qq"],
    asRoot: true,
  },
  apk: { command: "apk", install: ["add", "--no-cache"], asRoot: true },
  dnf: { command: "dnf", install: ["install", "-y", "-q"], asRoot: true },
  brew: { command: "brew", install: ["install", "-q"], asRoot: false },
} as const satisfies Record<string, Manager>;

/** The path of an executable in PATH, in the usual places, or in one of these. */
export async function findExecutable(name: string, alsoIn: readonly string[] = []): Promise<string | undefined> {
  const places = [...(process.env.PATH ?? "").split(delimiter), ...USUAL_PLACES, ...alsoIn];
  for (const place of places) {
    if (place === "") continue;
    const path = join(place, name);
    if (await isExecutable(path)) return path;
  }
  return undefined;
}

export async function isExecutable(path: string): Promise<boolean> {
  try {
    await access(path, constants.X_OK);
    return true;
  } catch {
    // Absent or not ours to run: the same answer.
    return false;
  }
}

/**
 * Installs the first of these packages that can be had.
 *
 * @returns whether one was installed
 */
export async function installPackage(packages: Packages, onStep: (text: string) => void): Promise<boolean> {
  for (const [name, manager] of Object.entries(MANAGERS) as [keyof typeof MANAGERS, Manager][]) {
    const prefix = packages[name] && (await findExecutable(manager.command)) ? await unattended(manager) : undefined;
    if (prefix === undefined) continue;
    for (const candidate of packages[name] ?? []) {
      onStep(`installing ${candidate} with ${manager.command}`);
      if (await install(manager, prefix, candidate)) return true;
    }
  }
  return false;
}

async function install(manager: Manager, prefix: readonly string[], name: string): Promise<boolean> {
  const command = [...prefix, manager.command, ...manager.install, name];
  if (await succeeds(command)) return true;
  if (manager.refresh === undefined) return false;
  return (await succeeds([...prefix, manager.command, ...manager.refresh])) && (await succeeds(command));
}

/** What to put before the command so that it asks nothing, or undefined where it would ask. */
async function unattended(manager: Manager): Promise<readonly string[] | undefined> {
  const isRoot = process.getuid?.() === 0;
  if (manager.asRoot === isRoot) return [];
  if (!manager.asRoot) return undefined;
  return (await succeeds(["sudo", "-n", "true"])) ? ["sudo", "-n"] : undefined;
}

async function succeeds([command = "", ...args]: readonly string[]): Promise<boolean> {
  try {
    await run(command, args, {
      timeout: INSTALL_WITHIN_MS,
      maxBuffer: 64 * 1024 * 1024,
      env: { ...process.env, DEBIAN_FRONTEND: "noninteractive", HOMEBREW_NO_AUTO_UPDATE: "1" },
    });
    return true;
  } catch {
    // Not there, not allowed, or failed: whoever asked goes on to the next way.
    return false;
  }
}

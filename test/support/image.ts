/**
 * Carries out a Dockerfile without an engine, far enough for ours: COPY and RUN are done for real, in directories that stand for the stages'
 * root file systems; everything else is noted. It is strict: what it does not know, or could not do faithfully, is an error.
 */
import { execFile } from "node:child_process";
import { globSync } from "node:fs";
import { constants, copyFile, cp, mkdir, readFile, stat } from "node:fs/promises";
import { basename, dirname, join, posix } from "node:path";
import { promisify } from "node:util";
import { DockerfileParser, type Instruction } from "dockerfile-ast";

const run = promisify(execFile);
const RUN_WITHIN_MS = 120_000;

/** What the last stage came to. */
export interface Image {
  /** The directory that stands for `/`. */
  readonly root: string;
  /** What each stage was begun from. */
  readonly bases: readonly string[];
  readonly workdir: string;
  readonly user: string;
  readonly stopSignal: string;
  readonly env: Readonly<Record<string, string>>;
  readonly entrypoint: readonly string[];
  readonly healthcheck: readonly string[];
}

export interface BuildOptions {
  readonly dockerfile: string;
  /** The build context; what `.dockerignore` in it hides does not exist for COPY. */
  readonly context: string;
  /** Where stages are laid down. */
  readonly dir: string;
  /** What of a base image the steps need, as files of this machine: `{"/usr/local/bin/node": process.execPath}`. */
  readonly baseFiles: Readonly<Record<string, string>>;
}

interface Stage {
  readonly root: string;
  workdir: string;
  user: string;
  stopSignal: string;
  entrypoint: readonly string[];
  healthcheck: readonly string[];
  readonly env: Record<string, string>;
}

/** @throws {Error} on an instruction, or a form of one, that it does not know */
export async function buildImage(options: BuildOptions): Promise<Image> {
  const dockerfile = DockerfileParser.parse(await readFile(options.dockerfile, "utf8"));
  const visible = await contextFiles(options.context);
  const builder = new Builder(options, visible);
  for (const instruction of dockerfile.getInstructions()) await builder.carryOut(instruction);
  return builder.image();
}

/** Paths of the files that a builder is sent, relative to the context. */
export async function contextFiles(context: string): Promise<readonly string[]> {
  const rules = (await readFile(join(context, ".dockerignore"), "utf8"))
    .split("\n")
    .map((line) => line.trim())
    .filter((line) => line !== "" && !line.startsWith("#"));
  const isHidden = (path: string) => {
    const parts = path.split("/");
    // A rule for a folder is one for all that lies in it.
    const names = parts.map((_, i) => parts.slice(0, i + 1).join("/"));
    return rules.reduce((hidden, rule) => {
      const pattern = rule.replace(/^!/, "");
      return names.some((name) => isMatch(name, pattern)) ? !rule.startsWith("!") : hidden;
    }, false);
  };
  const candidates = globSync("{.*,*,{edge,infra,realtime,test,.ci}/**/{.*,*}}", { cwd: context, withFileTypes: true });
  return candidates
    .filter((entry) => entry.isFile())
    .map((entry) => posix.relative(context, join(entry.parentPath, entry.name)))
    .filter((path) => !isHidden(path));
}

/** As Docker matches (Go's `filepath.Match`): a star stands for a leading dot too, and not for a slash. */
function isMatch(path: string, pattern: string): boolean {
  if (/[[\]?]|\*\*/.test(pattern)) throw new Error(`not known in a pattern: ${pattern}`);
  const source = pattern.replace(/[.+^${}()|\\]/g, "\\$&").replaceAll("*", "[^/]*");
  return new RegExp(`^${source}$`).test(path);
}

class Builder {
  readonly #options: BuildOptions;
  readonly #visible: readonly string[];
  readonly #args = new Map<string, string>();
  readonly #stages = new Map<string, Stage>();
  readonly #bases: string[] = [];
  #stage: Stage | undefined;

  constructor(options: BuildOptions, visible: readonly string[]) {
    this.#options = options;
    this.#visible = visible;
  }

  image(): Image {
    return { ...this.#current(), bases: this.#bases };
  }

  async carryOut(instruction: Instruction): Promise<void> {
    const keyword = instruction.getKeyword();
    // All that stands behind it, its options too, in one line.
    const text = instruction
      .getTextContent()
      .slice(keyword.length)
      .replace(/\\\n\s*/g, "")
      .trim();
    const words = text.split(/\s+/);
    switch (keyword) {
      case "ARG":
        return this.#arg(text);
      case "FROM":
        return this.#from(words);
      case "COPY":
        return this.#copy(words);
      case "RUN":
        return this.#run(text);
      case "WORKDIR":
        this.#current().workdir = text;
        await mkdir(this.#path(text), { recursive: true });
        return;
      case "ENV":
        for (const word of words) this.#current().env[word.split("=", 1)[0] ?? ""] = word.slice(word.indexOf("=") + 1);
        return;
      case "USER":
        this.#current().user = text;
        return;
      case "STOPSIGNAL":
        this.#current().stopSignal = text;
        return;
      case "ENTRYPOINT":
        this.#current().entrypoint = JSON.parse(text);
        return;
      case "HEALTHCHECK":
        this.#current().healthcheck = JSON.parse(/ CMD (\[.*\])$/.exec(text)?.[1] ?? "");
        return;
      case "EXPOSE":
        return;
      default:
        throw new Error(`not known: ${keyword}`);
    }
  }

  #current(): Stage {
    if (this.#stage === undefined) throw new Error("nothing comes before FROM but ARG");
    return this.#stage;
  }

  /** Of this stage, on this machine. */
  #path(path: string, stage = this.#current()): string {
    return join(stage.root, posix.resolve(stage.workdir, path));
  }

  #arg(text: string): void {
    const [, name, value] = /^(\w+)=(\S+)$/.exec(text) ?? [];
    if (name === undefined || value === undefined) throw new Error(`ARG without a default: ${text}`);
    this.#args.set(name, value);
  }

  async #from([image = "", as, name]: readonly string[]): Promise<void> {
    if (as !== undefined && as.toUpperCase() !== "AS") throw new Error("FROM with an option");
    const base = image.replace(/\$\{(\w+)\}/g, (_all, arg: string) => this.#args.get(arg) ?? "");
    this.#bases.push(base);
    const root = join(this.#options.dir, `stage-${this.#bases.length}`);
    this.#stage = { root, workdir: "/", user: "root", stopSignal: "", entrypoint: [], healthcheck: [], env: {} };
    await mkdir(root, { recursive: true });
    if (name === undefined) return;
    this.#stages.set(name, this.#stage);
    // The last stage is begun from nothing, so that whatever is in it was put there by the steps.
    for (const [path, source] of Object.entries(this.#options.baseFiles)) {
      await mkdir(dirname(join(root, path)), { recursive: true });
      await copyFile(source, join(root, path), constants.COPYFILE_FICLONE);
    }
  }

  async #copy(words: readonly string[]): Promise<void> {
    const [first = "", ...others] = words;
    const target = words.at(-1) ?? "";
    if (first.startsWith("--from=")) {
      const from = this.#stages.get(first.slice("--from=".length));
      const [source = ""] = others;
      if (from === undefined || others.length !== 2) throw new Error(`COPY ${words.join(" ")}`);
      await cp(this.#path(source, from), this.#path(target), { recursive: true, verbatimSymlinks: true });
      return;
    }
    if (first.startsWith("--") || !target.endsWith("/")) throw new Error(`COPY ${words.join(" ")}`);
    for (const pattern of words.slice(0, -1)) {
      const found = this.#visible.filter((path) => isMatch(path, pattern));
      if (found.length === 0) throw new Error(`COPY finds nothing: ${pattern}`);
      await mkdir(this.#path(target), { recursive: true });
      for (const path of found) await cp(join(this.#options.context, path), join(this.#path(target), basename(path)));
    }
  }

  async #run(text: string): Promise<void> {
    // Done in a directory of this machine: an absolute path would mean another place.
    if (/(^|[\s=>"'])\/\w/.test(text)) throw new Error(`RUN with an absolute path: ${text}`);
    const { stdout } = await run("/bin/sh", ["-ec", text], {
      cwd: this.#path("."),
      env: { ...process.env, ...this.#current().env, npm_config_prefer_offline: "true" },
      timeout: RUN_WITHIN_MS,
    });
    if (stdout.includes("npm error")) throw new Error(stdout);
  }
}

/** Bytes of all files below. */
export async function sizeOf(paths: readonly string[]): Promise<number> {
  const sizes = await Promise.all(paths.map(async (path) => (await stat(path)).size));
  return sizes.reduce((sum, size) => sum + size, 0);
}

/**
 * Bugs that are put into a node's source while it is loaded (`--import` with CHAOS_PLANT), or into the Worker's before it is built: one
 * for each way in which a promise could be broken unnoticed. The checker has to find every one of them; a checker that finds none would let all of them pass.
 */
import { registerHooks } from "node:module";
import { fileURLToPath } from "node:url";
import type { Promised } from "./checker.ts";

export interface Plant {
  /** The promise that it breaks. */
  readonly breaks: Promised;
  readonly about: string;
  /** Its path from the repository's root. */
  readonly file: string;
  /** What stands there, exactly once. */
  readonly instead: string;
  readonly put: string;
}

export const PLANTS = {
  "no index check": {
    breaks: 1,
    about: "a handshake is not checked against what is revoked",
    file: "realtime/admissions.ts",
    instead: "if (dead !== undefined) throw new Refusal(dead);",
    put: "",
  },
  "acknowledged before closed": {
    breaks: 1,
    about: "a node acknowledges a revocation and closes the sockets half a minute later",
    file: "realtime/admissions.ts",
    instead: "const closed = await disconnectAll(left, event.code);",
    put: "setTimeout(() => void disconnectAll(left, event.code), 30_000); const closed = left.size;",
  },
  "fence comes late": {
    breaks: 1,
    about: "a node believes its lease longer than others do",
    file: "realtime/lease.ts",
    instead: "this.#ends[link] = Math.max(this.#ends[link], until);",
    put: "this.#ends[link] = Math.max(this.#ends[link], until + 15_000);",
  },
  "no replay": {
    breaks: 2,
    about: "a node that starts does not read what was revoked before",
    file: "realtime/admissions.ts",
    instead: "revocations.merge(event);",
    put: "if (event.decided_at > Date.now() - process.uptime() * 1000) revocations.merge(event);",
  },
  "event dropped": {
    breaks: 2,
    about: "a node answers 202 and does not put the event where the others find it",
    file: "realtime/control.ts",
    instead: "const appending = Promise.allSettled([log.append(receiptKey(issuer, event.id), set)]);",
    put: 'const appending = Promise.allSettled([Promise.resolve("")]);',
  },
  "bystander closed": {
    breaks: 3,
    about: "with one session all sockets of its user are closed",
    file: "realtime/socket-index.ts",
    instead: "for (const admission of this.#namedBy(target)) if (hits(target, admission.claims)) hit.add(admission);",
    put: `for (const admission of this.#namedBy(target)) if (hits(target, admission.claims)) hit.add(admission);
      if (target.kind === "session") for (const admission of this.ofUser(target.sid.split(".")[0])) hit.add(admission);`,
  },
  "decision lost": {
    breaks: 2,
    about: "the edge answers 2xx and forgets what it was to tell",
    file: "edge/revocations/outbox.ts",
    instead: "told.set(id, await withPatience(this.#append(owed)));",
    put: "",
  },
  "nobody waited for": {
    breaks: 1,
    about: "the edge says enforced while nodes are pending",
    file: "edge/revocations/receipt.ts",
    instead:
      "if (event.taken && receipt !== undefined && pending.length === 0) return { enforcement, complete: true };",
    put: "if (event.taken) return { enforcement, complete: true };",
  },
  "no expiry": {
    breaks: 4,
    about: "a socket is not closed when its token ends",
    file: "realtime/admissions.ts",
    instead: 'if (over.size > 0) void closeForRefresh(over, "token_expired").then(this.#options.onExpired);',
    put: "",
  },
} as const satisfies Record<string, Plant>;

export type PlantName = keyof typeof PLANTS;

export function isOfEdge(plant: PlantName): boolean {
  return PLANTS[plant].file.startsWith("edge/");
}

/** @throws {Error} unless what is to be replaced stands there exactly once: the source has moved on, and the plant must too */
export function planted(source: string, { file, instead, put }: Pick<Plant, "file" | "instead" | "put">): string {
  const found = source.split(instead).length - 1;
  if (found !== 1) throw new Error(`${file} has ${found} times what a plant replaces: ${instead}`);
  return source.replace(instead, () => put);
}

function plant(name: string): void {
  const chosen: Plant | undefined = PLANTS[name as PlantName];
  if (chosen === undefined) throw new Error(`There is no plant ${name}.`);
  registerHooks({
    load(url, context, nextLoad) {
      const loaded = nextLoad(url, context);
      if (!url.startsWith("file:") || !fileURLToPath(url).endsWith(`/${chosen.file}`)) return loaded;
      return { ...loaded, source: planted(String(loaded.source), chosen) };
    },
  });
}

const { CHAOS_PLANT: name } = process.env;
if (name !== undefined) plant(name);

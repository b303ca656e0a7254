/**
 * The lines of a node's log: JSON, one object each, in the same shape as the edge's, so that one query reads both. A field must have a
 * name here before it can be logged, and infra/observability.md says what each means. No secret is ever in one.
 */
import { type DestinationStream, type Logger, pino } from "pino";
import type { Door } from "./protect.ts";
import { Trouble } from "./trouble.ts";

/** What a line can hold besides `level`, `time`, `node`, `cluster` and `message`. */
export interface LogFields {
  readonly address?: string;
  readonly afterMs?: number;
  readonly closed?: number;
  readonly code?: string;
  readonly detail?: string | undefined;
  readonly err?: unknown;
  readonly exp?: number;
  readonly link?: string;
  readonly metricsPort?: number;
  readonly nsp?: string;
  readonly port?: number;
  readonly reason?: string;
  readonly request?: string | undefined;
  readonly revocation?: string;
  readonly seq?: number;
  readonly sid?: string;
  readonly socket?: string;
  readonly sockets?: number;
  readonly sub?: string;
  readonly times?: number;
  readonly tookMs?: number;
  readonly version?: string;
  readonly way?: string;
}

/** Fields, and no other: spread or handed on, one without a name does not compile. */
type Named<T> = T & Record<Exclude<keyof T, keyof LogFields>, never>;

export type NodeLog = Readonly<
  Record<"debug" | "info" | "warn" | "error", <T extends LogFields>(fields: Named<T>, message: string) => void>
>;

/** Nothing of ours logs these; an app's handlers or a library's error might. */
const SECRETS = ["token", "authorization", "cookie", "password", "ticket"].flatMap((name) => [
  name,
  `*.${name}`,
  `*.*.${name}`,
]);

/** @param where standard output unless given */
export function createNodeLog(
  { node, cluster, level }: { readonly node: string; readonly cluster: string; readonly level: string },
  where?: DestinationStream,
): Logger {
  const options = {
    level,
    base: { node, cluster },
    messageKey: "message",
    formatters: { level: (label: string) => ({ level: label }) },
    redact: { paths: SECRETS, censor: "[redacted]" },
  };
  return where === undefined ? pino(options) : pino(options, where);
}

/** Logs what happens at the door. */
export function logEvents(log: NodeLog, { events }: Door): void {
  // Whoever can write to Redis could write as often.
  const ignored = new Trouble(
    { begun: "somebody who is not trusted wrote to Redis" },
    { onProblem: (message, detail, times) => log.warn({ detail: detail as string | undefined, times }, message) },
  );
  events.on("admitted", (about) => log.debug(about, "admitted"));
  events.on("refused", ({ cause, ...about }) => {
    if (about.code === "internal") log.error({ ...about, err: cause }, "refused");
    else log.info(about, "refused");
  });
  events.on("renewed", (about) => log.debug(about, "renewed"));
  events.on("expired", (about) => log.info(about, "expired"));
  events.on("applied", (about) => log.info(about, "revocation applied"));
  events.on("revoked", (about) => log.info(about, "revocation closed its sockets"));
  events.on("ignored", ({ detail }) => ignored.failed(detail));
  events.on("fenced", (about) => log.error(about, "fenced: neither Redis nor the edge can be reached"));
  events.on("link", ({ link }) => {
    if (link === "redis") log.info({ link }, "revocations come through Redis");
    else log.warn({ link: link ?? "none" }, link === "feed" ? "Redis is away; following the edge's feed" : "cut off");
  });
  events.on("back", ({ message, ...ended }) => log.info(ended, message));
  events.on("problem", ({ message, error, times }) => log.warn({ err: error, times }, message));
}

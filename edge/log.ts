/**
 * Log lines: one JSON object each, in the same shape as those of the realtime nodes. A field must have a name here before it can be
 * logged, and infra/observability.md says what each means. What goes in must never hold a token, a cookie, a password or a key.
 */

/** What a line can hold besides `level`, `time` and `message`. */
export interface LogFields {
  readonly afterMs?: number;
  readonly applied?: number;
  readonly asked?: number;
  readonly bulk?: string;
  readonly cause?: string | undefined;
  readonly closed?: number;
  readonly cluster?: string;
  readonly code?: string;
  readonly detail?: string | undefined;
  readonly error?: string;
  readonly expired?: boolean | undefined;
  readonly fenced?: number;
  readonly id?: string;
  readonly issuer?: string;
  readonly kid?: string;
  readonly method?: string;
  readonly path?: string;
  readonly rate?: string;
  readonly receiver?: string;
  readonly request?: string | undefined;
  readonly revocation?: string | undefined;
  readonly seq?: number;
  readonly stack?: string | undefined;
  readonly stream?: string;
  readonly sub?: string | undefined;
  readonly target?: string | undefined;
  readonly type?: string;
}

type Level = "info" | "warn" | "error";
/** Fields, and no other: spread or handed on, one without a name does not compile. */
type Named<T> = T & Record<Exclude<keyof T, keyof LogFields>, never>;

/** Something happened that whoever follows a revocation wants to find. */
export function logEvent<T extends LogFields>(message: string, fields: Named<T>): void {
  console.info(line("info", message, fields));
}

/** Something was refused, as it should be. */
export function logRefusal<T extends LogFields>(message: string, fields: Named<T>): void {
  console.warn(line("warn", message, fields));
}

/** Something failed that an operator should see. `thrown` is shown with its causes and its stack. */
export function logFailure<T extends LogFields>(message: string, fields: Named<T>, thrown?: unknown): void {
  console.error(line("error", message, { ...fields, ...described(thrown) }));
}

function line(level: Level, message: string, fields: LogFields): string {
  return JSON.stringify({ level, time: Date.now(), message, ...fields });
}

function described(thrown: unknown): LogFields {
  if (thrown === undefined) return {};
  if (!(thrown instanceof Error)) return { error: typeof thrown };
  const cause = thrown.cause instanceof Error ? `${thrown.cause.name}: ${thrown.cause.message}` : undefined;
  return { error: `${thrown.name}: ${thrown.message}`, cause, stack: thrown.stack };
}

/** Log lines: one JSON object each. What goes in must never hold a token, a cookie, a password or a key. */

export type LogFields = Readonly<Record<string, string | number | undefined>>;

/** Something was refused, as it should be. */
export function logRefusal(message: string, fields: LogFields): void {
  console.warn(JSON.stringify({ level: "warn", message, ...fields }));
}

/** Something failed that an operator should see. `thrown` is shown with its causes and its stack. */
export function logFailure(message: string, fields: LogFields, thrown?: unknown): void {
  console.error(JSON.stringify({ level: "error", message, ...fields, ...described(thrown) }));
}

function described(thrown: unknown): LogFields {
  if (thrown === undefined) return {};
  if (!(thrown instanceof Error)) return { error: typeof thrown };
  const cause = thrown.cause instanceof Error ? `${thrown.cause.name}: ${thrown.cause.message}` : undefined;
  return { error: `${thrown.name}: ${thrown.message}`, cause, stack: thrown.stack };
}

/**
 * The three ways in which a call to an edge fails: it said no, it did not answer, or something answered that is no edge. Whatever they
 * quote comes from outside, and is not yet fit for a terminal.
 */
import { type Advice, isRefusalCode, type MemberProblem, REFUSALS, type RefusalCode } from "#contract/refusal";

const MAX_PROBLEMS = 20;

/** What the edge says no with: RFC 9457, or RFC 6749 section 5.2 below `/oauth/`. */
interface RefusalBody {
  readonly code?: unknown;
  readonly advice?: unknown;
  readonly title?: unknown;
  readonly retry_after?: unknown;
  readonly errors?: unknown;
  readonly error?: unknown;
  readonly error_description?: unknown;
}

/** The edge said no. */
export class EdgeRefusal extends Error {
  override readonly name = "EdgeRefusal";
  readonly operation: string;
  readonly status: number;
  readonly code: RefusalCode;
  readonly advice: Advice;
  /** The refusal table's sentence, where the edge sent one. */
  readonly sentence: string | undefined;
  readonly problems: readonly MemberProblem[];
  readonly retryAfterSeconds: number | undefined;
  readonly requestId: string | undefined;
  /** False where something in between said no. */
  readonly isOfAnEdge: boolean;

  constructor(operation: string, response: Response, body: RefusalBody) {
    const code = isRefusalCode(body.code) ? body.code : oauthCode(body.error);
    super(`${operation} was answered ${response.status} ${code ?? "without a code"}`);
    this.operation = operation;
    this.status = response.status;
    this.isOfAnEdge = code !== undefined;
    this.code = code ?? (response.status >= 502 ? "unavailable" : "internal");
    this.advice = isAdvice(body.advice) ? body.advice : code === undefined ? "retry" : REFUSALS[code].advice;
    this.sentence = text(body.title) ?? text(body.error_description);
    this.problems = problemsIn(body.errors);
    this.retryAfterSeconds = secondsIn(response.headers.get("retry-after"));
    this.requestId = requestIdOf(response);
  }
}

/** No answer came. */
export class EdgeUnreachable extends Error {
  override readonly name = "EdgeUnreachable";
  /** False where it is certain that the call did not arrive. */
  readonly mayHaveArrived: boolean;
  /** Whether something may have been done of which nobody knows. */
  readonly mayHaveHappened: boolean;

  constructor(operation: string, host: string, why: string, mayHaveArrived: boolean, cause: unknown) {
    super(`${host} ${why}.`, { cause });
    this.mayHaveArrived = mayHaveArrived;
    this.mayHaveHappened = mayHaveArrived && !operation.startsWith("GET ");
  }
}

/** An answer came, but not one of an edge that we know how to read. */
export class EdgeMisunderstood extends Error {
  override readonly name = "EdgeMisunderstood";
  readonly requestId: string | undefined;

  constructor(operation: string, what: string, requestId?: string) {
    super(`${operation}: ${what}`);
    this.requestId = requestId;
  }
}

/** Where it is certain that nothing arrived, by the code of the operating system. */
const ABSENT: Readonly<Record<string, string>> = {
  ECONNREFUSED: "refuses the connection",
  ENOTFOUND: "has no address: the name is not known",
  EAI_AGAIN: "has no address: no name server answers",
  EHOSTUNREACH: "cannot be reached from here",
  ENETUNREACH: "cannot be reached from here",
  UND_ERR_CONNECT_TIMEOUT: "cannot be reached from here",
};

function certificateProblem(code: string): string | undefined {
  return /CERT|SELF_SIGNED|UNABLE_TO_VERIFY|ERR_TLS/.test(code)
    ? `shows a certificate not to be trusted (${code})`
    : undefined;
}

/** Why no answer came, from what `fetch` threw. */
export function unanswered(operation: string, host: string, error: unknown): EdgeUnreachable {
  const code = causeCode(error);
  const known = code === undefined ? undefined : (ABSENT[code] ?? certificateProblem(code));
  const why = known ?? `broke the connection off (${code ?? reasonOf(error)})`;
  return new EdgeUnreachable(operation, host, why, known === undefined, error);
}

/** The code of the innermost cause that has one. */
function causeCode(error: unknown): string | undefined {
  let code: string | undefined;
  for (let each = error, depth = 0; each instanceof Error && depth < 5; each = each.cause, depth++) {
    if ("code" in each && typeof each.code === "string") code = each.code;
    if (each instanceof AggregateError && each.errors[0] instanceof Error) each.cause ??= each.errors[0];
  }
  return code;
}

/** What `fetch` wraps says more than `fetch` does. */
function reasonOf(error: unknown): string {
  const inner = error instanceof Error && error.cause instanceof Error ? error.cause : error;
  return inner instanceof Error && inner.message !== "" ? inner.message : "no reason given";
}

const OAUTH_CODES: Readonly<Record<string, RefusalCode>> = {
  invalid_client: "client_invalid",
  invalid_grant: "refresh_invalid",
  invalid_request: "request_malformed",
  invalid_scope: "scope_invalid",
  invalid_target: "resource_invalid",
  unauthorized_client: "client_unauthorized",
  unsupported_grant_type: "grant_unsupported",
};

function oauthCode(error: unknown): RefusalCode | undefined {
  return typeof error === "string" && Object.hasOwn(OAUTH_CODES, error) ? OAUTH_CODES[error] : undefined;
}

function isAdvice(value: unknown): value is Advice {
  return typeof value === "string" && ["login", "refresh", "retry", "wait", "fix"].includes(value);
}

function problemsIn(value: unknown): MemberProblem[] {
  if (!Array.isArray(value)) return [];
  return value.slice(0, MAX_PROBLEMS).flatMap((each) => {
    const { member, problem } = (each ?? {}) as Partial<MemberProblem>;
    return typeof member === "string" && typeof problem === "string" ? [{ member, problem }] : [];
  });
}

function text(value: unknown): string | undefined {
  return typeof value === "string" && value !== "" ? value : undefined;
}

/** `Retry-After` in its seconds form (RFC 9110 section 10.2.3); a date is left aside. */
function secondsIn(header: string | null): number | undefined {
  return header !== null && /^\d{1,6}$/.test(header) ? Number(header) : undefined;
}

export function requestIdOf(response: Response): string | undefined {
  return response.headers.get("x-request-id") ?? undefined;
}

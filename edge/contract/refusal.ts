/**
 * Every way in which Keycard says no. One table drives the HTTP answers of the edge, `connect_error` and the
 * `unauthorized` event of realtime, the documentation and the client; nothing else invents an error.
 *
 * The message is generic on purpose: it tells the holder of a bad token what to do, not which check it failed. What
 * exactly was wrong goes into `detail`, which is for logs and never for the wire, and must never hold a secret.
 */

/** What the client should do next: sign in again, refresh the token, try again later, slow down, or change the request. */
export type Advice = "login" | "refresh" | "retry" | "wait" | "fix";

interface RefusalRule {
  readonly status: number;
  readonly advice: Advice;
  readonly message: string;
}

export const REFUSALS = {
  credentials_wrong: { status: 401, advice: "login", message: "The login name or the password is wrong." },
  account_disabled: { status: 403, advice: "fix", message: "The account is disabled." },
  token_missing: { status: 401, advice: "login", message: "A token is required." },
  token_invalid: { status: 401, advice: "login", message: "The token is not valid here." },
  token_expired: { status: 401, advice: "refresh", message: "The access token has expired." },
  token_revoked: { status: 401, advice: "refresh", message: "The access token has been revoked." },
  session_revoked: { status: 401, advice: "login", message: "The session has been ended." },
  refresh_invalid: { status: 401, advice: "login", message: "The refresh token is not valid." },
  refresh_reused: {
    status: 401,
    advice: "login",
    message: "The refresh token was used before; the session has ended.",
  },
  session_mismatch: { status: 403, advice: "fix", message: "The token belongs to another session." },
  scope_insufficient: { status: 403, advice: "fix", message: "The token does not allow this." },
  origin_forbidden: { status: 403, advice: "fix", message: "Requests from this origin are not accepted." },
  client_invalid: { status: 401, advice: "fix", message: "The client could not be authenticated." },
  client_unauthorized: { status: 400, advice: "fix", message: "The client may not do this." },
  grant_unsupported: { status: 400, advice: "fix", message: "The grant type is not supported." },
  scope_invalid: { status: 400, advice: "fix", message: "The scope is unknown or more than may be given." },
  resource_invalid: { status: 400, advice: "fix", message: "The resource is unknown." },
  too_many_attempts: { status: 429, advice: "wait", message: "Too many attempts." },
  request_malformed: { status: 400, advice: "fix", message: "The request is malformed." },
  request_too_large: { status: 413, advice: "fix", message: "The request is too large." },
  media_type_unsupported: { status: 415, advice: "fix", message: "The content type is not supported." },
  method_not_allowed: { status: 405, advice: "fix", message: "The method is not allowed here." },
  not_found: { status: 404, advice: "fix", message: "There is nothing here by that name." },
  idempotency_mismatch: { status: 422, advice: "fix", message: "The Idempotency-Key was used for another request." },
  unprocessable: { status: 422, advice: "fix", message: "The request is understood but cannot be carried out." },
  conflict: { status: 409, advice: "fix", message: "That exists already." },
  unavailable: { status: 503, advice: "retry", message: "The service cannot answer right now." },
  internal: { status: 500, advice: "retry", message: "Something went wrong." },
} as const satisfies Record<string, RefusalRule>;

export type RefusalCode = keyof typeof REFUSALS;

/** What a refused client is shown, on every wire (snake_case, as in JWT and OAuth). */
export interface RefusalAnswer {
  readonly code: RefusalCode;
  readonly advice: Advice;
  readonly message: string;
  /** Seconds to wait before trying again. */
  readonly retry_after?: number;
  /** What the token would have to allow: "scope chat.write". */
  readonly requires?: string;
}

/**
 * `err.data` of a `connect_error` and of the `unauthorized` event: the shape that users of socketio-jwt know, plus
 * the advice.
 */
export interface UnauthorizedErrorData extends RefusalAnswer {
  readonly type: "UnauthorizedError";
}

/** What is wrong with one member of a request: which one and why, never what stood there. */
export interface MemberProblem {
  /** Names joined by dots, as in `target.sub`; `body` for the whole. */
  readonly member: string;
  readonly problem: string;
}

export interface RefusalOptions {
  /** For the log, never for the wire. */
  readonly detail?: string | undefined;
  readonly retryAfterSeconds?: number | undefined;
  /** Shown to whoever asked, so that they can mend the request. */
  readonly problems?: readonly MemberProblem[] | undefined;
  readonly requires?: string | undefined;
  readonly cause?: unknown;
}

/** An expected "no". Branch on `code`, never on `instanceof`: a class does not survive a Durable Object's RPC. */
export class Refusal extends Error {
  override readonly name = "Refusal";
  readonly code: RefusalCode;
  readonly detail: string | undefined;
  readonly retryAfterSeconds: number | undefined;
  readonly problems: readonly MemberProblem[] | undefined;
  readonly requires: string | undefined;

  constructor(code: RefusalCode, options: RefusalOptions = {}) {
    super(REFUSALS[code].message, options.cause === undefined ? undefined : { cause: options.cause });
    this.code = code;
    this.detail = options.detail;
    this.retryAfterSeconds = options.retryAfterSeconds;
    this.problems = options.problems;
    this.requires = options.requires;
  }

  get status(): number {
    return REFUSALS[this.code].status;
  }

  answer(): RefusalAnswer {
    return refusalAnswer(this);
  }
}

function refusalAnswer({ code, retryAfterSeconds, requires }: Refused): RefusalAnswer {
  const { advice, message } = REFUSALS[code];
  return {
    ...{ code, advice, message },
    ...(retryAfterSeconds === undefined ? {} : { retry_after: retryAfterSeconds }),
    ...(requires === undefined ? {} : { requires }),
  };
}

/** What of a refusal is shown. */
type Refused = Pick<Refusal, "code"> & Partial<Pick<Refusal, "retryAfterSeconds" | "requires">>;

export function isRefusalCode(value: unknown): value is RefusalCode {
  return typeof value === "string" && Object.hasOwn(REFUSALS, value);
}

/** The refusal that something thrown stands for: itself, or `internal` with the thrown thing as its cause. */
export function toRefusal(thrown: unknown): Refusal {
  if (thrown instanceof Refusal) return thrown;
  return new Refusal("internal", { cause: thrown });
}

/** @param refusal need not be an error: thousands who are told at once are not to cost a stack trace each */
export function unauthorizedErrorData(refusal: Refused): UnauthorizedErrorData {
  return { type: "UnauthorizedError", ...refusalAnswer(refusal) };
}

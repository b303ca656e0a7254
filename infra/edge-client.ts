/** The edge's API as a program uses it: tokens in bodies, no cookies; a "no" is thrown with its code. */
import type { Advice, RefusalCode } from "#contract/refusal";
import { until } from "./until.ts";

export interface Tokens {
  readonly access_token: string;
  readonly token_type: "Bearer";
  readonly expires_in: number;
  readonly refresh_token: string;
  readonly sid: string;
  readonly sub: string;
  readonly scope?: string;
}

export interface NewAccount {
  readonly login: string;
  readonly password: string;
  readonly sub?: string;
  readonly tid?: string;
  readonly scope?: string;
}

export interface Account {
  readonly sub: string;
  readonly login: string;
  readonly tid?: string;
  readonly scope?: string;
}

/** What an administrator names; the edge adds generation and cutoff. */
export type NamedTarget =
  | { readonly kind: "token"; readonly jti: string }
  | { readonly kind: "token"; readonly token: string }
  | { readonly kind: "session"; readonly sid: string }
  | { readonly kind: "user"; readonly sub: string }
  | { readonly kind: "user"; readonly login: string }
  | { readonly kind: "tenant"; readonly tid: string }
  | { readonly kind: "everyone" };

export interface RevocationAnswer {
  readonly id: string;
  /** Milliseconds since the epoch. */
  readonly created_at: number;
}

/** `GET /admin/revocations/:id`; times in milliseconds. */
export interface Receipt extends RevocationAnswer {
  readonly reason: string;
  readonly code: RefusalCode;
  readonly seq: number;
  readonly state: "pending" | "delivered" | "enforced";
  readonly closed: number;
  readonly clusters: readonly {
    readonly cluster: string;
    readonly delivered_at?: number;
    readonly attempts: number;
    readonly last_error?: string;
    readonly expected: readonly string[];
    readonly applied: readonly { readonly node: string; readonly applied_at: number; readonly closed: number }[];
    readonly pending: readonly string[];
    readonly fenced: readonly { readonly node: string; readonly fenced_at: number }[];
  }[];
  readonly enforced_at?: number;
  /** The receipt as a signed JWT, once it is enforced. */
  readonly proof?: string;
}

/** The edge said no. */
export class EdgeRefusal extends Error {
  override readonly name = "EdgeRefusal";
  readonly status: number;
  readonly code: RefusalCode;
  readonly advice: Advice;

  constructor(call: string, status: number, body: { readonly code?: RefusalCode; readonly advice?: Advice }) {
    super(`${call} was answered ${status} ${body.code ?? "without a code"}`);
    this.status = status;
    this.code = body.code ?? "internal";
    this.advice = body.advice ?? "retry";
  }
}

const ANSWER_WITHIN_MS = 15_000;

export class EdgeClient {
  readonly #url: string;
  readonly #adminToken: string;

  constructor(edge: { readonly edgeUrl: string; readonly adminToken: string }) {
    this.#url = edge.edgeUrl;
    this.#adminToken = edge.adminToken;
  }

  createAccount(account: NewAccount): Promise<Account> {
    return this.#call("POST", "/admin/accounts", account, this.#adminToken);
  }

  login(login: string, password: string, device?: string): Promise<Tokens> {
    return this.#call("POST", "/login", { login, password, ...(device === undefined ? {} : { device }) });
  }

  refresh(refreshToken: string): Promise<Tokens> {
    return this.#call("POST", "/refresh", { refresh_token: refreshToken });
  }

  revoke(target: NamedTarget, reason: string): Promise<RevocationAnswer> {
    return this.#call("POST", "/admin/revocations", { target, reason }, this.#adminToken);
  }

  receipt(id: string): Promise<Receipt> {
    return this.#call("GET", `/admin/revocations/${encodeURIComponent(id)}`, undefined, this.#adminToken);
  }

  /** The receipt, once nobody whom the revocation covers is in anywhere. */
  enforcedReceipt(id: string, withinMs = 20_000): Promise<Receipt> {
    const enforced = async () => {
      const receipt = await this.receipt(id);
      return receipt.state === "enforced" && receipt;
    };
    return until(`revocation ${id} is enforced`, enforced, { withinMs });
  }

  async #call<T>(method: "GET" | "POST", path: string, body?: object, bearer?: string): Promise<T> {
    const response = await fetch(`${this.#url}${path}`, {
      method,
      headers: {
        ...(body === undefined ? {} : { "content-type": "application/json" }),
        ...(bearer === undefined ? {} : { authorization: `Bearer ${bearer}` }),
      },
      body: body === undefined ? null : JSON.stringify(body),
      signal: AbortSignal.timeout(ANSWER_WITHIN_MS),
    });
    const text = await response.text();
    const answer = text === "" ? {} : JSON.parse(text);
    if (!response.ok) throw new EdgeRefusal(`${method} ${path}`, response.status, answer);
    return answer;
  }
}

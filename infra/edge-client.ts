/**
 * An edge's API as a program uses it: tokens in bodies, no cookies; a "no" is thrown with its code. The command line, the story and
 * the tests all talk through it. Each method is one operation of the reference.
 */
import { setTimeout } from "node:timers/promises";
import type { z } from "zod";
import type { BulkReceipt, Receipt, Tokens } from "./edge-answers.ts";
import * as answers from "./edge-answers.ts";
import { EdgeRefusal, EdgeUnreachable } from "./edge-failure.ts";
import { type Call, EdgeTransport, type Operation, type TransportOptions } from "./edge-transport.ts";
import { BrokenStream, dataOfEvents } from "./event-stream.ts";
import { until } from "./until.ts";

export type { Receipt, Tokens } from "./edge-answers.ts";
export { EdgeRefusal } from "./edge-failure.ts";

/** Every operation that is used here. A test holds them against the edge's own description. */
export const EDGE_OPERATIONS = [
  "GET /healthz",
  "GET /.well-known/oauth-authorization-server",
  "POST /login",
  "POST /refresh",
  "POST /logout",
  "POST /oauth/token",
  "GET /admin/me",
  "POST /admin/accounts",
  "GET /admin/accounts",
  "GET /admin/accounts/:sub",
  "PATCH /admin/accounts/:sub",
  "DELETE /admin/accounts/:sub",
  "GET /admin/accounts/:sub/sockets",
  "POST /admin/revocations",
  "POST /admin/revocations/bulk",
  "GET /admin/revocations",
  "GET /admin/revocations/:id",
  "POST /admin/clients",
  "GET /admin/clients/:client_id",
  "PATCH /admin/clients/:client_id",
  "DELETE /admin/clients/:client_id",
  "GET /admin/keys",
  "POST /admin/keys/rotate",
  "GET /admin/audit",
  "GET /admin/audit/verify",
  "GET /admin/status",
] as const satisfies readonly Operation[];
type EdgeOperation = (typeof EDGE_OPERATIONS)[number];
type EdgeCall = Omit<Call, "operation">;

export interface NewAccount {
  readonly login: string;
  readonly password: string;
  readonly sub?: string | undefined;
  readonly tid?: string | undefined;
  readonly scope?: string | undefined;
}

/** What an administrator names; the edge adds generation and cutoff. */
export type NamedTarget =
  | { readonly kind: "token"; readonly jti: string }
  | { readonly kind: "token"; readonly token: string }
  | { readonly kind: "session"; readonly sid: string }
  | { readonly kind: "user"; readonly sub: string }
  | { readonly kind: "user"; readonly login: string }
  | { readonly kind: "tenant"; readonly tid: string }
  | { readonly kind: "key"; readonly kid: string }
  | { readonly kind: "everyone" };

/** PROTOCOL, "The edge": what goes with a target. */
export interface RevocationOrder {
  readonly target: NamedTarget;
  readonly reason: string;
  /** Seconds since the epoch. */
  readonly issued_before?: number | undefined;
  readonly except?: string | undefined;
  readonly mode?: "disconnect" | "reauthenticate" | undefined;
  /** Seconds. */
  readonly margin?: number | undefined;
}

export interface BulkOrder extends Pick<RevocationOrder, "reason" | "mode" | "margin"> {
  /** Subjects, or logins. */
  readonly users: readonly (string | { readonly login: string })[];
}

/** Gets what admin calls bear. */
export interface AdminCredential {
  /** @param refused a token that was given before, and that the edge no longer takes */
  token(refused?: string): Promise<string>;
}

export interface EdgeClientOptions extends Omit<TransportOptions, "url"> {
  readonly edgeUrl: string;
  /** Absent for who makes no admin calls. */
  readonly adminToken?: string | AdminCredential;
}

type Query = Readonly<Record<string, string | number | undefined>>;

const STREAM_RETRY_MS = 1_000;
const EXPIRED: readonly string[] = ["token_expired", "token_revoked"];

export class EdgeClient {
  readonly #transport: EdgeTransport;
  readonly #credential: AdminCredential | undefined;

  constructor({ edgeUrl, adminToken, ...options }: EdgeClientOptions) {
    this.#transport = new EdgeTransport({ url: edgeUrl, ...options });
    this.#credential = typeof adminToken === "string" ? { token: async () => adminToken } : adminToken;
  }

  health() {
    return this.#call("GET /healthz", {}, answers.health);
  }

  /** RFC 8414: who the edge says that it is. */
  metadata() {
    return this.#call("GET /.well-known/oauth-authorization-server", {}, answers.metadata);
  }

  /** @param resource the issuer's URL, for a token that admin calls take (RFC 8707) */
  login(login: string, password: string, device?: string, resource?: string): Promise<Tokens> {
    return this.#call("POST /login", { body: { login, password, device, resource } }, answers.tokens);
  }

  /** A repetition within the edge's grace gets the same answer, so that a lost one loses nobody their session. */
  refresh(refreshToken: string, resource?: string): Promise<Tokens> {
    const body = { refresh_token: refreshToken, resource };
    return this.#call("POST /refresh", { body, repeatable: true }, answers.tokens);
  }

  logout(refreshToken: string): Promise<unknown> {
    return this.#call("POST /logout", { body: { refresh_token: refreshToken }, repeatable: true }, answers.nothing);
  }

  /** RFC 6749 section 4.4, with `client_secret_basic`. */
  clientToken(clientId: string, secret: string) {
    const basic = Buffer.from(`${encodeURIComponent(clientId)}:${encodeURIComponent(secret)}`).toString("base64");
    const headers = { authorization: `Basic ${basic}` };
    const form = { grant_type: "client_credentials" };
    return this.#call("POST /oauth/token", { form, headers, repeatable: true }, answers.clientTokens);
  }

  me() {
    return this.#admin("GET /admin/me", {}, answers.me);
  }

  createAccount(account: NewAccount) {
    return this.#admin("POST /admin/accounts", { body: account }, answers.newAccount);
  }

  /** By the beginning of login, subject or linked subject. */
  accounts(query: {
    query?: string | undefined;
    tid?: string | undefined;
    after?: string | undefined;
    limit?: number;
  }) {
    return this.#admin("GET /admin/accounts", { query }, answers.accountPage);
  }

  accountOf(login: string) {
    return this.#admin("GET /admin/accounts", { query: { login } }, answers.account);
  }

  account(sub: string) {
    return this.#admin("GET /admin/accounts/:sub", { path: { sub } }, answers.account);
  }

  changeAccount(sub: string, change: { disabled?: boolean; until?: number | undefined; reason?: string | undefined }) {
    const call = { path: { sub }, body: change, repeatable: true };
    return this.#admin("PATCH /admin/accounts/:sub", call, answers.account);
  }

  deleteAccount(sub: string, reason?: string) {
    return this.#admin("DELETE /admin/accounts/:sub", { path: { sub }, body: { reason } }, answers.deletedAccount);
  }

  /** Whose sockets are open, on which node. */
  sockets(sub: string) {
    return this.#admin("GET /admin/accounts/:sub/sockets", { path: { sub } }, answers.sockets);
  }

  /** Throws somebody out with no more said than that. Sent once: who wants to send it again gives it a key, as `order` does. */
  revoke(target: NamedTarget, reason: string): Promise<Receipt> {
    return this.#admin("POST /admin/revocations", { body: { target, reason } }, answers.receipt);
  }

  /** The same key never revokes twice, so that this is tried again when an answer is lost. */
  order(order: RevocationOrder, idempotencyKey: string): Promise<Receipt> {
    const headers = { "idempotency-key": idempotencyKey };
    return this.#admin("POST /admin/revocations", { body: order, headers, repeatable: true }, answers.receipt);
  }

  /** Up to 10,000 users in one call, worked off from there. With a key, as `order`. */
  orderInBulk(order: BulkOrder, idempotencyKey: string): Promise<BulkReceipt> {
    const headers = { "idempotency-key": idempotencyKey };
    return this.#admin("POST /admin/revocations/bulk", { body: order, headers, repeatable: true }, answers.bulkReceipt);
  }

  /** Whom it would hit. Changes nothing. */
  rehearse(order: RevocationOrder) {
    const body = { ...order, dry_run: true };
    return this.#admin("POST /admin/revocations", { body, repeatable: true }, answers.rehearsal);
  }

  receipts(query: Query) {
    return this.#admin("GET /admin/revocations", { query }, answers.receiptPage);
  }

  /** The receipt of one revocation. */
  receipt(id: string): Promise<Receipt> {
    return this.#admin("GET /admin/revocations/:id", { path: { id } }, answers.receipt);
  }

  /** Of one revocation, or of one in bulk. */
  anyReceipt(id: string) {
    return this.#admin("GET /admin/revocations/:id", { path: { id } }, answers.anyReceipt);
  }

  /** The receipt, once nobody whom the revocation covers is in anywhere. */
  enforcedReceipt(id: string, withinMs = 20_000): Promise<Receipt> {
    const enforced = async () => {
      const receipt = await this.receipt(id);
      return receipt.state === "enforced" && receipt;
    };
    return until(`revocation ${id} is enforced`, enforced, { withinMs });
  }

  /**
   * The receipt now and at every change, until there is nothing to wait for or the signal says so. A stream that breaks or falls
   * silent is taken up again.
   *
   * @throws {EdgeRefusal} when the receipt may not be read or does not exist
   */
  async *follow(id: string, signal: AbortSignal): AsyncGenerator<Receipt, void> {
    while (!signal.aborted) {
      try {
        const call = { path: { id }, headers: { accept: "text/event-stream" }, signal };
        const body = await this.#withToken((bearer) =>
          this.#transport.open({ operation: "GET /admin/revocations/:id", ...call, bearer }),
        );
        for await (const data of dataOfEvents(body, signal)) {
          const receipt = answers.receipt.parse(JSON.parse(data));
          yield receipt;
          if (receipt.state === "enforced" || receipt.state === "no_clusters") return;
        }
      } catch (error) {
        if (signal.aborted) return;
        if (!(error instanceof EdgeUnreachable) && !(error instanceof BrokenStream)) throw error;
      }
      await setTimeout(STREAM_RETRY_MS, undefined, { signal }).catch(() => {}); // the loop looks whether it is to go on
    }
  }

  createClient(client: { name: string; scopes: readonly string[]; tid?: string | undefined }) {
    return this.#admin("POST /admin/clients", { body: client }, answers.client);
  }

  client(clientId: string) {
    return this.#admin("GET /admin/clients/:client_id", { path: { client_id: clientId } }, answers.client);
  }

  changeClient(clientId: string, disabled: boolean) {
    const call = { path: { client_id: clientId }, body: { disabled }, repeatable: true };
    return this.#admin("PATCH /admin/clients/:client_id", call, answers.client);
  }

  deleteClient(clientId: string) {
    return this.#admin("DELETE /admin/clients/:client_id", { path: { client_id: clientId } }, answers.nothing);
  }

  keys() {
    return this.#admin("GET /admin/keys", {}, answers.keys);
  }

  rotateKey(rotation: { purpose?: string | undefined; retire?: boolean; kid?: string | undefined; reason: string }) {
    return this.#admin("POST /admin/keys/rotate", { body: rotation }, answers.keys);
  }

  audit(query: Query) {
    return this.#admin("GET /admin/audit", { query }, answers.auditPage);
  }

  verifyAudit(after?: number) {
    return this.#admin("GET /admin/audit/verify", { query: { after } }, answers.auditVerification);
  }

  status() {
    return this.#admin("GET /admin/status", {}, answers.status);
  }

  #admin<T>(operation: EdgeOperation, call: EdgeCall, schema: z.ZodType<T>): Promise<T> {
    return this.#withToken((bearer) => this.#call(operation, { ...call, bearer }, schema));
  }

  /** With a fresh token once more, where the one at hand has just ended. */
  async #withToken<T>(attempt: (bearer: string | undefined) => Promise<T>): Promise<T> {
    const token = await this.#credential?.token();
    try {
      return await attempt(token);
    } catch (error) {
      const ended = error instanceof EdgeRefusal && EXPIRED.includes(error.code);
      if (!ended || token === undefined) throw error;
      const fresh = await this.#credential?.token(token);
      if (fresh === token) throw error;
      return await attempt(fresh);
    }
  }

  #call<T>(operation: EdgeOperation, call: EdgeCall, schema: z.ZodType<T>): Promise<T> {
    return this.#transport.call({ operation, ...call }, schema);
  }
}

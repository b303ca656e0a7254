/**
 * A deployment under examination: what was named, what was found out on the way, and the guest that is made for it and put away
 * again.
 */
import { randomBytes } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import type { Me, Receipt, Status, Tokens } from "../../edge-answers.ts";
import type { EdgeClient } from "../../edge-client.ts";

export interface SiteOptions {
  readonly edgeUrl: string;
  /** Absent where there is no credential for this edge: then only what anybody may ask is checked. */
  readonly edge: EdgeClient | undefined;
  /** The same, and not ended by Ctrl-C: to put away what was made. */
  readonly lasting: EdgeClient | undefined;
  readonly anybody: EdgeClient;
  /** Where browsers connect. Empty: where the edge pushes to. */
  readonly realtime: readonly string[];
  /** Origins of pages that use it. */
  readonly origins: readonly string[];
  /** What the app's namespace wants. */
  readonly scope: string | undefined;
  /** Where Socket.IO listens. */
  readonly path: string;
  readonly signal: AbortSignal;
}

export interface Guest {
  readonly sub: string;
  readonly login: string;
  readonly password: string;
  readonly tokens: Tokens;
  /** When its token was asked for and given, by our clock, milliseconds. */
  readonly askedAt: number;
  readonly givenAt: number;
}

const NO_ADDRESS = "Say where clients connect: --realtime https://realtime.example.com.";

export class Site {
  readonly options: SiteOptions;
  issuer: string | undefined;
  me: Me | undefined;
  status: Status | undefined;
  guest: Guest | undefined;
  /** Of the canary. */
  receipt: Receipt | undefined;
  #made: string | undefined;

  constructor(options: SiteOptions) {
    this.options = options;
  }

  /** Where sockets are opened. */
  get realtime(): readonly string[] {
    if (this.options.realtime.length > 0) return this.options.realtime;
    return [
      ...new Set((this.status?.clusters ?? []).flatMap(({ endpoints }) => endpoints.map(({ origin }) => origin))),
    ];
  }

  /** Why nobody could be invited; undefined where somebody was. */
  get noGuest(): string | undefined {
    if (this.guest !== undefined) return undefined;
    if (this.lacks("accounts:write").length === 0) return "No guest could be made: see above.";
    return this.noCredential ?? "The credential lacks accounts:write, to make an account for it.";
  }

  /** Why nothing can be asked as an administrator; undefined where it can. */
  get noCredential(): string | undefined {
    if (this.options.edge === undefined) return "There is no credential for this edge here: `keycard login` takes one.";
    return this.me === undefined ? "The credential could not be used: see above." : undefined;
  }

  /** Why no socket can be opened; undefined where one can. */
  get noDoor(): string | undefined {
    if (this.noGuest !== undefined) return this.noGuest;
    return this.realtime.length > 0 ? undefined : NO_ADDRESS;
  }

  /** The scopes of these that the credential does not have. */
  lacks(...scopes: readonly string[]): string[] {
    return scopes.filter((scope) => !this.me?.scopes.includes(scope));
  }

  /** @throws {Interrupted} on Ctrl-C */
  async pause(ms: number): Promise<undefined> {
    const { signal } = this.options;
    await sleep(ms, undefined, { signal }).catch(() => signal.throwIfAborted());
    return undefined;
  }

  /** An account that nobody else has and that opens nothing but this, signed in. @throws what the edge refuses */
  async invite(): Promise<Guest> {
    const { edge, anybody, scope } = this.options;
    if (edge === undefined) throw new Error("without a credential nobody is invited");
    const login = `keycard-doctor-${randomBytes(8).toString("hex")}@keycard.invalid`;
    const password = randomBytes(24).toString("base64url");
    const { sub } = await edge.createAccount({ login, password, tid: this.me?.tid, scope });
    this.#made = sub;
    const askedAt = Date.now();
    const tokens = await anybody.login(login, password, "keycard doctor");
    this.guest = { sub, login, password, tokens, askedAt, givenAt: Date.now() };
    return this.guest;
  }

  /** Puts away what was made. @returns whose account it was */
  async putAway(): Promise<string | undefined> {
    const sub = this.#made;
    if (sub === undefined) return undefined;
    await this.options.lasting?.deleteAccount(sub, "keycard doctor is done");
    this.#made = undefined;
    return sub;
  }
}

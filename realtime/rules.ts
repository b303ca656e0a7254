/**
 * Who may be in which namespace, beyond having a living token: by scope, by tenant, or by a function of the app. A rule
 * for all namespaces and rules for some are added up; the strictest wins because every one must hold.
 */
import type { VerifiedClaims } from "#contract/access-token";
import { Refusal, toRefusal, unauthorizedErrorData } from "#contract/refusal";
import type { Demand, ProtectedSocket } from "./sockets.ts";

/** All that is given must hold. */
export interface Rule extends Demand {
  /** The app's own judgement; false or a rejection keeps the socket out. */
  allow?(session: VerifiedClaims, socket: ProtectedSocket): boolean | Promise<boolean>;
}

export interface NamespaceRule extends Rule {
  /** A name, a pattern, or a function of the name: namespaces made later and dynamic ones are covered. */
  readonly namespace: string | RegExp | ((name: string) => boolean);
  /** How long its sockets may stay on a node that is fenced, in the place of what `protect` was told for all. */
  readonly fencedKeepSeconds?: number | undefined;
}

/** What a namespace demands. */
export function rulesFor(name: string, always: Rule | undefined, some: readonly NamespaceRule[]): readonly Rule[] {
  const matching = some.filter(({ namespace }) => isMatch(namespace, name));
  return always === undefined ? matching : [always, ...matching];
}

/** How long the sockets of a namespace may stay on a node that is fenced: the shortest time that a rule names, milliseconds. */
export function keepMsFor(name: string, always: number, some: readonly NamespaceRule[]): number {
  const own = some
    .filter(({ namespace, fencedKeepSeconds }) => fencedKeepSeconds !== undefined && isMatch(namespace, name))
    .map(({ fencedKeepSeconds }) => fencedKeepSeconds ?? 0);
  return 1000 * (own.length > 0 ? Math.min(...own) : always);
}

/** @throws {Refusal} `scope_insufficient`, naming what is required */
export async function demand(rules: readonly Rule[], session: VerifiedClaims, socket: ProtectedSocket): Promise<void> {
  for (const rule of rules) demandClaims(rule, session);
  for (const rule of rules) {
    if (rule.allow === undefined || (await rule.allow(session, socket))) continue;
    throw new Refusal("scope_insufficient", {
      detail: "the app's rule said no",
      requires: `namespace ${socket.nsp.name}`,
    });
  }
}

/** The part of a rule that the claims alone decide. @throws {Refusal} `scope_insufficient` */
export function demandClaims(rule: Demand, session: VerifiedClaims): void {
  const scopes = new Set(session.scope?.split(" "));
  const missing = listOf(rule.scope).filter((scope) => !scopes.has(scope));
  if (missing.length > 0) throw new Refusal("scope_insufficient", { requires: `scope ${missing.join(" ")}` });
  const tenants = listOf(rule.tenant);
  if (tenants.length > 0 && !tenants.includes(session.tid ?? "")) {
    throw new Refusal("scope_insufficient", { detail: "another tenant", requires: "another tenant" });
  }
}

/**
 * A handler that runs only for sessions with a scope: `socket.on("post", requireScope("chat.write", handler))`. Who has
 * it not is answered in the acknowledgement, or else by the event `unauthorized`, with the shape of `err.data`.
 */
export function requireScope<Args extends unknown[]>(
  scope: string | readonly string[],
  handler: (this: ProtectedSocket, ...args: Args) => unknown,
): (this: ProtectedSocket, ...args: Args) => unknown {
  return function guarded(this: ProtectedSocket, ...args: Args) {
    try {
      // Judged at each call: a renewed token may allow less.
      demandClaims({ scope }, this.data.session);
    } catch (thrown) {
      const data = unauthorizedErrorData(toRefusal(thrown));
      const ack = args.at(-1);
      return typeof ack === "function" ? ack(data) : this.emit("unauthorized", { message: data.message, data });
    }
    return handler.apply(this, args);
  };
}

function isMatch(namespace: NamespaceRule["namespace"], name: string): boolean {
  if (typeof namespace === "string") return namespace === name;
  // A pattern with the flag `g` or `y` would remember where it was.
  if (namespace instanceof RegExp) return name.search(namespace) >= 0;
  return namespace(name);
}

function listOf(value: string | readonly string[] | undefined): readonly string[] {
  if (value === undefined) return [];
  return typeof value === "string" ? [value] : value;
}

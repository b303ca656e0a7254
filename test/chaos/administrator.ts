/**
 * Revokes, and reads receipts until they say enforced. An order whose answer is lost is given again with the same
 * Idempotency-Key, as an admin tool would, so that in the end it is known whether it was decided.
 */
import { randomUUID } from "node:crypto";
import { now, type Scope, type Write } from "./history.ts";

export interface Order {
  readonly scope: Scope;
  /** For people: "the session of Ada's phone". */
  readonly about: string;
  /** Of the request, without the reason. */
  readonly body: Readonly<Record<string, unknown>>;
  readonly bulk?: boolean;
}

export interface Administrator {
  /** Resolves when it was answered, or nobody waits for an answer any more. */
  revoke(order: Order): Promise<void>;
  /** What is decided and not enforced yet, and orders that were not answered yet. */
  outstanding(): readonly string[];
  stop(): void;
}

interface Followed {
  readonly revocation: string;
  readonly id: string;
  readonly about: string;
  nextLookAt: number;
  pauseMs: number;
}

/** Longer than the edge keeps the key of an order that it died over. */
const GIVE_UP_MS = 45_000;
const RETRY_MS = 500;
const ANSWER_WITHIN_MS = 4_000;
const FIRST_LOOK_MS = 40;
const SLOWEST_LOOK_MS = 800;
const LOOKS_AT_ONCE = 8;
const TURN_MS = 20;

/** @param url of the edge */
export function createAdministrator(url: string, adminToken: string, write: Write): Administrator {
  const following = new Map<string, Followed>();
  const unanswered = new Map<string, string>();
  let stopped = false;

  async function call(method: "GET" | "POST", path: string, body?: object, key?: string) {
    const response = await fetch(`${url}${path}`, {
      method,
      headers: {
        authorization: `Bearer ${adminToken}`,
        ...(body === undefined ? {} : { "content-type": "application/json" }),
        ...(key === undefined ? {} : { "idempotency-key": key }),
      },
      body: body === undefined ? null : JSON.stringify(body),
      signal: AbortSignal.timeout(ANSWER_WITHIN_MS),
    });
    return { status: response.status, answer: (await response.json()) as Answer };
  }

  /** One try. Resolves to whether it is known now what became of the order. */
  async function order(revocation: string, { scope, about, body, bulk }: Order): Promise<boolean> {
    write({ kind: "asked", revocation, scope, about });
    const path = bulk ? "/admin/revocations/bulk" : "/admin/revocations";
    const { status, answer } = await call("POST", path, { ...body, reason: "chaos" }, revocation);
    if (status === 202) {
      write({ kind: "decided", revocation, id: answer.id });
      const look = { nextLookAt: 0, pauseMs: FIRST_LOOK_MS };
      following.set(revocation, { revocation, id: answer.id, about, ...look });
      return true;
    }
    // In conflict with itself: the first time is still under way, as far as the edge knows.
    if (status >= 500 || status === 409) return false;
    write({ kind: "declined", revocation, code: answer.code ?? String(status) });
    return true;
  }

  async function look(followed: Followed): Promise<void> {
    const { revocation, id } = followed;
    followed.nextLookAt = Number.POSITIVE_INFINITY;
    try {
      const { status, answer } = await call("GET", `/admin/revocations/${id}`);
      const state = answer.state ?? `HTTP ${status}`;
      const enforcedAt = enforcedAtOf(answer);
      const isEnforced = enforcedAt !== undefined;
      write({ kind: "receipt", revocation, state, enforced: isEnforced, ...(isEnforced ? { enforcedAt } : {}) });
      if (isEnforced) following.delete(revocation);
    } catch {
      // The edge is away; it is asked again.
    }
    followed.pauseMs = Math.min(followed.pauseMs * 2, SLOWEST_LOOK_MS);
    followed.nextLookAt = now() + followed.pauseMs;
  }

  const turning = setInterval(() => {
    const due = [...following.values()].filter(({ nextLookAt }) => nextLookAt <= now());
    for (const followed of due.slice(0, LOOKS_AT_ONCE)) void look(followed);
  }, TURN_MS);

  return {
    async revoke(asked) {
      const revocation = randomUUID();
      const askedAt = now();
      unanswered.set(revocation, asked.about);
      for (;;) {
        const isKnown = await order(revocation, asked).catch(() => false);
        if (isKnown || stopped) break;
        if (now() - askedAt > GIVE_UP_MS) {
          write({ kind: "abandoned", revocation });
          break;
        }
        await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
      }
      unanswered.delete(revocation);
    },
    outstanding: () => [
      ...[...unanswered.values()].map((about) => `${about}: not answered`),
      ...[...following.values()].map(({ about }) => `${about}: not enforced`),
    ],
    stop() {
      stopped = true;
      clearInterval(turning);
    },
  };
}

interface Answer {
  readonly id: string;
  readonly code?: string;
  readonly state?: string;
  /** Milliseconds since the epoch. */
  readonly enforced_at?: number;
  readonly clusters?: readonly { readonly applied?: readonly { readonly applied_at: number }[] }[];
}

/** When every node had closed every socket that was covered, by the histories' clock; undefined while that is not so. */
function enforcedAtOf({ state, enforced_at, clusters = [] }: Answer): number | undefined {
  if (state !== "enforced" && state !== "applied") return undefined;
  const applied = clusters.flatMap(({ applied: words = [] }) => words.map(({ applied_at }) => applied_at));
  const at = enforced_at ?? (applied.length > 0 ? Math.max(...applied) : Date.now());
  // The wall clock is slewed now and then, and ours is not.
  return at - (Date.now() - now());
}

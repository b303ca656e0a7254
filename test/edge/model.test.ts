/**
 * Everything that can happen to an account, in any order: a seeded generator does it to the real objects and to a model, and
 * after each step both must agree on what was answered, which sessions and which tokens live, and what was emitted.
 */
import { evictDurableObject, runDurableObjectAlarm, runInDurableObject } from "cloudflare:test";
import { env } from "cloudflare:workers";
import { afterEach, expect, test, vi } from "vitest";
import { keyOf, type RevocationTarget } from "#contract/revocation";
import { RevocationIndex } from "#contract/revocation-index";
import type { OpenedSession } from "../../edge/accounts/account.ts";
import { type RefreshToken, readRefreshToken } from "../../edge/accounts/session.ts";
import type { Outcome } from "../../edge/outcome.ts";
import { Random } from "../support/random.ts";
import {
  AFTERLIFE_SECONDS,
  type Code,
  type Emitted,
  ModelAccount,
  type ModelSession,
  ModelTenant,
} from "./account-model.ts";
import { account, revocationLog } from "./edge.ts";

const STEPS = 70;
const SEEDS = [1, 2, 3, 4, 5, 6, 7, 8];
const DAY_SECONDS = 86_400;
/** Seconds: within the grace, past it, past the afterlife of a session, past idle and absolute ends. */
const LEAPS = [0, 1, 2, 25, 31, 200, AFTERLIFE_SECONDS + 2, 3_600, 13 * DAY_SECONDS, 15 * DAY_SECONDS];

const { KEYCARD_SECRET } = env as unknown as { KEYCARD_SECRET: string };

afterEach(() => {
  vi.useRealTimers();
});

test.for(SEEDS)("the real thing and the model agree after every step: seed %i", async (seed) => {
  const world = await World.begin(seed, seed % 4 === 0 ? "crowded" : "mixed");
  for (let step = 0; step < STEPS; step++) {
    try {
      await world.step();
      await world.compare();
    } catch (error) {
      const told = error instanceof Error ? error.message : String(error);
      throw new Error(`seed ${seed}, after\n${world.steps.join("\n")}\n\n${told}`, { cause: error });
    }
  }
});

/**
 * Where the clock of the seed before came to an end: the log is one for all of them, and for the log no time comes twice. Ahead of the
 * real clock, so that no alarm goes off by itself.
 */
let reachedMs = Date.now() + DAY_SECONDS * 1000;

/** A session with every refresh token of its chain, by position. */
interface Chain {
  readonly owner: ModelAccount;
  readonly session: ModelSession;
  readonly tokens: string[];
}

class World {
  readonly steps: string[] = [];
  readonly #random: Random;
  readonly #tenant: ModelTenant;
  readonly #accounts: readonly ModelAccount[];
  readonly #chains: Chain[] = [];
  readonly #index = new RevocationIndex();
  readonly #acts: readonly (readonly [weight: number, act: () => Promise<void>])[];
  #seen = 0;
  #last: Chain | undefined;
  #now = reachedMs;

  private constructor(seed: number, kind: "mixed" | "crowded") {
    this.#random = new Random(seed);
    this.#tenant = new ModelTenant(`tenant-${seed}`);
    const subs = kind === "mixed" ? ["ada", "bob", "eve"] : ["ada"];
    this.#accounts = subs.map((name) => new ModelAccount(`${name}-${seed}`, this.#tenant));
    // In a crowd little else happens than that sessions are opened: until there are too many.
    const alone = kind === "mixed" ? 1 : 0;
    this.#acts = [
      [kind === "mixed" ? 14 : 90, () => this.#open()],
      [30, () => this.#refresh()],
      [8 * alone, () => this.#leap()],
      [kind === "mixed" ? 6 : 1, () => this.#logout()],
      [4, () => this.#revokeSession()],
      [2 * alone, () => this.#revokeUser()],
      [2 * alone, () => this.#revokeTenant()],
      [3 * alone, () => this.#disable()],
      [4 * alone, () => this.#enable()],
      [3 * alone, () => this.#changePassword()],
      [3 * alone, () => this.#tellOfPasswordAgain()],
      [1 * alone, () => this.#delete()],
      [5, () => this.#evict()],
      [5, () => this.#alarm()],
    ];
  }

  static async begin(seed: number, kind: "mixed" | "crowded"): Promise<World> {
    const world = new World(seed, kind);
    vi.useFakeTimers({ toFake: ["Date"], now: world.#now });
    const { tid } = world.#tenant;
    for (const { sub } of world.#accounts) {
      await account(sub).create({ sub, login: `${sub}@model.test`, tid, scope: null });
    }
    return world;
  }

  async step(): Promise<void> {
    // No two steps in one millisecond: which of two was used last would be anybody's guess.
    this.#setClock(this.#now + 1);
    const total = this.#acts.reduce((sum, [weight]) => sum + weight, 0);
    let left = this.#random.below(total);
    for (const [weight, act] of this.#acts) {
      if (left < weight) return await act();
      left -= weight;
    }
  }

  /** Everything that can be seen from outside or read from the storage. */
  async compare(): Promise<void> {
    for (const model of this.#accounts) await this.#compareRows(model);
    await this.#compareEvents();
    this.#compareNodes();
    await this.#compareTokens();
  }

  async #open(): Promise<void> {
    const model = this.#pickAccount();
    const passwordGeneration = Math.max(0, model.passwordGeneration - (this.#random.below(5) === 0 ? 1 : 0));
    this.#say(`open ${model.sub} with password ${passwordGeneration}`);
    const expected = model.mayOpen(passwordGeneration, this.#now);
    const outcome = await account(model.sub).open({ method: "password", passwordGeneration });
    expect(codeOf(outcome)).toBe(expected);
    if (!("value" in outcome)) return;
    const { grant, refreshToken } = outcome.value;
    this.#chains.push({ owner: model, session: model.opened(grant.sid, this.#now), tokens: [refreshToken] });
  }

  /** Once, or several at once; with the newest token, the one before, or one that is old. */
  async #refresh(): Promise<void> {
    const chain = this.#pickChain();
    if (chain === undefined) return;
    const { owner, session, tokens } = chain;
    const position = this.#pickPosition(chain);
    const times = this.#random.pick([1, 1, 1, 2, 5]);
    this.#say(`refresh ${session.sid} at ${position} of ${session.position}, ${times} times`);
    const token = parsed(tokens[position]);
    const standing = { tid: this.#tenant.tid, cutoff: this.#tenant.cutoff };
    const calls = Array.from({ length: times }, () => account(owner.sub).refresh(token, standing));
    for (const outcome of await Promise.all(calls)) {
      expect(codeOf(outcome)).toBe(owner.refresh(session.sid, position, this.#now));
      if (!("value" in outcome)) continue;
      const { refreshToken, grant } = outcome.value as OpenedSession;
      expect(grant).toMatchObject({ sub: owner.sub, sid: session.sid, gen: session.gen, auth_time: session.authTime });
      if (tokens.length === position + 1) tokens.push(refreshToken);
      expect(refreshToken).toBe(tokens[position + 1]);
    }
  }

  async #logout(): Promise<void> {
    const chain = this.#pickChain();
    if (chain === undefined) return;
    const { owner, session, tokens } = chain;
    const scope = this.#random.pick(["local", "others", "global"] as const);
    const position = this.#random.below(2) === 0 ? undefined : this.#pickPosition(chain);
    this.#say(`logout ${scope} by ${session.sid} with ${position ?? "an access token"}`);
    const { sid } = session;
    const actor = position === undefined ? { access: { sid } } : { refresh: parsed(tokens[position]) };
    const outcome = await account(owner.sub).logout(actor, scope);
    expect(codeOf(outcome)).toBe(owner.logout(sid, position, scope, this.#now));
  }

  async #revokeSession(): Promise<void> {
    const chain = this.#pickChain();
    if (chain === undefined) return;
    const { owner, session } = chain;
    this.#say(`revoke session ${session.sid}`);
    const outcome = await account(owner.sub).revokeSession(session.sid, this.#order());
    expect(codeOf(outcome)).toBe(owner.revokeSession(session.sid, this.#now));
  }

  async #revokeUser(): Promise<void> {
    const model = this.#pickAccount();
    this.#say(`revoke user ${model.sub}`);
    expect(codeOf(await account(model.sub).revokeUser(this.#order()))).toBe(model.revokeUser(this.#now));
  }

  async #revokeTenant(): Promise<void> {
    this.#say("revoke the tenant");
    const outcome = await revocationLog().revokeBefore({ ...this.#order(), tid: this.#tenant.tid });
    expect(codeOf(outcome)).toBe("ok");
    this.#tenant.revoke(this.#now);
  }

  async #disable(): Promise<void> {
    const model = this.#pickAccount();
    const forSeconds = this.#random.pick(["good", 20, 3_000]);
    const until = typeof forSeconds === "string" ? undefined : Math.floor(this.#now / 1000) + forSeconds;
    this.#say(`disable ${model.sub} for ${forSeconds}`);
    const outcome = await account(model.sub).change({ disabled: true, until }, this.#order());
    expect(codeOf(outcome)).toBe(model.disable(until, this.#now));
  }

  async #enable(): Promise<void> {
    const model = this.#pickAccount();
    this.#say(`enable ${model.sub}`);
    expect(codeOf(await account(model.sub).change({ disabled: false }, this.#order()))).toBe(model.enable());
  }

  /** As the credential tells it. */
  async #changePassword(): Promise<void> {
    const chain = this.#pickChain();
    if (chain === undefined) return;
    const { owner, session } = chain;
    this.#say(`change the password of ${owner.sub}, keeping ${session.sid}`);
    owner.changePassword(session.sid, this.#now);
    expect(codeOf(await account(owner.sub).passwordChanged(owner.passwordGeneration, session.sid))).toBe("ok");
  }

  /** As its alarm does when the answer was lost: by then others may have logged in, with the new password. */
  async #tellOfPasswordAgain(): Promise<void> {
    const { sub, passwordGeneration } = this.#pickAccount();
    if (passwordGeneration === 0) return;
    this.#say(`tell ${sub} of its last password again`);
    expect(codeOf(await account(sub).passwordChanged(passwordGeneration, "whoever it was"))).toBe("ok");
  }

  async #delete(): Promise<void> {
    const model = this.#pickAccount();
    this.#say(`delete ${model.sub}`);
    expect(codeOf(await account(model.sub).delete(this.#order()))).toBe(model.delete(this.#now));
  }

  async #evict(): Promise<void> {
    const model = this.#pickAccount();
    this.#say(`evict ${model.sub}`);
    await evictDurableObject(account(model.sub));
  }

  async #alarm(): Promise<void> {
    const model = this.#pickAccount();
    this.#say(`let the alarm of ${model.sub} go off`);
    if (await runDurableObjectAlarm(account(model.sub))) model.forget(this.#now);
  }

  async #leap(): Promise<void> {
    const seconds = this.#random.pick(LEAPS);
    this.#say(`${seconds} s pass`);
    this.#setClock(this.#now + seconds * 1000);
  }

  async #compareRows(model: ModelAccount): Promise<void> {
    const rows = await runInDurableObject(account(model.sub), (_, { storage }) =>
      storage.sql
        .exec<{ sid: string; position: number; rotated_at: number; expires_at: number; ended_at: number | null }>(
          "SELECT sid, position, rotated_at, expires_at, ended_at FROM sessions ORDER BY sid",
        )
        .toArray(),
    );
    const expected = [...model.sessions]
      .sort((a, b) => (a.sid < b.sid ? -1 : 1))
      .map(({ sid, position, rotatedMs, expiresAt, endedAt }) => {
        return { sid, position, rotated_at: rotatedMs, expires_at: expiresAt, ended_at: endedAt ?? null };
      });
    expect(rows).toEqual(expected);
    const summary = await account(model.sub).summary();
    if (model.deleted) return expect(codeOf(summary)).toBe("not_found");
    expect(summary).toMatchObject({
      value: { generation: model.generation, disabled: model.isDisabled(this.#now), login: `${model.sub}@model.test` },
    });
  }

  async #compareEvents(): Promise<void> {
    const rows = await runInDurableObject(revocationLog(), (_, { storage }) =>
      storage.sql
        .exec<{ seq: number; id: string; code: string; targets: string; decided_at: number; expires_at: number }>(
          "SELECT seq, id, code, targets, decided_at, expires_at FROM events WHERE seq > ? ORDER BY seq",
          this.#seen,
        )
        .toArray(),
    );
    // Other seeds share the log; theirs were before.
    const ours = rows.filter(({ targets }) => this.#isOurs(JSON.parse(targets)));
    this.#seen = rows.at(-1)?.seq ?? this.#seen;
    const emitted: Emitted[] = ours.map(({ code, targets }) => ({ code, targets: JSON.parse(targets) }));
    expect(emitted.map(inOrder)).toEqual(this.#tenant.emitted.splice(0).map(inOrder));
    for (const { targets, code, ...row } of ours) {
      this.#index.merge({
        ...row,
        targets: JSON.parse(targets),
        code: code === "refresh_reused" ? code : "session_revoked",
      });
    }
  }

  /** Nothing that was not revoked is hit, and everything that was is, at a node that has only the events. */
  #compareNodes(): void {
    for (const { owner, session } of this.#chains) {
      const { sid, gen, authTime } = session;
      const claims = { jti: "any", sid, sub: owner.sub, gen, auth_time: authTime, tid: this.#tenant.tid };
      const dead = session.endedAt !== undefined || gen < owner.generation || authTime <= this.#tenant.cutoff;
      expect([sid, this.#index.check(claims) !== undefined]).toEqual([sid, dead]);
    }
  }

  async #compareTokens(): Promise<void> {
    for (const { owner, session, tokens } of this.#random.shuffled(this.#chains).slice(0, 4)) {
      for (const [position, text] of tokens.entries()) {
        const found = await account(owner.sub).inspect({ refresh: parsed(text) });
        const usable = "value" in found && found.value !== null;
        const expected = owner.isUsable(session.sid, position, this.#now);
        expect([session.sid, position, usable]).toEqual([session.sid, position, expected]);
      }
    }
  }

  #isOurs(targets: readonly RevocationTarget[]): boolean {
    return targets.every((target) => {
      if (target.kind === "tenant") return target.tid === this.#tenant.tid;
      const sub =
        target.kind === "user" ? target.sub : target.kind === "session" ? target.sid.split(".")[0] : undefined;
      return this.#accounts.some((model) => model.sub === sub);
    });
  }

  #pickAccount(): ModelAccount {
    return this.#random.pick(this.#accounts);
  }

  /** Mostly one that lives, and often the one of before, so that chains grow long. */
  #pickChain(): Chain | undefined {
    const again = this.#random.below(2) === 0 ? this.#last : undefined;
    this.#last = again ?? this.#anyChain();
    return this.#last;
  }

  #anyChain(): Chain | undefined {
    const living = this.#chains.filter(({ owner, session }) => owner.live(this.#now).includes(session));
    const from = living.length > 0 && this.#random.below(5) > 0 ? living : this.#chains;
    return from.length === 0 ? undefined : this.#random.pick(from);
  }

  #pickPosition({ session, tokens }: Chain): number {
    const last = Math.min(session.position, tokens.length - 1);
    const back = this.#random.pick([0, 0, 0, 0, 0, 1, 1, 2]);
    return Math.max(0, last - back);
  }

  #order() {
    return { id: `rev_${this.steps.length}_${this.#tenant.tid}`, reason: "the model says so" };
  }

  #setClock(ms: number): void {
    this.#now = ms;
    reachedMs = ms;
    vi.setSystemTime(ms);
  }

  #say(step: string): void {
    this.steps.push(`${this.steps.length + 1}. ${step}`);
  }
}

/** In one event the order of the targets says nothing. */
function inOrder({ code, targets }: Emitted): Emitted {
  return { code, targets: [...targets].sort((a, b) => (keyOf(a) < keyOf(b) ? -1 : 1)) };
}

function parsed(text: string | undefined): RefreshToken {
  return readRefreshToken(text ?? "", [KEYCARD_SECRET]);
}

function codeOf(outcome: Outcome<unknown>): Code {
  return "value" in outcome ? "ok" : (outcome.refused.code as Code);
}

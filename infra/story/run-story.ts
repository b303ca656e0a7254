/** The whole path of Keycard, told with stock clients against real processes: a stack of its own, gone afterwards. */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { decodeJwt } from "jose";
import type { RefusalCode } from "#contract/refusal";
import { EdgeClient, EdgeRefusal, type NamedTarget, type Tokens } from "../edge-client.ts";
import { type ObservedSocket, openSocket } from "../observed-socket.ts";
import { type Stack, startStack } from "../stack.ts";
import { until } from "../until.ts";
import {
  byNode,
  Cast,
  enter,
  entered,
  PEOPLE,
  type Person,
  receiptOf,
  refusedEverywhere,
  rollCall,
  type Session,
  thrownOut,
} from "./cast.ts";
import { type Fact, StoryBroken, type StoryReport, type StoryStep, Telling } from "./telling.ts";

export interface StoryOptions {
  onStep?(step: StoryStep): void;
  /** What is going on inside a step that takes long. */
  onProgress?(text: string): void;
  /** What the processes print. */
  onLine?(process: string, line: string): void;
  /** Ends the story early; everything is put away all the same. */
  readonly signal?: AbortSignal;
  readonly redisBinary?: string;
}

const HANDLERS = join(import.meta.dirname, "..", "demo", "handlers.ts");
const GRACE_SECONDS = 2;
const SHORT_TTL_SECONDS = 5;
const SAME_SECOND_ATTEMPTS = 5;

const SESSION_OVER = { code: "session_revoked", advice: "login" } as const;

export async function runStory(options: StoryOptions = {}): Promise<StoryReport> {
  const telling = new Telling((step) => options.onStep?.(step), options.signal);
  const dir = await mkdtemp(join(tmpdir(), "keycard-story-"));
  const open: Story[] = [];
  let complete = false;
  try {
    const story = new Story(telling, options, join(dir, "long"), { REFRESH_GRACE_SECONDS: `${GRACE_SECONDS}` });
    open.push(story);
    await story.untilEveryoneIsOut();
    const expiry = new Story(telling, options, join(dir, "short"), {
      ACCESS_TOKEN_TTL_SECONDS: `${SHORT_TTL_SECONDS}`,
    });
    open.push(expiry);
    await expiry.untilItExpires();
    await putAway(telling, open, dir);
    complete = true;
  } catch (error) {
    if (!(error instanceof StoryBroken) && !options.signal?.aborted) throw error;
  } finally {
    for (const story of open) await story.end();
    await rm(dir, { recursive: true, force: true });
  }
  return telling.report(complete);
}

async function putAway(telling: Telling, stories: readonly Story[], dir: string): Promise<void> {
  const did = "Both stacks are stopped and their state is deleted.";
  await telling.step("Put away", did, "No process is left, and no file.", async () => {
    const pids = stories.flatMap((story) => story.pids);
    for (const story of stories) await story.end();
    await rm(dir, { recursive: true, force: true });
    const left = pids.filter(isRunning);
    return [{ holds: left.length === 0, text: `${pids.length - left.length} of ${pids.length} processes have ended` }];
  });
}

function isRunning(pid: number): boolean {
  try {
    return process.kill(pid, 0);
  } catch {
    // ESRCH: it is gone.
    return false;
  }
}

class Story {
  readonly #telling: Telling;
  readonly #options: StoryOptions;
  readonly #dir: string;
  readonly #edgeSettings: Record<string, string>;
  #starting: Promise<Stack> | undefined;
  #stack!: Stack;
  #edge!: EdgeClient;
  #cast!: Cast;

  constructor(telling: Telling, options: StoryOptions, dir: string, edgeSettings: Record<string, string>) {
    this.#telling = telling;
    this.#options = options;
    this.#dir = dir;
    this.#edgeSettings = edgeSettings;
  }

  /** Nothing of it is left. Waits for a start that is under way; may be called again. */
  async end(): Promise<void> {
    // Where starting failed there is nothing to stop.
    const stack = await this.#starting?.catch(() => undefined);
    this.#cast?.leave();
    await stack?.stop();
  }

  get pids(): number[] {
    return Object.values(this.#stack.pids);
  }

  async untilEveryoneIsOut(): Promise<void> {
    await this.#start("Start", "Redis, the edge and three nodes start on free ports, with state of their own.");
    await this.#createAccounts();
    const sessions = await this.#logIn();
    await this.#connect();
    await this.#broadcast();
    const spent = await this.#refresh(sessions.adaLaptop);
    await this.#retryRefresh(sessions.adaLaptop, spent);
    await this.#reuseRefresh(sessions.adaLaptop, spent);
    const deadToken = await this.#revokeToken(sessions.bobLaptop);
    await this.#revokeSession(sessions.bobLaptop);
    await this.#revokeUser([sessions.adaPhone, sessions.adaTablet]);
    const back = await this.#logInWithinTheSecond();
    await this.#refuseWhatIsFromBefore([sessions.adaPhone, sessions.adaTablet]);
    await this.#startAnotherNode(back, [
      [sessions.adaPhone.tokens.access_token, "session_revoked", "ada's phone"],
      [sessions.bobLaptop.tokens.access_token, "session_revoked", "bob's laptop"],
      [deadToken, "session_revoked", "bob's first token"],
      [sessions.adaLaptop.tokens.access_token, "session_revoked", "ada's laptop"],
    ]);
    await this.#revokeTenant(["ada", "bob"]);
    await this.#revokeEveryone();
    await this.#countWhoCameBack();
  }

  async untilItExpires(): Promise<void> {
    const tokens = `tokens live ${SHORT_TTL_SECONDS} s`;
    await this.#start("Start a second stack", `As before, but ${tokens}: the first stack's would take 5 minutes.`);
    await this.#edge.createAccount(PEOPLE.ada);
    await this.#expire(await this.#cast.logIn("ada", "laptop"));
  }

  async #start(title: string, did: string): Promise<void> {
    const { redisBinary } = this.#options;
    await this.#telling.step(title, did, "Every part is ready.", async () => {
      this.#starting = startStack({
        dir: this.#dir,
        edgeSettings: this.#edgeSettings,
        nodeSettings: { HANDLERS, LOG_LEVEL: "info" },
        onStep: (text) => this.#options.onProgress?.(text),
        onLine: (process, line) => this.#options.onLine?.(process, line),
        ...(redisBinary === undefined ? {} : { redisBinary }),
      });
      this.#stack = await this.#starting;
      this.#edge = new EdgeClient(this.#stack);
      this.#cast = new Cast(this.#edge);
      const { edgeUrl, nodes } = this.#stack;
      return [{ holds: nodes.length === 3, text: `edge on ${edgeUrl}, ${nodes.map(({ name }) => name).join(", ")}` }];
    });
  }

  async #createAccounts(): Promise<void> {
    const did = "The admin API makes ada and bob of tenant acme, cleo of apex, dan of none; a stranger tries too.";
    await this.#telling.step("Accounts", did, "Four accounts; the stranger is refused.", async () => {
      for (const person of Object.values(PEOPLE)) await this.#edge.createAccount(person);
      const stranger = new EdgeClient({ ...this.#stack, adminToken: "a-guess-of-the-admin-credential" });
      const answer = await refusal(() =>
        stranger.createAccount({ login: "eve@example.com", password: "let me in, please" }),
      );
      return [
        { holds: true, text: "four accounts made" },
        { holds: answer?.status === 401, text: `the stranger: ${answer?.status} ${answer?.code}` },
      ];
    });
  }

  async #logIn(): Promise<Record<"adaLaptop" | "adaPhone" | "adaTablet" | "bobLaptop", Session>> {
    const did = "ada logs in on three devices, bob on two, cleo and dan on one; somebody guesses ada's password.";
    const named: Partial<Record<"adaLaptop" | "adaPhone" | "adaTablet" | "bobLaptop", Session>> = {};
    await this.#telling.step("Login", did, "Seven sessions, each of its own; the guess is refused.", async () => {
      named.adaLaptop = await this.#cast.logIn("ada", "laptop");
      named.adaPhone = await this.#cast.logIn("ada", "phone");
      named.adaTablet = await this.#cast.logIn("ada", "tablet");
      named.bobLaptop = await this.#cast.logIn("bob", "laptop");
      await this.#cast.logIn("bob", "phone");
      await this.#cast.logIn("cleo", "laptop");
      await this.#cast.logIn("dan", "laptop");
      const sids = new Set(this.#cast.sessions.map(({ tokens }) => tokens.sid));
      const ttl = this.#cast.sessions[0]?.tokens.expires_in;
      const guess = await refusal(() => this.#edge.login(PEOPLE.ada.login, "countess of lovelace"));
      return [
        { holds: sids.size === 7, text: `${sids.size} sessions, access tokens for ${ttl} s` },
        { holds: guess?.code === "credentials_wrong", text: `the guess: ${guess?.status} ${guess?.code}` },
      ];
    });
    return named as Required<typeof named>;
  }

  async #connect(): Promise<void> {
    const did = "Each session opens a stock socket.io-client to each of the three nodes.";
    await this.#telling.step("Connect", did, "21 sockets, seven on each node.", async () => {
      await Promise.all(this.#cast.sessions.map((session) => enter(session, this.#stack.nodes)));
      return [entered(this.#cast.everySocket, "everybody")];
    });
  }

  async #broadcast(): Promise<void> {
    const did = "ada's laptop says something on node-1.";
    await this.#telling.step("Broadcast", did, "Every socket on every node hears it.", async () => {
      const everybody = this.#cast.everySocket;
      const { holds } = await rollCall(this.#cast, everybody, "good morning, all of you");
      const heard = everybody.filter(({ messages }) => messages.length === 1);
      return [{ holds, text: `heard by ${heard.length} of ${everybody.length}: ${byNode(heard)}` }];
    });
  }

  /** @returns the refresh token that was spent, and what it brought */
  async #refresh(session: Session): Promise<Spent> {
    const did = "ada's laptop trades its refresh token, and opens a socket with the new access token.";
    const expected = "New tokens of the same session; the new socket is in, and nobody lost one.";
    let spent: Spent | undefined;
    await this.#telling.step("Refresh", did, expected, async () => {
      const before = session.tokens;
      const present = this.#cast.present;
      session.tokens = await this.#edge.refresh(before.refresh_token);
      spent = { refreshToken: before.refresh_token, successor: session.tokens, at: Date.now() };
      const opened = await enter(session, this.#stack.nodes.slice(1, 2));
      const isNew =
        session.tokens.refresh_token !== before.refresh_token && session.tokens.access_token !== before.access_token;
      return [
        { holds: isNew && session.tokens.sid === before.sid, text: "both tokens are new, the session is the same" },
        entered(opened, "the new token"),
        await rollCall(this.#cast, [...present, ...opened], "refreshed"),
      ];
    });
    return spent as Spent;
  }

  async #retryRefresh(session: Session, spent: Spent): Promise<void> {
    const did = `The same refresh again, as after a lost answer, within the grace of ${GRACE_SECONDS} s.`;
    const expected = "The same successor, byte for byte, and nobody is thrown out.";
    await this.#telling.step("Retried refresh", did, expected, async () => {
      const present = this.#cast.present;
      const again = await this.#edge.refresh(spent.refreshToken);
      const same = again.refresh_token === spent.successor.refresh_token && again.sid === session.tokens.sid;
      return [
        { holds: same, text: same ? "the same successor, byte for byte" : "another successor" },
        await rollCall(this.#cast, present, "retried"),
      ];
    });
  }

  async #reuseRefresh(session: Session, spent: Spent): Promise<void> {
    const did = "Somebody uses that refresh token once more when the grace is over: it was stolen.";
    const expected = "Refused; ada's laptop is out on every node, her phone and tablet and all others stay.";
    await this.#telling.step("Reused refresh", did, expected, async () => {
      const { covered, others } = this.#split(session.sockets);
      // The edge may count the grace in whole seconds.
      await until("the grace is over", () => Date.now() > spent.at + (GRACE_SECONDS + 1) * 1000);
      const calledAt = performance.now();
      const theft = await refusal(() => this.#edge.refresh(spent.refreshToken));
      const out = await thrownOut(covered, { code: "refresh_reused", advice: "login" }, calledAt);
      const successor = await refusal(() => this.#edge.refresh(spent.successor.refresh_token));
      return [
        { holds: theft?.code === "refresh_reused", text: `the thief: ${theft?.status} ${theft?.code}` },
        { holds: successor?.advice === "login", text: `the successor: ${successor?.status} ${successor?.code}` },
        out,
        await rollCall(this.#cast, others, "the thief is out"),
      ];
    });
  }

  /** @returns the revoked token */
  async #revokeToken(session: Session): Promise<string> {
    const token = session.tokens.access_token;
    const did = "bob's laptop refreshes and opens three more sockets; then its first access token is revoked.";
    const expected = "The three sockets of that token close; its session goes on with the other.";
    await this.#telling.step("Revoke a token", did, expected, async () => {
      const first = [...session.sockets];
      session.tokens = await this.#edge.refresh(session.tokens.refresh_token);
      const later = await enter(session, this.#stack.nodes);
      const facts = await this.#revoke({ kind: "token", token }, first, { code: "token_revoked", advice: "refresh" });
      return [entered(later, "the second token"), ...facts];
    });
    return token;
  }

  async #revokeSession(session: Session): Promise<void> {
    const did = "An administrator revokes the session of bob's laptop.";
    const expected = "Its sockets close on every node; bob's phone and all others stay.";
    await this.#telling.step("Revoke a session", did, expected, () =>
      this.#revoke({ kind: "session", sid: session.tokens.sid }, session.sockets, SESSION_OVER),
    );
  }

  async #revokeUser(sessions: readonly Session[]): Promise<void> {
    const did = "An administrator revokes ada, by her login name.";
    const expected = "All her sessions are out on every node; all others stay.";
    await this.#telling.step("Revoke a user", did, expected, () =>
      this.#revoke(
        { kind: "user", login: PEOPLE.ada.login },
        sessions.flatMap(({ sockets }) => sockets),
        SESSION_OVER,
      ),
    );
  }

  /** Revokes ada again and logs her in at once, until both fall into one second of the clock. */
  async #logInWithinTheSecond(): Promise<Session> {
    const did = "ada is revoked once more and logs in again within the same second of the clock.";
    const expected = "Her new session gets in on every node; nobody else notices.";
    let session: Session | undefined;
    await this.#telling.step("Log in again in that second", did, expected, async () => {
      const present = this.#cast.present;
      for (let attempt = 1; ; attempt++) {
        await until("a second is young", () => Date.now() % 1000 < 100);
        const revocation = await this.#edge.revoke({ kind: "user", login: PEOPLE.ada.login }, "the same second");
        session = await this.#cast.logIn("ada", "laptop again");
        await this.#edge.enforcedReceipt(revocation.id);
        const second = Math.floor(revocation.created_at / 1000);
        const iat = decodeJwt(session.tokens.access_token).iat;
        if (iat !== second && attempt < SAME_SECOND_ATTEMPTS) continue;
        const opened = await enter(session, this.#stack.nodes);
        return [
          { holds: iat === second, text: `revoked in second ${second}, token issued in second ${iat}` },
          entered(opened, session.name),
          await rollCall(this.#cast, [...present, ...opened], "ada is back"),
        ];
      }
    });
    return session as Session;
  }

  async #refuseWhatIsFromBefore(sessions: readonly Session[]): Promise<void> {
    const did = "The access tokens of ada's old sessions, good for minutes yet, are tried on every node.";
    await this.#telling.step("Tokens from before", did, "Every node refuses them: session_revoked.", async () => {
      const { nodes } = this.#stack;
      const attempts = sessions.map((session) =>
        refusedEverywhere(session.tokens.access_token, nodes, "session_revoked", session.name),
      );
      const renewals = await Promise.all(
        sessions.map((session) => refusal(() => this.#edge.refresh(session.tokens.refresh_token))),
      );
      return [
        ...(await Promise.all(attempts)),
        {
          holds: renewals.every((answer) => answer?.code === "session_revoked"),
          text: `their refresh tokens: ${renewals.map((answer) => answer?.code).join(", ")}`,
        },
      ];
    });
  }

  async #startAnotherNode(alive: Session, dead: readonly (readonly [string, RefusalCode, string])[]): Promise<void> {
    const did = "A fourth node starts, after all this; old tokens are tried on it, and ada's new one.";
    const expected = "It refuses what was revoked before it was there, and lets ada's new session in.";
    await this.#telling.step("A node that starts later", did, expected, async () => {
      const present = this.#cast.present;
      const node = await this.#stack.startNode();
      const attempts = dead.map(([token, code, whose]) => refusedEverywhere(token, [node], code, whose));
      const refused = await Promise.all(attempts);
      const opened = await enter(alive, [node]);
      return [
        ...refused,
        entered(opened, alive.name),
        await rollCall(this.#cast, [...present, ...opened], `${node.name} is here`),
      ];
    });
  }

  async #revokeTenant(people: readonly Person[]): Promise<void> {
    const did = "An administrator revokes tenant acme; bob logs in again at once.";
    const expected = "ada and bob are out on every node; cleo of apex and dan of none stay; bob gets in again.";
    await this.#telling.step("Revoke a tenant", did, expected, async () => {
      const covered = this.#cast.sessions.filter(({ person }) => people.includes(person));
      const sockets = covered.flatMap((session) => session.sockets).filter(({ socket }) => socket.connected);
      const facts = await this.#revoke({ kind: "tenant", tid: "acme" }, sockets, SESSION_OVER);
      return [...facts, await this.#comeBack("bob")];
    });
  }

  async #revokeEveryone(): Promise<void> {
    const did = "An administrator revokes everyone; dan logs in again at once.";
    const expected = "Every socket on every node closes; dan gets in again.";
    await this.#telling.step("Revoke everyone", did, expected, async () => {
      const facts = await this.#revoke({ kind: "everyone" }, this.#cast.present, SESSION_OVER);
      return [...facts, await this.#comeBack("dan")];
    });
  }

  async #comeBack(person: Person): Promise<Fact> {
    const session = await this.#cast.logIn(person, "new laptop");
    return entered(await enter(session, this.#stack.nodes), session.name);
  }

  async #countWhoCameBack(): Promise<void> {
    const did = "All sockets of the story are looked at once more.";
    const expected = "Who was thrown out never came back by itself; only dan's last session is in.";
    await this.#telling.step("Who is there", did, expected, async () => {
      const { everySocket, present } = this.#cast;
      const again = everySocket.filter(({ connects, socket }) => connects > 1 || (socket.active && !socket.connected));
      const dan = this.#cast.sessions.at(-1)?.sockets ?? [];
      return [
        { holds: again.length === 0, text: `${again.length} of ${everySocket.length} sockets came back or try to` },
        await rollCall(this.#cast, dan, "only dan"),
        { holds: present.length === dan.length, text: `${present.length} are there` },
      ];
    });
  }

  async #expire(session: Session): Promise<void> {
    const did = "ada opens a socket to each node, with an auth callback that refreshes when it has to, and waits.";
    const expected = "At exp the nodes close the transport; the clients come back by themselves with a fresh token.";
    await this.#telling.step("Expiry", did, expected, async () => {
      const first = session.tokens.access_token;
      const firstExpiry = expiryOf(first);
      const tokens = freshTokens(session, this.#edge);
      session.sockets.push(...this.#stack.nodes.map((node) => openSocket(node, tokens)));
      const sockets = session.sockets;
      await until("all are in", () => sockets.every(({ socket }) => socket.connected));
      let earliest = Number.POSITIVE_INFINITY;
      for (const { socket } of sockets) {
        socket.once("disconnect", () => {
          earliest = Math.min(earliest, Date.now());
        });
      }
      await until("all are back", () => sockets.every(({ connects, socket }) => connects > 1 && socket.connected), {
        withinMs: (SHORT_TTL_SECONDS + 20) * 1000,
        signal: this.#options.signal,
      });
      const told = sockets.map(({ unauthorized }) => `${unauthorized[0]?.code}, ${unauthorized[0]?.advice}`);
      const closings = sockets.map(({ disconnects }) => disconnects[0]);
      const late = earliest - firstExpiry * 1000;
      return [
        {
          holds: told.every((each) => each === "token_expired, refresh"),
          text: `told ${[...new Set(told)].join(" / ")}; closed by ${[...new Set(closings)].join(" / ")}`,
        },
        { holds: late >= 0, text: `the first ${(late / 1000).toFixed(2)} s after exp` },
        entered(sockets, "back by themselves"),
        await refusedEverywhere(first, this.#stack.nodes, "token_expired", "the first token"),
      ];
    });
  }

  /** Revokes, waits for the sockets and the receipt, and looks at everybody. */
  async #revoke(
    target: NamedTarget,
    sockets: readonly ObservedSocket[],
    told: { readonly code: RefusalCode; readonly advice: "login" | "refresh" },
  ): Promise<Fact[]> {
    const { covered, others } = this.#split(sockets);
    const calledAt = performance.now();
    const { id } = await this.#edge.revoke(target, "told in the story");
    const out = await thrownOut(covered, told, calledAt);
    const receipt = await this.#edge.enforcedReceipt(id);
    const stayed = others.length === 0 ? [] : [await rollCall(this.#cast, others, `after ${id}`)];
    return [out, ...receiptOf(receipt, this.#stack.nodes, covered), ...stayed];
  }

  #split(sockets: readonly ObservedSocket[]): { covered: ObservedSocket[]; others: ObservedSocket[] } {
    const { present } = this.#cast;
    return {
      covered: present.filter((socket) => sockets.includes(socket)),
      others: present.filter((socket) => !sockets.includes(socket)),
    };
  }
}

interface Spent {
  readonly refreshToken: string;
  readonly successor: Tokens;
  readonly at: number;
}

/** What a front end does: the token it has while it lives, else one refresh for all who ask at once. */
function freshTokens(session: Session, edge: EdgeClient): () => Promise<string> {
  let refreshing: Promise<string> | undefined;
  const refresh = async () => {
    session.tokens = await edge.refresh(session.tokens.refresh_token);
    return session.tokens.access_token;
  };
  return () => {
    if (expiryOf(session.tokens.access_token) * 1000 - Date.now() > 1000) {
      return Promise.resolve(session.tokens.access_token);
    }
    refreshing ??= refresh().finally(() => {
      refreshing = undefined;
    });
    return refreshing;
  };
}

function expiryOf(token: string): number {
  return decodeJwt(token).exp ?? Number.NaN;
}

/** The refusal that a call meets, or undefined if it is let through. */
async function refusal(call: () => Promise<unknown>): Promise<EdgeRefusal | undefined> {
  try {
    await call();
    return undefined;
  } catch (error) {
    if (error instanceof EdgeRefusal) return error;
    throw error;
  }
}

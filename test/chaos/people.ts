/**
 * People with stock clients: they log in, open sockets, renew or let their tokens run out, come back after every refusal as it
 * advises, and write down what they see. Beside them a thief, who has a copy of every token there ever was and tries them
 * everywhere.
 */
import { io, type Socket } from "socket.io-client";
import { type Advice, REFUSALS, type RefusalCode, type UnauthorizedErrorData } from "#contract/refusal";
import { type EdgeClient, EdgeRefusal, type Tokens } from "../../infra/edge-client.ts";
import type { Random } from "../support/random.ts";
import { now, readToken, type SeenToken, type Write } from "./history.ts";

export interface Place {
  readonly name: string;
  readonly url: string;
}

export interface Client {
  readonly name: string;
  readonly login: string;
  readonly password: string;
  /** Lets its tokens run out instead of renewing in place. */
  readonly lazy: boolean;
  readonly transports: readonly ("polling" | "websocket")[];
  /** One socket for each: the nodes that it may be on, the first of them first. */
  readonly places: readonly (readonly Place[])[];
}

/** A token that somebody once had. */
interface Copy {
  readonly raw: string;
  readonly token: SeenToken;
  /** Somebody who showed it was told that it is dead. */
  dead: boolean;
}

/** Every token that was ever given out, for the thief. */
export class Wallet {
  readonly #copies = new Map<string, Copy>();

  add(raw: string): SeenToken {
    const token = readToken(raw);
    this.#copies.set(token.jti, { raw, token, dead: false });
    return token;
  }

  markDead(jti: string): void {
    const copy = this.#copies.get(jti);
    if (copy !== undefined) copy.dead = true;
  }

  /** Those that have not run out, and those that ran out just now, the dead ones first and of those the youngest. */
  worthTrying(): Copy[] {
    const since = now() / 1_000 - 2;
    const copies = [...this.#copies.values()].filter(({ token }) => token.exp > since).reverse();
    return copies.sort((a, b) => Number(b.dead) - Number(a.dead));
  }
}

export interface Surroundings {
  readonly edge: EdgeClient;
  readonly edgeUrl: string;
  readonly write: Write;
  readonly wallet: Wallet;
}

const PROBE_MS = 300;
/** Every so many probes a word to all sockets of the person. */
const PROBES_PER_CALL = 5;
const PATIENCE_MS = 400;
const DIAL_TIMEOUT_MS = 3_000;
/** After this many failures in a row a client tries another node. */
const FAILURES_BEFORE_MOVING = 3;

/** One device of somebody: one session at a time, some sockets. */
export class Device {
  readonly client: Client;
  readonly #around: Surroundings;
  readonly #lines: readonly Line[];
  #tokens: Tokens | undefined;
  #current: SeenToken | undefined;
  #obtaining: Promise<void> | undefined;
  #stopped = false;

  constructor(client: Client, around: Surroundings) {
    this.client = client;
    this.#around = around;
    this.#lines = client.places.map((places) => new Line(this, places, around));
  }

  /** The token in use; undefined while it is signed out. */
  get current(): SeenToken | undefined {
    return this.#current;
  }

  /** Names of nodes that it should be on and is not. */
  get missing(): string[] {
    return this.#lines.filter(({ isUp }) => !isUp).map(({ place }) => place.name);
  }

  /** Logs in and opens its sockets; resolves when it has logged in. */
  async start(): Promise<void> {
    await this.#obtain(false);
    for (const line of this.#lines) line.open();
  }

  stop(): void {
    this.#stopped = true;
    for (const line of this.#lines) line.close();
  }

  /**
   * A token that has not run out, if one can be had now; else the last.
   *
   * @param fresh another one than the present
   */
  async token(fresh = false): Promise<string> {
    const left = (this.#current?.exp ?? 0) - now() / 1_000;
    if (fresh || left < 1) await this.#obtain(fresh);
    return this.#tokens?.access_token ?? "";
  }

  /**
   * The session is over, somebody said: signs in again. Its other sockets do not close for that: the node that holds one has
   * to do that.
   */
  async signInAgain(sid: string | undefined): Promise<void> {
    if (sid !== undefined && sid !== this.#current?.sid) return;
    this.#forget();
    await this.#obtain(false);
  }

  /** Ends its session by itself. */
  async logOut(): Promise<void> {
    const { write, edgeUrl } = this.#around;
    const { sid } = this.#current ?? {};
    if (sid === undefined || this.#tokens === undefined) return;
    const revocation = `logout of ${sid}`;
    const body = JSON.stringify({ refresh_token: this.#tokens.refresh_token });
    write({ kind: "asked", revocation, scope: { kind: "session", sid }, about: `the logout of ${this.client.name}` });
    try {
      const headers = { "content-type": "application/json" };
      const { status } = await fetch(`${edgeUrl}/logout`, { method: "POST", headers, body });
      if (status === 204) write({ kind: "decided", revocation, id: revocation });
      else write({ kind: "declined", revocation, code: String(status) });
    } catch {
      // Whether it was heard nobody knows.
      write({ kind: "abandoned", revocation });
    }
    await this.signInAgain(sid);
  }

  #forget(): void {
    this.#tokens = undefined;
    this.#current = undefined;
  }

  /** One at a time: what several sockets want at once they get once. */
  #obtain(fresh: boolean): Promise<void> {
    this.#obtaining ??= this.#obtainNow(fresh).finally(() => {
      this.#obtaining = undefined;
    });
    return this.#obtaining;
  }

  async #obtainNow(fresh: boolean): Promise<void> {
    for (let attempt = 0; !this.#stopped; attempt++) {
      try {
        if (this.#tokens === undefined) await this.#logIn();
        else await this.#refresh(this.#tokens.refresh_token);
        return;
      } catch {
        // The edge is away, or would not go on with the session: in time it is back, or there is a new one.
        if (attempt > 0 && fresh) return;
        await pause(PATIENCE_MS);
      }
    }
  }

  async #logIn(): Promise<void> {
    const { edge, write } = this.#around;
    const { name, login, password } = this.client;
    const askedAt = now();
    const tokens = await edge.login(login, password, name);
    const { sid, sub, tid } = readToken(tokens.access_token);
    write({ kind: "session", client: name, sid, sub, askedAt, ...(tid === undefined ? {} : { tid }) });
    this.#keep(tokens, askedAt);
  }

  async #refresh(refreshToken: string): Promise<void> {
    const askedAt = now();
    // Meanwhile it may be given up by who was told elsewhere that it is over.
    const { sid = "" } = this.#current ?? {};
    try {
      this.#keep(await this.#around.edge.refresh(refreshToken), askedAt);
    } catch (error) {
      if (!(error instanceof EdgeRefusal) || error.advice !== "login") throw error;
      this.#around.write({ kind: "ended", client: this.client.name, sid, code: error.code });
      this.#forget();
      await this.#logIn();
    }
  }

  #keep(tokens: Tokens, askedAt: number): void {
    this.#tokens = tokens;
    this.#current = this.#around.wallet.add(tokens.access_token);
    const { sid, jti, kid, exp } = this.#current;
    this.#around.write({ kind: "token", client: this.client.name, sid, jti, kid, exp, askedAt });
  }
}

/** One socket of a device, wherever it is at the moment. */
class Line {
  readonly #device: Device;
  readonly #places: readonly Place[];
  readonly #around: Surroundings;
  #at = 0;
  #failures = 0;
  #socket: Socket | undefined;
  #probing: NodeJS.Timeout | undefined;
  #probes = 0;
  /** The token that was shown in the last handshake, and when. */
  #shown: { readonly token: SeenToken; readonly askedAt: number } | undefined;
  /** What it was told last. */
  #code: RefusalCode | undefined;

  constructor(device: Device, places: readonly Place[], around: Surroundings) {
    this.#device = device;
    this.#places = places;
    this.#around = around;
  }

  get isUp(): boolean {
    return this.#socket?.connected === true;
  }

  get place(): Place {
    const place = this.#places[this.#at % this.#places.length];
    if (place === undefined) throw new Error("a line that leads nowhere");
    return place;
  }

  open(): void {
    const { transports, name } = this.#device.client;
    const { write } = this.#around;
    const socket = io(this.place.url, {
      forceNew: true,
      transports: [...transports],
      reconnectionDelay: 100,
      reconnectionDelayMax: 500,
      timeout: DIAL_TIMEOUT_MS,
      auth: (give) => void this.#show(give),
    });
    this.#socket = socket;
    this.#code = undefined;
    socket.on("connect", () => this.#entered(socket));
    socket.on("connect_error", (error: Error & { data?: UnauthorizedErrorData }) => this.#notEntered(error.data?.code));
    socket.on("unauthorized", ({ data }: { data: UnauthorizedErrorData }) => this.#told(data.code, socket.id));
    socket.on("expiring", () => {
      if (!this.#device.client.lazy) void this.#renew(socket);
    });
    socket.on("word", (sentAt: number) => {
      if (socket.id !== undefined) write({ kind: "heard", client: name, socket: socket.id, sentAt });
    });
    // Socket.IO takes the name away from a socket that is gone.
    let id = "";
    socket.on("connect", () => {
      id = socket.id ?? "";
    });
    socket.on("disconnect", (reason) => {
      write({ kind: "lost", client: name, socket: id, reason });
      if (reason === "io server disconnect") void this.#heed(this.#code);
    });
    this.#probing = setInterval(() => this.#probe(socket), PROBE_MS);
  }

  /** Goes on with what the device has now. */
  reopen(): void {
    this.close();
    this.open();
  }

  close(): void {
    clearInterval(this.#probing);
    this.#socket?.disconnect();
  }

  async #show(give: (auth: object) => void): Promise<void> {
    const raw = await this.#device.token();
    // A device that is signed out shows nothing; it opens again when it is signed in.
    if (raw === "") return;
    this.#shown = { token: readToken(raw), askedAt: now() };
    give({ token: raw });
  }

  #entered(socket: Socket): void {
    this.#failures = 0;
    const { token, askedAt } = this.#shown ?? {};
    if (socket.id === undefined || token === undefined || askedAt === undefined) return;
    const { name } = this.#device.client;
    this.#around.write({ kind: "opened", client: name, socket: socket.id, jti: token.jti, askedAt });
  }

  #notEntered(code: RefusalCode | undefined): void {
    this.#failures += 1;
    if (code !== undefined) {
      this.#told(code, undefined);
      void this.#heed(code);
    } else if (this.#failures >= FAILURES_BEFORE_MOVING) {
      this.#move();
      this.reopen();
    }
  }

  #move(): void {
    this.#failures = 0;
    this.#at += 1;
  }

  #told(code: RefusalCode, socket: string | undefined): void {
    this.#code = code;
    const jti = this.#shown?.token.jti ?? "";
    if (REFUSALS[code].advice === "login" || code === "token_revoked") this.#around.wallet.markDead(jti);
    const { name } = this.#device.client;
    const where = socket === undefined ? {} : { socket };
    this.#around.write({ kind: "told", client: name, node: this.place.name, jti, code, ...where });
  }

  /** Does what the refusal advises, and comes back. */
  async #heed(code: RefusalCode | undefined): Promise<void> {
    const socket = this.#socket;
    const advice: Advice = code === undefined ? "retry" : REFUSALS[code].advice;
    if (this.#failures >= FAILURES_BEFORE_MOVING) {
      this.#move();
      await pause(PATIENCE_MS);
      if (this.#socket === socket) this.reopen();
      return;
    }
    const { sid, jti } = this.#shown?.token ?? {};
    if (advice === "login" && sid === this.#device.current?.sid) await this.#device.signInAgain(sid);
    else if (advice === "refresh" && jti === this.#device.current?.jti) await this.#device.token(true);
    else await pause(PATIENCE_MS);
    if (this.#socket === socket) socket?.connect();
  }

  async #renew(socket: Socket): Promise<void> {
    const { id: held } = socket;
    const raw = await this.#device.token(true);
    if (raw === "" || held === undefined || socket.id !== held) return;
    const { jti, sid } = readToken(raw);
    // The device has signed in again since: the socket stays with its session, for as long as that lasts.
    if (sid !== this.#shown?.token.sid) return;
    const { name } = this.#device.client;
    const askedAt = now();
    this.#around.write({ kind: "renewing", client: name, socket: held, jti });
    socket.emit("authenticate", { token: raw }, (answer: { readonly expires_at?: number }) => {
      if (answer.expires_at === undefined) return;
      this.#around.write({ kind: "renewed", client: name, socket: held, jti, askedAt });
    });
  }

  #probe(socket: Socket): void {
    const { id } = socket;
    // A stock client keeps what it cannot send, and would send it all when it is back.
    if (!socket.connected || id === undefined) return;
    const { name } = this.#device.client;
    this.#probes += 1;
    socket.emit("probe", (handledAt: number | object) => {
      if (typeof handledAt === "number")
        this.#around.write({ kind: "heard", client: name, socket: id, sentAt: handledAt });
    });
    if (this.#probes % PROBES_PER_CALL === 0) socket.emit("call");
  }
}

const THIEF_STAYS_MS = 1_200;
const LAST_TRIAL_MS = 100;
const TRIALS_AT_ONCE = 12;

/** Shows a copied token at a node, once. Resolves when it is refused, or has had its time. */
export async function tryCopy(
  raw: string,
  place: Place,
  around: Surroundings,
  { name = "the thief", staysMs = THIEF_STAYS_MS } = {},
): Promise<void> {
  const { jti } = readToken(raw);
  const askedAt = now();
  const socket = io(place.url, {
    forceNew: true,
    reconnection: false,
    transports: ["websocket"],
    timeout: DIAL_TIMEOUT_MS,
    auth: { token: raw },
  });
  const refused = new Promise<void>((resolve) => {
    let id = "";
    socket.on("connect", () => {
      id = socket.id ?? "";
      around.write({ kind: "opened", client: name, socket: id, jti, askedAt });
      socket.emit("probe", (sentAt: number | object) => {
        if (typeof sentAt === "number") around.write({ kind: "heard", client: name, socket: id, sentAt });
      });
      setTimeout(resolve, staysMs);
    });
    socket.on("connect_error", (error: Error & { data?: UnauthorizedErrorData }) => {
      const { code } = error.data ?? {};
      if (code !== undefined) around.write({ kind: "told", client: name, node: place.name, jti, code });
      resolve();
    });
    socket.on("unauthorized", ({ data: { code } }: { data: UnauthorizedErrorData }) => {
      around.write({ kind: "told", client: name, socket: id, node: place.name, jti, code });
    });
    socket.on("disconnect", (reason) => {
      around.write({ kind: "lost", client: name, socket: id, reason });
      resolve();
    });
  });
  await refused;
  socket.disconnect();
}

/** Tries copies at random until it is stopped: mostly those that are said to be dead. */
export function startThief(
  random: Random,
  places: readonly Place[],
  around: Surroundings,
  everyMs: number,
): () => void {
  const timer = setInterval(() => {
    const copies = around.wallet.worthTrying();
    if (copies.length === 0) return;
    const youngest = copies.slice(0, 1 + random.below(copies.length));
    void tryCopy(random.pick(youngest).raw, random.pick(places), around);
  }, everyMs);
  return () => clearInterval(timer);
}

/** Shows every copy that has not run out at every node, a few at a time. */
export async function tryEverything(places: readonly Place[], around: Surroundings, atMost: number): Promise<void> {
  const copies = around.wallet.worthTrying().slice(0, atMost);
  const trials = copies.flatMap(({ raw }) => places.map((place) => ({ raw, place })));
  const worker = async () => {
    for (let trial = trials.pop(); trial !== undefined; trial = trials.pop()) {
      await tryCopy(trial.raw, trial.place, around, { name: "the last trial", staysMs: LAST_TRIAL_MS });
    }
  };
  await Promise.all(Array.from({ length: TRIALS_AT_ONCE }, worker));
}

function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

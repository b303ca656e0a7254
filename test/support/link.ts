/**
 * A stretch of network that can be broken: a TCP proxy in front of a port. Every way in which a link fails that the two
 * ends can tell apart is a method of it, and each direction can fail by itself.
 */
import {
  type AddressInfo,
  connect as connectTcp,
  createServer as createTcpServer,
  type Server,
  type Socket as TcpSocket,
} from "node:net";

/** `there` is towards the port, `back` is what the port answers. */
export type Direction = "there" | "back" | "both";

/** A link that can be cut: every byte to and from `port` goes through it. */
export interface Link {
  readonly port: number;
  /** Breaks what is open and refuses what is new. */
  cut(): void;
  /** Half-open: keeps connections open and forwards nothing, not even that one end has gone. */
  stall(direction?: Direction): void;
  /** Everything arrives this much later, in its order. */
  delay(ms: number, direction?: Direction): void;
  /** As new. A connection that was stalled breaks, as one does whose packets were lost for too long. */
  heal(): void;
  /** As new. What was stalled arrives after all, late, as when a network catches up with its retransmissions. */
  release(): void;
  close(): Promise<void>;
}

const LOOPBACK = "127.0.0.1";

export async function linkTo(port: number): Promise<Link> {
  const pairs = new Set<Pair>();
  const state: LinkState = { cut: false, stalled: { there: false, back: false }, delayMs: { there: 0, back: 0 } };
  const server = createTcpServer((inward) => {
    if (state.cut) {
      inward.destroy();
      return;
    }
    const pair = new Pair(inward, connectTcp(port, LOOPBACK), state);
    pairs.add(pair);
    pair.onClose = () => pairs.delete(pair);
  });
  await listen(server);

  function healed(treat: (pair: Pair) => void): void {
    state.cut = false;
    state.stalled = { there: false, back: false };
    state.delayMs = { there: 0, back: 0 };
    for (const pair of pairs) treat(pair);
  }

  return {
    port: (server.address() as AddressInfo).port,
    cut() {
      state.cut = true;
      for (const pair of pairs) pair.destroy();
    },
    stall(direction = "both") {
      state.stalled = { there: direction !== "back", back: direction !== "there" };
      for (const pair of pairs) pair.stalled();
    },
    delay(ms, direction = "both") {
      state.delayMs = { there: direction === "back" ? 0 : ms, back: direction === "there" ? 0 : ms };
    },
    heal: () =>
      healed((pair) => {
        if (pair.wasStalled) pair.destroy();
      }),
    release: () => healed((pair) => pair.flow()),
    async close() {
      for (const pair of pairs) pair.destroy();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

interface LinkState {
  cut: boolean;
  stalled: Record<"there" | "back", boolean>;
  delayMs: Record<"there" | "back", number>;
}

/** One connection through the link: two pipes. */
class Pair {
  readonly #ends: readonly [TcpSocket, TcpSocket];
  readonly #pipes: readonly Pipe[];
  readonly #state: LinkState;
  wasStalled = false;
  onClose: () => void = () => {};

  constructor(inward: TcpSocket, outward: TcpSocket, state: LinkState) {
    this.#ends = [inward, outward];
    this.#state = state;
    this.stalled();
    this.#pipes = [new Pipe(inward, outward, state, "there"), new Pipe(outward, inward, state, "back")];
    for (const end of this.#ends) {
      end.setNoDelay(true);
      end.once("close", () => {
        if (this.#ends.every(({ closed }) => closed)) this.onClose();
      });
    }
  }

  stalled(): void {
    this.wasStalled ||= this.#state.stalled.there || this.#state.stalled.back;
  }

  flow(): void {
    this.wasStalled = false;
    for (const pipe of this.#pipes) pipe.flow();
  }

  destroy(): void {
    for (const end of this.#ends) end.destroy();
  }
}

interface Parcel {
  /** Absent: the sender has gone. */
  readonly bytes?: Buffer;
  /** `performance.now()` from which on it may arrive. */
  readonly dueAt: number;
}

/** One direction of one connection: what was sent and has not arrived, in order. */
class Pipe {
  readonly #to: TcpSocket;
  readonly #state: LinkState;
  readonly #direction: "there" | "back";
  readonly #underway: Parcel[] = [];
  #timer: NodeJS.Timeout | undefined;

  constructor(from: TcpSocket, to: TcpSocket, state: LinkState, direction: "there" | "back") {
    this.#to = to;
    this.#state = state;
    this.#direction = direction;
    from.on("data", (bytes: Buffer) => this.#send({ bytes, dueAt: this.#dueAt() }));
    from.on("error", () => {}); // the other end is told by "close"
    from.once("close", () => this.#send({ dueAt: this.#dueAt() }));
  }

  flow(): void {
    if (this.#state.stalled[this.#direction]) return;
    for (let [parcel] = this.#underway; parcel !== undefined; [parcel] = this.#underway) {
      const waitMs = parcel.dueAt - performance.now();
      if (waitMs > 0) {
        if (this.#timer === undefined) this.#timer = setTimeout(() => this.#wake(), Math.ceil(waitMs));
        return;
      }
      this.#underway.shift();
      if (parcel.bytes === undefined) this.#to.destroySoon();
      else this.#to.write(parcel.bytes);
    }
  }

  #wake(): void {
    this.#timer = undefined;
    this.flow();
  }

  #send(parcel: Parcel): void {
    this.#underway.push(parcel);
    this.flow();
  }

  #dueAt(): number {
    const delayMs = this.#state.delayMs[this.#direction];
    return delayMs === 0 ? 0 : performance.now() + delayMs;
  }
}

function listen(server: Server): Promise<void> {
  return new Promise((resolve) => server.listen(0, LOOPBACK, resolve));
}

/**
 * A Socket.IO client that does nothing but connect, answer pings and stay: a stock one costs the machine as much as the server that is measured,
 * and twenty thousand of them do not fit beside it. Speaks Engine.IO 4 over its own WebSocket frames, or over polling.
 */
import { randomBytes } from "node:crypto";
import { type Agent, request } from "node:http";
import { connect, type Socket } from "node:net";

export interface Offer {
  /** As `auth` of a stock client. */
  readonly auth?: object | undefined;
  /** More of the query, with a leading `&`. */
  readonly query?: string | undefined;
  /** Where it says that it comes from, as the proxy in front of a node does: one address may open only so many. */
  readonly address?: string | undefined;
  /** It was told to go, or lost its connection, at this time of the machine's monotonic clock. */
  onGone?(at: bigint): void;
}

export interface RawClient {
  /** Resolves when the server, or we, have ended it. */
  readonly closed: Promise<void>;
  /** Shows a fresh token of its session, and resolves when that is taken, or when it is closed. */
  renew(token: string): Promise<void>;
  /** Asks to be put into a room, by an event `join` that is acknowledged. */
  join(room: string): Promise<void>;
  close(): void;
}

const PATH = "/socket.io/?EIO=4&transport=";
const CONNECT_WITHIN_MS = 60_000;
const TEXT = 1;
const CLOSE = 8;
const RENEWED = '42["authenticated"';
const JOINED = "430";
/** An empty mask: the content is ours, and no proxy is on the loopback. */
const MASK = Buffer.alloc(4);

/** Resolves when the main namespace has let it in. @param settle says something more @throws {Error} with what the server said, when it has not */
export function openWebSocket(port: number, offer: Offer, settle = false): Promise<RawClient> {
  const { auth, query = "", address } = offer;
  const line = connect({ port, host: "127.0.0.1", noDelay: true });
  const closed = new Promise<void>((resolve) => line.once("close", () => resolve()));
  const say = (text: string) => line.write(frameOf(TEXT, Buffer.from(text)));
  /** What an answer of the server is awaited for. */
  const awaited = new Map<string, () => void>();
  const heard = (beginning: string) =>
    Promise.race([closed, new Promise<void>((resolve) => awaited.set(beginning, resolve))]);
  let isGone = false;
  const gone = () => {
    if (!isGone) offer.onGone?.(process.hrtime.bigint());
    isGone = true;
  };
  line.setTimeout(CONNECT_WITHIN_MS, () => line.destroy());
  line.write(upgradeRequest(`${PATH}websocket${query}`, address));
  const client: RawClient = {
    closed,
    renew(token) {
      say(`42${JSON.stringify(["authenticate", { token }])}`);
      return heard(RENEWED);
    },
    join(room) {
      say(`420${JSON.stringify(["join", room])}`);
      return heard(JOINED);
    },
    close: () => void line.destroy(),
  };
  return new Promise((resolve, reject) => {
    line.on("error", () => undefined); // "close" follows
    void closed.then(gone).then(() => reject(new Error("the connection was closed")));
    const hear = (message: string) => {
      if (message === "2") say("3");
      else if (message.startsWith("0")) say(`40${auth === undefined ? "" : JSON.stringify(auth)}`);
      else if (message.startsWith("40")) {
        line.setTimeout(0);
        // As after its first ping. Until then the server's `ws` holds the bytes that the token came in.
        if (settle) say("3");
        resolve(client);
      } else if (message.startsWith("41")) gone();
      else if (message.startsWith("44")) {
        line.destroy();
        reject(new Error(message.slice(2)));
      } else for (const [beginning, settled] of awaited) if (message.startsWith(beginning)) settled();
    };
    readFrames(line, hear, (payload) => {
      gone();
      line.end(frameOf(CLOSE, payload));
    });
  });
}

/** The same over polling: three requests, and nobody asks for more afterwards. @throws {Error} as {@link openWebSocket} */
export async function openPolling(port: number, agent: Agent, { auth, query = "" }: Offer): Promise<void> {
  const path = `${PATH}polling${query}`;
  const { sid } = JSON.parse((await ask(port, agent, path)).slice(1));
  const own = `${path}&sid=${sid}`;
  await ask(port, agent, own, `40${auth === undefined ? "" : JSON.stringify(auth)}`);
  const answer = await ask(port, agent, own);
  if (!answer.startsWith("40")) throw new Error(answer);
}

function ask(port: number, agent: Agent, path: string, body?: string): Promise<string> {
  const method = body === undefined ? "GET" : "POST";
  const headers = body === undefined ? {} : { "content-type": "text/plain", "content-length": Buffer.byteLength(body) };
  return new Promise((resolve, reject) => {
    const asking = request({ port, host: "127.0.0.1", path, agent, method, headers }, (response) => {
      let text = "";
      response.setEncoding("utf8").on("data", (part) => {
        text += part;
      });
      response.on("end", () => (response.statusCode === 200 ? resolve(text) : reject(new Error(text))));
    });
    asking.on("error", reject).end(body);
  });
}

function upgradeRequest(path: string, address: string | undefined): string {
  const key = randomBytes(16).toString("base64");
  const upgrade = `Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: ${key}`;
  const from = address === undefined ? "" : `\r\nX-Forwarded-For: ${address}`;
  return `GET ${path} HTTP/1.1\r\nHost: 127.0.0.1\r\n${upgrade}${from}\r\n\r\n`;
}

/** RFC 6455 section 5.2: one masked frame. */
function frameOf(opcode: number, payload: Buffer): Buffer {
  const length =
    payload.length < 126 ? [0x80 | payload.length] : [0x80 | 126, payload.length >> 8, payload.length & 255];
  return Buffer.concat([Buffer.from([0x80 | opcode, ...length]), MASK, payload]);
}

/** What a server says, which is never split over frames. */
function readFrames(line: Socket, onText: (text: string) => void, onClose: (payload: Buffer) => void): void {
  let rest: Buffer = Buffer.alloc(0);
  let upgraded = false;
  line.on("data", (chunk) => {
    rest = rest.length === 0 ? chunk : Buffer.concat([rest, chunk]);
    if (!upgraded) {
      const end = rest.indexOf("\r\n\r\n");
      if (end < 0) return;
      upgraded = true;
      // Whoever is answered with anything else than 101 is not let in, and is told so by the connection's end.
      if (!rest.toString("latin1", 0, end).startsWith("HTTP/1.1 101")) line.destroy();
      rest = rest.subarray(end + 4);
    }
    for (let frame = frameIn(rest); frame !== undefined; frame = frameIn(rest)) {
      rest = rest.subarray(frame.end);
      if (frame.opcode === CLOSE) onClose(frame.payload);
      else if (frame.opcode === TEXT) onText(frame.payload.toString());
    }
    // What is left must not hold the chunk that it came in.
    if (rest.length === 0) rest = Buffer.alloc(0);
  });
}

function frameIn(
  bytes: Buffer,
): { readonly opcode: number; readonly payload: Buffer; readonly end: number } | undefined {
  if (bytes.length < 2) return undefined;
  const [first = 0, short = 0] = bytes;
  const head = short === 126 ? 4 : 2;
  if (bytes.length < head) return undefined;
  const end = head + (short === 126 ? bytes.readUInt16BE(2) : short);
  if (bytes.length < end) return undefined;
  return { opcode: first & 15, payload: bytes.subarray(head, end), end };
}

/**
 * The least that a Socket.IO client can be over WebSocket: it connects, answers pings, and notes when it is told to go. Thousands of them fit in
 * one process that must not be what is measured. Left out: reconnection, acknowledgements, attachments, compression.
 */
import { connect, type Socket } from "node:net";

export interface RawSocketOptions {
  readonly port: number;
  /** What `auth` is. */
  readonly auth: object;
  /** Rooms to join by the event `join`, which is acknowledged. */
  readonly room?: string | undefined;
  /** It was told to go, or lost its connection, at this time of the machine's monotonic clock. */
  onGone(at: bigint): void;
}

const LOOPBACK = "127.0.0.1";
/** Where it says that it comes from, as the proxy does in front of a node, which allows one address only so many. */
const upgradeFrom = (address: string) =>
  [
    "GET /socket.io/?EIO=4&transport=websocket HTTP/1.1",
    "Host: node",
    "Connection: Upgrade",
    "Upgrade: websocket",
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    `X-Forwarded-For: ${address}`,
    "\r\n",
  ].join("\r\n");
const TEXT = 1;
const CLOSE = 8;
const FINAL = 0x80;
const MASKED = 0x80;
const LENGTH_16 = 126;
const LENGTH_64 = 127;

/** Packets of Engine.IO and Socket.IO, as they begin. */
const OPENED = "0";
const PING = "2";
const PONG = "3";
const CONNECTED = "40";
const DISCONNECTED = "41";
const REFUSED = "44";
const JOINED = "430";

/** Resolves when it is in, and in its room. @throws {Error} when it is refused, or the connection ends before */
export function openRawSocket(options: RawSocketOptions): Promise<Socket> {
  return new Promise((resolve, reject) => {
    let unread: Buffer = Buffer.alloc(0);
    let isUpgraded = false;
    let isGone = false;
    const socket = connect({ port: options.port, host: LOOPBACK, noDelay: true }, () =>
      socket.write(upgradeFrom(anotherAddress())),
    );
    const say = (text: string) => socket.write(frame(TEXT, Buffer.from(text)));
    const gone = () => {
      if (!isGone) options.onGone(process.hrtime.bigint());
      isGone = true;
      reject(new Error("the connection ended"));
    };
    const hear = (text: string) => {
      if (text === PING) say(PONG);
      else if (text.startsWith(OPENED)) say(`${CONNECTED}${JSON.stringify(options.auth)}`);
      else if (text.startsWith(CONNECTED) && options.room !== undefined)
        say(`420${JSON.stringify(["join", options.room])}`);
      else if (text.startsWith(CONNECTED) || text.startsWith(JOINED)) resolve(socket);
      else if (text.startsWith(REFUSED)) reject(new Error(text));
      else if (text.startsWith(DISCONNECTED)) gone();
    };
    socket.on("data", (bytes: Buffer) => {
      unread = unread.length === 0 ? bytes : Buffer.concat([unread, bytes]);
      if (!isUpgraded) {
        const end = unread.indexOf("\r\n\r\n");
        if (end < 0) return;
        if (!unread.toString("latin1", 0, end).startsWith("HTTP/1.1 101")) {
          reject(new Error(unread.toString("latin1", 0, end)));
          socket.destroy();
          return;
        }
        isUpgraded = true;
        unread = unread.subarray(end + 4);
      }
      for (let read = readFrame(unread); read !== undefined; read = readFrame(unread)) {
        unread = unread.subarray(read.length);
        if (read.opcode === TEXT) hear(read.payload.toString());
        else if (read.opcode === CLOSE) {
          gone();
          socket.end(frame(CLOSE, read.payload));
        }
      }
    });
    socket.on("error", () => {}); // "close" follows
    socket.on("close", gone);
  });
}

let addresses = 0;

function anotherAddress(): string {
  addresses += 1;
  return `10.${(addresses >> 16) & 255}.${(addresses >> 8) & 255}.${addresses & 255}`;
}

/** Masked as a client has to, with a mask that changes nothing. */
function frame(opcode: number, payload: Buffer): Buffer {
  const isShort = payload.length < LENGTH_16;
  const head = Buffer.alloc(isShort ? 6 : 8);
  head[0] = FINAL | opcode;
  head[1] = MASKED | (isShort ? payload.length : LENGTH_16);
  if (!isShort) head.writeUInt16BE(payload.length, 2);
  return Buffer.concat([head, payload]);
}

function readFrame(
  bytes: Buffer,
): { readonly opcode: number; readonly payload: Buffer; readonly length: number } | undefined {
  if (bytes.length < 2) return undefined;
  const said = (bytes[1] ?? 0) & ~MASKED;
  if (said === LENGTH_64) throw new Error("a server of this bench says nothing that is so long");
  const from = said === LENGTH_16 ? 4 : 2;
  if (bytes.length < from) return undefined;
  const length = from + (said === LENGTH_16 ? bytes.readUInt16BE(2) : said);
  if (bytes.length < length) return undefined;
  return { opcode: (bytes[0] ?? 0) & 0x0f, payload: bytes.subarray(from, length), length };
}

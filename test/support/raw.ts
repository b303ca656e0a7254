/** What no well-behaved client sends: bytes as they are, and WebSocket messages below Socket.IO. */
import { connect } from "node:net";

/**
 * Sends bytes on a connection of its own and resolves with what came back, once the server has closed it, or once it has
 * answered `enough` characters.
 */
export function sendBytes(url: string, bytes: string | Uint8Array, enough = 1): Promise<string> {
  const { hostname, port } = new URL(url);
  return new Promise((resolve) => {
    let answer = "";
    const socket = connect({ host: hostname, port: Number(port) }, () => socket.write(bytes));
    socket.setEncoding("latin1");
    // A server that says nothing to half a request is right: what counts is that it lives.
    socket.setTimeout(500, () => socket.destroy());
    socket.on("data", (text) => {
      answer += text;
      if (answer.length >= enough) socket.destroy();
    });
    socket.on("error", () => {}); // "close" follows, and that is what we wait for
    socket.on("close", () => resolve(answer));
  });
}

/** The bytes that open a WebSocket, and these after them. */
export function upgradeWith(
  path: string,
  after: Uint8Array = new Uint8Array(),
  key = "dGhlIHNhbXBsZSBub25jZQ==",
): Buffer {
  const request = [
    `GET ${path} HTTP/1.1`,
    "Host: node",
    "Connection: Upgrade",
    "Upgrade: websocket",
    "Sec-WebSocket-Version: 13",
    `Sec-WebSocket-Key: ${key}`,
  ];
  return Buffer.concat([Buffer.from(`${request.join("\r\n")}\r\n\r\n`), after]);
}

/** Sends messages over a true WebSocket to Socket.IO's own endpoint, and resolves when the connection is closed. */
export function sendMessages(
  url: string,
  messages: readonly (string | Uint8Array<ArrayBuffer>)[],
): Promise<readonly string[]> {
  const socket = new WebSocket(`${url.replace("http", "ws")}/socket.io/?EIO=4&transport=websocket`);
  const answers: string[] = [];
  return new Promise((resolve) => {
    socket.addEventListener("open", () => {
      for (const message of messages) socket.send(message);
      // The closing handshake comes after them, so that when it is done they have been read.
      socket.close();
    });
    socket.addEventListener("message", ({ data }) => answers.push(String(data)));
    socket.addEventListener("close", () => resolve(answers));
  });
}

/** A link breaks in the ways that it says, and no other. */
import { once } from "node:events";
import { type AddressInfo, connect, createServer, type Server, type Socket } from "node:net";
import { afterEach, beforeEach, expect, test } from "vitest";
import { until } from "../../infra/until.ts";
import { type Link, linkTo } from "../support/link.ts";

/** It answers every word with the word in capitals. */
let server: Server;
let link: Link;
let clients: Socket[];
let arrived: string;

beforeEach(async () => {
  clients = [];
  arrived = "";
  server = createServer((socket) => {
    socket.on("error", () => {});
    socket.on("data", (bytes) => {
      arrived += bytes;
      socket.write(String(bytes).toUpperCase());
    });
  }).listen(0, "127.0.0.1");
  await once(server, "listening");
  link = await linkTo((server.address() as AddressInfo).port);
});

afterEach(async () => {
  for (const client of clients) client.destroy();
  await link.close();
  server.close();
});

async function dial(): Promise<{ readonly socket: Socket; readonly heard: () => string }> {
  const socket = connect(link.port, "127.0.0.1");
  socket.on("error", () => {});
  clients.push(socket);
  let heard = "";
  socket.on("data", (bytes) => (heard += bytes));
  await once(socket, "connect");
  return { socket, heard: () => heard };
}

async function exchange(word: string): Promise<void> {
  const { socket, heard } = await dial();
  socket.write(word);
  await until("it is answered", () => heard() === word.toUpperCase());
}

test("whole, it carries both ways", () => exchange("hello"));

test("cut, it breaks what is open and refuses what is new, until it is healed", async () => {
  const { socket } = await dial();
  link.cut();
  await until("the open one is broken", () => socket.closed);
  const late = await dial();
  await until("the new one is broken", () => late.socket.closed);
  link.heal();
  await exchange("again");
});

test("stalled one way, it carries the other way", async () => {
  const { socket, heard } = await dial();
  link.stall("back");
  socket.write("hello");
  await until("it has arrived", () => arrived === "hello");
  expect(heard()).toBe("");
  expect(socket.closed).toBe(false);
});

test("stalled, it does not tell that one end has gone", async () => {
  const { socket } = await dial();
  link.stall();
  const other = await dial();
  other.socket.destroy();
  server.close();
  expect(socket.closed).toBe(false);
});

test("healed, it breaks what was stalled; released, it delivers that late", async () => {
  const first = await dial();
  link.stall();
  first.socket.write("lost");
  link.heal();
  await until("the stalled one is broken", () => first.socket.closed);
  expect(arrived).toBe("");
  const second = await dial();
  link.stall("there");
  second.socket.write("late");
  link.release();
  await until("it is answered", () => second.heard() === "LATE");
});

test("delayed, it keeps the order and the time, in the direction that is meant", async () => {
  const { socket, heard } = await dial();
  link.delay(60, "there");
  const sentAt = performance.now();
  for (const word of ["one ", "two ", "three"]) socket.write(word);
  await until("everything is answered", () => heard() === "ONE TWO THREE");
  expect(performance.now() - sentAt).toBeGreaterThanOrEqual(60);
  expect(performance.now() - sentAt).toBeLessThan(120 + 60);
});

/** A receipt that is followed: Server-Sent Events at every change, and an end. */
import { abortAllDurableObjects } from "cloudflare:test";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { RevocationLog } from "../../edge/revocations/revocation-log.ts";
import { asClient } from "./clients.ts";
import { behave, GOOD, until } from "./cluster.ts";
import { ADMIN, call, type Headers, type ReceiptBody, receipt, refusal, revoke } from "./edge.ts";

beforeEach(async () => {
  await behave("south", { receipts: "pending" });
});
afterEach(async () => {
  vi.useRealTimers();
  await behave("south", GOOD);
  await abortAllDurableObjects();
});

/** What a reader sees: blocks of lines, one after the other. */
class Reader {
  readonly response: Response;
  readonly #reader: ReadableStreamDefaultReader<string>;
  #text = "";

  constructor(response: Response) {
    this.response = response;
    if (response.body === null) throw new Error("an answer without a body");
    this.#reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  }

  /** The next block, or undefined at the end. */
  async next(): Promise<string | undefined> {
    for (;;) {
      const end = this.#text.indexOf("\n\n");
      if (end >= 0) {
        const block = this.#text.slice(0, end);
        this.#text = this.#text.slice(end + 2);
        return block;
      }
      const { done, value } = await this.#reader.read();
      if (done) return undefined;
      this.#text += value;
    }
  }

  async receipt(): Promise<ReceiptBody> {
    const [event, data = ""] = ((await this.next()) ?? "").split("\n");
    expect(event).toBe("event: receipt");
    expect(data.startsWith("data: ")).toBe(true);
    return JSON.parse(data.slice("data: ".length));
  }

  async leave(): Promise<void> {
    await this.#reader.cancel();
  }
}

function askFor(id: string, headers: Headers = ADMIN): Promise<Response> {
  return call("GET", `/admin/revocations/${id}`, undefined, { accept: "text/event-stream", ...headers });
}

async function follow(id: string): Promise<Reader> {
  return new Reader(await askFor(id));
}

function aRevocation(): Promise<ReceiptBody> {
  return revoke({ kind: "token", jti: crypto.randomUUID() });
}

/** Reads on until the receipt is as it should be. */
async function readUntil(reader: Reader, holds: (seen: ReceiptBody) => boolean): Promise<ReceiptBody[]> {
  const seen = [await reader.receipt()];
  while (!holds(seen.at(-1)!)) seen.push(await reader.receipt());
  return seen;
}

const isPending = ({ clusters }: ReceiptBody) => clusters[1]?.pending.includes("two") === true;

test("it is told as it is, then at every change, and ends with the proof", async () => {
  const { id } = await aRevocation();
  const reader = await follow(id);
  expect(reader.response.headers.get("content-type")).toBe("text/event-stream");
  expect(reader.response.headers.get("cache-control")).toBe("no-store");
  const before = await readUntil(reader, isPending);
  await behave("south", GOOD);
  const after = await readUntil(reader, ({ state }) => state === "enforced");
  expect(await reader.next()).toBeUndefined();
  const last = after.at(-1);
  expect(last).toEqual(await receipt(id));
  expect(last?.proof).toBeDefined();
  const told = [...before, ...after].map((each) => JSON.stringify(each));
  expect(new Set(told).size).toBe(told.length);
});

test("what is enforced is told once", async () => {
  await behave("south", GOOD);
  const { id } = await aRevocation();
  await receipt(id, { prefer: "wait=5" });
  const reader = await follow(id);
  expect((await reader.receipt()).state).toBe("enforced");
  expect(await reader.next()).toBeUndefined();
});

test("it goes on over the death of the object that it is about", async () => {
  const { id } = await aRevocation();
  const reader = await follow(id);
  await readUntil(reader, isPending);
  await abortAllDurableObjects();
  await behave("south", GOOD);
  await readUntil(reader, ({ state }) => state === "enforced");
});

test("when nothing changes for fifteen seconds there is a comment, and after five minutes an end", async () => {
  const { id } = await aRevocation();
  const reader = await follow(id);
  await readUntil(reader, isPending);
  const began = Date.now();
  vi.useFakeTimers({ toFake: ["Date"] });
  expect(await meanwhile(reader.next())).toBe(":");
  expect(Date.now() - began).toBeGreaterThanOrEqual(15_000);
  while ((await meanwhile(reader.next())) !== undefined);
  expect(Date.now() - began).toBeGreaterThanOrEqual(5 * 60_000);
});

/** Time passes until something has happened. */
async function meanwhile<T>(happens: Promise<T>): Promise<T> {
  const passing = setInterval(() => vi.setSystemTime(Date.now() + 5_000), 5);
  return await happens.finally(() => clearInterval(passing));
}

test("a reader that goes leaves nothing behind", async () => {
  const looks = vi.spyOn(RevocationLog.prototype, "receipt");
  const { id } = await aRevocation();
  const reader = await follow(id);
  await readUntil(reader, isPending);
  await reader.leave();
  const before = looks.mock.calls.length;
  vi.useFakeTimers({ toFake: ["Date"] });
  const ended = () => looks.mock.settledResults.every(({ type }) => type === "fulfilled");
  await meanwhile(until(async () => expect(ended()).toBe(true)));
  // The one that was under way, or about to be, when it left.
  expect(looks.mock.calls.length).toBeLessThanOrEqual(before + 1);
  looks.mockRestore();
});

test("what is not there, or is somebody else's, is refused with a status", async () => {
  const { id } = await revoke({ kind: "tenant", tid: "ours" });
  const stranger = await asClient(["revocations:read"], { tid: "theirs" });
  const weak = await asClient(["audit:read"]);
  for (const [path, headers, code] of [
    [`rev_${"A".repeat(22)}`, ADMIN, "not_found"],
    [id, stranger, "not_found"],
    [id, weak, "scope_insufficient"],
  ] as const) {
    expect(await refusal(await askFor(path, headers))).toBe(code);
  }
});

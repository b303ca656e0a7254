/** What stands between the command line and the edge fails: nothing is done twice, nothing hangs, and what is said is true. */
import { type AddressInfo, createServer } from "node:net";
import { describe, expect, onTestFinished, test } from "vitest";
import { newMachine } from "./machine.ts";
import { edge, newPerson, present, stack } from "./people.ts";
import { type Passed, startProxy } from "./proxy.ts";

const through = (url: string) => newMachine({ KEYCARD_EDGE: url, KEYCARD_TOKEN: stack.adminToken });
const isOrder = ({ method, path }: Passed) => method === "POST" && path === "/admin/revocations";

async function reasonsFor(sub: string): Promise<string[]> {
  return (await edge.receipts({ sub })).receipts.map(({ reason }) => reason);
}

describe("an order whose answer is lost", () => {
  test("is sent again with its key, and carried out once", async () => {
    const person = await newPerson();
    await present(person);
    const proxy = await startProxy((request, before) =>
      isOrder(request) && before === 0 ? { lose: true } : undefined,
    );
    const { code, stdout, stderr } = await through(proxy.url).run(["revoke", "user", person.login, "-r", "once"]);
    expect({ code, again: stderr.includes("trying again") }).toEqual({ code: 0, again: true });
    expect(stdout).toContain("3 sockets closed.");
    const orders = proxy.passed.filter(isOrder);
    expect(orders.length).toBeGreaterThan(1);
    expect(new Set(orders.map(({ headers }) => headers["idempotency-key"])).size).toBe(1);
    expect(await reasonsFor(person.sub)).toEqual(["once"]);
  });

  test("and never comes says how to find out, which then revokes nobody twice", async () => {
    const person = await newPerson();
    const { url } = await startProxy((request) => (isOrder(request) ? { lose: true } : undefined));
    const machine = through(url);
    const order = ["revoke", "user", person.login, "-r", "once"];
    const { code, stderr } = await machine.run([...order, "--timeout", "1"]);
    expect(code).toBe(1);
    expect(stderr).toContain("Whether it was decided is not known.");
    const [, key = ""] = /--idempotency-key ([\w-]+)/.exec(stderr) ?? [];
    const again = [...order, "--idempotency-key", key];
    expect(await machine.run(again, { env: { KEYCARD_EDGE: stack.edgeUrl } })).toMatchObject({ code: 0 });
    expect(await machine.run(again, { env: { KEYCARD_EDGE: stack.edgeUrl } })).toMatchObject({ code: 0 });
    expect(await reasonsFor(person.sub)).toEqual(["once"]);
  });
});

test("what must not be done twice is not sent twice", async () => {
  const login = `lost-${process.pid}@example.com`;
  const proxy = await startProxy(({ path }) => (path === "/admin/accounts" ? { lose: true } : undefined));
  const { code, stderr } = await through(proxy.url).run(["accounts", "create", login], { input: "a long password\n" });
  expect(code).toBe(1);
  expect(stderr).toContain("It may have been carried out all the same");
  expect(proxy.passed.filter(({ path }) => path === "/admin/accounts")).toHaveLength(1);
});

test("a stream of receipts that breaks is taken up again", async () => {
  const person = await newPerson();
  const isStream = ({ headers }: Passed) => headers.accept === "text/event-stream";
  const proxy = await startProxy((request, before) => (isStream(request) && before === 0 ? { lose: true } : undefined));
  expect(await through(proxy.url).run(["revoke", "user", person.login, "-r", "x"])).toMatchObject({ code: 0 });
});

test("too many attempts are waited for as long as the edge says, and then no more", async () => {
  const busy = {
    status: 429,
    headers: { "retry-after": "1", "content-type": "application/problem+json" },
    body: '{"code":"too_many_attempts"}',
  };
  const proxy = await startProxy((_, before) => (before === 0 ? busy : undefined));
  const machine = through(proxy.url);
  expect(await machine.run(["keys"])).toMatchObject({
    code: 0,
    stderr: expect.stringMatching(/trying again in 1\.\d s/),
  });
  const always = await startProxy(() => ({ ...busy, headers: { ...busy.headers, "retry-after": "3600" } }));
  const { code, stderr } = await machine.run(["keys"], { env: { KEYCARD_EDGE: always.url } });
  expect(code).toBe(1);
  expect(stderr).toContain("Wait 3600 s and repeat it.");
});

test("an edge that is too slow is given up, and said to be", async () => {
  const { url } = await startProxy(() => ({ delayMs: 20_000 }));
  const { code, stderr } = await through(url).run(["keys", "--timeout", "0.5"]);
  expect(code).toBe(1);
  expect(stderr).toContain("gave no answer within 0.5 s.");
});

test("an edge that is down is said to be down", async () => {
  const server = createServer().listen(0, "127.0.0.1");
  await new Promise((resolve) => server.once("listening", resolve));
  const { port } = server.address() as AddressInfo;
  await new Promise((resolve) => server.close(resolve));
  const { code, stderr } = await through(`http://127.0.0.1:${port}`).run(["keys", "--timeout", "1"]);
  expect(code).toBe(1);
  expect(stderr).toContain(`127.0.0.1:${port} refuses the connection.`);
});

test.for([
  ["a page of a proxy", { status: 404, body: "<html>not here" }, "HTTP 404, and not as an edge says it"],
  ["a page that says yes", { status: 200, body: "<html>welcome" }, "the answer is not what an edge says"],
  ["another program's JSON", { status: 200, body: '{"keys":"none"}' }, "the answer is not what an edge says"],
  [
    "a redirect",
    { status: 302, headers: { location: "https://elsewhere.example/" } },
    "sends us to https://elsewhere.example/",
  ],
] as const)("%s is not taken for an edge", async ([, answer, message]) => {
  const { url, passed } = await startProxy(() => answer);
  const { code, stderr, stdout } = await through(url).run(["keys"]);
  expect({ code, stdout }).toEqual({ code: 1, stdout: "" });
  expect(stderr).toContain(message);
  expect(passed).toHaveLength(1);
});

test("an answer without an end is not read to the end", async () => {
  const flood = createServer((socket) => {
    socket.on("error", () => {});
    socket.write("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n");
    // A write that failed is answered before the socket counts as destroyed: writing again then would never end.
    const pour = (failure?: Error | null) => void (failure || socket.write("x".repeat(1024 * 1024), pour));
    pour();
  }).listen(0, "127.0.0.1");
  onTestFinished(() => void flood.close());
  await new Promise((resolve) => flood.once("listening", resolve));
  const { port } = flood.address() as AddressInfo;
  const { code, stderr } = await through(`http://127.0.0.1:${port}`).run(["keys"]);
  expect(code).toBe(1);
  expect(stderr).toContain("the answer has more than");
});

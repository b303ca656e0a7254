/** `keycard revoke`: who is named is out on every node before it says so, and it never says more than is proved. */
import { describe, expect, test } from "vitest";
import { until } from "../../infra/until.ts";
import { newMachine } from "./machine.ts";
import { ADMIN, edge, newPerson, present, stack } from "./people.ts";

test("a person is out on every node when it ends with 0, and the receipt says so", async () => {
  const person = await newPerson();
  const { sockets } = await present(person);
  const machine = newMachine(ADMIN);
  const { code, stdout, stderr } = await machine.run(["revoke", "user", person.login, "--reason", "laptop stolen"]);
  expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
  expect(sockets.map(({ socket }) => socket.connected)).toEqual([false, false, false]);
  for (const { name } of stack.nodes) expect(stdout).toContain(`${name} closed 1 socket`);
  expect(stdout).toMatch(/Enforced after .*: nobody it covers is in anywhere\. 3 sockets closed\.\n$/);
  const [id = ""] = /rev_[\w-]{22}/.exec(stdout) ?? [];
  expect(await edge.receipt(id)).toMatchObject({ state: "enforced", reason: "laptop stolen", closed: 3 });
});

test("with --json it prints the receipt with its proof, and nothing else", async () => {
  const person = await newPerson();
  const { code, stdout, stderr } = await newMachine(ADMIN).run([
    "revoke",
    "user",
    "--sub",
    person.sub,
    "-r",
    "x",
    "--json",
  ]);
  expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
  expect(JSON.parse(stdout)).toMatchObject({
    state: "enforced",
    target: { sub: person.sub },
    proof: expect.any(String),
  });
});

test("a dry run counts and leaves everybody in", async () => {
  const person = await newPerson();
  const { sockets } = await present(person);
  const { code, stdout } = await newMachine(ADMIN).run(["revoke", "user", person.login, "--dry-run"]);
  expect(code).toBe(0);
  expect(stdout).toContain("1 session and 3 open sockets. Nothing was changed.");
  expect(sockets.every(({ socket }) => socket.connected)).toBe(true);
});

test("a session, all but one session, a token and a tenant can be named", async () => {
  const person = await newPerson({ tid: "cli-tenant" });
  const { tokens, sockets } = await present(person);
  const other = await edge.login(person.login, person.password, "phone");
  const machine = newMachine(ADMIN);
  expect(await machine.run(["revoke", "session", other.sid, "-r", "x"])).toMatchObject({ code: 0 });
  expect(await machine.run(["revoke", "user", person.login, "--except", tokens.sid, "-r", "x"])).toMatchObject({
    code: 0,
  });
  expect(sockets.every(({ socket }) => socket.connected)).toBe(true);
  const third = await edge.login(person.login, person.password);
  expect(await machine.run(["revoke", "token", "-r", "x"], { input: `${third.access_token}\n` })).toMatchObject({
    code: 0,
  });
  expect(sockets.every(({ socket }) => socket.connected)).toBe(true);
  expect(await machine.run(["revoke", "tenant", "cli-tenant", "-r", "x", "--yes"])).toMatchObject({ code: 0 });
  expect(sockets.some(({ socket }) => socket.connected)).toBe(false);
});

test("everybody on a list is out, and who is not there is counted", async () => {
  const people = await Promise.all(Array.from({ length: 3 }, () => newPerson()));
  const { sockets } = await present(people[1] ?? (await newPerson()));
  const machine = newMachine(ADMIN);
  const input = `${[...people.map(({ login }) => login), "nobody-of-that-name"].join("\n")}\n\n`;
  expect(await machine.run(["revoke", "users", "-r", "breach"], { input })).toMatchObject({ code: 2 });
  const { code, stdout } = await machine.run(["revoke", "users", "-r", "breach", "--yes"], { input });
  expect(code).toBe(0);
  expect(stdout).toContain("3 revoked, 1 not found");
  expect(stdout).toContain("✓ Enforced");
  expect(sockets.some(({ socket }) => socket.connected)).toBe(false);
  const [id = ""] = /blk_[\w-]{22}/.exec(stdout) ?? [];
  expect(await machine.run(["receipts", "follow", id])).toMatchObject({ code: 0 });
  expect((await machine.run(["receipts", "show", id])).stdout).toMatch(/^reason +breach$/m);
});

test("only sessions that began by a time are hit", async () => {
  const person = await newPerson();
  const { sockets } = await present(person);
  const { code } = await newMachine(ADMIN).run(["revoke", "user", person.login, "--issued-before", "1h", "-r", "x"]);
  expect(code).toBe(0);
  expect(sockets.every(({ socket }) => socket.connected)).toBe(true);
});

test("with a margin open sockets may bring another token first", async () => {
  const person = await newPerson();
  const { stdout, code } = await newMachine(ADMIN).run([
    "revoke",
    "user",
    person.login,
    "--margin",
    "1",
    "-r",
    "x",
    "--json",
  ]);
  expect(code).toBe(0);
  expect(JSON.parse(stdout)).toMatchObject({ mode: "reauthenticate", margin: 1 });
});

describe("what is not enforced in time", () => {
  test("ends with 3, says that it stands and how to go on watching; that then ends with 0", async () => {
    const person = await newPerson();
    await present(person);
    const frozen = stack.nodes[1]?.pid ?? 0;
    const machine = newMachine(ADMIN);
    process.kill(frozen, "SIGSTOP");
    try {
      const { code, stdout, stderr } = await machine.run(["revoke", "user", person.login, "-r", "x", "--wait", "1"]);
      expect(code).toBe(3);
      expect(stdout).toContain("Pending: decided, and not yet enforced in local");
      const [, again = ""] = /`keycard (receipts follow rev_[\w-]+)`/.exec(stderr) ?? [];
      expect(stderr).toContain("The revocation stands.");
      process.kill(frozen, "SIGCONT");
      expect(await machine.run(again.split(" "))).toMatchObject({
        code: 0,
        stdout: expect.stringContaining("Enforced"),
      });
    } finally {
      process.kill(frozen, "SIGCONT");
    }
  });

  test("is left standing by Ctrl-C, which says so and ends with 130", async () => {
    const person = await newPerson();
    await present(person);
    const frozen = stack.nodes[2]?.pid ?? 0;
    process.kill(frozen, "SIGSTOP");
    try {
      const running = newMachine(ADMIN).start(["revoke", "user", person.login, "-r", "x", "--wait", "60"]);
      await until("the others have closed", () => running.stdout.match(/closed 1 socket/g)?.length === 2);
      running.kill("SIGINT");
      const { code, stderr } = await running.exited;
      expect(code).toBe(130);
      expect(stderr).toMatch(/The revocation stands, whoever watches\. `keycard receipts follow rev_/);
      const [id = ""] = /rev_[\w-]{22}/.exec(stderr) ?? [];
      process.kill(frozen, "SIGCONT");
      await edge.enforcedReceipt(id);
    } finally {
      process.kill(frozen, "SIGCONT");
    }
  });
});

describe("nothing is done", () => {
  test.for([
    ["without a reason where nobody can be asked", ["revoke", "user", "x"], "A reason is missing."],
    [
      "to everyone without --yes where nobody can be asked",
      ["revoke", "everyone", "-r", "x"],
      "nobody is here to be asked",
    ],
    [
      "to a tenant without --yes where nobody can be asked",
      ["revoke", "tenant", "t", "-r", "x"],
      "nobody is here to be asked",
    ],
    ["where nobody is named", ["revoke", "user", "-r", "x"], "Who? A login is missing."],
    ["where somebody is named twice", ["revoke", "user", "x", "--sub", "y", "-r", "x"], "The person is named twice."],
    [
      "with a margin that is none",
      ["revoke", "user", "x", "--margin", "soon", "-r", "x"],
      '--margin cannot be "soon".',
    ],
    [
      "with a time that is none",
      ["revoke", "user", "x", "--issued-before", "soon", "-r", "x"],
      '--issued-before cannot be "soon".',
    ],
    ["with a wait that is none", ["revoke", "user", "x", "--wait", "-1", "-r", "x"], "--wait cannot be"],
  ] as const)("%s: exit code 2", async ([, args, message]) => {
    const before = await edge.receipts({ limit: 1 });
    const { code, stdout, stderr } = await newMachine(ADMIN).run(args);
    expect({ code, stdout }).toEqual({ code: 2, stdout: "" });
    expect(stderr).toContain(message);
    expect(await edge.receipts({ limit: 1 })).toEqual(before);
  });

  test("to somebody who does not exist: exit code 1, and what may be meant", async () => {
    const { code, stderr } = await newMachine(ADMIN).run(["revoke", "user", "nobody-at-all", "-r", "x"]);
    expect(code).toBe(1);
    expect(stderr).toContain("Nobody has the login nobody-at-all.");
    expect(stderr).toContain("--sub nobody-at-all");
  });
});

/** What would touch everybody on a stack that is shared: a frozen node, and a key that is retired. */
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { until } from "../../infra/until.ts";
import { newMachine } from "./machine.ts";
import { peopleOn } from "./people.ts";
import { startOwnStack } from "./shared-stack.ts";

/** Long enough for a frozen node to be looked at. */
const LEASE_SECONDS = 6;
const ESCAPE = "\u001b";

let stack: Awaited<ReturnType<typeof startOwnStack>>;
let edge: ReturnType<typeof peopleOn>["edge"];
let ADMIN: ReturnType<typeof peopleOn>["ADMIN"];
let newPerson: ReturnType<typeof peopleOn>["newPerson"];
let present: ReturnType<typeof peopleOn>["present"];

beforeAll(async () => {
  stack = await startOwnStack(LEASE_SECONDS);
  ({ edge, ADMIN, newPerson, present } = peopleOn(stack));
});

afterAll(async () => {
  await stack?.stop();
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

test("what is awaited is shown while it is, and Ctrl-C leaves it standing", async () => {
  const person = await newPerson();
  await present(person);
  const frozen = stack.nodes[0];
  process.kill(frozen?.pid ?? 0, "SIGSTOP");
  try {
    const terminal = newMachine(ADMIN).atTerminal(["revoke", "user", person.login, "-r", "x"]);
    await terminal.shows(`… ${frozen?.name}  no word yet`);
    await terminal.shows("Ctrl-C stops watching; the revocation stands");
    await terminal.shows(/✓ node-2 {2}1 socket closed/);
    terminal.type("\u0003");
    expect((await terminal.exited).code).toBe(130);
    const screen = terminal.screen().join("\n");
    expect(screen).toContain("… Pending: decided, and not yet enforced in local.");
    expect(screen).toContain("The revocation stands, whoever watches.");
    expect(terminal.stdout).toContain(`${ESCAPE}[?25h`);
  } finally {
    process.kill(frozen?.pid ?? 0, "SIGCONT");
  }
});

test("a node that does not answer is named, and makes the status end with 1", async () => {
  const machine = newMachine(ADMIN);
  const frozen = stack.nodes[1];
  process.kill(frozen?.pid ?? 0, "SIGSTOP");
  try {
    const silent = await machine.run(["status"]);
    expect(silent).toMatchObject({ code: 1, stdout: expect.stringContaining(`No answer from ${frozen?.name}.`) });
  } finally {
    process.kill(frozen?.pid ?? 0, "SIGCONT");
  }
});

test("a key is replaced in good order, or retired so that what it signed is dead", async () => {
  const machine = newMachine(ADMIN);
  const current = async (purpose: string) =>
    (await edge.keys()).keys.find((key) => key.purpose === purpose && key.state === "current")?.kid ?? "";
  const rotated = await machine.run(["keys", "rotate", "--purpose", "events", "-r", "quarterly"]);
  // Published for an hour before it signs.
  expect(rotated).toMatchObject({ code: 0, stdout: expect.stringMatching(/events +next +/) });
  expect(rotated.stdout).toMatch(new RegExp(`${await current("events")} +events +current .* in \\d+ min`));
  const person = await newPerson();
  const { sockets } = await present(person);
  const access = await current("access");
  expect(await machine.run(["keys", "retire", "-r", "leaked"])).toMatchObject({ code: 2 });
  const retired = await machine.run(["keys", "retire", "-r", "leaked", "--yes"]);
  expect(retired).toMatchObject({ code: 0, stdout: expect.stringContaining(`Key ${access} signs no more.`) });
  expect(await current("access")).not.toBe(access);
  expect(sockets.some(({ socket }) => socket.connected)).toBe(false);
});

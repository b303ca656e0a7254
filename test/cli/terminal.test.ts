/** What a person sees at a terminal: progress in place, passwords unseen, and nothing that somebody else's escape sequences did. */
import { EventEmitter } from "node:events";
import { describe, expect, test } from "vitest";
import { LiveDisplay } from "../../infra/cli/live-display.ts";
import { Output } from "../../infra/cli/output.ts";
import { plainJson, Text, t } from "../../infra/cli/text.ts";
import { newMachine } from "./machine.ts";
import { ADMIN, edge, newPerson, present, stack } from "./people.ts";
import { startProxy } from "./proxy.ts";
import { screenOf } from "./screen.ts";

const ESCAPE = "\u001b";

describe("at a terminal", () => {
  test("a revocation is drawn in place, node by node, and stays standing once", async () => {
    const person = await newPerson();
    await present(person);
    const terminal = newMachine(ADMIN).atTerminal(["revoke", "user", person.login, "-r", "x"]);
    const { code, stdout } = await terminal.exited;
    expect(code).toBe(0);
    const screen = screenOf(stdout).filter((line) => line !== "");
    expect(screen).toEqual([
      expect.stringMatching(/^Revoking user .* at environment {2}rev_/),
      "✓ local  3 sockets closed on 3 nodes",
      ...stack.nodes.map(({ name }) => expect.stringMatching(new RegExp(`^ {4}✓ ${name} {2}1 socket closed {2}\\d`))),
      expect.stringMatching(/^✓ Enforced after .* 3 sockets closed\.$/),
    ]);
    expect(stdout).toContain(`${ESCAPE}[?25h`);
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

  test("everybody is thrown out only after how many that is was shown, and the word typed", async () => {
    const person = await newPerson({ tid: "terminal-tenant" });
    const { sockets } = await present(person);
    const machine = newMachine(ADMIN);
    const timid = machine.atTerminal(["revoke", "tenant", "terminal-tenant", "-r", "x"]);
    await timid.shows("Type terminal-tenant to go on:");
    await timid.shows("3 open sockets");
    timid.type("yes\r");
    expect((await timid.exited).code).toBe(1);
    await timid.shows("Nothing was revoked: that was not the word.");
    expect(sockets.every(({ socket }) => socket.connected)).toBe(true);
    const sure = machine.atTerminal(["revoke", "tenant", "terminal-tenant"]);
    await sure.shows("Reason, for the audit trail:");
    sure.type("contract ended\r");
    await sure.shows("Type terminal-tenant to go on:");
    sure.type("terminal-tenant\r");
    expect((await sure.exited).code).toBe(0);
    expect(sockets.some(({ socket }) => socket.connected)).toBe(false);
  });

  test("a password is asked for twice, never shown, and its slips can be mended", async () => {
    const login = `typed-${process.pid}@example.com`;
    const terminal = newMachine(ADMIN).atTerminal(["accounts", "create", login]);
    await terminal.shows("Password:");
    terminal.type("correct horsf\u007fe\r");
    await terminal.shows("The same again:");
    terminal.type("correct horse\r");
    expect((await terminal.exited).code).toBe(0);
    expect(terminal.stdout).not.toMatch(/cor|horse|\*/);
    expect(await edge.login(login, "correct horse")).toHaveProperty("access_token");
  });

  test("Ctrl-C at a question does nothing else", async () => {
    const terminal = newMachine(ADMIN).atTerminal(["accounts", "create", `never-${process.pid}@example.com`]);
    await terminal.shows("Password:");
    terminal.type("half\u0003");
    expect((await terminal.exited).code).toBe(130);
    const machine = newMachine(ADMIN);
    expect((await machine.run(["accounts", "show", `never-${process.pid}@example.com`])).code).toBe(1);
  });

  test("there is colour, unless NO_COLOR says that there is none", async () => {
    const machine = newMachine(ADMIN);
    const colour = `${ESCAPE}[32m`;
    expect((await machine.atTerminal(["keys"]).exited).stdout).toContain(colour);
    expect((await machine.atTerminal(["keys"], { env: { NO_COLOR: "1" } }).exited).stdout).not.toContain(ESCAPE);
    expect((await machine.run(["keys"])).stdout).not.toContain(ESCAPE);
  });
});

describe("a display that is drawn in place", () => {
  function display(columns: number, rows: number) {
    let written = "";
    const write = (text: string) => {
      // As the terminal's driver does.
      written += text.replaceAll("\n", "\r\n");
      return true;
    };
    const stream = Object.assign(new EventEmitter(), {
      isTTY: true,
      columns,
      rows,
      write,
    }) as unknown as NodeJS.WriteStream;
    const output = new Output({ stdout: stream, stderr: stream, env: {} });
    return {
      output,
      live: new LiveDisplay(output),
      stream,
      screen: () => screenOf(written).filter((line) => line !== ""),
    };
  }

  test("shows the beginning and the end of what is longer than the screen", () => {
    const { live, screen } = display(40, 8);
    const lines = (state: string) => [...Array.from({ length: 200 }, (_, i) => `node-${i} ${state}`), "last"];
    live.show(lines("pending"));
    live.show(lines("done"));
    const shown = [
      "node-0 done",
      "node-1 done",
      "node-2 done",
      "node-3 done",
      "  … 195 more lines",
      "node-199 done",
      "last",
    ];
    expect(screen()).toEqual(shown);
    live.end(["all done"]);
    expect(screen()).toEqual(["all done"]);
  });

  test("cuts what is wider than the screen, and counts what takes two columns", () => {
    const { live, screen } = display(12, 8);
    live.show(["a node with a long name", "節点節点節点節点"]);
    live.show(["a node with a long name", "節点節点節点節点"]);
    expect(screen()).toEqual(["a node wit…", "節点節点節…"]);
  });

  test("stands below what is said meanwhile", () => {
    const { output, live, screen } = display(40, 8);
    live.show(["waiting"]);
    output.note("trying again");
    live.show(["still waiting"]);
    expect(screen()).toEqual(["trying again", "still waiting"]);
  });
});

describe("escape sequences of somebody else", () => {
  const title = `${ESCAPE}]0;gone\u0007${ESCAPE}[2J\u009b31m\u202eevil\r\nforged line`;

  test("do nothing in a reason that comes back from the edge", async () => {
    const person = await newPerson();
    await edge.revoke({ kind: "user", sub: person.sub }, `x ${title}`);
    const machine = newMachine(ADMIN);
    const { stdout } = await machine.atTerminal(["receipts", "--sub", person.sub]).exited;
    const shown = screenOf(stdout).join("\n");
    expect(shown).toMatch(/x �\]0;gone/);
    const { receipts } = await edge.receipts({ sub: person.sub });
    const json = await machine.run(["receipts", "--sub", person.sub, "--json"]);
    // biome-ignore lint/suspicious/noControlCharactersInRegex: none of them may be there
    expect(json.stdout.trimEnd()).not.toMatch(/[\u0000-\u001f\u007f-\u009f\u202e]/);
    expect(JSON.parse(json.stdout)).toEqual(receipts[0]);
  });

  test("do nothing in an error, whoever sent it", async () => {
    const body = JSON.stringify({ code: "conflict", title, errors: [{ member: title, problem: title }] });
    const { url } = await startProxy(() => ({
      status: 409,
      body,
      headers: { "content-type": "application/problem+json" },
    }));
    const { stderr, code } = await newMachine({ ...ADMIN, KEYCARD_EDGE: url }).run(["keys"]);
    expect(code).toBe(1);
    // biome-ignore lint/suspicious/noControlCharactersInRegex: none of them may be there
    expect(stderr.replaceAll("\n", "")).not.toMatch(/[\u0000-\u001f\u007f-\u009f\u202e]/);
    expect(stderr.split("\n")).toHaveLength(3);
  });

  test("do nothing in where a redirect leads, or in what was typed", async () => {
    const { url } = await startProxy(() => ({ status: 302, headers: { location: "https://x.example/%1b\u009b31m" } }));
    const machine = newMachine({ ...ADMIN, KEYCARD_EDGE: url });
    for (const args of [
      ["keys"],
      [`ke${ESCAPE}[31mys`],
      ["keys", `--${ESCAPE}[31m`],
      ["revoke", "user", title, "-r", "x"],
    ]) {
      const { stderr } = await machine.run(args);
      // biome-ignore lint/suspicious/noControlCharactersInRegex: none of them may be there
      expect(stderr.replaceAll("\n", "")).not.toMatch(/[\u0000-\u001f\u007f-\u009f\u202e]/);
    }
  });

  test("do nothing in anything that a line is made of", () => {
    expect(t`a ${`b${title}`} c ${Text.of(title).styled("bold")}`.rendered(false)).not.toMatch(/\p{Cc}|\u202e/u);
    expect(plainJson({ [title]: title })).not.toMatch(/\p{Cc}|\u202e/u);
    expect(JSON.parse(plainJson({ [title]: title }))).toEqual({ [title]: title });
  });
});

/** The command line explains itself, and every example in its help is one that it takes. */
import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { describe, expect, onTestFinished, test } from "vitest";
import { type Options, parseCommandLine } from "../../infra/cli/command.ts";
import { completionScript, SHELLS } from "../../infra/cli/completion.ts";
import { COMMANDS } from "../../infra/cli/every-command.ts";
import { nearest } from "../../infra/cli/nearest.ts";
import { futureOf, momentOf } from "../../infra/cli/times.ts";
import { findExecutable } from "../../infra/packages.ts";
import { newMachine } from "./machine.ts";

/** An example as the words that a shell makes of it, without what is piped in or on. */
function wordsOf(example: string): string[] {
  const [alone = ""] = example.replace(/^.*\| keycard/, "keycard").split(/ [|<] /);
  return [...alone.matchAll(/"([^"]*)"|'([^']*)'|(\S+)/g)].map(
    ([, double, single, bare]) => double ?? single ?? bare ?? "",
  );
}

describe("the help", () => {
  test("lists every command, for who asks for nothing", async () => {
    const { code, stdout } = await newMachine().run([]);
    expect(code).toBe(0);
    for (const { name, summary } of COMMANDS) expect(stdout).toMatch(new RegExp(`${name} .*${summary.slice(0, 20)}`));
  });

  test("explains a command in the same words whichever way it is asked for", async () => {
    const machine = newMachine();
    const [a, b] = await Promise.all([
      machine.run(["help", "revoke", "user"]),
      machine.run(["revoke", "user", "--help"]),
    ]);
    expect(a).toEqual(b);
    expect(a.stdout).toContain("--reason TEXT");
    expect(a.stdout).toContain("Needs revocations:write.");
  });

  test("says what the exit codes mean", async () => {
    const { stdout } = await newMachine().run(["help", "exit-codes"]);
    for (const code of ["0", "1", "2", "3", "130"]) expect(stdout).toMatch(new RegExp(`^${code} `, "m"));
  });

  test("has a summary, and options that are explained, for every command", () => {
    for (const { name, summary, options } of COMMANDS) {
      expect(summary, name).toMatch(/^[a-z].{10,}[^.]$/);
      for (const { about } of Object.values(options)) expect(about, name).toMatch(/^[a-z].*[^.]$/);
    }
  });

  test.for(COMMANDS.flatMap(({ name, examples }) => examples.map(([line]) => [name, line] as const)))(
    "%s: its example is taken: %s",
    ([name, line]) => {
      if (/^(source|watch) /.test(line)) return expect(line).toContain(`keycard ${name}`);
      const [program, ...args] = wordsOf(line);
      expect(program).toBe("keycard");
      expect(parseCommandLine(args, COMMANDS)?.command.name).toBe(name);
    },
  );
});

describe("an option", () => {
  test("has a value in every command or in none, so that it can stand anywhere", () => {
    const kinds = new Map<string, boolean>();
    for (const { options } of COMMANDS) {
      for (const [name, { value }] of Object.entries(options as Options)) {
        expect(kinds.get(name) ?? value !== undefined, name).toBe(value !== undefined);
        kinds.set(name, value !== undefined);
      }
    }
  });

  test("can stand before the command, between its words and after them", () => {
    for (const args of [
      ["-p", "local", "receipts", "show", "x"],
      ["receipts", "-p", "local", "show", "x"],
      ["receipts", "show", "x", "--profile=local"],
    ]) {
      expect(parseCommandLine(args, COMMANDS)).toMatchObject({ given: { args: ["x"] }, global: { profile: "local" } });
    }
  });
});

describe("a mistyped word", () => {
  test.for([
    [["revok", "user", "x"], "Did you mean `keycard revoke`?"],
    [["recipts"], "Did you mean `keycard receipts`?"],
    [["receipts", "shwo", "x"], "Did you mean `keycard receipts show`?"],
    [["revoke", "user", "x", "--raeson", "y"], "Did you mean --reason?"],
    [["--prfile", "x", "keys"], "Did you mean --profile?"],
    [["keys", "rotate", "--purpose", "acess"], "Did you mean access?"],
    [["help", "revok"], "Did you mean `keycard help revoke`?"],
    [["xyzzy"], "`keycard help` lists what there is."],
    [["keys", "--json=1"], "--json takes no value."],
    [["revoke", "user", "x", "--reason"], "--reason needs a value, TEXT."],
    [["revoke", "session"], "keycard revoke session needs SID."],
    [["whoami", "x"], 'keycard whoami does not know what to do with "x".'],
    [["completion", "powershell"], "There is bash, zsh, fish."],
  ] as const)("%s: exit code 2, and what may be meant", async ([args, hint]) => {
    const { code, stdout, stderr } = await newMachine().run(args);
    expect({ code, stdout }).toEqual({ code: 2, stdout: "" });
    expect(stderr).toContain(hint);
  });

  test("is near what has a letter more, less, other or swapped, and near nothing else", () => {
    const words = ["revoke", "receipts", "status"];
    for (const typed of ["revoek", "revok", "revokee", "rewoke", "REVOKE", "rev"]) {
      expect(nearest(typed, words)).toBe("revoke");
    }
    expect(nearest("accounts", words)).toBeUndefined();
  });
});

describe("the completion", () => {
  test.for(SHELLS)("for %s names every command and option, and is a script of that shell", async (shell) => {
    const script = completionScript(shell, COMMANDS);
    for (const { name, options } of COMMANDS) {
      expect(script).toContain(name);
      for (const option of Object.keys(options)) expect(script).toContain(option);
    }
    const program = await findExecutable(shell);
    if (program === undefined) return;
    const file = join(mkdtempSync(join(tmpdir(), "keycard-completion-")), shell);
    onTestFinished(() => rmSync(dirname(file), { recursive: true }));
    writeFileSync(file, script);
    execFileSync(program, ["-n", file]);
  });

  test("in bash offers what can follow", () => {
    const script = completionScript("bash", COMMANDS);
    const offered = (line: string) => {
      const words = line.split(" ");
      const setting = `COMP_WORDS=(${words.map((word) => `'${word}'`).join(" ")}); COMP_CWORD=${words.length - 1}`;
      return execFileSync("bash", ["-c", `${script}\n${setting}\n_keycard; printf '%s\\n' "\${COMPREPLY[@]}"`], {
        encoding: "utf8",
      })
        .trim()
        .split("\n");
    };
    expect(offered("keycard rec")).toEqual(["receipts"]);
    expect(offered("keycard revoke ")).toEqual(["user", "users", "session", "token", "tenant", "key", "everyone"]);
    expect(offered("keycard revoke user --dr")).toEqual(["--dry-run"]);
    expect(offered("keycard receipts --st")).toEqual(["--state"]);
  });
});

describe("a time", () => {
  const now = Date.parse("2026-03-01T12:00:00Z");

  test("can be how long ago, RFC 3339, a date or seconds since the epoch", () => {
    expect(momentOf("90m", "--since", now)).toBe(now - 5_400_000);
    expect(momentOf("7d", "--since", now)).toBe(now - 7 * 86_400_000);
    expect(momentOf("2026-03-01T13:00:00+01:00", "--since")).toBe(now);
    expect(momentOf("2026-03-01", "--since")).toBe(now - 43_200_000);
    expect(momentOf(String(now / 1000), "--since")).toBe(now);
    expect(futureOf("2h", "--until", now)).toBe(now / 1000 + 7_200);
  });

  test.for(["", "soon", "2x", "-1h", "12", "2026", "99999999999d"])("cannot be %j", (text) => {
    expect(() => momentOf(text, "--since")).toThrow("--since cannot be");
  });

  test("that is yet to come cannot have passed", () => {
    expect(() => futureOf("2026-01-01", "--until", now)).toThrow("has passed");
  });
});

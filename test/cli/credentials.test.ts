/** The credentials on somebody's machine: kept where only they can read them, renewed by themselves, shown to nobody. */
import {
  chmodSync,
  cpSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { describe, expect, onTestFinished, test } from "vitest";
import { takeLock } from "../../infra/lock.ts";
import { newMachine } from "./machine.ts";
import { ADMIN, edge, newPerson, stack } from "./people.ts";
import { startProxy } from "./proxy.ts";

const ROOT = join(import.meta.dirname, "..", "..");
const { edgeUrl, adminToken } = stack;
const ADMIN_SCOPES = "accounts:read accounts:write revocations:write revocations:read";

interface Kept {
  readonly current: string;
  readonly profiles: Record<
    string,
    { kind: string; refresh_token?: string; access?: { token: string; expires_at: number } }
  >;
}

const kept = (path: string): Kept => JSON.parse(readFileSync(path, "utf8"));
const modeOf = (path: string) => (statSync(path).mode & 0o777).toString(8);

/** As if the access token that is kept had ended. */
function age(path: string): void {
  const text = readFileSync(path, "utf8").replace(/"expires_at": \d+/g, '"expires_at": 1');
  writeFileSync(path, text);
}

describe("login", () => {
  test("keeps a token that comes on standard input, in a file that only its owner can read", async () => {
    const machine = newMachine();
    const { code, stdout, stderr } = await machine.run(["login", edgeUrl, "-p", "prod"], { input: `${adminToken}\n` });
    expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
    expect(stdout).toContain("root: every scope, every tenant");
    expect(modeOf(machine.profiles)).toBe("600");
    expect(modeOf(dirname(machine.profiles))).toBe("700");
    expect(readdirSync(dirname(machine.profiles))).toEqual(["profiles.json"]);
    const who = await machine.run(["whoami", "--json"]);
    expect(JSON.parse(who.stdout)).toMatchObject({ profile: "prod", edge: edgeUrl, kind: "root" });
  });

  test("signs a person in who has admin scopes; the token is for the front desk and no node takes it", async () => {
    const person = await newPerson({ scope: ADMIN_SCOPES });
    const machine = newMachine();
    const login = ["login", edgeUrl, "--login", person.login];
    const { code, stdout } = await machine.run(login, { input: `${person.password}\n` });
    expect(code).toBe(0);
    expect(stdout).toContain(`account ${person.login}`);
    expect(readFileSync(machine.profiles, "utf8")).not.toContain(person.password);
    const { access } = Object.values(kept(machine.profiles).profiles)[0] ?? {};
    const [, claims = ""] = access?.token.split(".") ?? [];
    expect(JSON.parse(Buffer.from(claims, "base64url").toString())).toMatchObject({ aud: edgeUrl, sub: person.sub });
    const other = await newPerson();
    expect(await machine.run(["revoke", "user", other.login, "-r", "x"])).toMatchObject({ code: 0 });
  });

  test("uses an admin client, whose token is fetched once and kept until it ends", async () => {
    const client = await edge.createClient({ name: "cli", scopes: ["keys:write"] });
    const proxy = await startProxy();
    const machine = newMachine();
    const login = ["login", proxy.url, "--client-id", client.client_id];
    expect(await machine.run(login, { input: client.client_secret ?? "" })).toMatchObject({ code: 0 });
    const fetched = () => proxy.passed.filter(({ path }) => path === "/oauth/token").length;
    const atLogin = fetched();
    for (let i = 0; i < 2; i++) expect(await machine.run(["keys"])).toMatchObject({ code: 0 });
    expect(fetched()).toBe(atLogin + 1);
    age(machine.profiles);
    expect(await machine.run(["keys"])).toMatchObject({ code: 0 });
    expect(fetched()).toBe(atLogin + 2);
    await edge.changeClient(client.client_id, true);
    age(machine.profiles);
    const { code, stderr } = await machine.run(["keys"]);
    expect(code).toBe(1);
    expect(stderr).toContain("client_invalid");
  });

  test("keeps no secret where a command tells it", async () => {
    const machine = newMachine({ TEST_SECRET: adminToken });
    const login = ["login", edgeUrl, "--secret-command", 'printf "%s\\n" "$TEST_SECRET"'];
    expect(await machine.run(login)).toMatchObject({ code: 0 });
    expect(readFileSync(machine.profiles, "utf8")).not.toContain(adminToken);
    expect(await machine.run(["keys"])).toMatchObject({ code: 0 });
    const { code, stderr } = await machine.run([
      "login",
      edgeUrl,
      "--secret-command",
      'echo "$TEST_SECRET" >&2; exit 3',
    ]);
    expect({ code, leaked: stderr.includes(adminToken) }).toEqual({ code: 1, leaked: false });
    expect(stderr).toContain("The command that tells the secret failed (3)");
  });

  test.for([
    ["a token that the edge does not take", [], "nonsense\n", 1, "The token is not valid here."],
    ["nothing at all", [], "", 2, "There was no admin token."],
    ["a person's wrong password", ["--login", "nobody@example.com"], "wrong\n", 1, "credentials_wrong"],
    ["two kinds at once", ["--login", "x", "--client-id", "y"], "x\n", 2, "--login goes with neither"],
  ] as const)("keeps nothing for %s", async ([, options, input, exit, message]) => {
    const machine = newMachine();
    const { code, stderr } = await machine.run(["login", edgeUrl, ...options], { input });
    expect(code).toBe(exit);
    expect(stderr).toContain(message);
    expect(await machine.run(["profiles"])).toMatchObject({
      stdout: expect.stringContaining("No credential is kept here"),
    });
  });

  test("keeps nothing for a person without an admin scope", async () => {
    const person = await newPerson({ scope: "chat" });
    const machine = newMachine();
    const { code, stderr } = await machine.run(["login", edgeUrl, "--login", person.login], { input: person.password });
    expect(code).toBe(1);
    expect(stderr).toContain(`${person.login} has no admin scope.`);
  });

  test.for([
    ["http://auth.example.com", "is not spoken to over plain http"],
    ["https://user:pass@auth.example.com", "The address of an edge is a plain URL."],
    ["https://", "is no address of an edge"],
    ["ftp://auth.example.com", "is not http or https"],
  ])("does not send a secret to %s", async ([address, message]) => {
    const { code, stderr } = await newMachine().run(["login", address ?? ""], { input: "secret" });
    expect(code).toBe(2);
    expect(stderr).toContain(message);
  });
});

describe("a file of profiles", () => {
  test("that others can read is refused, and it is said how to mend it", async () => {
    const machine = newMachine();
    await machine.run(["login", edgeUrl], { input: adminToken });
    chmodSync(machine.profiles, 0o640);
    const { code, stderr } = await machine.run(["keys"]);
    expect(code).toBe(1);
    expect(stderr).toContain("others on this machine can read it (mode 0640)");
    expect(stderr).toContain(`chmod 600 ${machine.profiles}`);
    chmodSync(machine.profiles, 0o600);
    expect(await machine.run(["keys"])).toMatchObject({ code: 0 });
  });

  test("that is none is left alone", async () => {
    const machine = newMachine();
    mkdirSync(dirname(machine.profiles), { recursive: true });
    writeFileSync(machine.profiles, "something else", { mode: 0o600 });
    expect(await machine.run(["login", edgeUrl], { input: adminToken })).toMatchObject({ code: 1 });
    expect(readFileSync(machine.profiles, "utf8")).toBe("something else");
  });
});

describe("a person's session", () => {
  async function signedIn() {
    const person = await newPerson({ scope: ADMIN_SCOPES });
    const machine = newMachine();
    await machine.run(["login", edgeUrl, "--login", person.login, "-p", "me"], { input: person.password });
    return { person, machine, refreshToken: () => kept(machine.profiles).profiles.me?.refresh_token };
  }

  test("is refreshed by itself, once, however many commands want it at the same time", async () => {
    const { person, machine, refreshToken } = await signedIn();
    const before = refreshToken();
    age(machine.profiles);
    const runs = await Promise.all(Array.from({ length: 4 }, () => machine.run(["accounts", "show", person.login])));
    expect(runs.map(({ code }) => code)).toEqual([0, 0, 0, 0]);
    const after = refreshToken();
    expect(after).not.toBe(before);
    age(machine.profiles);
    expect(await machine.run(["whoami"])).toMatchObject({ code: 0 });
    expect((await edge.account(person.sub)).sessions).toHaveLength(1);
  });

  test("is refreshed where the edge no longer takes the token that is kept", async () => {
    const { machine, refreshToken } = await signedIn();
    const path = machine.profiles;
    const { token = "" } = kept(path).profiles.me?.access ?? {};
    const [, claims = ""] = token.split(".");
    const { jti } = JSON.parse(Buffer.from(claims, "base64url").toString());
    await edge.revoke({ kind: "token", jti }, "the token alone");
    const before = refreshToken();
    expect(await machine.run(["whoami"])).toMatchObject({ code: 0 });
    expect(refreshToken()).not.toBe(before);
  });

  test("that is over is said to be over, and how to begin another", async () => {
    const { person, machine } = await signedIn();
    await edge.revoke({ kind: "user", sub: person.sub }, "out");
    const { code, stderr } = await machine.run(["whoami"]);
    expect(code).toBe(1);
    expect(stderr).toContain("keycard login");
    age(machine.profiles);
    const again = await machine.run(["whoami"]);
    expect(again.stderr).toContain(`The session of ${person.login} is over (session_revoked).`);
  });

  test("ends at the edge with logout, and is forgotten here", async () => {
    const { person, machine } = await signedIn();
    expect(await machine.run(["logout"])).toMatchObject({ code: 0, stdout: "me is forgotten.\n" });
    expect((await edge.account(person.sub)).sessions).toEqual([]);
    expect(readFileSync(machine.profiles, "utf8")).not.toContain("kcr.");
  });
});

/** A checkout in which a stack runs, or so it says. */
function checkout(): { program: string; state: string } {
  const dir = mkdtempSync(join(tmpdir(), "keycard-checkout-"));
  onTestFinished(() => rmSync(dir, { recursive: true, force: true }));
  for (const part of ["infra", "edge/contract", "package.json"]) {
    cpSync(join(ROOT, part), join(dir, part), { recursive: true });
  }
  symlinkSync(join(ROOT, "node_modules"), join(dir, "node_modules"));
  const state = join(dir, ".keycard");
  mkdirSync(state);
  writeFileSync(join(state, "admin-token"), `${adminToken}\n`, { mode: 0o600 });
  return { program: join(dir, "infra", "cli", "keycard.js"), state };
}

test("in a checkout the stack that runs there needs no login, while it runs", async () => {
  const { program, state } = checkout();
  const machine = newMachine();
  expect(await machine.run(["whoami", "-p", "local"], { program })).toMatchObject({
    code: 2,
    stderr: expect.stringContaining("No stack runs in this checkout."),
  });
  const taken = takeLock(state);
  if (!("lock" in taken)) throw new Error("the state is somebody else's");
  taken.lock.announce({ edgeUrl });
  for (const args of [["whoami", "-p", "local"], ["whoami"]]) {
    expect(await machine.run(args, { program })).toMatchObject({ code: 0, stdout: expect.stringContaining("root") });
  }
  chmodSync(join(state, "admin-token"), 0o644);
  expect(await machine.run(["whoami", "-p", "local"], { program })).toMatchObject({
    code: 1,
    stderr: expect.stringContaining("others on this machine can read it"),
  });
  taken.lock.announce({ edgeUrl: "http://elsewhere.example" });
  expect((await machine.run(["whoami", "-p", "local"], { program })).code).toBe(2);
  taken.lock.release();
});

describe("which credential is used", () => {
  test("is the current profile's, unless an option or the environment says otherwise", async () => {
    const machine = newMachine();
    for (const name of ["a", "b"]) await machine.run(["login", edgeUrl, "-p", name], { input: adminToken });
    const who = async (args: string[], env = {}) =>
      JSON.parse((await machine.run(["whoami", "--json", ...args], { env })).stdout).profile;
    expect(await who([])).toBe("b");
    expect(await machine.run(["profiles", "use", "a"])).toMatchObject({ code: 0 });
    expect(await who([])).toBe("a");
    expect(await who([], { KEYCARD_PROFILE: "b" })).toBe("b");
    expect(await who([], ADMIN)).toBe("environment");
    expect(await who(["-p", "b"], ADMIN)).toBe("b");
    expect((await machine.run(["profiles"])).stdout).toMatch(/^\* +a +http/m);
  });

  test.for([
    [[], {}, "There is no credential on this machine yet."],
    [["-p", "prod"], {}, 'There is no profile "prod".'],
    [[], { KEYCARD_TOKEN: "x" }, "KEYCARD_TOKEN is set without KEYCARD_EDGE."],
    [[], { KEYCARD_EDGE: edgeUrl }, "KEYCARD_EDGE is set without KEYCARD_TOKEN."],
  ] as const)("is said where there is none: %j %j", async ([args, env, message]) => {
    const { code, stderr } = await newMachine().run(["keys", ...args], { env });
    expect(code).toBe(2);
    expect(stderr).toContain(message);
  });

  test("is one that the edge may not take: it is said, with what to do", async () => {
    const { code, stderr } = await newMachine({ ...ADMIN, KEYCARD_TOKEN: "wrong" }).run(["keys"]);
    expect(code).toBe(1);
    expect(stderr).toContain("The edge refused (token_invalid)");
    expect(stderr).toContain("`keycard login` takes a new one.");
  });

  test("is one that may not do this: it is said what it would take", async () => {
    const { client_id, client_secret = "" } = await edge.createClient({ name: "reader", scopes: ["audit:read"] });
    const { access_token } = await edge.clientToken(client_id, client_secret);
    const { code, stderr } = await newMachine({ ...ADMIN, KEYCARD_TOKEN: access_token }).run([
      "revoke",
      "user",
      "x",
      "-r",
      "y",
    ]);
    expect(code).toBe(1);
    expect(stderr).toContain("This needs revocations:write.");
  });
});

test("no secret is ever printed, by the command or by anything that it talks to", async () => {
  const person = await newPerson({ scope: ADMIN_SCOPES });
  const machine = newMachine();
  const runs = [
    await machine.run(["login", edgeUrl, "-v", "--login", person.login], { input: person.password }),
    await machine.run(["whoami", "-v", "--json"]),
    await machine.run(["login", edgeUrl, "-v", "--json", "-p", "root"], { input: adminToken }),
    await machine.run(["profiles", "--json"]),
    await machine.run(["keys", "-v"], { env: { ...ADMIN, KEYCARD_TOKEN: `${adminToken}x` } }),
  ];
  expect(runs.map(({ code }) => code)).toEqual([0, 0, 0, 0, 1]);
  expect(runs[0]?.stderr).toMatch(/POST \/login → 200 {2}request [\w-]+/);
  const secrets = [
    person.password,
    adminToken,
    ...readFileSync(machine.profiles, "utf8").matchAll(/kcr\.[\w.-]+|eyJ[\w.-]+/g),
  ].map(String);
  const told = runs.map(({ stdout, stderr }) => stdout + stderr).join("") + readFileSync(stack.log, "utf8");
  expect(secrets.length).toBeGreaterThan(3);
  for (const secret of secrets) expect(told.includes(secret)).toBe(false);
});

test("a secret cannot be given where other users of the machine could read it", async () => {
  const { stdout } = await newMachine().run(["help", "login"]);
  expect(stdout).not.toMatch(/--(token|password|secret)\b(?!-command)/);
  for (const option of ["--token", "--password", "--client-secret"]) {
    expect((await newMachine().run(["login", edgeUrl, option, "x"])).code).toBe(2);
  }
});

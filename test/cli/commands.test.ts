/**
 * What an operator does besides revoking: looks at people, receipts, the trail, the nodes; keeps somebody out; makes clients. All of it is
 * asked through a proxy that keeps what passes, and every call of the command line is held against what the edge says of itself.
 */
import { afterAll, afterEach, expect, test } from "vitest";
import { EDGE_OPERATIONS } from "../../infra/edge-client.ts";
import { until } from "../../infra/until.ts";
import { asked, problemsOf } from "./description.ts";
import { endTokens, type Machine, newMachine } from "./machine.ts";
import { ADMIN, edge, newPerson, present, stack } from "./people.ts";
import { startProxy, type Way } from "./proxy.ts";
import { APP_ORIGIN } from "./shared-stack.ts";

const proxies: Way[] = [];

/** A machine whose every call is kept. */
async function watchedMachine(): Promise<Machine> {
  const proxy = await startProxy();
  proxies.push(proxy);
  return newMachine({ ...ADMIN, KEYCARD_EDGE: proxy.url });
}

afterEach(() => {
  const passed = proxies.splice(0).flatMap((proxy) => proxy.passed);
  // A preflight asks about an operation and is none.
  expect(passed.filter(({ method }) => method !== "OPTIONS").flatMap(problemsOf)).toEqual([]);
});

afterAll(() => {
  expect(EDGE_OPERATIONS.filter((operation) => !asked.has(operation))).toEqual([]);
});

const json = (stdout: string) =>
  stdout
    .trimEnd()
    .split("\n")
    .map((line) => JSON.parse(line));

test("people are found by how they begin, page by page", async () => {
  const machine = await watchedMachine();
  const beginning = `search-${process.pid}-`;
  for (const name of ["a", "b", "c"]) {
    await edge.createAccount({ login: `${beginning}${name}@example.com`, password: "a long password", tid: "found" });
  }
  const first = await machine.run(["accounts", "search", beginning, "--limit", "2"]);
  expect(first.stdout.match(/search-\d+-\w/g)).toEqual([`${beginning}a`, `${beginning}b`]);
  const [, cursor = ""] = /There are more: --after (\S+)/.exec(first.stderr) ?? [];
  const rest = await machine.run(["accounts", "search", beginning, "--limit", "2", "--after", cursor, "--json"]);
  expect(json(rest.stdout)).toEqual([expect.objectContaining({ login: `${beginning}c@example.com`, tid: "found" })]);
  expect((await machine.run(["accounts", "search", "no-such-beginning"])).stdout).toBe("Nobody begins like that.\n");
});

test("a person's sessions are shown with the sockets that each node holds", async () => {
  const person = await newPerson();
  const { tokens } = await present(person);
  const { code, stdout } = await (await watchedMachine()).run(["sessions", person.login]);
  expect(code).toBe(0);
  expect(stdout).toMatch(new RegExp(`^${tokens.sid} +laptop +3 +`, "m"));
  expect(stdout).toContain("3 open sockets");
  for (const { name } of stack.nodes) expect(stdout).toContain(`local  ${name}  1 socket`);
});

test("somebody is kept out until a time, and let in again", async () => {
  const person = await newPerson();
  const { sockets } = await present(person);
  const machine = await watchedMachine();
  const out = await machine.run(["accounts", "disable", person.login, "--until", "2h", "-r", "under investigation"]);
  expect(out).toMatchObject({ code: 0, stdout: expect.stringMatching(/is disabled until .*[\s\S]*Enforced/) });
  expect(sockets.some(({ socket }) => socket.connected)).toBe(false);
  await expect(edge.login(person.login, person.password)).rejects.toMatchObject({ code: "account_disabled" });
  expect(await machine.run(["accounts", "enable", person.login, "-r", "cleared"])).toMatchObject({ code: 0 });
  expect(await edge.login(person.login, person.password)).toHaveProperty("access_token");
});

test("an account is deleted for good, but not without a yes", async () => {
  const person = await newPerson();
  const machine = await watchedMachine();
  expect(await machine.run(["accounts", "delete", person.login, "-r", "x"])).toMatchObject({ code: 2 });
  const deleted = await machine.run(["accounts", "delete", person.login, "-r", "x", "--yes"]);
  expect(deleted).toMatchObject({ code: 0, stdout: expect.stringContaining("Enforced") });
  expect(await machine.run(["accounts", "show", "--sub", person.sub])).toMatchObject({ code: 1 });
});

test("receipts are listed, newest first, and shown whole", async () => {
  const person = await newPerson();
  const ids = [];
  for (const reason of ["first", "second"]) {
    ids.unshift((await edge.revoke({ kind: "user", sub: person.sub }, reason)).id);
  }
  const machine = await watchedMachine();
  const listed = await machine.run(["receipts", "--sub", person.sub]);
  expect(listed.stdout.match(/rev_[\w-]{22}/g)).toEqual(ids);
  await edge.enforcedReceipt(ids[0] ?? "");
  const { stdout } = await machine.run(["receipts", "show", ids[0] ?? ""]);
  expect(stdout).toMatch(/^reason +second$/m);
  expect(stdout).toContain("✓ local  0 sockets closed on 3 nodes");
  const missing = await machine.run(["receipts", "show", "rev_AAAAAAAAAAAAAAAAAAAAAA"]);
  expect(missing).toMatchObject({ code: 1, stderr: expect.stringContaining("There is no receipt rev_AAAA") });
});

test("the trail is read as it is kept, followed as it grows, and found whole", async () => {
  const person = await newPerson();
  const machine = await watchedMachine();
  const following = machine.start([
    "audit",
    "--follow",
    "--json",
    "--sub",
    person.sub,
    "--type",
    "revocation",
    "--since",
    "1h",
  ]);
  for (const reason of ["one", "two"]) {
    await edge.revoke({ kind: "user", sub: person.sub }, reason);
    await until(`${reason} is seen`, () => following.stdout.includes(`"reason":"${reason}"`));
  }
  following.kill("SIGINT");
  expect((await following.exited).code).toBe(130);
  const kept = (await edge.audit({ sub: person.sub, type: "revocation" })).records;
  expect(json(following.stdout)).toEqual(kept);
  const read = await machine.run(["audit", "--sub", person.sub, "--type", "revocation"]);
  expect(read.stdout).toMatch(new RegExp(`revocation .*admin root  → ${person.sub}  rev_[\\w-]+  “one”`));
  expect(await machine.run(["audit", "verify"])).toMatchObject({
    code: 0,
    stdout: expect.stringContaining("✓ Intact: "),
  });
});

test("every node is shown, as it answers now", async () => {
  const machine = await watchedMachine();
  const { code, stdout } = await machine.run(["status"]);
  expect({ code, stdout }).toMatchObject({
    code: 0,
    stdout: expect.stringMatching(/✓ local {2}Redis reachable {2}3 nodes/),
  });
  for (const { name } of stack.nodes) expect(stdout).toMatch(new RegExp(`✓ +${name} +ready +redis +0 +\\d`));
});

test("a client is made with what it needs, its secret shown once, and turned away", async () => {
  const machine = await watchedMachine();
  const made = await machine.run(["clients", "create", "support desk", "--scope", "keys:write,audit:read", "--json"]);
  const [client] = json(made.stdout);
  expect(client).toMatchObject({
    name: "support desk",
    scopes: ["keys:write", "audit:read"],
    client_secret: expect.any(String),
  });
  const { access_token } = await edge.clientToken(client.client_id, client.client_secret);
  const as = { env: { KEYCARD_TOKEN: access_token } };
  expect((await machine.run(["keys"], as)).code).toBe(0);
  expect((await machine.run(["clients", "disable", client.client_id])).stdout).toContain("disabled");
  expect((await machine.run(["keys"], as)).code).toBe(1);
  expect((await machine.run(["clients", "show", client.client_id])).stdout).not.toContain(client.client_secret);
  expect(await machine.run(["clients", "delete", client.client_id])).toMatchObject({ code: 0 });
  expect((await machine.run(["clients", "show", client.client_id])).code).toBe(1);
});

test("what is asked for in other ways is described too", async () => {
  const person = await newPerson();
  const machine = await watchedMachine();
  const { receipts } = await edge.receipts({ limit: 1 });
  for (const [line, input] of [
    [`accounts create described-${process.pid}@example.com --tenant acme --scope chat`, "a long password"],
    [`revoke user ${person.login} --issued-before 1h --margin 5 -r why`],
    [`revoke user --sub ${person.sub} --dry-run`],
    ["revoke users --subjects --yes -r why", person.sub],
    [`receipts follow ${receipts[0]?.id}`],
    ["receipts --state enforced --sub ada --since 1h --until 2030-01-01 --limit 3"],
    ["audit --type revocation --sub ada --tenant acme --since 1h --until 2030-01-01 --after 2 --limit 3"],
    ["keys rotate --purpose events -r why"],
  ] as const) {
    const { code, stderr } = await machine.run(line.split(" "), { input: input ?? "" });
    expect({ line, code, stderr: code === 0 ? "" : stderr }).toEqual({ line, code: 0, stderr: "" });
  }
});

test("signing in, as whoever one is, and the doctor are described too", async () => {
  const proxy = await startProxy();
  proxies.push(proxy);
  const machine = newMachine();
  const person = await newPerson({ scope: "accounts:read" });
  const { client_id, client_secret = "" } = await edge.createClient({ name: "described", scopes: ["audit:read"] });
  for (const [args, input] of [
    [["login", proxy.url, "-p", "person", "--login", person.login], person.password],
    [["login", proxy.url, "-p", "client", "--client-id", client_id], client_secret],
    [["whoami", "-p", "client"], ""],
  ] as const) {
    expect(await machine.run(args, { input })).toMatchObject({ code: 0 });
  }
  endTokens(machine.profiles);
  expect(await machine.run(["whoami", "-p", "person"])).toMatchObject({ code: 0 });
  expect(await machine.run(["logout", "person"])).toMatchObject({ code: 0 });
  await machine.run(["doctor", "--origin", APP_ORIGIN], { env: { ...ADMIN, KEYCARD_EDGE: proxy.url } });
});

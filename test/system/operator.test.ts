/** An operator's night on a whole stack of real processes: who is in and where, throw them out, what is broken; with nothing but an account. */
import { afterAll, beforeAll, expect, it } from "vitest";
import type { Tokens } from "../../infra/edge-client.ts";
import { until } from "../../infra/until.ts";
import { type Person, startTestStack, type TestStack } from "../support/test-stack.ts";

interface Status {
  readonly version: string;
  readonly log: { readonly head: number };
  readonly clusters: readonly {
    readonly endpoints: readonly { readonly origin: string; readonly reachable?: boolean }[];
    readonly undelivered: number;
    readonly redis?: { readonly reachable: boolean };
    readonly nodes: readonly { readonly node: string; readonly applied: number; readonly link: string }[];
    readonly silent: readonly string[];
  }[];
}
interface Held {
  readonly sockets: number;
  readonly clusters: readonly {
    readonly nodes: readonly { readonly node: string; readonly listed: readonly object[] }[];
  }[];
}

let system: TestStack;
let operator: Person;
let tokens: Tokens;
let names: readonly string[];

beforeAll(async () => {
  system = await startTestStack();
  names = system.stack.nodes.map(({ name }) => name).sort();
  operator = await system.newPerson({
    scope: "chat accounts:read sessions:read revocations:read revocations:write audit:read",
  });
  const { login, password } = operator;
  tokens = await called<Tokens>("POST", "/login", { login, password, resource: system.stack.edgeUrl }, undefined);
});
afterAll(() => system?.stop());

async function call(method: string, path: string, body?: object, token?: string): Promise<Response> {
  const headers = {
    ...(body && { "content-type": "application/json" }),
    ...(token !== undefined && { authorization: `Bearer ${token}` }),
  };
  return await fetch(`${system.stack.edgeUrl}${path}`, { method, headers, body: body ? JSON.stringify(body) : null });
}

/** As the operator, unless somebody else is named. */
async function called<T>(method: string, path: string, body?: object, token = tokens?.access_token): Promise<T> {
  const response = await call(method, path, body, token);
  expect(response.ok, `${method} ${path}: ${response.status}`).toBe(true);
  return (await response.json()) as T;
}

function signal(name: string, what: NodeJS.Signals): void {
  const pid = system.stack.pids[name];
  if (pid === undefined) throw new Error(`there is no process ${name}`);
  process.kill(pid, what);
}

const status = async () => await called<Status>("GET", "/admin/status");
const cluster = async () => (await status()).clusters[0];

it("a token for administration opens no socket anywhere, and one for the doors of the same session does", async () => {
  for (const node of system.stack.nodes) {
    const refused = system.open(node, tokens.access_token);
    await until("it is refused", () => refused.refusals.length > 0);
    expect(refused.refusals[0]?.code).toBe("token_invalid");
    refused.socket.close();
  }
  const ordinary = await called<Tokens>("POST", "/refresh", { refresh_token: tokens.refresh_token });
  expect(ordinary.sid).toBe(tokens.sid);
  await system.openEverywhere(ordinary.access_token);
  expect((await call("GET", "/admin/me", undefined, ordinary.access_token)).status).toBe(401);
  const body = { refresh_token: ordinary.refresh_token, resource: system.stack.edgeUrl };
  tokens = await called<Tokens>("POST", "/refresh", body);
});

it("somebody is found, seen on every node, thrown out, and the receipt is found again by their name", async () => {
  const person = await system.newPerson({ login: "ada.lovelace@example.com" });
  const { access_token, sid } = await system.logIn(person);
  const sockets = await system.openEverywhere(access_token);
  const found = await until("she is in the directory", async () => {
    const { accounts } = await called<{ accounts: { sub: string }[] }>("GET", "/admin/accounts?query=ADA.L");
    return accounts[0];
  });
  expect(found).toMatchObject({ sub: person.sub, login: person.login, disabled: false });
  const held = await called<Held>("GET", `/admin/accounts/${found.sub}/sockets`);
  expect(held.sockets).toBe(3);
  expect(held.clusters[0]?.nodes.map(({ node }) => node)).toEqual(names);
  for (const { listed } of held.clusters[0]?.nodes ?? []) expect(listed).toMatchObject([{ sid, nsp: "/" }]);
  const target = { kind: "user", sub: found.sub };
  const response = await call("POST", "/admin/revocations", { target, reason: "why not" }, tokens.access_token);
  const request = response.headers.get("x-request-id");
  const { id } = (await response.json()) as { id: string };
  await system.edge.enforcedReceipt(id);
  expect(sockets.some(({ socket }) => socket.connected)).toBe(false);
  expect((await called<Held>("GET", `/admin/accounts/${found.sub}/sockets`)).sockets).toBe(0);
  const { receipts } = await called<{ receipts: object[] }>("GET", `/admin/revocations?sub=${found.sub}`);
  const actor = { kind: "account", id: operator.sub };
  expect(receipts).toMatchObject([{ id, request, actor, state: "enforced", closed: 3 }]);
  const { buckets } = await called<{ buckets: { count: number }[] }>("GET", "/admin/latency");
  expect(buckets.reduce((sum, { count }) => sum + count, 0)).toBeGreaterThan(0);
});

it("every node says how it is; one that is frozen is named until its lease is over", async () => {
  const all = await until("all are there", async () => {
    const seen = await status();
    const { nodes = [] } = seen.clusters[0] ?? {};
    return nodes.length === 3 && nodes.every(({ applied }) => applied === seen.log.head) && seen;
  });
  expect(all.clusters).toMatchObject([{ undelivered: 0, redis: { reachable: true }, silent: [] }]);
  expect(all.clusters[0]?.nodes.map(({ node, link }) => [node, link])).toEqual(names.map((name) => [name, "redis"]));
  // Not the one that is asked: its answer would be waited for until its lease is over.
  const asked = all.clusters[0]?.endpoints.find(({ reachable }) => reachable)?.origin;
  const victim = system.stack.nodes.find(({ url }) => url !== asked)?.name ?? "";
  signal(victim, "SIGSTOP");
  const frozen = await until("it is missed", async () => {
    const seen = await cluster();
    return seen?.nodes.length === 2 && seen;
  });
  expect(frozen.silent).toEqual([victim]);
  await until("its lease is over", async () => (await cluster())?.silent.length === 0);
  signal(victim, "SIGCONT");
  await until("it is back", async () => (await cluster())?.nodes.length === 3);
});

it("with Redis gone one node speaks for itself, and it is said that Redis is gone", async () => {
  await system.stack.kill("redis");
  const seen = await until("it is noticed", async () => {
    const now = await cluster();
    return now?.redis?.reachable === false && now.nodes[0]?.link === "feed" && now;
  });
  expect(seen.nodes).toHaveLength(1);
  const [alone] = seen.nodes;
  await until("the edge names those who live by its feed", async () => {
    const { silent = [] } = (await cluster()) ?? {};
    return silent.join() === names.filter((name) => name !== alone?.node).join();
  });
  await system.stack.restart("redis");
  await until("all are heard again", async () => {
    const now = await cluster();
    return now?.nodes.length === 3 && now.silent.length === 0;
  });
});

it("an operator who is thrown out is out", async () => {
  await system.edge.revoke({ kind: "user", sub: operator.sub }, "left");
  const response = await call("GET", "/admin/status", undefined, tokens.access_token);
  expect([response.status, ((await response.json()) as { code: string }).code]).toEqual([401, "session_revoked"]);
});

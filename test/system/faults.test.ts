/**
 * Processes die while a revocation is on its way. Whatever dies, a revocation that was answered 202 reaches every
 * node, and whoever was not revoked loses nothing but the connection to the process that died.
 */
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import type { ObservedSocket } from "../../infra/observed-socket.ts";
import { until } from "../../infra/until.ts";
import { startTestStack, type TestStack } from "../support/test-stack.ts";

let system: TestStack;
/** Nobody ever revokes them. */
let bystanders: readonly ObservedSocket[];
/** Those who are to be thrown out, on every node. */
let covered: readonly ObservedSocket[];
let sid: string;
let token: string;
/** Nodes whose death the test at hand caused. */
let killed: readonly string[];

beforeAll(async () => {
  system = await startTestStack();
  const bystander = await system.logIn(await system.newPerson());
  bystanders = await system.openEverywhere(bystander.access_token);
});

beforeEach(async () => {
  killed = [];
  const tokens = await system.logIn(await system.newPerson());
  sid = tokens.sid;
  token = tokens.access_token;
  covered = await system.openEverywhere(token);
  lossesBefore = bystanders.map(({ disconnects }) => disconnects.length);
});

let lossesBefore: readonly number[];

afterEach(async () => {
  await until("every bystander is connected", () => bystanders.every(({ socket }) => socket.connected));
  for (const [index, { node, unauthorized, refusals, disconnects }] of bystanders.entries()) {
    expect(unauthorized, `told to a bystander on ${node}`).toEqual([]);
    expect(refusals, `refused to a bystander on ${node}`).toEqual([]);
    const losses = disconnects.slice(lossesBefore[index]);
    if (!killed.includes(node)) expect(losses, `connections that a bystander lost on ${node}`).toEqual([]);
    else for (const loss of losses) expect(loss).toMatch(/^transport /);
  }
  expect(system.deaths).toEqual([]);
});

afterAll(() => system.stop());

const nodeNames = () => system.stack.nodes.map(({ name }) => name);
const forAll = (act: (name: string) => Promise<void>) => Promise.all(nodeNames().map(act));

async function revoke(): Promise<string> {
  const { id } = await system.edge.revoke({ kind: "session", sid }, "a fault is being tried");
  return id;
}

/** Enforced says the receipt, closed are the sockets, refused is the token; and told they were, unless their node died. */
async function expectEnforced(id: string): Promise<void> {
  const receipt = await system.edge.enforcedReceipt(id, 60_000);
  const [cluster] = receipt.clusters;
  expect(cluster?.pending).toEqual([]);
  // A node that was killed is fenced, and what runs in its place has replayed the revocation before it let anybody in.
  const accounted = [...(cluster?.applied ?? []), ...(cluster?.fenced ?? [])].map(({ node }) =>
    node.replace(/~.*/, ""),
  );
  expect([...new Set(accounted)].sort()).toEqual(nodeNames());
  expect(receipt.enforced_at).toBeGreaterThanOrEqual(receipt.created_at);
  await until("the revoked sockets are gone for good", () =>
    covered.every(({ socket }) => !socket.connected && !socket.active),
  );
  for (const { unauthorized, refusals } of covered) {
    expect([...unauthorized, ...refusals].map(({ code }) => code)).toContain("session_revoked");
  }
  const attempts = system.stack.nodes.map((node) => system.open(node, token));
  await until("every node has judged the token", () => attempts.every(({ refusals }) => refusals.length > 0));
  for (const { connects, refusals } of attempts) {
    expect(connects).toBe(0);
    expect(refusals.map(({ code }) => code)).toEqual(["session_revoked"]);
  }
}

describe("a revocation that was answered 202 is enforced on every node although", () => {
  test("the edge is killed right after its answer", async () => {
    const id = await revoke();
    await system.stack.kill("edge");
    await system.stack.restart("edge");
    await expectEnforced(id);
  });

  test("all nodes hang, and the edge is killed right after its answer", async () => {
    await forAll((name) => system.stack.kill(name, "SIGSTOP"));
    const id = await revoke();
    await system.stack.kill("edge");
    await forAll((name) => system.stack.kill(name, "SIGCONT"));
    await system.stack.restart("edge");
    await expectEnforced(id);
  });

  test("all nodes are dead, and the edge is killed right after its answer", async () => {
    killed = nodeNames();
    await forAll((name) => system.stack.kill(name));
    const id = await revoke();
    await system.stack.kill("edge");
    await system.stack.restart("edge");
    await forAll((name) => system.stack.restart(name));
    await expectEnforced(id);
  });

  test("Redis is dead, and the edge is killed right after its answer", async () => {
    await system.stack.kill("redis");
    const id = await revoke();
    await system.stack.kill("edge");
    await system.stack.restart("redis");
    await system.stack.restart("edge");
    await expectEnforced(id);
  });

  test("Redis is dead when it is decided, and comes back", async () => {
    await system.stack.kill("redis");
    const id = await revoke();
    const { state } = await system.edge.receipt(id);
    expect(state).not.toBe("enforced");
    await system.stack.restart("redis");
    await expectEnforced(id);
  });

  test("Redis is killed right after the answer", async () => {
    const id = await revoke();
    await system.stack.kill("redis");
    await system.stack.restart("redis");
    await expectEnforced(id);
  });

  test("a node is dead when it is decided, and that node lets nobody with that token in, not even once", async () => {
    const node = system.stack.nodes[1];
    if (node === undefined) throw new Error("there is no second node");
    killed = [node.name];
    await system.stack.kill(node.name);
    const eager = system.open(node, token, { reconnectionDelay: 1, reconnectionDelayMax: 5 });
    const id = await revoke();
    await until("the node has been knocked at", () => eager.failures.length > 0);
    await system.stack.restart(node.name);
    await until("the node has judged the token", () => eager.refusals.length > 0);
    expect(eager.connects).toBe(0);
    expect(eager.refusals.map(({ code }) => code)).toEqual(["session_revoked"]);
    await expectEnforced(id);
  });

  test("a node hangs when it is decided, and wakes up", async () => {
    const [name = ""] = nodeNames();
    await system.stack.kill(name, "SIGSTOP");
    const id = await revoke();
    await until("the others have closed", () =>
      covered.every(({ node, socket }) => node === name || !socket.connected),
    );
    await system.stack.kill(name, "SIGCONT");
    await expectEnforced(id);
  });
});

/**
 * What is changed while people are there: nodes are restarted one after the other, the cluster's secret is replaced, signing keys are rotated
 * and retired, behind the proxy that is deployed, under stock clients of every transport.
 *
 * Of every message that the app publishes each client gets every one, once and in order, but for those published between the moment in which a
 * node sent it away and the moment in which the next node let it in. Both moments are told by the nodes, so that nothing is left to clocks. Every
 * attempt to come back is let in at once. Meanwhile sessions are revoked again and again: each revocation is enforced, its sockets are gone,
 * and nobody ever gets in with a token of theirs.
 */
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import type { Tokens } from "../../infra/edge-client.ts";
import { obtainHaproxy, type RunningProxy, startProxy } from "../../infra/haproxy.ts";
import { reservePort } from "../../infra/ports.ts";
import { CLUSTER } from "../../infra/stack.ts";
import { until } from "../../infra/until.ts";
import {
  type Connection,
  type Knocking,
  keepKnocking,
  type Participant,
  participate,
  tokensOf,
} from "../support/load.ts";
import { type Goodbye, type Publisher, publishNumbers } from "../support/numbered-handlers.ts";
import { startTestStack, type TestStack } from "../support/test-stack.ts";

const NODES = ["node-1", "node-2", "node-3"] as const;
const TRANSPORTS = [["websocket"], ["polling"], ["polling", "websocket"]];
const PEOPLE = 4;

let system: TestStack;
let proxy: RunningProxy;
let participants: readonly Participant[];
let knocking: Knocking;
let publisher: Publisher;
let secret: string;
let people = 0;

beforeAll(async () => {
  const reserved = await reservePort();
  const url = `http://127.0.0.1:${reserved.port}`;
  // The edge too reaches the nodes through the proxy.
  const clusters = JSON.stringify([{ id: CLUSTER, endpoints: [url] }]);
  secret = "the secret with which the cluster begins";
  const nodeSettings = {
    HANDLERS: join(import.meta.dirname, "..", "support", "numbered-handlers.ts"),
    TRUSTED_PROXIES: "127.0.0.1",
    CLUSTER_SECRET: secret,
    LEASE_SECONDS: "2",
    LOG_LEVEL: "info",
  };
  const edgeSettings = { CLUSTERS: clusters, CLUSTER_SECRETS: JSON.stringify({ [CLUSTER]: secret }) };
  system = await startTestStack(edgeSettings, { nodeSettings });
  const nodes = system.stack.nodes.map((node) => new URL(node.url).host);
  await reserved.release();
  proxy = await startProxy({ binary: await obtainHaproxy(), nodes, port: reserved.port });
  publisher = await publishNumbers(system.stack.redisUrl, secret);
  knocking = keepKnocking(proxy.url);
  participants = (
    await Promise.all(
      Array.from({ length: PEOPLE }, async () => {
        const fresh = tokensOf(system.edge, await openSession());
        return TRANSPORTS.map((transports) => participate(proxy.url, transports, fresh));
      }),
    )
  ).flat();
  await everybodyHears();
});

afterAll(async () => {
  for (const { socket } of participants ?? []) socket.disconnect();
  await knocking?.stop();
  publisher?.stop();
  await proxy?.stop();
  await system?.stop();
});

/** A session of somebody new, opened by a backend, which costs no password. */
async function openSession(): Promise<Tokens> {
  people += 1;
  const response = await fetch(`${system.stack.edgeUrl}/admin/sessions`, {
    method: "POST",
    headers: { authorization: `Bearer ${system.stack.adminToken}`, "content-type": "application/json" },
    body: JSON.stringify({ sub: `u_load_${people}`, create: {} }),
  });
  expect(response.status).toBe(200);
  return (await response.json()) as Tokens;
}

interface Key {
  readonly kid: string;
  readonly state: string;
  readonly purpose: string;
}

async function rotateKeys(order: object): Promise<{ readonly keys: readonly Key[]; readonly revocation?: string }> {
  const response = await fetch(`${system.stack.edgeUrl}/admin/keys/rotate`, {
    method: "POST",
    headers: { authorization: `Bearer ${system.stack.adminToken}`, "content-type": "application/json" },
    body: JSON.stringify({ reason: "under load", ...order }),
  });
  expect(response.status).toBe(200);
  return (await response.json()) as { keys: Key[]; revocation?: string };
}

const lastOf = ({ connections }: Participant) => connections.at(-1)?.numbers.at(-1) ?? 0;

/** Everybody is in, and hears what is published from now on. */
async function everybodyHears(): Promise<void> {
  const newest = Math.max(...participants.map(lastOf));
  await until("everybody hears the app", () =>
    participants.every((each) => each.socket.connected && lastOf(each) > newest),
  );
}

/** The app's own process takes the secret that every node believes by now. */
async function publishWith(other: string): Promise<void> {
  const hold = publisher.published;
  await publisher.sealWith(other);
  await until("everybody has heard what came before", () => participants.every((each) => lastOf(each) > hold));
}

/** Each after the other, as an orchestrator does: the next when the one before is ready and the proxy sends people there. */
async function roll(changes: Readonly<Record<string, string>> = {}): Promise<void> {
  for (const name of NODES) {
    await system.stack.restart(name, changes);
    await until(`${name} is back behind the proxy`, () => proxy.isUp(name));
  }
}

interface Thrown {
  readonly id: string;
  readonly sockets: readonly Participant[];
  readonly token: string;
}

/** Revokes sessions one after the other while something goes on, at least one. */
async function revokingDuring(change: () => Promise<void>): Promise<Thrown[]> {
  const thrown: Thrown[] = [];
  let over = false;
  const changing = change().finally(() => {
    over = true;
  });
  while (!over || thrown.length === 0) {
    const session = await openSession();
    const { access_token: token, sid } = session;
    const fresh = tokensOf(system.edge, session);
    const sockets = [["websocket"], ["polling"]].map((way) => participate(proxy.url, way, fresh));
    await until("they are in", () => sockets.every(({ socket }) => socket.connected));
    const { id } = await until("the edge takes it", () =>
      system.edge.revoke({ kind: "session", sid }, "thrown out in the middle of a change").catch(() => undefined),
    );
    await until("they are out for good", () => sockets.every(({ socket }) => !socket.connected && !socket.active));
    knocking.add(token);
    thrown.push({ id, sockets, token });
  }
  await changing;
  return thrown;
}

async function expectAllEnforced(thrown: readonly Thrown[]): Promise<void> {
  for (const { id, sockets } of thrown) {
    await system.edge.enforcedReceipt(id);
    for (const { socket, connections, failures } of sockets) {
      expect(socket.connected || socket.active).toBe(false);
      // Told so, on the connection that it had, or when it tried to come back from a node that was just being restarted.
      expect([connections.at(-1)?.goodbye?.code, ...failures]).toContain("session_revoked");
    }
  }
}

/** What the nodes noted of those whom they sent away: socket id → last number. */
function goodbyes(): ReadonlyMap<string, number> {
  const notes = system.lines.flatMap((line) => {
    const text = line.slice(line.indexOf(" ") + 1);
    return text.startsWith('{"goodbye"') ? [JSON.parse(text) as Goodbye] : [];
  });
  return new Map(notes.map(({ goodbye, last }) => [goodbye, last]));
}

const upTo = ({ welcome = 0, numbers }: Connection) => numbers.at(-1) ?? welcome;

/** Every number is either received once and in order, or was published between a goodbye and the next welcome. */
function expectAccounted({ name, connections }: Participant): void {
  const noted = goodbyes();
  for (const [index, connection] of connections.entries()) {
    const { id, welcome = 0, numbers, ended, goodbye } = connection;
    expect(welcome, `${name}: its node hears the app when it lets people in`).toBeGreaterThan(0);
    expect(numbers, `${name}: without a hole`).toEqual(numbers.map((_, i) => welcome + 1 + i));
    if (ended !== undefined) {
      const last = noted.get(id) ?? 0;
      // Whoever is revoked hears nothing more from that moment on, and is told a moment later.
      if (goodbye?.code === "unavailable") expect(upTo(connection), `${name}: up to the goodbye`).toBe(last);
      else expect(upTo(connection), `${name}: no further than the goodbye`).toBeLessThanOrEqual(last);
    }
    const before = connections[index - 1];
    if (before) expect(welcome, `${name}: nothing twice`).toBeGreaterThanOrEqual(upTo(before));
  }
}

/** Nobody was turned away, and all that was said is accounted for. @returns the connections of each that ended */
function expectUndisturbed(): readonly (readonly Connection[])[] {
  for (const participant of participants) {
    expect(participant.failures, `${participant.name}: attempts to come back that failed`).toEqual([]);
    expectAccounted(participant);
  }
  return participants.map(({ connections }) => connections.slice(0, -1));
}

/** That everybody was sent away at most once by each node that was restarted, and told why. */
async function expectRolled(before: readonly (readonly Connection[])[], rolls: number): Promise<void> {
  await everybodyHears();
  for (const [index, ended] of expectUndisturbed().entries()) {
    const recently = ended.slice(before[index]?.length);
    expect(recently.length).toBeLessThanOrEqual(rolls * NODES.length);
    for (const { goodbye } of recently) expect(goodbye).toMatchObject({ code: "unavailable", advice: "retry" });
  }
  const stops = system.lines.filter((line) => line.includes('"msg":"stopped"'));
  expect(stops.length % NODES.length).toBe(0);
}

const headerOf = (token: string) => JSON.parse(Buffer.from(token.split(".")[0] ?? "", "base64url").toString());

afterEach(() => {
  expect(knocking.outcomes.length).toBeGreaterThan(0);
  expect(knocking.outcomes).not.toContain("connected");
  expect(knocking.outcomes).toContain("session_revoked");
  expect(system.deaths).toEqual([]);
});

describe("while people are there", () => {
  const next = "the secret with which the cluster goes on";

  test("the nodes are restarted one after the other, with a second secret to believe in", async () => {
    await system.stack.restart("edge", { CLUSTER_SECRETS: JSON.stringify({ [CLUSTER]: [next, secret] }) });
    const before = expectUndisturbed();
    const thrown = await revokingDuring(() => roll({ CLUSTER_SECRET: `${secret},${next}` }));
    await expectRolled(before, 1);
    await expectAllEnforced(thrown);
  });

  test("the second secret takes the place of the first, and then the first is believed no more", async () => {
    for (const secrets of [`${next},${secret}`, next]) {
      const before = expectUndisturbed();
      const thrown = await revokingDuring(() => roll({ CLUSTER_SECRET: secrets }));
      await expectRolled(before, 1);
      await expectAllEnforced(thrown);
      if (secrets !== next) await publishWith(next);
    }
    await system.stack.restart("edge", { CLUSTER_SECRETS: JSON.stringify({ [CLUSTER]: next }) });
    const ignored = system.lines.filter((line) => line.includes("somebody who is not trusted wrote to Redis"));
    // Farewells of those who were stopped while the first secret was still in use; nothing that anybody waits for.
    expect(ignored.filter((line) => !line.includes("a heartbeat that no node of this cluster sealed"))).toEqual([]);
  });

  test("the next signing key is published, and nobody notices", async () => {
    const before = expectUndisturbed();
    const thrown = await revokingDuring(async () => {
      const { keys } = await rotateKeys({});
      const next = keys.find(({ state, purpose }) => state === "next" && purpose === "access");
      const published = await (await fetch(`${system.stack.edgeUrl}/.well-known/jwks.json`)).text();
      expect(published).toContain(next?.kid);
    });
    await everybodyHears();
    expect(expectUndisturbed()).toEqual(before);
    await expectAllEnforced(thrown);
  });

  test("the signing key is retired, and everybody comes back with a token of its successor", async () => {
    const before = expectUndisturbed();
    const { access_token: stale } = await openSession();
    let revocation = "";
    const thrown = await revokingDuring(async () => {
      revocation = (await rotateKeys({ retire: true })).revocation ?? "";
    });
    await system.edge.enforcedReceipt(revocation);
    await everybodyHears();
    for (const [index, ended] of expectUndisturbed().entries()) {
      expect(ended.slice(before[index]?.length)).toMatchObject([
        { goodbye: { code: "token_revoked", advice: "refresh" } },
      ]);
    }
    expect(headerOf((await openSession()).access_token).kid).not.toBe(headerOf(stale).kid);
    for (const { name, url } of system.stack.nodes) {
      const late = participate(url, ["websocket"], async () => stale);
      await until(`${name} has judged it`, () => late.failures.length > 0);
      late.socket.disconnect();
      expect(late.connections).toEqual([]);
      // Revoked, or of a key that there is no more.
      for (const failure of late.failures) expect(failure).toMatch(/^token_(revoked|invalid)$/);
    }
    await expectAllEnforced(thrown);
  });
});

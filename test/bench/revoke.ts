/**
 * How long a revocation takes, from the call to the last closed socket: one session with one socket on each of three
 * nodes. Beside it, in turns on the same nodes, Socket.IO's `io.in(room).disconnectSockets(true)`, called on the first node,
 * for a room with one socket on each. The first is signed, durable and accounted for, the second is not: the
 * difference is what that costs. All times are of this one process, which plays every client.
 */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { EdgeClient, type Tokens } from "../../infra/edge-client.ts";
import { type ObservedSocket, openSocket } from "../../infra/observed-socket.ts";
import { type Stack, type StackNode, startStack } from "../../infra/stack.ts";
import { until } from "../../infra/until.ts";
import type { Bench } from "./bench.ts";
import { type Distribution, distributionOf, round } from "./distribution.ts";

const ROUNDS = 200;
const WARM_UP_ROUNDS = 20;
const PEOPLE = 20;
const HANDLERS = join(import.meta.dirname, "handlers.ts");

/** Milliseconds. */
interface RevokeSample {
  readonly lastClosed: number;
  readonly answered: number;
  /** By the nodes' clocks, which show whole milliseconds. */
  readonly firstApplied: number;
  readonly lastApplied: number;
}

interface RevokeFigures {
  readonly rounds: number;
  readonly nodes: number;
  /** Milliseconds from the call. */
  readonly revocation: {
    readonly last_closed: Distribution;
    readonly answered: Distribution;
    readonly first_node_applied: Distribution;
    readonly last_node_applied: Distribution;
  };
  readonly disconnect_sockets: { readonly last_closed: Distribution };
  /** Revocation over disconnectSockets. */
  readonly ratio: { readonly p50: number; readonly p99: number };
}

export const REVOKE: Bench = {
  about: "revocation to last closed socket, beside disconnectSockets",
  async run(tell) {
    const result = await measureAll(tell);
    return { result, rows: [], print: () => print(result) };
  },
};

async function measureAll(onProgress: (text: string) => void): Promise<RevokeFigures> {
  const dir = await mkdtemp(join(tmpdir(), "keycard-bench-"));
  let stack: Stack | undefined;
  try {
    stack = await startStack({
      dir,
      edgeSettings: { ACCESS_TOKEN_TTL_SECONDS: "3600" },
      nodeSettings: { HANDLERS, LOG_LEVEL: "warn" },
      onStep: onProgress,
    });
    return await measure(stack, onProgress);
  } finally {
    await stack?.stop();
    await rm(dir, { recursive: true, force: true });
  }
}

async function measure(stack: Stack, onProgress: (text: string) => void): Promise<RevokeFigures> {
  const [first] = stack.nodes;
  if (first === undefined) throw new Error("the stack has no node");
  const edge = new EdgeClient(stack);
  const logins = await createPeople(edge);
  const resident = await edge.login(logins[0] ?? "", PASSWORD);
  const control = await open(first, resident);
  const revocations: RevokeSample[] = [];
  const rooms: number[] = [];
  for (let index = -WARM_UP_ROUNDS; index < ROUNDS; index++) {
    const session = await edge.login(logins[Math.abs(index) % PEOPLE] ?? "", PASSWORD);
    const [covered, inRoom] = [await openOnEach(stack, session), await openOnEach(stack, resident)];
    const room = `room ${index}`;
    await Promise.all(inRoom.map(({ socket }) => socket.emitWithAck("join", room)));
    const revoke = async () => revocations.push(await timeRevocation(edge, session, covered));
    const closeRoom = async () => rooms.push(await timeRoom(control, room, inRoom));
    // Neither is always the one that goes first.
    for (const act of index % 2 === 0 ? [revoke, closeRoom] : [closeRoom, revoke]) await act();
    if (index === -1) revocations.length = rooms.length = 0;
    if (index % 50 === 0) onProgress(`round ${index} of ${ROUNDS}`);
  }
  control.socket.close();
  return report(stack, revocations, rooms);
}

const PASSWORD = "a password for measuring";

async function createPeople(edge: EdgeClient): Promise<string[]> {
  const logins = Array.from({ length: PEOPLE }, (_, index) => `bench-${index}@example.com`);
  for (const login of logins) await edge.createAccount({ login, password: PASSWORD });
  return logins;
}

async function open(node: StackNode, { access_token }: Tokens): Promise<ObservedSocket> {
  const observed = openSocket(node, access_token, { transports: ["websocket"] });
  await until(`a socket on ${node.name} is connected`, () => observed.socket.connected);
  return observed;
}

function openOnEach(stack: Stack, tokens: Tokens): Promise<ObservedSocket[]> {
  return Promise.all(stack.nodes.map((node) => open(node, tokens)));
}

async function timeRevocation(edge: EdgeClient, session: Tokens, sockets: ObservedSocket[]): Promise<RevokeSample> {
  const calledAt = performance.now();
  const { id } = await edge.revoke({ kind: "session", sid: session.sid }, "measuring");
  const answeredAt = performance.now();
  const closedAt = await lastClosed(sockets);
  const receipt = await edge.enforcedReceipt(id);
  const calledAtEpoch = performance.timeOrigin + calledAt;
  const applied = receipt.clusters.flatMap((cluster) => cluster.applied.map(({ applied_at }) => applied_at));
  return {
    lastClosed: closedAt - calledAt,
    answered: answeredAt - calledAt,
    firstApplied: Math.min(...applied) - calledAtEpoch,
    lastApplied: Math.max(...applied) - calledAtEpoch,
  };
}

async function timeRoom(control: ObservedSocket, room: string, sockets: ObservedSocket[]): Promise<number> {
  const calledAt = performance.now();
  control.socket.emit("close the room", room);
  return (await lastClosed(sockets)) - calledAt;
}

/** When the last of them closed. The clock is read in its event, so that looking for it costs nothing. */
async function lastClosed(sockets: ObservedSocket[]): Promise<number> {
  await until("all are closed", () => sockets.every(({ disconnectedAt }) => disconnectedAt !== undefined));
  return Math.max(...sockets.map(({ disconnectedAt }) => disconnectedAt ?? Number.NaN));
}

function report(stack: Stack, revocations: readonly RevokeSample[], rooms: readonly number[]): RevokeFigures {
  const of = (pick: (sample: RevokeSample) => number) => distributionOf(revocations.map(pick));
  const revocation = {
    last_closed: of((sample) => sample.lastClosed),
    answered: of((sample) => sample.answered),
    first_node_applied: of((sample) => sample.firstApplied),
    last_node_applied: of((sample) => sample.lastApplied),
  };
  const room = distributionOf(rooms);
  const { p50, p99 } = revocation.last_closed;
  return {
    rounds: rooms.length,
    nodes: stack.nodes.length,
    revocation,
    disconnect_sockets: { last_closed: room },
    ratio: { p50: round(p50 / room.p50), p99: round(p99 / room.p99) },
  };
}

function print({ rounds, nodes, revocation, disconnect_sockets, ratio }: RevokeFigures): void {
  const line = (label: string, { p50, p99, max }: Distribution) =>
    console.log(`  ${label.padEnd(50)}${[p50, p99, max].map((ms) => ms.toFixed(2).padStart(9)).join("")}`);
  console.log(`\n${rounds} rounds, ${nodes} nodes, one socket on each; milliseconds\n`);
  console.log(`  ${"".padEnd(50)}${["p50", "p99", "max"].map((title) => title.padStart(9)).join("")}`);
  line("revocation: call to last socket closed", revocation.last_closed);
  line("  call to 202", revocation.answered);
  line("  call to applied on the first node", revocation.first_node_applied);
  line("  call to applied on the last node", revocation.last_node_applied);
  line("disconnectSockets: call to last socket closed", disconnect_sockets.last_closed);
  console.log(`\n  ratio: ${ratio.p50} at p50, ${ratio.p99} at p99`);
}

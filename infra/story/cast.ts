/** Who is in the story: people, their sessions, the sockets of each session, and what is to be seen of them. */
import type { UnauthorizedErrorData } from "#contract/refusal";
import type { EdgeClient, NewAccount, Receipt, Tokens } from "../edge-client.ts";
import { type ObservedSocket, openSocket } from "../observed-socket.ts";
import type { StackNode } from "../stack.ts";
import { until } from "../until.ts";
import type { Fact } from "./telling.ts";

export const PEOPLE = {
  ada: { login: "ada@example.com", password: "enchantress of number", tid: "acme", scope: "chat" },
  bob: { login: "bob@example.com", password: "a ferry at midnight", tid: "acme", scope: "chat" },
  cleo: { login: "cleo@example.com", password: "barge on the old Nile", tid: "apex", scope: "chat" },
  dan: { login: "dan@example.com", password: "lions and no tenant", scope: "chat" },
} as const satisfies Record<string, NewAccount>;

export type Person = keyof typeof PEOPLE;

/** One sign-in on one device, and the sockets that its tokens opened. */
export interface Session {
  readonly name: string;
  readonly person: Person;
  tokens: Tokens;
  readonly sockets: ObservedSocket[];
}

export class Cast {
  readonly #edge: EdgeClient;
  readonly sessions: Session[] = [];

  constructor(edge: EdgeClient) {
    this.#edge = edge;
  }

  async logIn(person: Person, device: string): Promise<Session> {
    const { login, password } = PEOPLE[person];
    const tokens = await this.#edge.login(login, password, device);
    const session = { name: `${person}'s ${device}`, person, tokens, sockets: [] };
    this.sessions.push(session);
    return session;
  }

  /** Sockets that are connected now. */
  get present(): ObservedSocket[] {
    return this.sessions.flatMap((session) => session.sockets).filter(({ socket }) => socket.connected);
  }

  get everySocket(): ObservedSocket[] {
    return this.sessions.flatMap((session) => session.sockets);
  }

  leave(): void {
    for (const { socket } of this.everySocket) socket.close();
  }
}

/** Opens one socket of the session on each node, with its current access token. */
export async function enter(session: Session, nodes: readonly StackNode[]): Promise<readonly ObservedSocket[]> {
  const opened = nodes.map((node) => openSocket(node, session.tokens.access_token));
  session.sockets.push(...opened);
  await settled(opened);
  return opened;
}

/** Resolves once each socket is in, or knows why not. */
async function settled(sockets: readonly ObservedSocket[]): Promise<void> {
  const decided = ({ connects, refusals }: ObservedSocket) => connects > 0 || refusals.length > 0;
  await until("every socket is let in or refused", () => sockets.every(decided));
}

export function entered(sockets: readonly ObservedSocket[], whose: string): Fact {
  const inside = sockets.filter(({ socket }) => socket.connected);
  const refused = sockets.flatMap(({ node, refusals }) => refusals.map(({ code }) => ` (${node}: ${code})`));
  return {
    holds: inside.length === sockets.length,
    text: `${whose}: ${inside.length} of ${sockets.length} sockets connected, ${byNode(inside)}${refused.join("")}`,
  };
}

/** Tries this token on every node and tells what each said. */
export async function refusedEverywhere(
  token: string,
  nodes: readonly StackNode[],
  code: UnauthorizedErrorData["code"],
  whose: string,
): Promise<Fact> {
  const attempts = nodes.map((node) => openSocket(node, token, { reconnection: false }));
  try {
    await settled(attempts);
    const answers = attempts.map(({ connects, refusals }) => (connects > 0 ? "let in" : refusals[0]?.code));
    return {
      holds: answers.every((answer) => answer === code),
      text: `${whose}: ${attempts.map(({ node }, index) => `${node} ${answers[index]}`).join(", ")}`,
    };
  } finally {
    for (const { socket } of attempts) socket.close();
  }
}

/** Waits until these sockets are closed, and tells how they were: for good, and knowing why. */
export async function thrownOut(
  sockets: readonly ObservedSocket[],
  { code, advice }: Pick<UnauthorizedErrorData, "code" | "advice">,
  calledAt: number,
): Promise<Fact> {
  const gone = () => sockets.every(({ socket }) => !socket.connected);
  // How many were not is what the fact is about.
  await until("the sockets are closed", gone).catch(() => {});
  const out = sockets.filter(
    ({ socket, unauthorized, disconnects }) =>
      !socket.connected &&
      !socket.active &&
      disconnects.join() === "io server disconnect" &&
      unauthorized.map((data) => `${data.code} ${data.advice}`).join() === `${code} ${advice}`,
  );
  const last = Math.max(...sockets.map(({ disconnectedAt }) => disconnectedAt ?? Number.NaN)) - calledAt;
  return {
    holds: out.length === sockets.length,
    text: `${out.length} of ${sockets.length} closed within ${last.toFixed(1)} ms of the call, told ${code}, ${advice}`,
  };
}

/** The receipt names every node, each with as many sockets as it had to close. */
export function receiptOf(
  receipt: Receipt,
  nodes: readonly StackNode[],
  closed: readonly ObservedSocket[],
): readonly Fact[] {
  const [cluster] = receipt.clusters;
  const applied = [...(cluster?.applied ?? [])].sort((a, b) => a.node.localeCompare(b.node));
  const due = nodes.map(({ name }) => `${name} ${closed.filter(({ node }) => node === name).length}`);
  const got = applied.map(({ node, closed: count }) => `${node} ${count}`);
  const [pending, fenced] = [cluster?.pending.length ?? 0, cluster?.fenced.length ?? 0];
  return [
    {
      holds: got.join() === due.join() && receipt.closed === closed.length && pending + fenced === 0,
      text: `receipt ${receipt.state}, closed: ${got.join(", ")}, pending: ${pending}, fenced: ${fenced}`,
    },
  ];
}

/** One of those who should be there speaks, and exactly those who should be there hear it. */
export async function rollCall(cast: Cast, stayed: readonly ObservedSocket[], text: string): Promise<Fact> {
  const heard = (sockets: readonly ObservedSocket[]) =>
    sockets.filter(({ messages }) => messages.some((message) => message.text === text)).length;
  stayed[0]?.socket.emit("message", text);
  // Who did not hear it is what the fact is about.
  await until("everybody has heard it", () => heard(stayed) === stayed.length).catch(() => {});
  const [staying, hearing] = [cast.present.length, heard(cast.everySocket)];
  return {
    holds: staying === stayed.length && hearing === stayed.length && heard(stayed) === stayed.length,
    text: `${staying} of ${stayed.length} others stayed, ${hearing} heard a message`,
  };
}

export function byNode(sockets: readonly ObservedSocket[]): string {
  const nodes = [...new Set(sockets.map(({ node }) => node))].sort();
  return nodes.map((name) => `${name} ${sockets.filter(({ node }) => node === name).length}`).join(", ");
}

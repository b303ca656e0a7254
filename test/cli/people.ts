/** People who exist nowhere else, and their sockets, on the shared stack. */
import { inject, onTestFinished } from "vitest";
import { EdgeClient, type Tokens } from "../../infra/edge-client.ts";
import { type ObservedSocket, openSocket } from "../../infra/observed-socket.ts";
import { until } from "../../infra/until.ts";

export const stack = inject("stack");
export const edge = new EdgeClient(stack);
/** What a tool in CI has. */
export const ADMIN = { KEYCARD_EDGE: stack.edgeUrl, KEYCARD_TOKEN: stack.adminToken };

let people = 0;

export interface Person {
  readonly login: string;
  readonly password: string;
  readonly sub: string;
}

export async function newPerson(extra: { tid?: string; scope?: string } = {}): Promise<Person> {
  people += 1;
  const account = {
    login: `person-${process.pid}-${people}@example.com`,
    password: `a long secret of person ${people}`,
  };
  const { sub } = await edge.createAccount({ ...account, ...extra });
  return { ...account, sub };
}

/** Signed in, with a socket on every node. */
export async function present(person: Person): Promise<{ tokens: Tokens; sockets: readonly ObservedSocket[] }> {
  const tokens = await edge.login(person.login, person.password, "laptop");
  const sockets = stack.nodes.map((node) => openSocket(node, tokens.access_token, { reconnection: false }));
  onTestFinished(() => {
    for (const { socket } of sockets) socket.close();
  });
  await until("the sockets are connected", () => sockets.every(({ socket }) => socket.connected));
  return { tokens, sockets };
}

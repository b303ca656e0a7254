/** People who exist nowhere else, and their sockets. */
import { inject, onTestFinished } from "vitest";
import { EdgeClient, type Tokens } from "../../infra/edge-client.ts";
import { type ObservedSocket, openSocket } from "../../infra/observed-socket.ts";
import { until } from "../../infra/until.ts";
import type { SharedStack } from "./shared-stack.ts";

export interface Person {
  readonly login: string;
  readonly password: string;
  readonly sub: string;
}

let people = 0;

/** Those on one stack, and what its administrator has. */
export function peopleOn(stack: SharedStack) {
  const edge = new EdgeClient({ ...stack, keepConnections: false });
  return {
    edge,
    /** What a tool in CI has. */
    ADMIN: { KEYCARD_EDGE: stack.edgeUrl, KEYCARD_TOKEN: stack.adminToken },

    async newPerson(extra: { tid?: string; scope?: string } = {}): Promise<Person> {
      people += 1;
      const login = `person-${process.pid}-${people}@example.com`;
      const account = { login, password: `a long secret of person ${people}` };
      const { sub } = await edge.createAccount({ ...account, ...extra });
      return { ...account, sub };
    },

    /** Signs in, and opens a socket on every node. */
    async present(person: Person): Promise<{ tokens: Tokens; sockets: readonly ObservedSocket[] }> {
      const tokens = await edge.login(person.login, person.password, "laptop");
      const sockets = stack.nodes.map((node) => openSocket(node, tokens.access_token));
      onTestFinished(() => {
        for (const { socket } of sockets) socket.close();
      });
      await until("the sockets are connected", () => sockets.every(({ socket }) => socket.connected));
      return { tokens, sockets };
    },
  };
}

/** The stack that all share, and who is on it. */
export const stack = inject("stack");
export const { edge, ADMIN, newPerson, present } = peopleOn(stack);

/** A whole stack of real processes for one test file, all it printed, and people who exist nowhere else. */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { EdgeClient, type NewAccount, type Tokens } from "../../infra/edge-client.ts";
import {
  type ObservedSocket,
  openSocket,
  type SocketOverrides,
  type TokenSource,
} from "../../infra/observed-socket.ts";
import { type Stack, type StackNode, type StackOptions, startStack } from "../../infra/stack.ts";
import { until } from "../../infra/until.ts";

export interface Person extends NewAccount {
  readonly sub: string;
}

export interface TestStack {
  readonly stack: Stack;
  readonly edge: EdgeClient;
  /** Everything that any process printed, each line with the name of its process in front. */
  readonly lines: readonly string[];
  /** Processes that ended and that nobody here had killed. */
  readonly deaths: readonly string[];
  newPerson(extra?: Partial<NewAccount>): Promise<Person>;
  logIn(person: Person, device?: string): Promise<Tokens>;
  /** A socket that is closed at the end at the latest. */
  open(node: StackNode, token: TokenSource, overrides?: SocketOverrides): ObservedSocket;
  /** One socket on each node, all connected. */
  openEverywhere(token: TokenSource): Promise<readonly ObservedSocket[]>;
  stop(): Promise<void>;
}

const HANDLERS = join(import.meta.dirname, "..", "..", "infra", "demo", "handlers.ts");

export async function startTestStack(
  edgeSettings: Record<string, string> = {},
  options: Pick<StackOptions, "nodes" | "allowedOrigins" | "nodeSettings"> = {},
): Promise<TestStack> {
  const dir = await mkdtemp(join(tmpdir(), "keycard-test-"));
  const lines: string[] = [];
  const deaths: string[] = [];
  const sockets: ObservedSocket[] = [];
  let people = 0;
  const stack = await startStack({
    ...options,
    dir,
    edgeSettings: { ACCESS_TOKEN_TTL_SECONDS: "3600", ...edgeSettings },
    nodeSettings: { HANDLERS, LOG_LEVEL: "debug", LEASE_SECONDS: "3", ...options.nodeSettings },
    onLine: (process, line) => lines.push(`${process} ${line}`),
    onExit: (process, { code, signal }) => deaths.push(`${process} (${signal ?? code})`),
  });
  const edge = new EdgeClient(stack);

  function open(node: StackNode, token: TokenSource, overrides?: SocketOverrides): ObservedSocket {
    const socket = openSocket(node, token, overrides);
    sockets.push(socket);
    return socket;
  }

  return {
    stack,
    edge,
    lines,
    deaths,
    async newPerson(extra = {}) {
      people += 1;
      const account = {
        login: `person-${people}@example.com`,
        password: `a long secret of person ${people}`,
        ...extra,
      };
      return { ...account, sub: (await edge.createAccount(account)).sub };
    },
    logIn: (person, device) => edge.login(person.login, person.password, device),
    open,
    async openEverywhere(token) {
      const opened = stack.nodes.map((node) => open(node, token));
      await until("the sockets are connected", () => opened.every(({ socket }) => socket.connected));
      return opened;
    },
    async stop() {
      for (const { socket } of sockets) socket.close();
      await stack.stop();
      await rm(dir, { recursive: true, force: true });
    },
  };
}

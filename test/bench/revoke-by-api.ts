/** The whole way of a revocation, from the call of the edge's API on: a stack of its own, whose sockets somebody else holds. */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { EdgeClient } from "../../infra/edge-client.ts";
import { startStack } from "../../infra/stack.ts";
import type { Crowd } from "./leavers.ts";

export interface EdgeSide {
  /** Milliseconds from the call: until the last socket was closed, and until the edge said that the receipt is whole. */
  revoke(crowd: Crowd, group: string): Promise<{ readonly closedMs: number; readonly wholeMs: number }>;
  stop(): Promise<void>;
}

const PEOPLE = 20;
const PASSWORD = "a password for measuring";

export async function startEdgeSide(nodes: number): Promise<EdgeSide> {
  const dir = await mkdtemp(join(tmpdir(), "keycard-bench-"));
  const stack = await startStack({
    ...{ dir, nodes },
    edgeSettings: { ACCESS_TOKEN_TTL_SECONDS: "3600" },
    nodeSettings: { LOG_LEVEL: "warn", TRUSTED_PROXIES: "127.0.0.1" },
  });
  const edge = new EdgeClient(stack);
  const logins = Array.from({ length: PEOPLE }, (_, index) => `bench-${index}@example.com`);
  for (const login of logins) await edge.createAccount({ login, password: PASSWORD });
  let turn = 0;
  return {
    async revoke(crowd, group) {
      const session = await edge.login(logins[turn++ % PEOPLE] ?? "", PASSWORD);
      const token = session.access_token;
      await crowd.open(
        group,
        stack.nodes.map(({ url }) => ({ port: Number(new URL(url).port), token })),
      );
      const calledAt = process.hrtime.bigint();
      const { id } = await edge.revoke({ kind: "session", sid: session.sid }, "measuring");
      const { last } = await crowd.departed(group, nodes);
      await edge.enforcedReceipt(id);
      const wholeAt = process.hrtime.bigint();
      await crowd.leave(group);
      return { closedMs: Number(last - calledAt) / 1e6, wholeMs: Number(wholeAt - calledAt) / 1e6 };
    },
    async stop() {
      await stack.stop();
      await rm(dir, { recursive: true, force: true });
    },
  };
}

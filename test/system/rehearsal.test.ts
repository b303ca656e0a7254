import { afterAll, beforeAll, expect, it } from "vitest";
import { startTestStack, type TestStack } from "../support/test-stack.ts";

let stack: TestStack;

beforeAll(async () => {
  stack = await startTestStack();
});
afterAll(() => stack.stop());

async function rehearsed(target: object): Promise<Record<string, unknown>> {
  const response = await fetch(`${stack.stack.edgeUrl}/admin/revocations`, {
    method: "POST",
    headers: { authorization: `Bearer ${stack.stack.adminToken}`, "content-type": "application/json" },
    body: JSON.stringify({ target, reason: "only asking", dry_run: true }),
  });
  expect(response.status).toBe(200);
  return (await response.json()) as Record<string, unknown>;
}

it("a dry run counts the sessions and the sockets of every node, and a revocation then closes as many", async () => {
  const person = await stack.newPerson({ tid: "acme" });
  const laptop = await stack.logIn(person, "laptop");
  const phone = await stack.logIn(person, "phone");
  const sockets = [
    ...(await stack.openEverywhere(laptop.access_token)),
    ...(await stack.openEverywhere(phone.access_token)),
  ];
  const cluster = { cluster: "local", silent: [] };
  expect(await rehearsed({ kind: "user", sub: person.sub })).toMatchObject({
    sessions: 2,
    sockets: 6,
    clusters: [{ ...cluster, sockets: 6, sessions: 2 }],
  });
  expect(await rehearsed({ kind: "session", sid: phone.sid })).toMatchObject({ sessions: 1, sockets: 3 });
  expect(await rehearsed({ kind: "tenant", tid: "acme" })).toMatchObject({ sessions: null, sockets: 6 });
  expect(await rehearsed({ kind: "tenant", tid: "nobody" })).toMatchObject({ sockets: 0 });
  expect(sockets.every(({ socket }) => socket.connected)).toBe(true);
  const { id } = await stack.edge.revoke({ kind: "user", sub: person.sub }, "now in earnest");
  expect((await stack.edge.enforcedReceipt(id)).closed).toBe(6);
});

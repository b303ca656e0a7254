import type { Page } from "playwright-core";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { until } from "../../infra/until.ts";
import { connect as connectHere } from "../../realtime/client/connect.ts";
import { type ClientPage, startClientPage } from "../support/client-page.ts";
import { type Person, startTestStack, type TestStack } from "../support/test-stack.ts";

/** What the page has in its window: see client-page.ts, and `watch` below. */
declare global {
  var connect: typeof connectHere;
  var seen: { history: string[]; numbers: number[]; signedOut: { code: string }[]; renewed: number; refreshes: number };
}

const TTL_SECONDS = 5;

let stack: TestStack;
let page: ClientPage;
let speaker: ReturnType<typeof connectHere>;
let spoken = 0;
let speaking: NodeJS.Timeout;

beforeAll(async () => {
  page = await startClientPage();
  stack = await startTestStack(
    { ACCESS_TOKEN_TTL_SECONDS: String(TTL_SECONDS) },
    { nodes: 2, allowedOrigins: [page.origin] },
  );
  // Somebody on another node counts aloud, all the time, with the same client in Node: a number that is missing was dropped.
  const person = await stack.newPerson();
  const { refresh_token } = await stack.logIn(person);
  speaker = connectHere(stack.stack.nodes[1]?.url ?? fail(), {
    edge: stack.stack.edgeUrl,
    refreshToken: refresh_token,
  });
  await until("somebody speaks", () => speaker.connected);
  speaking = setInterval(() => {
    if (!speaker.connected) return;
    spoken += 1;
    speaker.emit("message", `number ${spoken}`);
  }, 50);
});

afterAll(async () => {
  clearInterval(speaking);
  speaker.disconnect();
  await page.close();
  await stack.stop();
});

function fail(): never {
  throw new Error("the stack has too few nodes");
}

/** Signs this browser in: one cookie for all its tabs. */
async function signIn(tab: Page, person: Person): Promise<void> {
  const { edgeUrl } = stack.stack;
  const status = await tab.evaluate(
    async ([url, login, password]) => {
      const headers = { "content-type": "application/json" };
      const body = JSON.stringify({ login, password, device: "browser" });
      return (await fetch(`${url}/login`, { method: "POST", credentials: "include", headers, body })).status;
    },
    [edgeUrl, person.login, person.password] as const,
  );
  expect(status).toBe(200);
}

/** Opens a socket in the tab, with the one call that a developer makes, and notes what happens to it. */
async function watch(tab: Page): Promise<void> {
  const url = stack.stack.nodes[0]?.url ?? fail();
  await tab.evaluate(
    ([nodeUrl, edge]) => {
      globalThis.seen = { history: [], numbers: [], signedOut: [], renewed: 0, refreshes: 0 };
      const { seen } = globalThis;
      const trueFetch = globalThis.fetch;
      globalThis.fetch = (input, init) => {
        if (String(input).endsWith("/refresh")) seen.refreshes += 1;
        return trueFetch(input, init);
      };
      const socket = globalThis.connect(nodeUrl, { edge, socket: { transports: ["websocket"] } });
      socket.on("connect", () => seen.history.push("connect"));
      socket.on("disconnect", (reason) => seen.history.push(`disconnect:${reason}`));
      socket.on("authenticated", () => {
        seen.renewed += 1;
      });
      socket.on("message", ({ text }) => {
        const number = Number(/^number (\d+)$/.exec(text)?.[1]);
        if (number > 0) seen.numbers.push(number);
      });
      socket.on("signed-out", (why) => seen.signedOut.push(why));
    },
    [url, stack.stack.edgeUrl] as const,
  );
  await until("the tab is in", async () => (await seenBy(tab)).history.includes("connect"));
}

const seenBy = (tab: Page) => tab.evaluate(() => globalThis.seen);

/** Numbers that were skipped between the first and the last that a tab heard. */
function missing(numbers: readonly number[]): number[] {
  const heard = new Set(numbers);
  const [first = 0, last = 0] = [numbers[0], numbers.at(-1)];
  return Array.from({ length: last - first + 1 }, (_, i) => first + i).filter((number) => !heard.has(number));
}

describe("connect(url, { edge }) in a real browser", () => {
  it("keeps three tabs in over ten token lifetimes with no reconnect and no message lost, asking the edge once for all", async () => {
    const person = await stack.newPerson();
    const tabs = [await page.open(), await page.open(), await page.open({ width: 375, height: 720 })];
    await signIn(tabs[0] ?? fail(), person);
    for (const tab of tabs) await watch(tab);
    const lived = async () => (await seenBy(tabs[0] ?? fail())).renewed;
    const begunAt = Date.now();
    await until("ten lifetimes have passed", () => Date.now() - begunAt > 10 * TTL_SECONDS * 1000, {
      withinMs: 90_000,
    });
    let refreshes = 0;
    for (const tab of tabs) {
      const seen = await seenBy(tab);
      expect(seen.history).toEqual(["connect"]);
      expect(seen.renewed).toBeGreaterThanOrEqual(10);
      expect(seen.numbers.length).toBeGreaterThan(100);
      expect(missing(seen.numbers)).toEqual([]);
      refreshes += seen.refreshes;
    }
    // One for each lifetime and the first, though three tabs each were told that their token ends.
    expect(refreshes).toBeLessThanOrEqual((await lived()) + 3);
    for (const tab of tabs) await tab.close();
  });

  it("comes back with a fresh token after the network was away for longer than a token lives", async () => {
    const person = await stack.newPerson();
    const tab = await page.open();
    await signIn(tab, person);
    await watch(tab);
    const wentAt = Date.now();
    await page.context.setOffline(true);
    // A browser keeps an open WebSocket while it is offline; the server closes it at the token's end.
    await until(
      "it is gone",
      async () => (await seenBy(tab)).history.length > 1 || Date.now() - wentAt > 2 * TTL_SECONDS * 1000,
    );
    await until("its token is over", () => Date.now() - wentAt > (TTL_SECONDS + 1) * 1000);
    await page.context.setOffline(false);
    await until("it hears again", async () => (await seenBy(tab)).numbers.includes(spoken - 1));
    expect((await seenBy(tab)).signedOut).toEqual([]);
    await tab.close();
  });

  it("comes back after the tab was frozen for longer than a token lives", async () => {
    const person = await stack.newPerson();
    const tab = await page.open();
    await signIn(tab, person);
    await watch(tab);
    const devtools = await page.context.newCDPSession(tab);
    const frozenAt = Date.now();
    await devtools.send("Page.setWebLifecycleState", { state: "frozen" });
    await until("its token is over", () => Date.now() - frozenAt > (TTL_SECONDS + 1) * 1000);
    await devtools.send("Page.setWebLifecycleState", { state: "active" });
    await until("it hears again", async () => (await seenBy(tab)).numbers.includes(spoken - 1));
    expect((await seenBy(tab)).signedOut).toEqual([]);
    await tab.close();
  });

  it("signing out in one tab signs the others out, with the reason, and none tries again", async () => {
    const person = await stack.newPerson();
    const tabs = [await page.open(), await page.open()];
    await signIn(tabs[0] ?? fail(), person);
    for (const tab of tabs) await watch(tab);
    const status = await tabs[0]?.evaluate(async (edge) => {
      return (await fetch(`${edge}/logout`, { method: "POST", credentials: "include" })).status;
    }, stack.stack.edgeUrl);
    expect(status).toBe(204);
    for (const tab of tabs) {
      await until("it is told", async () => (await seenBy(tab)).signedOut.length > 0);
      const { signedOut, history } = await seenBy(tab);
      expect(signedOut[0]).toMatchObject({ code: "session_revoked", advice: "login" });
      expect(history.filter((what) => what === "connect")).toHaveLength(1);
    }
    for (const tab of tabs) await tab.close();
  });

  it("a person who is revoked by an administrator is told why, and stays out", async () => {
    const person = await stack.newPerson();
    const tab = await page.open();
    await signIn(tab, person);
    await watch(tab);
    await stack.edge.revoke({ kind: "user", sub: person.sub }, "lost laptop");
    await until("it is told", async () => (await seenBy(tab)).signedOut.length > 0);
    const { signedOut, history } = await seenBy(tab);
    expect(signedOut).toEqual([expect.objectContaining({ code: "session_revoked", advice: "login" })]);
    expect(history).toEqual(["connect", "disconnect:io server disconnect"]);
    await tab.close();
  });

  it("is smaller than 4 KB beside socket.io-client", async () => {
    const { gzipSync } = await import("node:zlib");
    const { buildSync } = await import("esbuild");
    const { outputFiles } = buildSync({
      entryPoints: ["realtime/client/connect.ts"],
      absWorkingDir: new URL("../..", import.meta.url).pathname,
      bundle: true,
      external: ["socket.io-client"],
      minify: true,
      format: "esm",
      write: false,
    });
    expect(gzipSync(outputFiles[0]?.contents ?? "").length).toBeLessThan(4096);
  });
});

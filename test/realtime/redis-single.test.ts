/** One server, of each kind that is on this machine: it goes, comes back and swallows what it is sent. */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { findRedisServers, obtainRedisServer, type RedisProcess, startRedis } from "../../infra/redis.ts";
import { until } from "../../infra/until.ts";
import type { LogLinks } from "../../realtime/redis.ts";
import { connected, startNodesOn, type TestNode, type TestNodes } from "../support/realtime-cluster.ts";
import { linksTo } from "../support/redis.ts";

const servers = new Set([await obtainRedisServer(), ...(await findRedisServers())]);
const BELL = "{keycard}:bell";

describe.each([...servers].map((path) => [basename(path), path] as const))("one %s", (_name, path) => {
  let dir: string;
  let redis: RedisProcess;

  beforeAll(async () => {
    dir = await mkdtemp(join(tmpdir(), "keycard-single-"));
    redis = await startRedis({ binary: path, dir, persist: true });
  });

  afterAll(async () => {
    await redis.stop();
    await rm(dir, { recursive: true, force: true });
  });

  describe("under nodes", () => {
    let cluster: TestNodes;
    let nodes: TestNode[];

    beforeAll(async () => {
      cluster = await startNodesOn({ REDIS_URL: redis.url });
      nodes = await Promise.all([1, 2, 3].map(() => cluster.startNode()));
      await Promise.all(nodes.map(({ door }) => door.ready()));
    });

    afterAll(() => cluster.stop());

    it("carries a revocation to each, before and after it was killed", async () => {
      for (const sid of ["u_before.a", "u_after.a"]) {
        const token = await cluster.issuer.token({ sid });
        const clients = nodes.map((node) => cluster.client(node, token));
        await Promise.all(clients.map(connected));
        const receipt = await cluster.insist(nodes[0] as TestNode, [{ kind: "session", sid }]);
        expect(receipt.pending).toEqual([]);
        expect(receipt.applied.map(({ closed }) => closed)).toEqual([1, 1, 1]);
        await until("all are out", () => clients.every((client) => !client.connected));
        await redis.restart();
      }
    });
  });

  describe("under the log's links", () => {
    const told: string[] = [];
    const heard: string[] = [];
    let links: LogLinks;

    beforeAll(async () => {
      links = linksTo(
        { REDIS_URL: redis.url },
        {
          onProblem: (_message, error) => void told.push(String(error)),
          onBack: () => void told.push("back"),
        },
      );
      links.connect();
      await links.subscribe([BELL], (_channel, message) => void heard.push(message));
      await until("both are there", () => links.commands.status === "ready");
    });

    afterAll(() => links.disconnect());

    async function expectHeard(word: string): Promise<void> {
      await until(`${word} is heard`, async () => {
        await links.publish(BELL, word).catch(() => undefined);
        return heard.includes(word);
      });
    }

    it("an outage is told once for each reason, however many attempts it takes, and its end once", async () => {
      expect(told).toEqual([]);
      let attempts = 0;
      links.commands.on("connecting", () => {
        attempts += 1;
      });
      await redis.kill("SIGKILL");
      await until("it was tried often", () => attempts >= 10);
      // Whoever was just talking to it is told first that it broke off.
      const afterThat = () => told.filter((reason) => !reason.includes("ECONNRESET"));
      expect(afterThat()).toEqual([expect.stringContaining("ECONNREFUSED")]);
      await redis.restart();
      await until("it is told", () => told.at(-1) === "back");
      expect(afterThat()).toEqual([expect.stringContaining("ECONNREFUSED"), "back"]);
      expect(told).toEqual([...new Set(told)]);
      await expectHeard("after the outage");
    });

    it("a command fails at once while it is away", async () => {
      await redis.kill("SIGKILL");
      await until("it is lost", () => links.commands.status !== "ready");
      await expect(links.eval("return 1", [], [])).rejects.toThrow();
      await expect(links.evalDurable("return 1", [BELL], [], 1, 100)).rejects.toThrow();
      await redis.restart();
    });
  });
});

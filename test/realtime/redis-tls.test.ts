/** Redis behind certificates of a private authority, however it is run. */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type Certificates, makeCertificates } from "../../infra/certificates.ts";
import {
  SENTINEL_PASSWORD,
  startRedisCluster,
  startSentinelSet,
  startSingleServer,
  type TopologyOptions,
} from "../../infra/redis-topology.ts";
import { until } from "../../infra/until.ts";
import { connected, startNodesOn } from "../support/realtime-cluster.ts";
import { linksTo } from "../support/redis.ts";

let dir: string;
let ours: Certificates;
let theirs: Certificates;

beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), "keycard-tls-"));
  ours = await makeCertificates(join(dir, "ours"));
  theirs = await makeCertificates(join(dir, "theirs"));
});

afterAll(() => rm(dir, { recursive: true, force: true }));

interface Running {
  readonly settings: Record<string, string>;
  stop(): Promise<void>;
}

const flavours: readonly (readonly [string, (options: TopologyOptions) => Promise<Running>])[] = [
  [
    "one server",
    async (options) => {
      const { servers, stop } = await startSingleServer(options);
      return { settings: { REDIS_URL: `rediss://${servers[0].address}` }, stop };
    },
  ],
  [
    "sentinels",
    async (options) => {
      const { sentinels, master, stop } = await startSentinelSet(options);
      const REDIS_SENTINELS = sentinels.map(({ address }) => address).join();
      const named = { REDIS_SENTINELS, REDIS_MASTER: master, REDIS_SENTINEL_PASSWORD: SENTINEL_PASSWORD };
      return { settings: { ...named, REDIS_URL: "rediss://_" }, stop };
    },
  ],
  [
    "a cluster",
    async (options) => {
      const { servers, stop } = await startRedisCluster(options);
      const REDIS_CLUSTER = servers.map(({ address }) => address).join();
      return { settings: { REDIS_CLUSTER, REDIS_URL: "rediss://_" }, stop };
    },
  ],
];

describe.each(flavours)("over TLS, %s", (name, start) => {
  let running: Running;
  const certificate = () => ({ REDIS_CERT: ours.cert, REDIS_KEY: ours.key });

  beforeAll(async () => {
    running = await start({ dir: join(dir, name), tls: ours });
  });

  afterAll(() => running.stop());

  it("carries a revocation to every node", async () => {
    const cluster = await startNodesOn({ ...running.settings, ...certificate(), REDIS_CA: ours.ca });
    const nodes = await Promise.all([1, 2].map(() => cluster.startNode()));
    await Promise.all(nodes.map(({ door }) => door.ready()));
    const token = await cluster.issuer.token({ sid: "u_tls.a" });
    const clients = nodes.map((node) => cluster.client(node, token));
    await Promise.all(clients.map(connected));
    const [one] = nodes as [(typeof nodes)[0]];
    const receipt = await cluster.revoke(one, [{ kind: "session", sid: "u_tls.a" }]);
    expect(receipt.applied.map(({ closed }) => closed)).toEqual([1, 1]);
    await until("all are out", () => clients.every((client) => !client.connected));
    await cluster.stop();
  });

  it.each([
    ["of another authority", () => ({ ...certificate(), REDIS_CA: theirs.ca }), /self-signed|verif|issuer/],
    ["of nobody whom Node knows", () => certificate(), /self-signed|verif|issuer/],
    // It hangs up as it says so, and what was on its way to it then makes of that a reset.
    ["but wants one of ours too", () => ({ REDIS_CA: ours.ca }), /certificate required|ECONNRESET/],
  ] as const)("is not used when it shows a certificate %s, and that is said", async (_whose, files, reason) => {
    const problems: string[] = [];
    const onProblem = (_message: string, error: unknown) => void problems.push(String(error));
    const links = linksTo({ ...running.settings, ...files() }, { onProblem });
    links.connect();
    await until("it is said", () => problems.some((problem) => reason.test(problem)));
    expect(links.commands.status).not.toBe("ready");
    links.disconnect();
  });
});

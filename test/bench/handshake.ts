/**
 * What a handshake costs the server, with each of several doors: processor time of its process, all threads, from the first connection to the last
 * one that was let in. Every door is on the same server, with the same Redis adapter, and gets the same client, 64 at a time; the
 * bare one is sent no token at all, so that what the others cost includes carrying one. Tokens are made beforehand. Closing is not in it, nor are
 * the clients, which share the two cores: handshakes a second and the time of one are to be compared, not believed.
 *
 * Each is measured right beside the bare one, in short slices, and the ratio is taken of each such pair: what changes the machine's speed for longer than
 * a pair takes changes both. Both have let in as many before, so that none is compiled better than the other.
 *
 * Cold: no token was ever shown before. Returning: those of the slice before come again, as after a lost connection.
 */
import { createHmac, randomUUID } from "node:crypto";
import { mkdtemp, rm } from "node:fs/promises";
import { Agent } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Redis } from "ioredis";
import type { SignatureAlgorithm } from "#contract/access-token";
import { obtainRedisServer, type RedisProcess, startRedis } from "../../infra/redis.ts";
import { AUDIENCE, CLUSTER_SECRET, createIssuer, type TestIssuer } from "../support/realtime-cluster.ts";
import { createSigner, type TestSigner } from "../support/tokens.ts";
import type { Bench } from "./bench.ts";
import { distributionOf } from "./distribution.ts";
import { type HandshakeFigures, printHandshakes, rowsOf, type Sample, type Variant } from "./handshake-figures.ts";
import type { Door, ServerReady, ServerSettings } from "./handshake-server.ts";
import { besideBase } from "./in-turns.ts";
import { obtainPeers } from "./peers.ts";
import { type Offer, openPolling, openWebSocket } from "./raw-client.ts";
import { type ServerProcess, startServerProcess } from "./server-process.ts";
import { verifyAlone } from "./verify-alone.ts";

const HANDSHAKES = 250;
const AT_ONCE = 64;
const TURNS = { rounds: 6, warmUpRounds: 2, pairs: 5 };
const IDLE_MS = 4_000;
const SECRET = "a secret that everybody has copied from the tutorial";
const ALGORITHMS: readonly SignatureAlgorithm[] = ["RS256", "ES256", "EdDSA"];

/** What stands by itself: a door, and Keycard once for each algorithm. */
type Stand = Exclude<Door, "bare" | "keycard"> | `keycard ${SignatureAlgorithm}`;

const STANDS: readonly Stand[] = [
  "tutorial",
  "blacklist",
  "thream",
  "auth0",
  ...ALGORITHMS.map((alg) => `keycard ${alg}` as const),
];

interface Served {
  readonly server: ServerProcess<ServerReady>;
  /** A bare one of its own, which lets in as many: a server that has let in more is compiled better. */
  readonly bare: ServerProcess<ServerReady>;
  /** Of both. */
  readonly redis: Redis;
  /** Commands that it gets while nobody connects, a millisecond. */
  readonly idleCommandsPerMs: number;
}

/** What is offered at the next handshakes. */
type Mint = (count: number) => Promise<Offer[]>;

export const HANDSHAKE: Bench = {
  about: "what a handshake costs the server, beside bare Socket.IO and what else is used",
  async run(tell) {
    await obtainPeers(tell);
    const result = await measureAll(tell);
    return { result, rows: rowsOf(result), print: () => printHandshakes(result) };
  },
};

async function measureAll(tell: (text: string) => void): Promise<HandshakeFigures> {
  const dir = await mkdtemp(join(tmpdir(), "keycard-bench-"));
  const stops: (() => Promise<unknown>)[] = [() => rm(dir, { recursive: true, force: true })];
  try {
    const issuer = await createIssuer();
    stops.push(() => issuer.stop());
    const signers = await signersOf(issuer);
    const served = await serveAll(dir, issuer, stops, tell);
    const handshakes = await measureHandshakes(served, issuer, signers, tell);
    tell("the verifying alone");
    return { perSlice: HANDSHAKES, handshakes, verify: await verifyAlone(issuer, signers) };
  } finally {
    for (const stop of stops.toReversed()) await stop();
  }
}

async function signersOf(issuer: TestIssuer): Promise<Record<SignatureAlgorithm, TestSigner>> {
  const all = await Promise.all(ALGORITHMS.map(async (alg) => [alg, await createSigner(alg, `bench-${alg}`)] as const));
  for (const [, signer] of all) issuer.publish(signer);
  return Object.fromEntries(all) as Record<SignatureAlgorithm, TestSigner>;
}

function edgeCalls(issuer: TestIssuer): number {
  return issuer.asked() + issuer.feedQueries.length;
}

async function serveAll(
  dir: string,
  issuer: TestIssuer,
  stops: (() => Promise<unknown>)[],
  tell: (text: string) => void,
): Promise<Record<Stand, Served>> {
  const binary = await obtainRedisServer(tell);
  const served = [];
  for (const stand of STANDS) {
    tell(`starting ${stand}`);
    const redis = await startRedis({ binary, dir: join(dir, stand) });
    stops.push(() => redis.stop());
    const own = await serve(stand.split(" ")[0] as Door, redis, issuer);
    stops.push(
      () => own.server.stop(),
      () => own.bare.stop(),
      async () => own.redis.disconnect(),
    );
    served.push([stand, own] as const);
  }
  return Object.fromEntries(served) as Record<Stand, Served>;
}

async function serve(door: Door, { url }: RedisProcess, issuer: TestIssuer): Promise<Served> {
  const start = (which: Door) =>
    startServerProcess<ServerReady>(join(import.meta.dirname, "handshake-server.ts"), {
      ...{ door: which, redisUrl: url, secret: SECRET, issuer: issuer.url, audience: AUDIENCE },
      clusterSecret: CLUSTER_SECRET,
    } satisfies ServerSettings);
  const [server, bare] = [await start(door), await start("bare")];
  const redis = new Redis(url);
  const before = await commandsOf(redis);
  const since = performance.now();
  await new Promise((resolve) => setTimeout(resolve, IDLE_MS));
  return { server, bare, redis, idleCommandsPerMs: ((await commandsOf(redis)) - before) / (performance.now() - since) };
}

/** Commands that a Redis has carried out, these questions left out. */
async function commandsOf(redis: Redis): Promise<number> {
  const stats = (await redis.info("commandstats")).matchAll(/cmdstat_(\S+?):calls=(\d+)/g);
  return [...stats].reduce((sum, [, name, calls]) => (name === "info" ? sum : sum + Number(calls)), 0);
}

async function measureHandshakes(
  served: Readonly<Record<Stand, Served>>,
  issuer: TestIssuer,
  signers: Readonly<Record<SignatureAlgorithm, TestSigner>>,
  tell: (text: string) => void,
): Promise<HandshakeFigures["handshakes"]> {
  const mints = mintsOf(issuer, signers);
  const agent = new Agent({ keepAlive: true, maxSockets: AT_ONCE });
  try {
    const measure = async (variant: Variant, isBare: boolean): Promise<Sample> => {
      const { stand, mint, polling } = VARIANTS[variant];
      const offers = await mints[isBare ? "none" : mint](HANDSHAKES);
      const callsBefore = edgeCalls(issuer);
      const { server, bare, ...beside } = served[stand];
      const sample = await slice({ ...beside, server: isBare ? bare : server }, offers, polling ? agent : undefined);
      return { ...sample, edgeCalls: edgeCalls(issuer) - callsBefore };
    };
    const variants = Object.keys(VARIANTS) as Variant[];
    return await besideBase(variants, TURNS, {
      measure: (variant) => measure(variant, false),
      measureBase: (variant) => measure(variant, true),
      onRound: (round) => tell(round < 0 ? "warming up" : `round ${round + 1} of ${TURNS.rounds}`),
    });
  } finally {
    agent.destroy();
  }
}

type MintName = "none" | "auth" | "bearer" | "query" | SignatureAlgorithm | `${SignatureAlgorithm} again`;

const VARIANTS: Readonly<Record<Variant, { readonly stand: Stand; readonly mint: MintName; readonly polling?: true }>> =
  {
    tutorial: { stand: "tutorial", mint: "auth" },
    "tutorial + blacklist": { stand: "blacklist", mint: "auth" },
    thream: { stand: "thream", mint: "bearer" },
    auth0: { stand: "auth0", mint: "query" },
    "keycard RS256": { stand: "keycard RS256", mint: "RS256" },
    "keycard RS256 returning": { stand: "keycard RS256", mint: "RS256 again" },
    "keycard ES256": { stand: "keycard ES256", mint: "ES256" },
    "keycard ES256 returning": { stand: "keycard ES256", mint: "ES256 again" },
    "keycard EdDSA": { stand: "keycard EdDSA", mint: "EdDSA" },
    "keycard EdDSA returning": { stand: "keycard EdDSA", mint: "EdDSA again" },
    "keycard RS256, polling": { stand: "keycard RS256", mint: "RS256", polling: true },
  };

function mintsOf(
  issuer: TestIssuer,
  signers: Readonly<Record<SignatureAlgorithm, TestSigner>>,
): Readonly<Record<MintName, Mint>> {
  const many = async (count: number, make: () => Offer | Promise<Offer>) => {
    const offers: Offer[] = [];
    while (offers.length < count) offers.push(await make());
    return offers;
  };
  const last = new Map<SignatureAlgorithm, Offer[]>();
  const mintBy =
    (alg: SignatureAlgorithm): Mint =>
    async (count) => {
      const offers = await many(count, async () => ({ auth: { token: await issuer.token({}, signers[alg]) } }));
      last.set(alg, offers);
      return offers;
    };
  const again =
    (alg: SignatureAlgorithm): Mint =>
    async (count) =>
      last.get(alg) ?? (await mintBy(alg)(count));
  return {
    none: (count) => many(count, () => ({})),
    auth: (count) => many(count, () => ({ auth: { token: hmacToken() } })),
    bearer: (count) => many(count, () => ({ auth: { token: `Bearer ${hmacToken()}` } })),
    query: (count) => many(count, () => ({ query: `&token=${hmacToken()}` })),
    ...{ RS256: mintBy("RS256"), ES256: mintBy("ES256"), EdDSA: mintBy("EdDSA") },
    ...{ "RS256 again": again("RS256"), "ES256 again": again("ES256"), "EdDSA again": again("EdDSA") },
  };
}

function hmacToken(): string {
  const part = (value: object) => Buffer.from(JSON.stringify(value)).toString("base64url");
  const iat = Math.floor(Date.now() / 1000);
  const claims = { iss: "https://auth.example.com", aud: AUDIENCE, sub: randomUUID(), iat, exp: iat + 300 };
  const input = `${part({ alg: "HS256", typ: "JWT" })}.${part({ ...claims, jti: randomUUID() })}`;
  return `${input}.${createHmac("sha256", SECRET).update(input).digest("base64url")}`;
}

async function slice(
  { server, redis, idleCommandsPerMs }: Omit<Served, "bare">,
  offers: Offer[],
  agent?: Agent,
): Promise<Omit<Sample, "edgeCalls">> {
  const { port } = server.ready;
  await server.collect();
  const times: number[] = [];
  const waiting = [...offers];
  const worker = async () => {
    for (let offer = waiting.pop(); offer !== undefined; offer = waiting.pop()) {
      const begunAt = performance.now();
      await (agent === undefined ? openWebSocket(port, offer) : openPolling(port, agent, offer));
      times.push(performance.now() - begunAt);
    }
  };
  const [before, since] = [await commandsOf(redis), performance.now()];
  await server.meterStart();
  await Promise.all(Array.from({ length: AT_ONCE }, worker));
  const { cpuUs, wallMs, loopMaxMs } = await server.meterStop();
  const commands = (await commandsOf(redis)) - before - idleCommandsPerMs * (performance.now() - since);
  if ((await server.ask<number>("connected")) !== offers.length) throw new Error("somebody was not let in");
  await server.ask("letGo");
  const latency = distributionOf(times);
  return {
    cpuUs: cpuUs / offers.length,
    perSecond: (1000 * offers.length) / wallMs,
    ...{ p50Ms: latency.p50, p99Ms: latency.p99, loopMaxMs },
    redisCommands: commands / offers.length,
  };
}

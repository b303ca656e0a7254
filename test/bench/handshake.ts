/**
 * What a handshake costs the server, with each of several doors: processor time of its process, all threads, from the first connection to the last
 * one that was let in. Every door is on the same server, with the same Redis adapter, and gets the same client, 64 at a time; the
 * bare one is sent no token at all, so that what the others cost includes carrying one. Tokens are made beforehand. Closing is not in it, nor are
 * the clients, which share the two cores: handshakes a second and the time of one are to be compared, not believed.
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
import { inTurns } from "./in-turns.ts";
import { obtainPeers } from "./peers.ts";
import { type Offer, openPolling, openWebSocket } from "./raw-client.ts";
import { type ServerProcess, startServerProcess } from "./server-process.ts";
import { verifyAlone } from "./verify-alone.ts";

const HANDSHAKES = 500;
const AT_ONCE = 64;
const TURNS = { rounds: 10, warmUpRounds: 2 };
const IDLE_MS = 4_000;
const SECRET = "a secret that everybody has copied from the tutorial";
const ALGORITHMS: readonly SignatureAlgorithm[] = ["RS256", "ES256", "EdDSA"];

interface Served {
  readonly server: ServerProcess<ServerReady>;
  readonly redis: Redis;
  /** Commands that its Redis gets while nobody connects, a millisecond. */
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
): Promise<Record<Door, Served>> {
  const binary = await obtainRedisServer(tell);
  const doors: Door[] = ["bare", "tutorial", "blacklist", "thream", "auth0", "keycard"];
  const served = [];
  for (const door of doors) {
    tell(`starting ${door}`);
    const redis = await startRedis({ binary, dir: join(dir, door) });
    stops.push(() => redis.stop());
    const own = await serve(door, redis, issuer);
    stops.push(
      () => own.server.stop(),
      async () => own.redis.disconnect(),
    );
    served.push([door, own] as const);
  }
  return Object.fromEntries(served) as Record<Door, Served>;
}

async function serve(door: Door, { url }: RedisProcess, issuer: TestIssuer): Promise<Served> {
  const settings = { door, redisUrl: url, secret: SECRET, issuer: issuer.url, audience: AUDIENCE };
  const server = await startServerProcess<ServerReady>(join(import.meta.dirname, "handshake-server.ts"), {
    ...settings,
    clusterSecret: CLUSTER_SECRET,
  } satisfies ServerSettings);
  const redis = new Redis(url);
  const before = await commandsOf(redis);
  const since = performance.now();
  await new Promise((resolve) => setTimeout(resolve, IDLE_MS));
  return { server, redis, idleCommandsPerMs: ((await commandsOf(redis)) - before) / (performance.now() - since) };
}

/** Commands that a Redis has carried out, these questions left out. */
async function commandsOf(redis: Redis): Promise<number> {
  const stats = (await redis.info("commandstats")).matchAll(/cmdstat_(\S+?):calls=(\d+)/g);
  return [...stats].reduce((sum, [, name, calls]) => (name === "info" ? sum : sum + Number(calls)), 0);
}

async function measureHandshakes(
  served: Readonly<Record<Door, Served>>,
  issuer: TestIssuer,
  signers: Readonly<Record<SignatureAlgorithm, TestSigner>>,
  tell: (text: string) => void,
): Promise<HandshakeFigures["handshakes"]> {
  const mints = mintsOf(issuer, signers);
  const agent = new Agent({ keepAlive: true, maxSockets: AT_ONCE });
  try {
    return await inTurns(Object.keys(VARIANTS) as Variant[], TURNS, async (variant, round) => {
      const { door, mint, polling } = VARIANTS[variant];
      if (variant === "bare") tell(round < 0 ? "warming up" : `round ${round + 1} of ${TURNS.rounds}`);
      const offers = await mints[mint](HANDSHAKES);
      const callsBefore = edgeCalls(issuer);
      const sample = await slice(served[door], offers, polling ? agent : undefined);
      return { ...sample, edgeCalls: edgeCalls(issuer) - callsBefore };
    });
  } finally {
    agent.destroy();
  }
}

type MintName = "none" | "auth" | "bearer" | "query" | SignatureAlgorithm | `${SignatureAlgorithm} again`;

const VARIANTS: Readonly<Record<Variant, { readonly door: Door; readonly mint: MintName; readonly polling?: true }>> = {
  bare: { door: "bare", mint: "none" },
  tutorial: { door: "tutorial", mint: "auth" },
  "tutorial + blacklist": { door: "blacklist", mint: "auth" },
  thream: { door: "thream", mint: "bearer" },
  auth0: { door: "auth0", mint: "query" },
  "keycard RS256": { door: "keycard", mint: "RS256" },
  "keycard RS256 returning": { door: "keycard", mint: "RS256 again" },
  "keycard ES256": { door: "keycard", mint: "ES256" },
  "keycard ES256 returning": { door: "keycard", mint: "ES256 again" },
  "keycard EdDSA": { door: "keycard", mint: "EdDSA" },
  "keycard EdDSA returning": { door: "keycard", mint: "EdDSA again" },
  "bare, polling": { door: "bare", mint: "none", polling: true },
  "keycard RS256, polling": { door: "keycard", mint: "RS256", polling: true },
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
  { server, redis, idleCommandsPerMs }: Served,
  offers: Offer[],
  agent?: Agent,
): Promise<Omit<Sample, "edgeCalls">> {
  const { port } = server.ready;
  // Nobody pays for collecting what another slice has left.
  await server.memory();
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

/**
 * How a node reaches Redis, however it is run: one server, a master that sentinels watch, or a cluster. All that the log
 * keeps is in one hash slot, so for the log each of them is one master, looked for again whenever it is lost. That holds
 * what `WAIT` needs as well: it confirms what was written on its own connection and nothing else.
 */
import { once } from "node:events";
import type { ConnectionOptions } from "node:tls";
import { Cluster, Redis, type RedisOptions } from "ioredis";
import { CLOSED, createOutage, holdConnection } from "./connection.ts";
import { sentinelConnector } from "./sentinels.ts";
import { askOnce, GOODBYE_MS, LEGACY, slotConnector } from "./slot-owner.ts";
import { Trouble, type TroubleListener } from "./trouble.ts";

export type RedisClient = Redis | Cluster;

interface Address {
  readonly host: string;
  readonly port: number;
}

/** Settings of a node, named as in its environment. */
export interface RedisSettings {
  /** One server; with sentinels or a cluster only who one is there, with `_` as the host. */
  readonly REDIS_URL?: string | undefined;
  readonly REDIS_SENTINELS: readonly Address[];
  /** What the sentinels call the master. */
  readonly REDIS_MASTER: string;
  readonly REDIS_SENTINEL_PASSWORD?: string | undefined;
  readonly REDIS_CLUSTER: readonly Address[];
  /** PEM: whom to believe, and what to show. */
  readonly REDIS_CA?: string | undefined;
  readonly REDIS_CERT?: string | undefined;
  readonly REDIS_KEY?: string | undefined;
}

/** Two connections of the log's own, with the settings of the app's client. */
export interface LogLinks {
  /** For commands: fails fast, never queues. */
  readonly commands: Redis;
  /** Runs a script that touches keys of one slot. */
  eval(script: string, keys: readonly string[], args: readonly (string | number)[]): Promise<unknown>;
  /**
   * As `eval`, then waits until so many replicas have it. Rejects when fewer have said so in time: the write stands where
   * it was made all the same, and may be lost with it.
   *
   * @param replicas none are waited for at 0
   * @param timeoutMs shorter than a command may take
   */
  evalDurable(
    script: string,
    keys: readonly string[],
    args: readonly (string | number)[],
    replicas: number,
    timeoutMs: number,
  ): Promise<unknown>;
  /** With which a script publishes on a channel of the log. */
  readonly publishCommand: "PUBLISH" | "SPUBLISH";
  publish(channel: string, message: string): Promise<void>;
  /**
   * Hears these channels, after every reconnection and every move of the slot too. Resolves once it does, however long
   * that takes; rejects when it is disconnected before.
   */
  subscribe(channels: readonly string[], onMessage: (channel: string, message: string) => void): Promise<void>;
  /** Starts both connections, and goes on trying. */
  connect(): void;
  /** Resolves once commands can be sent: to whether that was before an attempt failed, and in time. */
  connected(withinMs: number): Promise<boolean>;
  /** Throws away the connection for commands and makes a new one: it swallows them. */
  reset(): void;
  disconnect(): void;
}

export interface LogLinksOptions extends TroubleListener {
  readonly commandTimeoutMs: number;
  /** Between two attempts to connect. */
  readonly retryMs: number;
  /** Every attempt, for whoever counts them. */
  onAttempt?(connection: "commands" | "bell" | "sentinel", outcome: "made" | "lost"): void;
}

const ANY_KEY = "{keycard}:log";
/** Who answers so is not, or not any more, the master that takes what the log writes. */
const NOT_THE_MASTER = /(?:^|-)(?:MOVED|CLUSTERDOWN|READONLY)\b/;

const NO_SENTINEL = /^All sentinels are unreachable/;

/**
 * The client of a node, which is not connected itself: others are made like it.
 *
 * @param onSentinelError a sentinel could not be reached by one of those others
 */
export function connectRedis(
  settings: RedisSettings,
  onSentinelError: (error: unknown) => void = () => undefined,
): RedisClient {
  const { REDIS_URL, REDIS_SENTINELS, REDIS_MASTER, REDIS_SENTINEL_PASSWORD, REDIS_CLUSTER } = settings;
  const tls = tlsOf(settings);
  // CLIENT SETINFO is younger than the servers we run on, and an ACL that names it keeps those from starting.
  const always = { lazyConnect: true, disableClientInfo: true, ...(tls && { tls }) };
  if (REDIS_CLUSTER.length > 0) {
    const { username, password } = identityOf(REDIS_URL);
    return new Cluster([...REDIS_CLUSTER], {
      lazyConnect: true,
      redisOptions: { ...always, username, password },
      // An address instead of the name would not be what the certificate says.
      dnsLookup: (host, decide) => decide(null, host),
    });
  }
  if (REDIS_SENTINELS.length > 0) {
    return new Redis({
      ...always,
      ...identityOf(REDIS_URL),
      sentinels: [...REDIS_SENTINELS],
      name: REDIS_MASTER,
      sentinelPassword: REDIS_SENTINEL_PASSWORD,
      ...(tls && { sentinelTLS: tls, enableTLSForSentinelMode: true }),
      // Else a node stays with a master that only it can still reach.
      failoverDetector: true,
      Connector: sentinelConnector(onSentinelError),
    });
  }
  return new Redis(REDIS_URL as string, always);
}

function tlsOf({ REDIS_URL, REDIS_CA, REDIS_CERT, REDIS_KEY }: RedisSettings): ConnectionOptions | undefined {
  if (!REDIS_URL?.startsWith("rediss:")) return undefined;
  return { ca: REDIS_CA, cert: REDIS_CERT, key: REDIS_KEY };
}

function identityOf(url: string | undefined): Pick<RedisOptions, "username" | "password" | "db"> {
  if (url === undefined) return {};
  const { username, password, pathname } = new URL(url);
  const said = (part: string) => (part === "" ? undefined : decodeURIComponent(part));
  return { username: said(username), password: said(password), db: Number(pathname.slice(1)) };
}

/** @param client not used itself */
export function createLogLinks(client: RedisClient, options: LogLinksOptions): LogLinks {
  const { commandTimeoutMs, retryMs } = options;
  const sharded = isCluster(client);
  const unreached = new Trouble({ begun: "a sentinel cannot be reached" }, options);
  const open = masterOf(client, (error) => {
    options.onAttempt?.("sentinel", "lost");
    unreached.failed(error);
  });
  const failFast = {
    ...LEGACY,
    lazyConnect: true,
    enableOfflineQueue: false,
    maxRetriesPerRequest: 0,
    autoResubscribe: false,
    enableReadyCheck: true,
    commandTimeout: commandTimeoutMs,
    connectTimeout: commandTimeoutMs,
    sentinelCommandTimeout: commandTimeoutMs,
    disconnectTimeout: GOODBYE_MS,
    retryStrategy: () => retryMs,
    sentinelRetryStrategy: () => retryMs,
    reconnectOnError: ({ message }) => NOT_THE_MASTER.test(message),
  } satisfies RedisOptions;
  const [commands, bell] = [open(failFast), open(failFast)];
  const outage = createOutage(options, (error) => explain(error, client, commandTimeoutMs));
  const attempts = (connection: "commands" | "bell") => (outcome: "made" | "lost") =>
    options.onAttempt?.(connection, outcome);
  const both = { retryMs, outage };
  const heldCommands = holdConnection(commands, { ...both, onAttempt: attempts("commands"), greet: meetMaster });
  const heldBell = holdConnection(bell, { ...both, onAttempt: attempts("bell"), greet: hear });
  let subscription: Subscription | undefined;
  const waiting: { resolve(): void; reject(error: Error): void }[] = [];
  /** By the monotonic clock: when commands had lost their master, and since when the bell is heard. */
  let lostAt = Number.NEGATIVE_INFINITY;
  let heardSince = Number.POSITIVE_INFINITY;

  async function meetMaster(): Promise<void> {
    // Being connected is not enough: the slot may have left this server, or the cluster it.
    await commands.exists(ANY_KEY);
    // What commands had lost, the bell may still hold on to, and hear nothing from any more.
    if (heardSince >= lostAt) return;
    outage.expect(bell);
    bell.disconnect(true);
  }

  async function hear(): Promise<void> {
    if (subscription === undefined) return;
    await (sharded ? bell.ssubscribe(...subscription.channels) : bell.subscribe(...subscription.channels));
    heardSince = performance.now();
    for (const { resolve } of waiting.splice(0)) resolve();
  }

  commands.on("close", () => {
    lostAt = performance.now();
  });
  bell.on("close", () => {
    heardSince = Number.POSITIVE_INFINITY;
  });
  // The slot goes to another server.
  bell.on("moved", () => bell.disconnect(true));
  bell.on(sharded ? "smessage" : "message", (channel: string, message: string) =>
    subscription?.onMessage(channel, message),
  );

  const run: LogLinks["eval"] = (script, keys, args) => commands.eval(script, keys.length, ...keys, ...args);
  return {
    commands,
    eval: run,
    async evalDurable(script, keys, args, replicas, timeoutMs) {
      if (replicas === 0) return await run(script, keys, args);
      const both = commands
        .pipeline()
        .eval(script, keys.length, ...keys, ...args)
        .wait(replicas, timeoutMs);
      const [reply, confirmed] = ((await both.exec()) ?? []).map(([error, result]) => {
        if (error !== null) throw error;
        return result;
      });
      if (Number(confirmed) < replicas) throw new Error(`${confirmed} of ${replicas} replicas have confirmed it`);
      return reply;
    },
    publishCommand: sharded ? "SPUBLISH" : "PUBLISH",
    async publish(channel, message) {
      await (sharded ? commands.spublish(channel, message) : commands.publish(channel, message));
    },
    subscribe(channels, onMessage) {
      subscription = { channels, onMessage };
      if (bell.status === "ready") heldBell.greet();
      return new Promise((resolve, reject) => waiting.push({ resolve, reject }));
    },
    connect() {
      heldCommands.connect();
      heldBell.connect();
    },
    async connected(withinMs) {
      if (commands.status === "ready") return true;
      const ready = once(commands, "ready", { signal: AbortSignal.timeout(withinMs) });
      return await ready.then(
        () => true,
        () => false,
      );
    },
    reset: () => commands.disconnect(true),
    disconnect() {
      heldCommands.disconnect();
      heldBell.disconnect();
      for (const { reject } of waiting.splice(0)) reject(new Error(CLOSED));
    },
  };
}

interface Subscription {
  readonly channels: readonly string[];
  onMessage(channel: string, message: string): void;
}

/**
 * ioredis says that no sentinel is reachable when it has come to the end of its list, and never why. Asked directly, they
 * say more, or that it is not so.
 */
async function explain(error: unknown, client: RedisClient, timeoutMs: number): Promise<unknown> {
  if (isCluster(client) || !(error instanceof Error) || !NO_SENTINEL.test(error.message)) return error;
  const { sentinels, sentinelUsername, sentinelPassword, sentinelTLS, name } = client.options;
  const credentials = { username: sentinelUsername, password: sentinelPassword, tls: sentinelTLS };
  const timeouts = { connectTimeout: timeoutMs, commandTimeout: timeoutMs };
  const answers = (sentinels ?? []).map(async ({ host = "127.0.0.1", port = 26_379 }) => {
    const options = { host, port, ...credentials, ...timeouts };
    const address = await askOnce(options, (redis) => redis.call("SENTINEL", "GET-MASTER-ADDR-BY-NAME", `${name}`));
    if (address === null) throw new Error("the sentinels know no master of this name");
  });
  return await Promise.any(answers).catch(({ errors: [first] }: AggregateError) => first);
}

export function isCluster(client: RedisClient): client is Cluster {
  return client.isCluster;
}

/** What opens connections to whoever is the master of the log, with the settings of this client. */
function masterOf(client: RedisClient, onSentinelError: (error: unknown) => void): (options: RedisOptions) => Redis {
  if (!isCluster(client)) {
    const Connector = client.options.sentinels ? { Connector: sentinelConnector(onSentinelError) } : {};
    return (options) => client.duplicate({ ...Connector, ...options });
  }
  const Connector = slotConnector(client);
  return (options) => new Redis({ ...client.options.redisOptions, ...options, ...LEGACY, Connector });
}

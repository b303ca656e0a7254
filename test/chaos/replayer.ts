/**
 * Somebody who listens at a cluster's Redis and says again what was said there: every event that was ever in the stream, in any order,
 * to any node, and forgeries besides.
 */
import { Redis } from "ioredis";
import { REVOCATION_EVENT, SECURITY_EVENT_MEDIA_TYPE, SECURITY_EVENT_TYPE } from "#contract/revocation";
import type { Random } from "../support/random.ts";
import { now } from "./history.ts";
import type { WorldCluster } from "./world.ts";

/** PROTOCOL.md, "In Redis". */
const LOG = "{keycard}:log";
const BELL = "{keycard}:bell";
const LISTEN_MS = 300;
const AT_ONCE = 20;
const COMMAND_TIMEOUT_MS = 1_000;
const AHEAD_MS = 3_600_000;

export interface Replayer {
  replay(how: "push" | "stream" | "garbage"): Promise<void>;
  /** Leaves Redis as it is after its clock was an hour ahead, and set right again. Does nothing when Redis is away. */
  runAhead(): Promise<void>;
  /** Everything that Redis holds is gone. Rejects when Redis is away. */
  flush(): Promise<void>;
  stop(): void;
}

/** @param elsewhere nodes of other clusters, for which the events were not meant */
export function createReplayer(cluster: WorldCluster, elsewhere: readonly string[], random: Random): Replayer {
  const redis = new Redis(cluster.redisUrl, {
    maxRetriesPerRequest: 0,
    enableOfflineQueue: false,
    commandTimeout: COMMAND_TIMEOUT_MS,
    retryStrategy: () => LISTEN_MS,
  });
  redis.on("error", () => {}); // it is killed now and then
  /** What was heard, by its text: the fields of an entry of the stream. */
  const heard = new Map<string, string[]>();
  let position = "-";

  const listening = setInterval(() => {
    void redis
      .xrange(LOG, position, "+", "COUNT", 200)
      .then((entries) => {
        for (const [, fields] of entries) heard.set(fields.join(), fields);
        // Of a stream that was emptied the ids begin anew, and they are times: later ones come all the same.
        position = entries.at(-1)?.[0] ?? position;
      })
      .catch(() => undefined);
  }, LISTEN_MS);

  const urls = cluster.nodes.map(({ directUrl }) => directUrl);
  const some = () => random.shuffled([...heard.values()]).slice(0, AT_ONCE);

  async function push(set: string): Promise<void> {
    const url = random.below(8) === 0 && elsewhere.length > 0 ? random.pick(elsewhere) : random.pick(urls);
    const headers = { "content-type": SECURITY_EVENT_MEDIA_TYPE, accept: "application/json" };
    const signal = AbortSignal.timeout(COMMAND_TIMEOUT_MS);
    await fetch(`${url}/events`, { method: "POST", headers, body: set, signal }).catch(() => undefined);
  }

  async function put(fields: readonly string[]): Promise<void> {
    const entry = await redis.xadd(LOG, "*", ...fields);
    await redis.publish(BELL, `${entry} ${setIn(fields)}`);
  }

  return {
    async replay(how) {
      const forged = [forgery(), "", "not a token", "a.b.c"];
      const spoiled = some().map((fields) => fields.map((field) => field.replace(/.{6}$/, "AAAAAA")));
      try {
        if (how === "push") for (const fields of some()) await push(setIn(fields));
        else if (how === "stream") for (const fields of some()) await put(fields);
        else for (const fields of [...spoiled, ...forged.map((set) => ["set", set])]) await put(fields);
        if (how === "garbage") for (const set of forged) await push(set);
      } catch {
        // Redis is away just now.
      }
    },
    async runAhead() {
      // A stream never goes back: what is added from here on has this time and the next number.
      await redis.call("XSETID", LOG, `${Math.floor(now()) + AHEAD_MS}-0`).catch(() => undefined);
    },
    async flush() {
      await redis.flushall();
      position = "-";
    },
    stop() {
      clearInterval(listening);
      redis.disconnect();
    },
  };
}

function setIn(fields: readonly string[]): string {
  return fields[fields.indexOf("set") + 1] ?? "";
}

/** An event that would throw everybody out, had anybody signed it. */
function forgery(): string {
  const second = Math.floor(now() / 1_000);
  const body = {
    ...{ seq: 1, targets: [{ kind: "everyone", cutoff: second }], code: "session_revoked" },
    ...{ decided_at: second * 1_000, expires_at: second + 600 },
  };
  const payload = {
    iss: "nobody",
    aud: "anybody",
    iat: second,
    jti: "rev_forged",
    events: { [REVOCATION_EVENT]: body },
  };
  const part = (value: object) => Buffer.from(JSON.stringify(value)).toString("base64url");
  return `${part({ alg: "none", typ: SECURITY_EVENT_TYPE })}.${part(payload)}.AAAA`;
}

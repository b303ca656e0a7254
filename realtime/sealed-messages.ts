/**
 * Seals what the nodes of a cluster say to each other by the app's adapter, and drops what none of them sealed: whoever can write to Redis
 * could else speak as the app, and disconnect whom they like. The adapter itself notices nothing.
 *
 * A message is `<header><seal><what the adapter said>`. The header says when, by whom and the how manieth it is, so that one that was
 * heard cannot be said again: within the time that it is good for it is known, and after that it is too old. Nobody checks that none is
 * missing; pub/sub promises none.
 */
import { createHmac, randomBytes, timingSafeEqual } from "node:crypto";
import type { ClusterSecrets } from "#contract/cluster";
import { keepNewest } from "./keep-newest.ts";
import type { RedisClient } from "./redis.ts";

/** Version, milliseconds since the epoch, sender, number. */
const HEADER_BYTES = 1 + 6 + 6 + 4;
const SEAL_BYTES = 32;
const VERSION = 1;
/** The clocks of two nodes may differ by this. */
const FRESH_MS = 60_000;
/** Messages that are known; beyond these the oldest could be said again. */
const KNOWN = 100_000;
/** What the secret makes here fits nothing that it makes elsewhere. */
const PURPOSE = "keycard adapter messages";
const NUMBERS = 2 ** 32;

/** The events by which ioredis tells of messages, and where among what they bring the channel is; the message follows it. */
const CHANNEL_AT: Readonly<Record<string, number>> = { messageBuffer: 0, pmessageBuffer: 1, smessageBuffer: 0 };

/** From here on what this client publishes is sealed. */
export function sealPublished(client: RedisClient, secrets: ClusterSecrets): void {
  const key = keyOf(secrets[0]);
  const sender = randomBytes(6);
  let count = 0;
  const sealed = (channel: string | Buffer, message: string | Buffer): Buffer => {
    const header = Buffer.alloc(HEADER_BYTES);
    header.writeUInt8(VERSION, 0);
    header.writeUIntBE(Date.now(), 1, 6);
    sender.copy(header, 7);
    count = (count + 1) % NUMBERS;
    header.writeUInt32BE(count, 13);
    const said = Buffer.from(message);
    return Buffer.concat([header, sealOf(key, channel, header, said), said]);
  };
  const publish = client.publish.bind(client);
  client.publish = ((channel: string, message: string) => publish(channel, sealed(channel, message))) as typeof publish;
  const spublish = client.spublish.bind(client);
  client.spublish = ((channel: string, message: string) =>
    spublish(channel, sealed(channel, message))) as typeof spublish;
}

/**
 * From here on whoever listens to this client hears only what a node of the cluster sealed, without the seal.
 *
 * @param onForged something was dropped
 */
export function openHeard(client: RedisClient, secrets: ClusterSecrets, onForged: () => void): void {
  const keys = secrets.map(keyOf);
  const known = new Set<string>();
  const isNew = (header: Buffer): boolean => {
    const name = header.toString("latin1", 7);
    if (known.has(name)) return false;
    known.add(name);
    keepNewest(known, KNOWN);
    return true;
  };
  const opened = (channel: Buffer, message: Buffer): Buffer | undefined => {
    const header = message.subarray(0, HEADER_BYTES);
    const seal = message.subarray(HEADER_BYTES, HEADER_BYTES + SEAL_BYTES);
    const said = message.subarray(HEADER_BYTES + SEAL_BYTES);
    if (seal.length < SEAL_BYTES || header[0] !== VERSION) return undefined;
    if (!keys.some((key) => timingSafeEqual(seal, sealOf(key, channel, header, said)))) return undefined;
    if (Math.abs(Date.now() - header.readUIntBE(1, 6)) > FRESH_MS) return undefined;
    return isNew(header) ? said : undefined;
  };
  const emit = client.emit.bind(client);
  client.emit = ((event: string, ...args: unknown[]) => {
    const at = CHANNEL_AT[event];
    if (at === undefined) return emit(event, ...args);
    const [channel, message] = args.slice(at) as [Buffer, Buffer];
    const said = opened(channel, message);
    if (said === undefined) onForged();
    else emit(event, ...args.slice(0, at), channel, said);
    return true;
  }) as typeof emit;
}

function keyOf(secret: string): Buffer {
  return createHmac("sha256", secret).update(PURPOSE).digest();
}

function sealOf(key: Buffer, channel: string | Buffer, header: Buffer, said: Buffer): Buffer {
  const name = Buffer.from(channel);
  const length = Buffer.alloc(4);
  length.writeUInt32BE(name.length);
  return createHmac("sha256", key).update(header).update(length).update(name).update(said).digest();
}

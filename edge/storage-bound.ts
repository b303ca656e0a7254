/**
 * How much the log and the audit trail may each hold. The platform lets no Durable Object hold more than 10 GB: at the end of that every write
 * fails, and nothing could be revoked any more. Both let go of their oldest long before, earlier than by their age.
 */
import { readConfig } from "./config.ts";

const MEGABYTE = 1_000_000;

/** Bytes in use now, and from which on the oldest go before their time. */
export function storageUse(storage: DurableObjectStorage, env: Env): { readonly bytes: number; readonly most: number } {
  return { bytes: storage.sql.databaseSize, most: readConfig(env).storageMaxMegabytes * MEGABYTE };
}

export function isFull(storage: DurableObjectStorage, env: Env): boolean {
  const { bytes, most } = storageUse(storage, env);
  return bytes > most;
}

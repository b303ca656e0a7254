/**
 * The schema of an object, as steps that are only ever added to. An object that was never written to stays empty: a
 * guess at a name must not leave anything behind.
 */
const VERSION_KEY = "schema";

/** Brings an object that has a schema up to date. An empty one stays empty. */
export function migrateExisting(storage: DurableObjectStorage, steps: readonly string[]): void {
  if (hasSchema(storage)) migrate(storage, steps);
}

/**
 * Brings an object up to date, from nothing if need be, in one transaction.
 *
 * @returns whether it was of an earlier version, and not empty
 */
export function migrate(storage: DurableObjectStorage, steps: readonly string[]): boolean {
  const version = storage.kv.get<number>(VERSION_KEY) ?? 0;
  if (version >= steps.length) return false;
  storage.transactionSync(() => {
    for (const step of steps.slice(version)) storage.sql.exec(step);
    storage.kv.put(VERSION_KEY, steps.length);
  });
  return version > 0;
}

export function hasSchema(storage: DurableObjectStorage): boolean {
  return storage.kv.get(VERSION_KEY) !== undefined;
}

/**
 * Objects as earlier versions left them, opened by the code of today. The schemas below are what those wrote, to the letter; they
 * stay as they are for ever. Only Credential has no schema: its one value says which version it is of.
 */
import { abortAllDurableObjects, evictDurableObject, runDurableObjectAlarm, runInDurableObject } from "cloudflare:test";
import { env } from "cloudflare:workers";
import { createLocalJWKSet, type JSONWebKeySet, jwtVerify } from "jose";
import { expect, test } from "vitest";
import { hasSchema, migrate, migrateExisting } from "../../edge/migrations.ts";
import { ask } from "../../edge/outcome.ts";
import { behave, until } from "./cluster.ts";
import {
  ADMIN,
  account,
  bearer,
  call,
  login,
  newMember,
  ok,
  PASSWORD,
  post,
  receipt,
  refreshed,
  revocationLog,
  revoke,
} from "./edge.ts";

const OUTBOX = `CREATE TABLE outbox (
  id TEXT PRIMARY KEY,
  draft TEXT NOT NULL,
  attempts INTEGER NOT NULL
) WITHOUT ROWID;`;

const ACCOUNT = `CREATE TABLE account (
    sub TEXT PRIMARY KEY,
    login TEXT NOT NULL,
    tid TEXT,
    scope TEXT,
    generation INTEGER NOT NULL
  ) WITHOUT ROWID;
  CREATE TABLE sessions (
    sid TEXT PRIMARY KEY,
    position INTEGER NOT NULL,
    secret_hash TEXT NOT NULL,
    rotated_at INTEGER NOT NULL,
    auth_time INTEGER NOT NULL,
    gen INTEGER NOT NULL,
    device TEXT,
    expires_at INTEGER NOT NULL,
    ended_at INTEGER,
    ended_code TEXT
  ) WITHOUT ROWID;
  ${OUTBOX}`;

const REVOCATION_LOG = `CREATE TABLE events (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    targets TEXT NOT NULL,
    code TEXT NOT NULL,
    reason TEXT NOT NULL,
    decided_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL
  );
  CREATE TABLE deliveries (
    cluster TEXT NOT NULL,
    seq INTEGER NOT NULL,
    delivered_at INTEGER,
    attempts INTEGER NOT NULL,
    last_error TEXT,
    receipt TEXT,
    PRIMARY KEY (cluster, seq)
  ) WITHOUT ROWID;
  CREATE TABLE cursors (cluster TEXT PRIMARY KEY, seq INTEGER NOT NULL) WITHOUT ROWID;
  CREATE TABLE cutoffs (tid TEXT PRIMARY KEY, cutoff INTEGER NOT NULL) WITHOUT ROWID;
  CREATE TABLE tokens (jti TEXT PRIMARY KEY, expires_at INTEGER NOT NULL) WITHOUT ROWID;`;

const REVOCATION_LOG_3 = `${REVOCATION_LOG}
  ALTER TABLE events ADD COLUMN tid TEXT;
  ALTER TABLE events ADD COLUMN actor TEXT;
  ALTER TABLE events ADD COLUMN mode TEXT;
  ALTER TABLE events ADD COLUMN margin INTEGER;
  ALTER TABLE events ADD COLUMN batch TEXT;
  CREATE INDEX events_of_batch ON events (batch) WHERE batch IS NOT NULL;
  CREATE TABLE claims (
    key TEXT PRIMARY KEY,
    fingerprint TEXT NOT NULL,
    id TEXT NOT NULL,
    claimed_at INTEGER NOT NULL,
    answer TEXT
  ) WITHOUT ROWID;
  CREATE TABLE audit_outbox (id TEXT PRIMARY KEY, entry TEXT NOT NULL) WITHOUT ROWID;
  ALTER TABLE events ADD COLUMN hits_nobody INTEGER NOT NULL DEFAULT 0;
  CREATE TABLE streams (
    stream_id TEXT PRIMARY KEY,
    owner TEXT NOT NULL,
    tid TEXT,
    audience TEXT NOT NULL,
    endpoint_url TEXT,
    authorization_header TEXT,
    description TEXT,
    created_at INTEGER NOT NULL,
    verification TEXT
  ) WITHOUT ROWID;
  CREATE TABLE acknowledged (stream_id TEXT, jti TEXT, PRIMARY KEY (stream_id, jti)) WITHOUT ROWID;`;

const KEY_RING = `CREATE TABLE keys (
    kid TEXT PRIMARY KEY,
    alg TEXT NOT NULL,
    public_jwk TEXT NOT NULL,
    wrapped TEXT NOT NULL,
    created_at INTEGER NOT NULL
  ) WITHOUT ROWID`;

type Row = Record<string, SqlStorageValue>;

/** Takes an object back to an earlier version: the same facts, in the tables of then. */
async function takeBack(object: DurableObjectStub<undefined>, schema: string, more = "", version = 1): Promise<void> {
  await runInDurableObject(object, async (_, { storage }) => {
    // Between here and the eviction the code of today would meet the tables of then.
    await storage.deleteAlarm();
    const rows = (query: string) => storage.sql.exec<Row>(query).toArray();
    storage.transactionSync(() => {
      const tables = rows("SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT GLOB '[_s]*_*'");
      const facts = tables.map(({ name }) => [String(name), rows(`SELECT * FROM ${name}`)] as const);
      for (const { name } of tables) storage.sql.exec(`DROP TABLE ${name}`);
      storage.sql.exec(schema);
      for (const [table, all] of facts) for (const row of all) putBack(storage.sql, table, row);
      if (more !== "") storage.sql.exec(more);
      storage.kv.put("schema", version);
    });
  });
  // Not evicted: that waits for the time-outs of pushes that are long done.
  await abortAllDurableObjects();
}

/** What that version had no place for is left out. */
function putBack(sql: SqlStorage, table: string, row: Row): void {
  const known = sql.exec<{ name: string }>("SELECT name FROM pragma_table_info(?)", table).toArray();
  const columns = known.map(({ name }) => name).filter((name) => name in row);
  if (columns.length === 0) return;
  const values = columns.map((name) => row[name] ?? null);
  sql.exec(`INSERT INTO ${table} (${columns.join(", ")}) VALUES (${columns.map(() => "?").join(", ")})`, ...values);
}

async function versionOf(object: DurableObjectStub<undefined>): Promise<number | undefined> {
  return await runInDurableObject(object, (_, { storage }) => storage.kv.get<number>("schema"));
}

test("an account of version 1 keeps its people, its sessions and what it had not told yet", async () => {
  const person = await newMember({ tid: "acme", scope: "read write" });
  const [first, second] = [await login(person, "a phone"), await login(person, "a laptop")];
  const moved = await refreshed(first.refresh_token);
  const untold = {
    id: `rev_${"U".repeat(22)}`,
    targets: [{ kind: "session", sid: second.sid }],
    code: "session_revoked",
    decided_at: Date.now(),
    expires_at: Math.floor(Date.now() / 1000) + 600,
    reason: "decided by version 1",
  };
  await takeBack(account(person.sub), ACCOUNT);
  await runInDurableObject(env.DIRECTORY.getByName("directory"), (_, { storage: { sql } }) => {
    // There was none then.
    for (const table of ["accounts", "names"]) sql.exec(`DELETE FROM ${table} WHERE sub = ?`, person.sub);
  });
  await runInDurableObject(account(person.sub), (_, { storage }) => {
    expect(storage.kv.get("schema")).toBeGreaterThan(1);
    storage.sql.exec("INSERT INTO outbox (id, draft, attempts) VALUES (?, ?, 0)", untold.id, JSON.stringify(untold));
    void storage.setAlarm(Date.now());
  });
  const next = await refreshed(moved.refresh_token);
  expect(next).toMatchObject({ sid: first.sid, scope: "read write" });
  const { sessions } = await ok<{ sessions: { device: string }[] }>(
    await call("GET", "/sessions", undefined, bearer(next.access_token)),
  );
  expect(sessions.toSorted((a, b) => b.device.localeCompare(a.device))).toMatchObject([
    { sid: first.sid, device: "a phone", current: true },
    { sid: second.sid, device: "a laptop" },
  ]);
  const shown = await ok(await call("GET", `/admin/accounts/${person.sub}`, undefined, ADMIN));
  expect(shown).toMatchObject({
    sub: person.sub,
    login: person.login,
    tid: "acme",
    scope: "read write",
    generation: 0,
  });
  await runDurableObjectAlarm(account(person.sub));
  expect(await receipt(untold.id)).toMatchObject({ reason: untold.reason });
  // Of when it was made nothing is known.
  const found = await ok(await call("GET", `/admin/accounts?query=${person.sub}`, undefined, ADMIN));
  expect(found).toEqual({ accounts: [{ sub: person.sub, login: person.login, tid: "acme", disabled: false }] });
  const { id } = await revoke({ kind: "user", sub: person.sub });
  expect((await receipt(id)).target).toEqual({ kind: "user", sub: person.sub, generation: 1 });
});

test("a credential of version 1 opens its account, and is of today's form after the password changed", async () => {
  const person = await newMember();
  const credential = env.CREDENTIAL.getByName(person.login);
  await runInDurableObject(credential, (_, { storage }) => {
    const { sub, hash, confirmed } = storage.kv.get<{ sub: string; hash: string; confirmed: boolean }>("credential")!;
    storage.kv.put("credential", { version: 1, sub, hash, confirmed });
  });
  await evictDurableObject(credential);
  expect((await login(person)).sub).toBe(person.sub);
  const wrong = await post("/login", { login: person.login, password: `${PASSWORD}!` });
  expect(wrong.status).toBe(401);
});

test("a revocation log of version 1 keeps its order, its cutoffs and its receipts, and goes on counting", async () => {
  const tid = crypto.randomUUID();
  const person = await newMember({ tid });
  const session = await login(person);
  const before = await revoke({ kind: "tenant", tid });
  expect(await receipt(before.id, { prefer: "wait=3" })).toMatchObject({ state: "enforced" });
  await runDurableObjectAlarm(revocationLog());
  const { lastSeq } = await runInDurableObject(revocationLog(), (_, { storage }) =>
    storage.sql.exec<{ lastSeq: number }>("SELECT MAX(seq) AS lastSeq FROM events").one(),
  );
  await takeBack(revocationLog(), REVOCATION_LOG);
  expect(await receipt(before.id, { prefer: "wait=3" })).toMatchObject({
    state: "enforced",
    seq: before.seq,
    target: before.target,
  });
  const refused = await post("/refresh", { refresh_token: session.refresh_token });
  expect(refused.status).toBe(401);
  const after = await revoke({ kind: "user", sub: person.sub });
  expect(after.seq).toBe(lastSeq + 1);
  expect(await versionOf(revocationLog())).toBeGreaterThan(1);
});

test("the receipts of a revocation log of version 3 are listed, by person, and a bulk revocation once", async () => {
  const tid = crypto.randomUUID();
  const [person, other] = [await newMember({ tid }), await newMember({ tid })];
  const { sid } = await login(person);
  const session = await revoke({ kind: "session", sid });
  const body = { users: [person.sub, other.sub], reason: "a breach" };
  const bulk = await ok<{ id: string }>(await post("/admin/revocations/bulk", body, ADMIN));
  await until(async () => expect(await receipt(bulk.id)).toMatchObject({ remaining: 0 }));
  await takeBack(revocationLog(), REVOCATION_LOG_3, "", 3);
  const listed = async (query: string) => {
    const page = await call("GET", `/admin/revocations?${query}`, undefined, ADMIN);
    return (await ok<{ receipts: { id: string; batch?: string }[] }>(page)).receipts;
  };
  expect(await listed(`tid=${tid}`)).toMatchObject([{ id: bulk.id }, { id: session.id }]);
  expect(await listed(`sub=${person.sub}`)).toMatchObject([{ batch: bulk.id }, { id: session.id }]);
  expect(await listed(`batch=${bulk.id}`)).toHaveLength(2);
});

test("a revocation log of version 3 brings what was undelivered, collects what lives, and lets rest what is over", async () => {
  await behave("south", { events: "later" });
  const [living, waiting, over] = [
    await revoke({ kind: "token", jti: "lives" }),
    await revoke({ kind: "token", jti: "waits" }),
    await revoke({ kind: "token", jti: "over" }),
  ];
  await until(async () => {
    expect((await receipt(living.id)).clusters.every(({ attempts }) => attempts > 0)).toBe(true);
  });
  const words = {
    expected: ["one"],
    applied: [{ node: "one", applied_at: 1_790_000_000_000, closed: 3 }],
    pending: [],
  };
  const stored = JSON.stringify({ id: living.id, ...words });
  const more = `
    UPDATE deliveries SET delivered_at = 1790000000000, receipt = '${stored}' WHERE seq = ${living.seq};
    INSERT OR REPLACE INTO deliveries (cluster, seq, delivered_at, attempts, receipt) VALUES
      ('south', ${living.seq}, 1790000000000, 1, '${stored}'),
      ('south', ${over.seq}, 1790000000000, 1, '${stored}'), ('north', ${over.seq}, 1790000000000, 1, NULL);
    UPDATE events SET expires_at = 1790000000 WHERE seq = ${over.seq};
    UPDATE cursors SET seq = ${living.seq}`;
  await takeBack(revocationLog(), REVOCATION_LOG_3, more, 3);
  const older = await receipt(over.id);
  expect(older).toMatchObject({ state: "enforced", closed: 3 });
  expect(older.clusters).toMatchObject([
    { expired: true, applied: [] },
    { ...words, fenced: [] },
  ]);
  expect([older.proof, older.enforced_at, older.clusters[1]?.expired]).toEqual([undefined, undefined, undefined]);
  await behave("south", { events: "take" });
  const proven = { state: "enforced", closed: 4, proof: expect.any(String) };
  await until(async () => expect(await receipt(waiting.id)).toMatchObject(proven));
  // South has never seen it, whatever was stored: it is given again.
  await until(async () => expect(await receipt(living.id)).toMatchObject(proven));
});

test("a key ring of version 1 signs with its newest key, and the older ones leave when their tokens are dead", async () => {
  const name = crypto.randomUUID();
  const made = (await ask(env.KEY_RING.getByName(name).current("EdDSA"))).kid;
  const other = (await ask(env.KEY_RING.getByName(name).current("RS256"))).kid;
  const older = `INSERT INTO keys (kid, alg, public_jwk, wrapped, created_at)
    SELECT 'older', alg, json_set(public_jwk, '$.kid', 'older'), wrapped, created_at - 1000 FROM keys WHERE alg = 'EdDSA'`;
  await takeBack(env.KEY_RING.getByName(name), KEY_RING, older);
  const ring = env.KEY_RING.getByName(name);
  expect((await ask(ring.current("EdDSA"))).kid).toBe(made);
  expect((await ask(ring.current("RS256"))).kid).toBe(other);
  const states = (await ask(ring.list())).map(({ kid, state }) => [kid, state]);
  expect(Object.fromEntries(states)).toEqual({ [made]: "current", [other]: "current", older: "retiring" });
  expect((await ask(ring.jwks("RS256"))).keys.map(({ kid }) => kid).sort()).toEqual([made, "older", other].sort());
});

test("tokens of before are good after every object came forward", async () => {
  const person = await newMember();
  const before = await login(person);
  await takeBack(env.KEY_RING.getByName("keys"), KEY_RING);
  await takeBack(account(person.sub), ACCOUNT);
  const keys = createLocalJWKSet(await ok<JSONWebKeySet>(await call("GET", "/.well-known/jwks.json")));
  expect((await jwtVerify(before.access_token, keys)).payload.sub).toBe(person.sub);
  expect((await call("GET", "/sessions", undefined, bearer(before.access_token))).status).toBe(200);
  expect((await refreshed(before.refresh_token)).sid).toBe(before.sid);
});

test("a step that fails leaves everything as it was, and is tried again", async () => {
  const object = env.AUDIT_TRAIL.getByName(crypto.randomUUID());
  await runInDurableObject(object, (_, { storage }) => {
    storage.kv.delete("schema");
    migrate(storage, ["CREATE TABLE one (a)"]);
    expect(() => migrate(storage, ["", "CREATE TABLE two (a)", "CREATE TABLE one (b)"])).toThrow();
    expect(storage.kv.get("schema")).toBe(1);
    const tables = storage.sql.exec("SELECT name FROM sqlite_master WHERE name = 'two'").toArray();
    expect(tables).toEqual([]);
    migrate(storage, ["", "CREATE TABLE two (a)", "CREATE TABLE three (a)"]);
    expect(storage.kv.get("schema")).toBe(3);
  });
});

test("an object of a later version is left alone by the code of before", async () => {
  const object = env.AUDIT_TRAIL.getByName(crypto.randomUUID());
  await runInDurableObject(object, (_, { storage }) => {
    storage.kv.put("schema", 99);
    migrate(storage, ["CREATE TABLE records (a)"]);
    expect(storage.kv.get("schema")).toBe(99);
  });
});

test("an object that was never written to stays empty", async () => {
  const object = account(crypto.randomUUID());
  await runInDurableObject(object, (_, { storage }) => {
    migrateExisting(storage, ["CREATE TABLE one (a)"]);
    expect(hasSchema(storage)).toBe(false);
  });
});

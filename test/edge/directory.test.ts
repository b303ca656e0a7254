/** The directory: who is found by what, by whom, and that it is right in the end, whatever is lost or late on the way. */
import { abortAllDurableObjects, runDurableObjectAlarm, runInDurableObject } from "cloudflare:test";
import { env } from "cloudflare:workers";
import { expect, test } from "vitest";
import { type DirectoryEntry, DirectoryTable } from "../../edge/accounts/directory-table.ts";
import { ask } from "../../edge/outcome.ts";
import { KINDS } from "./administrators.ts";
import { until } from "./cluster.ts";
import { countingSql } from "./counting-sql.ts";
import { ADMIN, account, call, type Headers, newLogin, newMember, ok, PASSWORD, post, refusal } from "./edge.ts";

interface Found {
  readonly sub: string;
  readonly login?: string;
  readonly tid?: string;
  readonly disabled: boolean;
  readonly disabled_until?: number;
  readonly created_at?: number;
}
interface Page {
  readonly accounts: readonly Found[];
  readonly next?: string;
}
type Search = Readonly<Record<string, string | number>>;

async function search(query: Search, headers: Headers = ADMIN): Promise<Page> {
  const text = new URLSearchParams(Object.entries(query).map(([name, value]) => [name, String(value)]));
  return await ok(await call("GET", `/admin/accounts?${text}`, undefined, headers));
}

/** Once the directory has heard of everything. */
async function finds(query: Search, expected: readonly object[], headers: Headers = ADMIN): Promise<void> {
  await until(async () => {
    const { accounts } = await search(query, headers);
    expect(accounts).toMatchObject([...expected]);
    expect(accounts).toHaveLength(expected.length);
  });
}

const theDirectory = () => env.DIRECTORY.getByName("directory");

test("a person is found by how the login name, the subject or a linked subject begins, in whatever case", async () => {
  const login = `Ada.${crypto.randomUUID()}@Example.test`;
  const { sub } = await ok<Found>(await post("/admin/accounts", { login, password: PASSWORD, tid: "acme" }, ADMIN));
  const shown = { sub, login: login.toLowerCase(), tid: "acme", disabled: false, created_at: expect.any(Number) };
  await finds({ query: login.slice(0, 20).toUpperCase() }, [shown]);
  await finds({ query: ` ${sub.slice(0, 12)} ` }, [shown]);
  const subject = `Google|${crypto.randomUUID()}`;
  const link = { issuer: "https://idp.test", subject };
  const linked = await ok<Found>(await post("/admin/accounts", { link }, ADMIN));
  await finds({ query: subject.slice(0, 20).toLowerCase() }, [{ sub: linked.sub, disabled: false }]);
  expect((await search({ query: login.slice(1) })).accounts).toEqual([]);
  expect((await search({ query: `${login}x` })).accounts).toEqual([]);
});

test("somebody of whom several names begin like that is listed once", async () => {
  const start = crypto.randomUUID();
  const body = { login: `${start}@example.test`, password: PASSWORD, sub: `${start}-sub` };
  await ok(await post("/admin/accounts", body, ADMIN));
  await finds({ query: start }, [{ sub: body.sub, login: body.login }]);
  await finds({ query: start, limit: 1 }, [{ sub: body.sub }]);
  expect((await search({ query: start, limit: 1 })).next).toBeUndefined();
});

test("page after page has everybody once, sorted, and nobody after the last; with a query and without", async () => {
  const tid = crypto.randomUUID();
  const logins = ["a", "b", "c", "d", "e"].map((letter) => `${tid}${letter}@example.test`);
  for (const login of logins.toReversed()) {
    await ok(await post("/admin/accounts", { login, password: PASSWORD, tid }, ADMIN));
  }
  for (const query of ["", tid]) {
    await finds(
      { query, tid },
      logins.map((login) => ({ login })),
    );
    const seen: (string | undefined)[] = [];
    let after: string | undefined;
    for (let pages = 0; pages < 3; pages++) {
      const page = await search({ query, tid, limit: 2, ...(after && { after }) });
      seen.push(...page.accounts.map(({ login }) => login));
      after = page.next;
    }
    expect(seen).toEqual(logins);
    expect(after).toBeUndefined();
  }
});

test("what becomes of an account is seen: disabled, for a time, enabled, deleted", async () => {
  const { sub } = await newMember();
  const change = async (body: object) => void (await ok(await call("PATCH", `/admin/accounts/${sub}`, body, ADMIN)));
  await finds({ query: sub }, [{ sub, disabled: false }]);
  await change({ disabled: true });
  await finds({ query: sub }, [{ sub, disabled: true }]);
  const until = Math.floor(Date.now() / 1000) + 2;
  await change({ disabled: true, until });
  await finds({ query: sub }, [{ sub, disabled: true, disabled_until: until }]);
  // By itself, when the time has come.
  await finds({ query: sub }, [{ sub, disabled: false }]);
  await change({ disabled: true });
  await change({ disabled: false });
  await finds({ query: sub }, [{ sub, disabled: false }]);
  await ok(await call("DELETE", `/admin/accounts/${sub}`, undefined, ADMIN));
  await finds({ query: sub }, []);
});

test.for(KINDS)("who is bound to a tenant finds those of it, whatever they ask for: %s", async ([, as]) => {
  const [ours, theirs] = [crypto.randomUUID(), crypto.randomUUID()];
  const [inside, outside] = [await newMember({ tid: ours }), await newMember({ tid: theirs })];
  const headers = await as(["accounts:read"], { tid: ours });
  await finds({ query: outside.sub }, [{ sub: outside.sub, tid: theirs }]);
  await finds({ query: inside.sub }, [{ sub: inside.sub, tid: ours }], headers);
  const seen = await search({ limit: 100 }, headers);
  expect(new Set(seen.accounts.map(({ tid }) => tid))).toEqual(new Set([ours]));
  expect((await search({ tid: theirs }, headers)).accounts).toEqual(seen.accounts);
  expect((await search({ query: outside.login }, headers)).accounts).toEqual([]);
  expect((await search({ query: inside.sub, tid: theirs })).accounts).toEqual([]);
});

test("an account that was made while the directory was away is in it once it is back", async () => {
  const rename = (from: string, to: string) =>
    runInDurableObject(theDirectory(), (_, { storage }) => {
      storage.sql.exec(`ALTER TABLE ${from} RENAME TO ${to}`);
    });
  await search({});
  await rename("names", "lost");
  const { sub, login } = await newMember();
  // The account has tried, and is dead before it tries again.
  await until(async () => {
    await runInDurableObject(account(sub), async (_, { storage }) => {
      expect(storage.sql.exec("SELECT told_version FROM account").one()).toEqual({ told_version: 0 });
      expect(await storage.getAlarm()).not.toBeNull();
    });
  });
  await abortAllDurableObjects();
  await rename("lost", "names");
  expect((await search({ query: sub })).accounts).toEqual([]);
  await runDurableObjectAlarm(account(sub));
  await finds({ query: sub }, [{ sub, login }]);
});

test("notices that come twice, late or in any order leave what is newest, and bring nobody back", async () => {
  const orders = permutations([1, 2, 3]);
  for (const versions of orders) {
    const sub = crypto.randomUUID();
    const history = new Map<number, Partial<DirectoryEntry>>([
      [1, {}],
      [2, { disabled: true }],
      [3, { disabled: true, deleted: true }],
    ]);
    for (const version of [...versions, ...versions]) {
      const entry = { ...anEntry(sub), ...history.get(version), version };
      await ask(theDirectory().note(entry));
    }
    const { accounts } = await ask(theDirectory().find({ query: sub, limit: 10 }));
    expect(accounts).toEqual([]);
    await ask(theDirectory().note({ ...anEntry(sub), version: 2 }));
    expect((await ask(theDirectory().find({ query: sub, limit: 10 }))).accounts).toEqual([]);
  }
});

test("of an account that is deleted the directory keeps neither login name nor links", async () => {
  const sub = crypto.randomUUID();
  const login = newLogin();
  const links = [{ issuer: "https://idp.test", subject: `idp|${sub}` }];
  await ask(theDirectory().note({ ...anEntry(sub), login, links }));
  await ask(theDirectory().note({ ...anEntry(sub), login, links, version: 2, deleted: true }));
  await runInDurableObject(theDirectory(), (_, { storage: { sql } }) => {
    const rows = [...sql.exec("SELECT * FROM accounts WHERE sub = ?", sub), ...sql.exec("SELECT * FROM names")];
    const text = JSON.stringify(rows);
    expect(text).toContain(sub);
    expect(text).not.toContain(login);
    expect(text).not.toContain(`idp|${sub}`);
  });
});

test("the exact forms answer the one account, and do not go with a search", async () => {
  const person = await newMember();
  const one = await call("GET", `/admin/accounts?login=${encodeURIComponent(person.login)}`, undefined, ADMIN);
  expect(await ok(one)).toMatchObject({ sub: person.sub, generation: 0 });
  for (const query of [
    "login=ada&query=a",
    "login=ada&issuer=https://idp.test&subject=x",
    "issuer=https://idp.test",
    "issuer=https://idp.test&subject=x&limit=5",
    "after=nonsense",
    `after=${btoa('["a"]').replaceAll("=", "")}`,
    "limit=101",
    `query=${"x".repeat(255)}`,
  ]) {
    expect(await refusal(await call("GET", `/admin/accounts?${query}`, undefined, ADMIN))).toBe("request_malformed");
  }
});

const PEOPLE = 20_000;

test("among very many a page is found without going through them, at the beginning and far down", async () => {
  await runInDurableObject(env.DIRECTORY.getByName(crypto.randomUUID()), (_, { storage: { sql } }) => {
    const numbers = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?)";
    sql.exec(
      `${numbers} INSERT INTO accounts (sub, version, label, login, tid, disabled, deleted)
       SELECT printf('u_%05d', i), 1, printf('p%05d@x.test', i), printf('p%05d@x.test', i), 't' || (i % 10), 0, 0 FROM n`,
      PEOPLE,
    );
    for (const name of ["sub", "login"])
      sql.exec(`INSERT INTO names (name, sub, tid) SELECT ${name}, sub, tid FROM accounts`);
    const { sql: counting, rowsRead } = countingSql(sql);
    const table = new DirectoryTable(counting);
    const spot = ["p15000@x.test", "u_15000"] as const;
    const pages = [
      [{ query: "" }, "u_00001"],
      [{ query: "", after: spot }, "u_15001"],
      [{ query: "", tid: "t3", after: spot }, "u_15003"],
      [{ query: "p" }, "u_00001"],
      [{ query: "p", after: spot }, "u_15001"],
      [{ query: "p", tid: "t3", after: spot }, "u_15003"],
      [{ query: "u_1" }, "u_10000"],
      // A place before what is asked for is no way to see more.
      [{ query: "p2", after: ["p1", "u_1"] }, "u_20000"],
    ] as const;
    for (const [query, sub] of pages) {
      const before = rowsRead();
      expect(table.find({ limit: 3, ...query }).accounts[0]).toMatchObject({ sub });
      expect(rowsRead() - before).toBeLessThan(40);
    }
  });
});

function anEntry(sub: string): DirectoryEntry {
  const unset = { login: null, tid: null, disabled_until: null, created_at: null, links: [] };
  return { sub, version: 1, disabled: false, deleted: false, ...unset };
}

function permutations(numbers: readonly number[]): number[][] {
  if (numbers.length === 0) return [[]];
  return numbers.flatMap((first) =>
    permutations(numbers.filter((other) => other !== first)).map((rest) => [first, ...rest]),
  );
}

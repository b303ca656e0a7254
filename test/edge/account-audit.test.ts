/** What the audit trail knows of an account's life: who did what, to whom, from where, and by which revocation. */
import { runInDurableObject } from "cloudflare:test";
import { env } from "cloudflare:workers";
import { expect, test } from "vitest";
import type { AuditRecord, AuditType } from "../../edge/audit/audit.ts";
import { until } from "./cluster.ts";
import {
  ADMIN,
  account,
  bearer,
  call,
  type Headers,
  newLogin,
  newMember,
  ok,
  PASSWORD,
  type Person,
  post,
  receipt,
  refresh,
  refreshed,
  signIn,
  type Tokens,
} from "./edge.ts";

const FROM: Headers = { "cf-connecting-ip": "203.0.113.77", "user-agent": "App/1.0" };
const TOLD_FROM = { address: "203.0.113.0/24", user_agent: "App/1.0" };

async function records(query: string): Promise<AuditRecord[]> {
  const page = await ok<{ records: AuditRecord[] }>(await call("GET", `/admin/audit?${query}`, undefined, ADMIN));
  return page.records;
}

/** What merely happened arrives after the answer. */
async function recorded(sub: string, ...types: AuditType[]): Promise<AuditRecord[]> {
  return await until(async () => {
    const found = (await records(`sub=${sub}&limit=100`)).filter(({ type }) => types.includes(type));
    expect(new Set(found.map(({ type }) => type))).toEqual(new Set(types));
    return found;
  });
}

function tryLogin({ login }: { login: string }, password: string): Promise<Response> {
  return post("/login", { login, password }, FROM);
}

test("signing in is in the trail, and so is failing to, with whom it was about and why", async () => {
  const person = await newMember({ tid: "acme" });
  await tryLogin(person, "wrong");
  const response = await tryLogin(person, PASSWORD);
  const { sid, sub } = await ok<Tokens>(response);
  const [failed, done] = await recorded(sub, "sign_in_failed", "sign_in");
  const actor = { kind: "user", id: sub };
  expect(failed).toMatchObject({ type: "sign_in_failed", actor, sub, reason: "credentials_wrong", from: TOLD_FROM });
  expect(done).toMatchObject({ type: "sign_in", actor, sub, sid, tid: "acme", reason: "password", from: TOLD_FROM });
  expect(done?.request).toBe(response.headers.get("x-request-id"));
});

test("a guess at a login name that nobody has is in the trail, without the name", async () => {
  const unknown = newLogin();
  const response = await tryLogin({ login: unknown }, "wrong");
  const request = response.headers.get("x-request-id");
  const found = await until(async () => {
    const record = (await records("type=sign_in_failed&limit=500")).find((each) => each.request === request);
    if (record === undefined) throw new Error("not recorded yet");
    return record;
  });
  expect(found).toMatchObject({ actor: { kind: "user", id: "unknown" }, reason: "credentials_wrong" });
  expect(JSON.stringify(found)).not.toContain(unknown);
});

test("an account's making, changes and end are in the trail with the administrator who brought them about", async () => {
  const person: Person = await ok(
    await post("/admin/accounts", { login: newLogin(), password: PASSWORD }, { ...ADMIN, ...FROM }),
  );
  const path = `/admin/accounts/${person.sub}`;
  for (const body of [{ disabled: true, reason: "left us" }, { disabled: false }, { scope: "chat:read" }]) {
    await ok(await call("PATCH", path, body, { ...ADMIN, ...FROM }));
  }
  const { revocation } = await ok<{ revocation: string }>(await call("DELETE", path, undefined, { ...ADMIN, ...FROM }));
  const types: AuditType[] = [
    "account_created",
    "account_disabled",
    "account_enabled",
    "account_changed",
    "account_deleted",
  ];
  const found = await recorded(person.sub, ...types);
  expect(found.map(({ type }) => type)).toEqual(types);
  for (const record of found) expect(record).toMatchObject({ actor: { kind: "admin", id: "root" }, from: TOLD_FROM });
  expect(found[1]?.reason).toBe("left us");
  expect(await receipt(found[1]?.revocation ?? "")).toMatchObject({ reason: "left us" });
  expect(found[4]?.revocation).toBe(revocation);
});

test("theft, a changed password and a logout are in the trail", async () => {
  const person = await newMember();
  const [stolen, phone, laptop] = [await signIn(person), await signIn(person), await signIn(person)];
  await refreshed((await refreshed(stolen.refresh_token)).refresh_token);
  await refresh(stolen.refresh_token);
  const body = { current_password: PASSWORD, new_password: "another password altogether" };
  await post("/password", { ...body, current_password: "wrong" }, { ...bearer(laptop.access_token), ...FROM });
  await post("/password", body, { ...bearer(laptop.access_token), ...FROM });
  await post("/logout", {}, { ...bearer(laptop.access_token), ...FROM });
  const found = await recorded(
    person.sub,
    "refresh_reused",
    "password_change_failed",
    "password_changed",
    "session_ended",
  );
  const of = (type: AuditType) => found.filter((record) => record.type === type);
  expect(of("refresh_reused")).toMatchObject([{ sid: stolen.sid, actor: { kind: "system", id: "edge" } }]);
  expect(of("password_change_failed")).toMatchObject([{ reason: "credentials_wrong", from: TOLD_FROM }]);
  expect(of("password_changed")).toMatchObject([{ sid: laptop.sid, actor: { kind: "user", id: person.sub } }]);
  expect(of("session_ended").map(({ sid, reason }) => [sid, reason])).toEqual([
    [phone.sid, "the password was changed"],
    [laptop.sid, "logout"],
  ]);
  for (const { revocation } of of("session_ended")) await receipt(revocation ?? "");
});

test("a session that a backend opens is in the trail as the backend's act", async () => {
  const { sub } = await ok<Tokens>(await post("/admin/sessions", { sub: crypto.randomUUID(), create: {} }, ADMIN));
  const [made, opened] = await recorded(sub, "account_created", "sign_in");
  expect(made).toMatchObject({ actor: { kind: "admin", id: "root" } });
  expect(opened).toMatchObject({ actor: { kind: "admin", id: "root" }, sub, reason: "backend" });
});

test("what was decided while the trail was away is told by the alarm", async () => {
  const person = await newMember();
  await signIn(person);
  const trail = env.AUDIT_TRAIL.getByName("trail");
  const rename = (from: string, to: string) =>
    runInDurableObject(trail, (_, { storage }) => {
      storage.sql.exec(`ALTER TABLE ${from} RENAME TO ${to}`);
    });
  await rename("records", "records_away");
  const owed = () =>
    runInDurableObject(account(person.sub), (_, { storage }) =>
      storage.sql.exec("SELECT * FROM audit_outbox").toArray(),
    );
  try {
    await ok(await call("PATCH", `/admin/accounts/${person.sub}`, { disabled: true }, ADMIN));
    expect((await owed()).length).toBe(1);
  } finally {
    await rename("records_away", "records");
  }
  await runInDurableObject(account(person.sub), (object) => object.alarm());
  expect(await owed()).toEqual([]);
  expect((await recorded(person.sub, "account_disabled")).length).toBe(1);
});

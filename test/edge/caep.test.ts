/** Revocations told to the world, and taken from it: CAEP 1.0 over SSF 1.0, RFC 8935 and RFC 8936. */
import { runDurableObjectAlarm } from "cloudflare:test";
import { exports } from "cloudflare:workers";
import { createLocalJWKSet, type JSONWebKeySet, type JWTPayload, jwtVerify } from "jose";
import { expect, inject, test, vi } from "vitest";
import { asClient } from "./clients.ts";
import { behave, lifeOf } from "./cluster.ts";
import {
  ADMIN,
  call,
  type Headers,
  ISSUER,
  login,
  newMember,
  ok,
  post,
  refresh,
  refusal,
  revocationLog,
  revoke,
} from "./edge.ts";
import { OpenIdProvider } from "./issuer.ts";

const SESSION_REVOKED = "https://schemas.openid.net/secevent/caep/event-type/session-revoked";
const VERIFICATION = "https://schemas.openid.net/secevent/ssf/event-type/verification";
const PUSH = "urn:ietf:rfc:8935";
const POLL = "urn:ietf:rfc:8936";

interface Stream {
  readonly stream_id: string;
  readonly aud: string;
  readonly delivery: { readonly method: string; readonly endpoint_url: string };
}
interface Poll {
  readonly sets: Readonly<Record<string, string>>;
  readonly moreAvailable: boolean;
}

async function receiver(more: Record<string, unknown> = {}): Promise<Headers> {
  return await asClient(["revocations:read"], more);
}

async function polled(headers: Headers): Promise<Stream> {
  return await ok(await post("/ssf/streams", { delivery: { method: POLL } }, headers));
}

async function poll({ stream_id }: Stream, headers: Headers, body: object = {}): Promise<Poll> {
  return await ok(await post(`/ssf/poll/${stream_id}`, { returnImmediately: true, ...body }, headers));
}

/** Takes everything, and acknowledges it. */
async function drain(stream: Stream, headers: Headers): Promise<JWTPayload[]> {
  const { sets } = await poll(stream, headers);
  await poll(stream, headers, { ack: Object.keys(sets) });
  return await Promise.all(Object.values(sets).map((set) => read(set, stream.aud)));
}

async function read(set: string, audience: string): Promise<JWTPayload> {
  const keys = createLocalJWKSet(await ok<JSONWebKeySet>(await call("GET", "/.well-known/jwks.json")));
  const options = { issuer: ISSUER, audience, typ: "secevent+jwt", algorithms: ["RS256"] };
  return (await jwtVerify(set, keys, options)).payload;
}

function about(sets: readonly JWTPayload[], id: string): JWTPayload[] {
  return sets.filter(({ txn }) => txn === id);
}

test("SSF 1.0 section 7.1: the configuration names what there is", async () => {
  const configuration = await ok<Record<string, string>>(await call("GET", "/.well-known/ssf-configuration"));
  expect(configuration).toMatchObject({
    spec_version: "1_0",
    issuer: ISSUER,
    delivery_methods_supported: [PUSH, POLL],
  });
  for (const name of ["configuration_endpoint", "status_endpoint", "verification_endpoint"]) {
    expect((await call("OPTIONS", new URL(configuration[name] ?? "").pathname)).status).toBe(405);
  }
});

test("CAEP 1.0 section 3.1: a session and a user that are revoked are told, signed with RS256, with neither sub nor exp", async () => {
  const headers = await receiver();
  const stream = await polled(headers);
  const person = await newMember({ tid: "acme" });
  const tokens = await login(person);
  const session = await revoke({ kind: "session", sid: tokens.sid });
  const user = await revoke({ kind: "user", sub: person.sub });
  const sets = await drain(stream, headers);
  const owner = { format: "iss_sub", iss: ISSUER, sub: person.sub };
  const tenant = { format: "opaque", id: "acme" };
  const [one] = about(sets, session.id);
  expect(one).toEqual({
    iss: ISSUER,
    aud: stream.aud,
    iat: expect.any(Number),
    jti: session.id,
    txn: session.id,
    sub_id: { format: "complex", user: owner, tenant, session: { format: "opaque", id: tokens.sid } },
    events: {
      [SESSION_REVOKED]: {
        event_timestamp: expect.any(Number),
        initiating_entity: "admin",
        reason_admin: { en: expect.any(String) },
      },
    },
  });
  expect(about(sets, user.id)).toMatchObject([{ sub_id: { format: "complex", user: owner, tenant } }]);
  expect(JSON.stringify(sets)).not.toContain("a test");
});

test("a revocation of several sessions is told one by one, and one that hits nobody is not told", async () => {
  const headers = await receiver();
  const stream = await polled(headers);
  const person = await newMember();
  const [kept] = [await login(person), await login(person), await login(person)];
  const body = { target: { kind: "user", sub: person.sub }, reason: "x" };
  const some = await ok<{ id: string }>(await post("/admin/revocations", { ...body, except: kept?.sid }, ADMIN));
  const none = await ok<{ id: string }>(await post("/admin/revocations", { ...body, issued_before: 5 }, ADMIN));
  const token = await revoke({ kind: "token", jti: crypto.randomUUID() });
  const sets = await drain(stream, headers);
  expect(
    about(sets, some.id)
      .map(({ jti }) => jti)
      .sort(),
  ).toEqual([some.id, `${some.id}.1`]);
  expect([...about(sets, none.id), ...about(sets, token.id)]).toEqual([]);
});

test("RFC 8936 section 2: what is not acknowledged comes again, what is does not, and errors count as taken", async () => {
  const headers = await receiver();
  const stream = await polled(headers);
  const person = await newMember();
  const ids = [
    (await revoke({ kind: "user", sub: person.sub })).id,
    (await revoke({ kind: "user", sub: person.sub })).id,
  ];
  const first = await poll(stream, headers, { maxEvents: 1 });
  expect([Object.keys(first.sets).length, first.moreAvailable]).toEqual([1, true]);
  const again = await poll(stream, headers);
  expect(Object.keys(again.sets)).toEqual(expect.arrayContaining(ids));
  const setErrs = { [ids[0] ?? ""]: { err: "invalid_request", description: "no" } };
  const left = await poll(stream, headers, { setErrs });
  expect(Object.keys(left.sets)).not.toContain(ids[0]);
  expect(Object.keys(left.sets)).toContain(ids[1]);
  await poll(stream, headers, { ack: [...Object.keys(left.sets), "rev_of_nobody"] });
  expect(await poll(stream, headers)).toEqual({ sets: {}, moreAvailable: false });
});

test("RFC 8935: events are pushed with the receiver's credential, and again until they are taken", async () => {
  const name = crypto.randomUUID();
  await behave(name, { events: "later" });
  const delivery = {
    method: PUSH,
    endpoint_url: `${inject("clusterServer")}/${name}/events`,
    authorization_header: "Bearer theirs",
  };
  const headers = await receiver();
  const response = await post("/ssf/streams", { delivery }, headers);
  const text = await response.clone().text();
  expect(text).not.toContain("theirs");
  const stream = await ok<Stream>(response);
  const { id } = await revoke({ kind: "user", sub: (await newMember()).sub });
  await vi.waitFor(
    async () => {
      const status = await ok(await call("GET", `/ssf/status?stream_id=${stream.stream_id}`, undefined, headers));
      expect(status).toMatchObject({ status: "enabled", reason: expect.stringContaining("HTTP 503") });
    },
    { timeout: 60_000 },
  );
  await behave(name, { events: "take" });
  const taken = await vi.waitFor(
    async () => {
      await runDurableObjectAlarm(revocationLog());
      const sets = await Promise.all((await lifeOf(name)).sets.map((set) => read(set, stream.aud)));
      expect(about(sets, id).length).toBe(1);
      return sets;
    },
    { timeout: 60_000, interval: 50 },
  );
  expect(about(taken, id)).toMatchObject([{ jti: id }]);
  expect((await call("DELETE", `/ssf/streams?stream_id=${stream.stream_id}`, undefined, headers)).status).toBe(204);
});

test("a receiver that is away holds no cluster up", async () => {
  const name = crypto.randomUUID();
  await behave(name, { events: "later" });
  const headers = await receiver();
  const delivery = { method: PUSH, endpoint_url: `${inject("clusterServer")}/${name}/events` };
  const { stream_id } = await ok<Stream>(await post("/ssf/streams", { delivery }, headers));
  expect((await revoke({ kind: "user", sub: (await newMember()).sub }, { prefer: "wait=5" })).state).toBe("enforced");
  await call("DELETE", `/ssf/streams?stream_id=${stream_id}`, undefined, headers);
});

test.for([POLL, PUSH])("SSF 1.0 section 8.1.4: a verification is sent when it is asked for, by %s", async (method) => {
  const name = crypto.randomUUID();
  const headers = await receiver();
  const endpoint_url = `${inject("clusterServer")}/${name}/events`;
  const stream = await ok<Stream>(await post("/ssf/streams", { delivery: { method, endpoint_url } }, headers));
  const asked = { stream_id: stream.stream_id, state: "the state" };
  expect((await post("/ssf/verification", asked, headers)).status).toBe(204);
  const sets =
    method === POLL
      ? await drain(stream, headers)
      : await Promise.all((await lifeOf(name)).sets.map((set) => read(set, stream.aud)));
  expect(sets).toMatchObject([
    { sub_id: { format: "opaque", id: stream.stream_id }, events: { [VERIFICATION]: { state: "the state" } } },
  ]);
  if (method === POLL) expect((await poll(stream, headers)).sets).toEqual({});
  await call("DELETE", `/ssf/streams?stream_id=${stream.stream_id}`, undefined, headers);
});

test("a stream of a client that is bound to a tenant hears of that tenant and no other", async () => {
  const tid = crypto.randomUUID();
  const headers = await receiver({ tid });
  const stream = await polled(headers);
  const [inside, outside] = [await newMember({ tid }), await newMember()];
  const told = await revoke({ kind: "user", sub: inside.sub });
  await revoke({ kind: "user", sub: outside.sub });
  await revoke({ kind: "tenant", tid: "another" });
  expect((await drain(stream, headers)).map(({ txn }) => txn)).toEqual([told.id]);
});

test("a stream is its maker's alone", async () => {
  const mine = await receiver();
  const stream = await polled(mine);
  const theirs = await receiver();
  const query = `?stream_id=${stream.stream_id}`;
  for (const response of [
    await call("GET", `/ssf/streams${query}`, undefined, theirs),
    await call("DELETE", `/ssf/streams${query}`, undefined, theirs),
    await call("GET", `/ssf/status${query}`, undefined, theirs),
    await post(`/ssf/poll/${stream.stream_id}`, {}, theirs),
    await post("/ssf/verification", { stream_id: stream.stream_id }, theirs),
  ]) {
    expect(await refusal(response)).toBe("not_found");
  }
  expect(await ok(await call("GET", "/ssf/streams", undefined, theirs))).toEqual([]);
  expect(await ok(await call("GET", "/ssf/streams", undefined, mine))).toEqual([stream]);
});

test.for([
  "http://example.test/x",
  "https://user@example.test/",
  "https://example.test/?a",
  "ftp://example.test/",
  "x",
])("events are not pushed to %s", async (endpoint_url) => {
  const response = await post("/ssf/streams", { delivery: { method: PUSH, endpoint_url } }, ADMIN);
  expect(await refusal(response)).toBe("request_malformed");
});

function transmitter(name = "transmitter"): OpenIdProvider {
  return new OpenIdProvider(name);
}

async function setOf(from: OpenIdProvider, sub_id: unknown, more: Record<string, unknown> = {}, header = {}) {
  const claims = { aud: "the edge", sub: undefined, exp: undefined, jti: crypto.randomUUID(), sub_id };
  const events = { [SESSION_REVOKED]: { event_timestamp: 1 } };
  return await from.idToken({ ...claims, events, ...more }, { typ: "secevent+jwt", ...header });
}

async function sent(set: string): Promise<Response> {
  const headers = { "content-type": "application/secevent+jwt" };
  return await exports.default.fetch(new Request(`${ISSUER}/ssf/events`, { method: "POST", body: set, headers }));
}

async function lives(tokens: { refresh_token: string }): Promise<boolean> {
  return (await refresh(tokens.refresh_token)).status === 200;
}

const shared = transmitter();

test("a trusted transmitter's session-revoked ends a session or a user, and nobody else", async () => {
  const person = await newMember();
  const [first, second, third] = [await login(person), await login(person), await login(person)];
  const bystander = await login(await newMember());
  const opaque = { format: "opaque", id: first.sid };
  const complex = { format: "complex", session: { format: "opaque", id: second.sid } };
  for (const subject of [opaque, complex]) {
    const response = await sent(await setOf(shared, subject));
    expect([response.status, await response.text()]).toEqual([202, ""]);
  }
  expect([await lives(first), await lives(second)]).toEqual([false, false]);
  expect(await lives(third)).toBe(true);
  const users = [
    { format: "email", email: person.login },
    { format: "iss_sub", iss: ISSUER, sub: person.sub },
    { format: "complex", user: { format: "opaque", id: person.sub } },
  ];
  for (const user of users) {
    const tokens = await login(person);
    expect((await sent(await setOf(shared, user))).status).toBe(202);
    expect(await lives(tokens)).toBe(false);
  }
  expect(await lives(bystander)).toBe(true);
});

test("an event that comes twice is carried out once", async () => {
  const person = await newMember();
  const set = await setOf(shared, { format: "email", email: person.login });
  expect((await sent(set)).status).toBe(202);
  const after = await login(person);
  expect((await sent(set)).status).toBe(202);
  expect(await lives(after)).toBe(true);
});

test("a session that is not ours ends nobody's, though its user is", async () => {
  const person = await newMember();
  const tokens = await login(person);
  const user = { format: "email", email: person.login };
  const subject = { format: "complex", session: { format: "opaque", id: "theirs" }, user };
  expect((await sent(await setOf(shared, subject))).status).toBe(202);
  expect(await lives(tokens)).toBe(true);
});

test("a transmitter that is bound to a tenant ends nobody of another", async () => {
  const bound = transmitter("bound");
  const [ours, theirs] = [await newMember({ tid: "ours" }), await newMember({ tid: "theirs" })];
  const [inside, outside] = [await login(ours), await login(theirs)];
  for (const { login: email } of [ours, theirs]) {
    expect((await sent(await setOf(bound, { format: "email", email }))).status).toBe(202);
  }
  expect([await lives(inside), await lives(outside)]).toEqual([false, true]);
});

test("RFC 8935 section 2.4: what does not hold is refused by its name, and changes nothing", async () => {
  const person = await newMember();
  const tokens = await login(person);
  const user = { format: "email", email: person.login };
  const spoilt = (await setOf(shared, user)).split(".");
  const signature = `${spoilt[0]}.${spoilt[1]}.${"A".repeat(86)}`;
  const stranger = new OpenIdProvider();
  const refused: [string, string][] = [
    [await setOf(stranger, user), "invalid_issuer"],
    ["garbage", "invalid_issuer"],
    [await setOf(shared, user, { aud: "another" }), "invalid_audience"],
    [signature, "authentication_failed"],
    [await setOf(shared, user, {}, { kid: "nobody" }), "invalid_key"],
    [await setOf(shared, user, {}, { typ: "JWT" }), "invalid_request"],
    [await setOf(shared, user, { jti: undefined }), "invalid_request"],
    [await setOf(shared, user, { iat: 1 }), "invalid_request"],
    [await setOf(shared, user, { events: {} }), "invalid_request"],
  ];
  for (const [set, err] of refused) {
    const response = await sent(set);
    expect([response.status, (await response.json<{ err: string }>()).err]).toEqual([400, err]);
  }
  expect(await refusal(await post("/ssf/events", {}))).toBe("media_type_unsupported");
  expect(await lives(tokens)).toBe(true);
});

test("an event that is not understood, or a verification, is taken and changes nothing", async () => {
  const person = await newMember();
  const tokens = await login(person);
  const user = { format: "email", email: person.login };
  for (const set of [
    await setOf(shared, user, { events: { [VERIFICATION]: { state: "x" } } }),
    await setOf(shared, user, { events: { "https://example.test/something-else": {} } }),
    await setOf(shared, { format: "email", email: "nobody@example.test" }),
    await setOf(shared, { format: "complex", tenant: { format: "opaque", id: "all of them" } }),
  ]) {
    expect((await sent(set)).status).toBe(202);
  }
  expect(await lives(tokens)).toBe(true);
});

test("a client without revocations:read makes no stream", async () => {
  const headers = await asClient(["revocations:write"]);
  expect(await refusal(await post("/ssf/streams", { delivery: { method: POLL } }, headers))).toBe("scope_insufficient");
});

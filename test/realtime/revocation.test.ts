import { request as httpRequest } from "node:http";
import type { Writable } from "node:stream";
import { Redis } from "ioredis";
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import { type RevocationTarget, signRehearsal } from "#contract/revocation";
import { until } from "../../infra/until.ts";
import { linkTo } from "../support/link.ts";
import {
  CLUSTER,
  CLUSTER_SECRET,
  connected,
  revocationOf,
  startCluster,
  type TestCluster,
  type TestNode,
} from "../support/realtime-cluster.ts";
import { createSigner, type TestSigner } from "../support/tokens.ts";

let cluster: TestCluster;
let nodes: TestNode[];
/** Further keys of the issuer, published from the start. */
let retired: TestSigner;
let stolen: TestSigner;
let unpublishStolen: () => void;
/** Holds the handshakes of `/slow` until it is let go. */
let letGo = () => {};

beforeAll(async () => {
  cluster = await startCluster();
  retired = await createSigner("ES256", "retired-key");
  cluster.issuer.publish(retired);
  stolen = await createSigner("ES256", "stolen-key");
  unpublishStolen = cluster.issuer.publish(stolen);
  nodes = await Promise.all(
    [1, 2, 3].map(() =>
      cluster.startNode({}, (io) => {
        io.of("/slow").use((_socket, next) => {
          letGo = next;
        });
        io.of("/admin");
      }),
    ),
  );
  await Promise.all(nodes.map(({ door }) => door.ready()));
});

afterAll(() => cluster.stop());

const [one, two, three] = [() => nodes[0] as TestNode, () => nodes[1] as TestNode, () => nodes[2] as TestNode];
const GONE = ["connect", "unauthorized:session_revoked", "disconnect:io server disconnect"];

/** A further node, and what it found in Redis that nobody who is trusted wrote. */
async function startWatched() {
  const ignored: unknown[] = [];
  const late = await cluster.startNode({}, (_io, door) => void door.events.on("ignored", (what) => ignored.push(what)));
  return { late, ignored };
}

/** One client with this token on each node. */
async function everywhere(claims: Parameters<TestCluster["issuer"]["token"]>[0], signer?: TestSigner) {
  const token = await cluster.issuer.token(claims, signer);
  const clients = nodes.map((node) => cluster.client(node, token));
  await Promise.all(clients.map(connected));
  return { token, clients };
}

describe("a revocation", () => {
  const now = Math.floor(Date.now() / 1000);
  /** Whom each row revokes, and who is as near to it as can be and stays. Every row has people of its own. */
  const personOf = (row: string) => {
    const sub = `u_${row}`;
    return { sub, sid: `${sub}.a`, jti: `t_${row}`, tid: `tenant_${row}`, gen: 3, auth_time: now - 10 };
  };
  type Person = ReturnType<typeof personOf>;
  const rows: readonly (readonly [string, (person: Person) => RevocationTarget, Partial<Person>])[] = [
    ["token", ({ jti }) => ({ kind: "token", jti }), { jti: "t_other" }],
    ["session", ({ sid }) => ({ kind: "session", sid }), { sid: "u_session.b", jti: "t_b" }],
    ["user", ({ sub }) => ({ kind: "user", sub, generation: 4 }), { gen: 4, jti: "t_c" }],
    ["tenant", ({ tid }) => ({ kind: "tenant", tid, cutoff: now - 5 }), { tid: "globex" }],
    ["key", () => ({ kind: "key", kid: retired.key.kid }), {}],
    ["everyone", () => ({ kind: "everyone", cutoff: now - 5 }), { auth_time: now - 4 }],
  ];

  it.each(rows)(
    "of one %s closes what it covers on every node, refuses it from then on, and spares the rest",
    async (row, targetOf, difference) => {
      const person = personOf(row);
      const { token, clients } = await everywhere(person, row === "key" ? retired : undefined);
      const others = await everywhere({ ...person, ...difference });
      const receipt = await cluster.revoke(one(), [targetOf(person)]);
      expect(receipt.pending).toEqual([]);
      expect(receipt.applied.map(({ node, closed }) => [node, closed]).sort()).toEqual(
        nodes.map(({ door }) => [door.node, 1]).sort(),
      );
      for (const client of clients) {
        await until("it is out", () => !client.connected);
        expect(client.history).toEqual(GONE);
        expect(client.active).toBe(false);
      }
      for (const node of nodes) {
        const again = cluster.client(node, token);
        await until("it was refused", () => again.history.length > 0);
        expect(again.history).toEqual(["connect_error:session_revoked"]);
      }
      for (const other of others.clients) {
        expect(other.history).toEqual(["connect"]);
        other.disconnect();
      }
      await until("the next row starts alone", () => nodes.every(({ door }) => door.health().sockets === 0));
    },
  );

  it("that lands in the middle of a handshake refuses it at its end", async () => {
    const sid = "u_mid.a";
    const client = cluster.client({ ...one(), url: `${one().url}/slow` }, await cluster.issuer.token({ sid }));
    letGo = () => {};
    const idle = letGo;
    await until("it is in the app's middleware", () => letGo !== idle);
    const receipt = await cluster.revoke(two(), [{ kind: "session", sid }]);
    expect(receipt.pending).toEqual([]);
    letGo();
    await until("it is out", () => client.history.length > 0 && !client.connected);
    expect(client.history).toEqual(GONE);
  });

  it("closes one namespace of a transport and leaves another that belongs to somebody else", async () => {
    const [mine, theirs] = [await cluster.issuer.token({ sid: "u_ns.a" }), await cluster.issuer.token()];
    const admin = cluster.client({ ...one(), url: `${one().url}/admin` }, mine, { forceNew: false, multiplex: true });
    const main = admin.io.socket("/", { auth: { token: theirs } });
    main.connect();
    await until("both are in", () => admin.connected && main.connected);
    await cluster.revoke(one(), [{ kind: "session", sid: "u_ns.a" }]);
    await until("it is out", () => !admin.connected);
    expect(main.connected).toBe(true);
    main.disconnect();
  });

  it("of a key makes every node ask for the issuer's keys again, so that it signs no events either", async () => {
    for (const node of nodes) await connected(cluster.client(node, await cluster.issuer.token({}, stolen)));
    unpublishStolen();
    const before = cluster.issuer.asked();
    await cluster.revoke(one(), [{ kind: "key", kid: "stolen-key" }]);
    await until("every node has asked", () => cluster.issuer.asked() >= before + nodes.length);
    const forged = await cluster.issuer.set(revocationOf([{ kind: "session", sid: "u_x.a" }]), { signer: stolen });
    await until("it is not believed", async () => (await cluster.push(two(), forged)).status === 400);
  });

  it("counts its sockets once, however often and wherever it is delivered", async () => {
    const sid = "u_twice.a";
    await everywhere({ sid });
    const set = await cluster.issuer.set({ ...revocationOf([{ kind: "session", sid }]), id: "rev_twice" });
    const answers = await Promise.all([one(), two(), three(), one()].map((node) => cluster.push(node, set)));
    expect(answers.map(({ status }) => status)).toEqual([202, 202, 202, 202]);
    const receipt = await cluster.receipt(three(), "rev_twice");
    expect(receipt.applied.map(({ closed }) => closed)).toEqual([1, 1, 1]);
  });

  it("silences every socket at once, though closing thousands takes turns", async () => {
    const sid = "u_many.a";
    const token = await cluster.issuer.token({ sid });
    const clients = Array.from({ length: 150 }, () => cluster.client(one(), token));
    await Promise.all(clients.map(connected));
    const receipt = await cluster.revoke(one(), [{ kind: "session", sid }]);
    expect(receipt.applied.find(({ node }) => node === one().door.node)?.closed).toBe(150);
    await until("all are out", () => clients.every((client) => !client.connected));
  });

  it("tells a WebSocket why, that it is disconnected and closed, all in one write", async () => {
    /** What the node writes to, below Socket.IO, Engine.IO and ws. */
    let line: Writable | undefined;
    const node = await cluster.startNode({}, (io) => {
      io.on("connection", ({ conn }) => {
        line = (conn.transport as unknown as { socket: { _socket: Writable } }).socket._socket;
      });
    });
    await node.door.ready();
    const sid = "u_oneWrite.a";
    const client = cluster.client(node, await cluster.issuer.token({ sid }));
    await connected(client);
    await until("it is there", () => line !== undefined);
    const writes = vi.spyOn(line as unknown as { _writeGeneric(): void }, "_writeGeneric");
    await cluster.revoke(node, [{ kind: "session", sid }]);
    await until("it is out", () => !client.connected);
    expect(client.history).toEqual(GONE);
    expect(writes).toHaveBeenCalledTimes(1);
    await node.stop();
  });

  it("has its receipt only when nothing that it covers is open, even if another revocation closes it", async () => {
    const claims = { sid: "u_both.a", tid: "tenant_both" };
    const clients = await Promise.all(
      Array.from({ length: 150 }, async () => cluster.client(two(), await cluster.issuer.token(claims))),
    );
    const delays: (number | undefined)[] = [];
    for (const client of clients) client.on("unauthorized", ({ data }) => delays.push(data.retry_after));
    await Promise.all(clients.map(connected));
    const before = two().door.health().sockets as number;
    const openAtReceipt = async (target: RevocationTarget) => {
      const receipt = await cluster.revoke(two(), [target]);
      return [receipt.pending.length, two().door.health().sockets];
    };
    const now = Math.floor(Date.now() / 1000);
    const both = [
      openAtReceipt({ kind: "session", sid: claims.sid }),
      openAtReceipt({ kind: "tenant", tid: claims.tid, cutoff: now }),
    ];
    expect(await Promise.all(both)).toEqual([
      [0, before - 150],
      [0, before - 150],
    ]);
    await until("all were told", () => delays.length === 150);
    // Within two seconds, so that they do not all come back at once.
    expect(new Set(delays)).toEqual(new Set([1, 2]));
  });
});

describe("a revocation that asks for another token", () => {
  it("leaves open who brings one within the margin, closes who does not, and lets nobody in with the old one", async () => {
    const claims = { sub: "u_margin", sid: "u_margin.a", jti: "t_margin" };
    const { token, clients } = await everywhere(claims);
    const [willing] = clients;
    willing?.on("expiring", async () => {
      willing.emit("authenticate", { token: await cluster.issuer.token({ ...claims, jti: "t_fresh" }) });
    });
    const event = {
      ...revocationOf([{ kind: "token", jti: "t_margin" }]),
      id: "rev_margin",
      code: "token_revoked",
    } as const;
    const set = await cluster.issuer.set({ ...event, mode: "reauthenticate", margin: 2 });
    expect((await cluster.push(one(), set)).status).toBe(202);
    const late = cluster.client(two(), token);
    await until("it was refused", () => late.history.length > 0);
    expect(late.history).toEqual(["connect_error:token_revoked"]);
    expect(clients.map((client) => client.connected)).toEqual([true, true, true]);
    expect((await cluster.receipt(one(), "rev_margin", 0)).pending).toHaveLength(3);
    await until("the others are out", () => clients.filter((client) => client.connected).length === 1);
    expect(willing?.history).toEqual(["connect"]);
    expect(clients[1]?.history).toEqual(["connect", "unauthorized:token_revoked", "disconnect:io server disconnect"]);
    const receipt = await cluster.receipt(one(), "rev_margin");
    expect(receipt.applied.map(({ closed }) => closed).sort()).toEqual([0, 1, 1]);
  });
});

describe("a rehearsal", () => {
  const ask = async (node: TestNode, question: string) =>
    fetch(`${node.url}/rehearsals`, { method: "POST", headers: { "content-type": "application/jwt" }, body: question });
  const questionOf = (targets: readonly RevocationTarget[], signer = cluster.issuer.signer) => {
    const issuedAt = Math.floor(Date.now() / 1000);
    const envelope = { issuer: cluster.issuer.url, audience: CLUSTER, issuedAt, id: `q_${Math.random()}` };
    return signRehearsal(targets, envelope, signer.key);
  };

  it("says how many sockets and sessions of the whole cluster would go, and throws nobody out", async () => {
    const tid = "tenant_rehearsed";
    const first = await everywhere({ tid, sid: "u_r1.a" });
    const second = await everywhere({ tid, sid: "u_r2.a" });
    const cutoff = Math.floor(Date.now() / 1000);
    const tenant = await ask(two(), await questionOf([{ kind: "tenant", tid, cutoff }]));
    expect(await tenant.json()).toEqual({ sockets: 6, sessions: 2, silent: [] });
    const session = await ask(three(), await questionOf([{ kind: "session", sid: "u_r1.a" }]));
    expect(await session.json()).toEqual({ sockets: 3, sessions: 1, silent: [] });
    for (const client of [...first.clients, ...second.clients]) expect(client.history).toEqual(["connect"]);
  });

  it("is refused to whom no trusted issuer signed for, and is no event", async () => {
    const mallory = await createSigner("ES256", "mallory-3");
    const forged = await questionOf([{ kind: "everyone", cutoff: 1 }], mallory);
    // Unavailable while the issuer was asked for a key just now: it may be one that is new.
    const judged = async () => {
      const { status } = await ask(one(), forged);
      return status !== 503 && status;
    };
    expect(await until("it is judged", judged)).toBe(401);
    expect((await ask(one(), await cluster.issuer.token())).status).toBe(401);
    expect((await cluster.push(one(), await questionOf([{ kind: "everyone", cutoff: 9_000_000_000 }]))).status).toBe(
      400,
    );
  });
});

describe("a node that missed something", () => {
  it("finds within a heartbeat what pub/sub lost while its link was cut", async () => {
    const link = await linkTo(cluster.redis.port);
    const cutOff = await cluster.startNode({ REDIS_URL: `redis://127.0.0.1:${link.port}` });
    await cutOff.door.ready();
    const client = cluster.client(cutOff, await cluster.issuer.token({ sid: "u_cut.a" }));
    await connected(client);
    link.cut();
    const set = await cluster.issuer.set({ ...revocationOf([{ kind: "session", sid: "u_cut.a" }]), id: "rev_cut" });
    expect((await cluster.push(one(), set)).status).toBe(202);
    const meanwhile = await cluster.receipt(one(), "rev_cut", 0);
    expect(meanwhile.pending).toContain(cutOff.door.node);
    link.heal();
    await until("it is out", () => !client.connected);
    expect(client.history).toEqual(GONE);
    const after = await cluster.receipt(one(), "rev_cut");
    expect(after.applied.find(({ node }) => node === cutOff.door.node)?.closed).toBe(1);
    await cutOff.stop();
    await link.close();
  });

  it("finds it too when its link swallowed everything without closing", async () => {
    const link = await linkTo(cluster.redis.port);
    const stalled = await cluster.startNode({ REDIS_URL: `redis://127.0.0.1:${link.port}` });
    await stalled.door.ready();
    const client = cluster.client(stalled, await cluster.issuer.token({ sid: "u_stall.a" }));
    await connected(client);
    link.stall();
    const set = await cluster.issuer.set(revocationOf([{ kind: "session", sid: "u_stall.a" }]));
    expect((await cluster.push(one(), set)).status).toBe(202);
    await until("it has noticed", () => stalled.door.health().link === "feed");
    link.heal();
    await until("it is out", () => !client.connected);
    expect(client.history).toEqual(GONE);
    await stalled.stop();
    await link.close();
  });

  it("that starts after a revocation refuses the token from its first handshake on", async () => {
    const token = await cluster.issuer.token({ sid: "u_late.a" });
    await cluster.revoke(one(), [{ kind: "session", sid: "u_late.a" }]);
    const late = await cluster.startNode();
    const client = cluster.client(late, token, { reconnectionDelay: 5, reconnectionDelayMax: 5 });
    await until("it was judged", () => client.history.some((what) => what !== "connect_error:transport"));
    expect(client.history.at(-1)).toBe("connect_error:session_revoked");
    await late.stop();
  });

  it("is told all of it by the feed, page by page, and does not read in the stream what the feed has told", async () => {
    const redis = new Redis(cluster.redis.url);
    const sids = Array.from({ length: 7 }, (_, index) => `u_pages${index}.a`);
    const tokens = await Promise.all(sids.map((sid) => cluster.issuer.token({ sid })));
    for (const sid of sids) cluster.issuer.record(revocationOf([{ kind: "session", sid }]));
    await redis.xadd("{keycard}:log", "*", "set", "of before it started");
    const tellAtOnce = cluster.issuer.tellInPagesOf(2);
    const { late, ignored } = await startWatched();
    await late.door.ready();
    tellAtOnce();
    for (const token of tokens) {
      const client = cluster.client(late, token);
      await until("it was judged", () => client.history.length > 0);
      expect(client.history).toEqual(["connect_error:session_revoked"]);
    }
    await redis.xadd("{keycard}:log", "*", "set", "of after that");
    await until("it reads on", () => ignored.length > 0);
    expect(ignored.length).toBe(1);
    await late.stop();
    redis.disconnect();
  });

  it("reads all of the stream where the feed was silent when it started", async () => {
    const redis = new Redis(cluster.redis.url);
    await redis.xadd("{keycard}:log", "*", "set", "of before it started");
    const speak = cluster.issuer.silenceFeed();
    const { late, ignored } = await startWatched();
    await until("it has read it", () => ignored.length > 0);
    speak();
    await late.door.ready();
    await late.stop();
    redis.disconnect();
  });

  it("reads on in a stream that was emptied under it", async () => {
    const redis = new Redis(cluster.redis.url);
    await redis.flushall();
    const { clients } = await everywhere({ sid: "u_flush.a" });
    // Appended without ringing the bell, so that only reading finds it.
    const set = await cluster.issuer.set(revocationOf([{ kind: "session", sid: "u_flush.a" }]));
    await redis.xadd("{keycard}:log", "1-1", "set", set);
    await until("all are out", () => clients.every((client) => !client.connected));
    redis.disconnect();
  });
});

describe("writing to Redis", () => {
  it("throws nobody out: what no trusted issuer signed is ignored, and the nodes go on", async () => {
    const { clients } = await everywhere({ sid: "u_forged.a" });
    const redis = new Redis(cluster.redis.url);
    const mallory = await createSigner("ES256", "mallory");
    const event = revocationOf([{ kind: "session", sid: "u_forged.a" }]);
    const forged = await cluster.issuer.set(event, { signer: mallory });
    const elsewhere = await cluster.issuer.set(event, { audience: "another-cluster" });
    const bad = [forged, elsewhere, "not a token", "", "x".repeat(100_000)];
    for (const set of bad) {
      await redis.publish("{keycard}:bell", `${Date.now()}-9 ${set}`);
      await redis.xadd("{keycard}:log", "*", "set", set);
      await redis.xadd("{keycard}:log", "*", "other", set);
    }
    await redis.publish("{keycard}:bell", "nonsense");
    // A true one behind them: once it is applied, the forged ones have been seen and passed over.
    const receipt = await cluster.revoke(one(), [{ kind: "session", sid: "u_nobody.a" }]);
    expect(receipt.pending).toEqual([]);
    for (const client of clients) expect(client.history).toEqual(["connect"]);
    await until("it is in the log", () =>
      one().lines.some((line) => line.includes("somebody who is not trusted wrote to Redis")),
    );
    redis.disconnect();
  });
});

describe("reading Redis", () => {
  it("shows no token and no secret, whatever is done meanwhile", async () => {
    const redis = new Redis(cluster.redis.url);
    const seen: string[] = [];
    const monitor = await redis.monitor();
    monitor.on("monitor", (_time, args: readonly string[]) => seen.push(args.join(" ")));
    const { token } = await everywhere({ sid: "u_watched.a" });
    await cluster.revoke(one(), [{ kind: "session", sid: "u_watched.a" }]);
    await until("the revocation was seen", () => seen.some((line) => line.includes("{keycard}:receipt:")));
    const all = seen.join("\n");
    for (const secret of [token, token.split(".")[2] ?? token, CLUSTER_SECRET]) expect(all).not.toContain(secret);
    monitor.disconnect();
    redis.disconnect();
  });
});

describe("Redis away", () => {
  it("an event is answered 503, acted on here at once, and carried out everywhere when it is pushed again", async () => {
    const { clients } = await everywhere({ sid: "u_away.a" });
    const event = { ...revocationOf([{ kind: "session", sid: "u_away.a" }]), id: "rev_away" };
    await cluster.redis.kill("SIGKILL");
    const set = await cluster.issuer.set(event);
    expect((await cluster.push(one(), set)).status).toBe(503);
    await until("it is out where the event is", () => !clients[0]?.connected);
    await cluster.redis.restart();
    await until("it is taken", async () => (await cluster.push(one(), set)).status === 202);
    await until("all are out", () => clients.every((client) => !client.connected));
    const receipt = await cluster.receipt(one(), "rev_away");
    expect(receipt.applied.find(({ node }) => node === one().door.node)?.closed).toBe(1);
    await until("the nodes are ready again", () => nodes.every(({ door }) => door.health().ready));
  });
});

describe("push delivery (RFC 8935)", () => {
  const bodyOf = async (response: Response) => ({
    status: response.status,
    ...((await response.json()) as { err: string }),
  });

  it("answers 202 with an empty body", async () => {
    const response = await cluster.push(one(), await cluster.issuer.set());
    expect([response.status, await response.text()]).toEqual([202, ""]);
  });

  it("names what is wrong with an event by the codes of section 2.4", async () => {
    const mallory = await createSigner("ES256", "mallory-2");
    const same = await createSigner("ES256", cluster.issuer.signer.key.kid);
    const { issuer } = cluster;
    const rows = [
      ["authentication_failed", await issuer.set({}, { signer: same })],
      ["invalid_key", await issuer.set({}, { signer: mallory })],
      ["invalid_audience", await issuer.set({}, { audience: "elsewhere" })],
      ["invalid_issuer", await issuer.set({}, { issuer: "https://elsewhere.test" })],
      ["invalid_request", await issuer.token()],
      ["invalid_request", "no token at all"],
      ["invalid_request", await issuer.set({ targets: [{ kind: "planet" } as never] })],
      ["invalid_request", "x".repeat(1_000_000)],
      ["invalid_request", ""],
    ] as const;
    for (const [err, set] of rows) {
      // Unavailable while the issuer was asked for a key just now: it may be one that is new.
      const judged = await until("it is judged", async () => {
        const response = await cluster.push(one(), set);
        return response.status !== 503 && response;
      });
      expect(await bodyOf(judged)).toMatchObject({ status: 400, err });
    }
  });

  it("refuses another content type and another method", async () => {
    const url = `${one().url}/events`;
    expect(await bodyOf(await fetch(url, { method: "POST", body: "{}" }))).toMatchObject({
      status: 400,
      err: "invalid_request",
    });
    expect((await fetch(url)).status).toBe(405);
  });

  it("outlives request lines that are no paths", async () => {
    for (const path of ["//", "http://[", "*", "/%", "/receipts/%00?wait=%"]) {
      const status = await new Promise((resolve, reject) => {
        const request = httpRequest({ port: one().port, host: "127.0.0.1", path });
        request
          .on("response", (response) => resolve(response.resume().statusCode))
          .on("error", reject)
          .end();
      });
      expect(status, path).toBe(404);
    }
  });

  it("tells receipts only to a trusted issuer, and leaves out events that it does not know", async () => {
    const ask = (body: string) =>
      fetch(`${one().url}/receipts`, { method: "POST", headers: { "content-type": "application/jwt" }, body });
    expect((await fetch(`${one().url}/receipts`)).status).toBe(405);
    expect((await ask("")).status).toBe(400);
    expect((await ask(await cluster.issuer.token())).status).toBe(401);
    expect((await ask((await cluster.issuer.query("rev_unknown")).jwt)).status).toBe(200);
    await expect(cluster.receipt(one(), "rev_unknown")).rejects.toThrow("does not know");
  });
});

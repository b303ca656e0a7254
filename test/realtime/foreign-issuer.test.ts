/** Issuers that are no Keycard edge, in the shapes that they really send, with no edge anywhere. */
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { Redis } from "ioredis";
import { type JWTPayload, SignJWT } from "jose";
import { Server } from "socket.io";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { signRevocation } from "#contract/revocation";
import { until } from "../../infra/until.ts";
import { type Door, type ProtectedSocket, protect, type TrustedIssuer } from "../../realtime/protect.ts";
import {
  CLUSTER,
  CLUSTER_SECRET,
  connected,
  createIssuer,
  revocationOf,
  startCluster,
  type TestClient,
  type TestCluster,
  type TestIssuer,
  type TestNode,
} from "../support/realtime-cluster.ts";
import { createSigner, type TestSigner } from "../support/tokens.ts";

const ADMIN_TOOL = "https://admin-tool.test";

let cluster: TestCluster;
let jwks: TestIssuer;
let adminTool: TestSigner;
let server: Server;
let node: TestNode;
let door: Door;

/** What each sends: header, payload, and how the door is told to read it. `jwks` publishes the keys of all of them. */
const ISSUERS: readonly (TrustedIssuer & {
  readonly header: object;
  readonly payload: object;
  readonly seen: object;
})[] = [
  {
    issuer: "https://tenant.auth0.test/",
    audience: "https://api.test",
    foreign: { claims: (payload) => ({ tid: String(payload["https://app.test/org"]) }) },
    header: { typ: "JWT" },
    payload: {
      sub: "auth0|1",
      aud: ["https://api.test", "https://tenant.auth0.test/userinfo"],
      azp: "spa",
      scope: "openid chat",
      "https://app.test/org": "acme",
    },
    seen: { sub: "auth0|1", client_id: "spa", scope: "openid chat", tid: "acme", gen: 0 },
  },
  {
    issuer: "https://cognito-idp.test/pool",
    audience: "client-7",
    foreign: { audienceClaim: "client_id", required: { token_use: "access" } },
    header: {},
    payload: {
      sub: "c-1",
      client_id: "client-7",
      token_use: "access",
      scope: "aws.admin",
      auth_time: 1_700_000_000,
      jti: "j-1",
    },
    seen: { sub: "c-1", client_id: "client-7", auth_time: 1_700_000_000, jti: "j-1" },
  },
  {
    issuer: "https://securetoken.test/project",
    audience: "project",
    foreign: {},
    header: { typ: "JWT" },
    payload: { sub: "f-1", aud: "project", auth_time: 1_700_000_000, user_id: "f-1", firebase: { identities: {} } },
    seen: { sub: "f-1", auth_time: 1_700_000_000 },
  },
  {
    issuer: "https://keycloak.test/realms/app",
    audience: "account",
    foreign: { claims: (payload) => ({ scope: (payload.realm_access as { roles: string[] }).roles.join(" ") }) },
    header: { typ: "JWT" },
    payload: {
      sub: "k-1",
      aud: "account",
      azp: "web",
      sid: "k-session",
      jti: "k-token",
      realm_access: { roles: ["ops"] },
    },
    seen: { sub: "k-1", sid: "k-session", jti: "k-token", scope: "ops" },
  },
];

beforeAll(async () => {
  cluster = await startCluster();
  jwks = await createIssuer();
  adminTool = await createSigner("EdDSA", "admin-tool-1");
  const http = createServer();
  server = new Server(http);
  door = protect(server, {
    redis: new Redis(cluster.redis.url, { lazyConnect: true }),
    issuers: ISSUERS.map(({ header: _header, payload: _payload, seen: _seen, ...trusted }, index) => ({
      ...trusted,
      jwksUri: `${jwks.url}/keys`,
      transmitters: index === 0 ? [{ issuer: ADMIN_TOOL, keys: { keys: [adminTool.publicJwk] } }] : [],
    })),
    cluster: CLUSTER,
    clusterSecret: CLUSTER_SECRET,
  });
  server.on("connection", (socket: ProtectedSocket) => {
    socket.on("session", (answer) => answer(socket.data.session));
  });
  http.on("request", (request, response) => void door.receive(request, response));
  await new Promise<void>((resolve) => http.listen(0, "127.0.0.1", resolve));
  node = { url: `http://127.0.0.1:${(http.address() as AddressInfo).port}`, door } as TestNode;
  await door.ready();
});

afterAll(async () => {
  await door.close();
  await server.close();
  await jwks.stop();
  await cluster.stop();
});

function tokenOf(which: number, change: JWTPayload = {}, signer = jwks.signer): Promise<string> {
  const { issuer, header, payload } = ISSUERS[which] ?? ISSUERS[0] ?? never();
  const iat = Math.floor(Date.now() / 1000);
  return new SignJWT({ iss: issuer, iat, exp: iat + 300, ...payload, ...change })
    .setProtectedHeader({ alg: signer.key.alg, kid: signer.key.kid, ...header })
    .sign(signer.key.privateKey);
}

function never(): never {
  throw new Error("there is no such issuer");
}

async function refusalOf(token: string): Promise<string | undefined> {
  const client = cluster.client(node, token);
  await until("it was judged", () => client.history.length > 0);
  return client.history[0];
}

async function revoke(
  targets: Parameters<typeof revocationOf>[0],
  signer = adminTool,
  issuer = ADMIN_TOOL,
): Promise<number> {
  const envelope = { issuer, audience: CLUSTER, issuedAt: Math.floor(Date.now() / 1000) };
  return (await cluster.push(node, await signRevocation(revocationOf(targets), envelope, signer.key))).status;
}

describe("a token of an issuer that is no Keycard edge", () => {
  it.each(ISSUERS.map(({ issuer, seen }, which) => [issuer, which, seen] as const))(
    "%s lets in, read into the same claims",
    async (_issuer, which, seen) => {
      const client = cluster.client(node, await tokenOf(which));
      await connected(client);
      expect(await client.emitWithAck("session")).toMatchObject(seen);
    },
  );

  it.each([
    ["for another audience", 0, { aud: "https://elsewhere.test" }, "token_invalid"],
    ["for another client", 1, { client_id: "client-8" }, "token_invalid"],
    ["of another use", 1, { token_use: "id" }, "token_invalid"],
    ["without a subject", 2, { sub: undefined }, "token_invalid"],
    ["that has expired", 3, { exp: 1_000 }, "token_expired"],
    ["from the future", 3, { iat: 9_000_000_000, exp: 9_000_000_300 }, "token_invalid"],
  ])("%s is refused", async (_name, which, change, code) => {
    expect(await refusalOf(await tokenOf(which, change as JWTPayload))).toBe(`connect_error:${code}`);
  });

  it("is refused when it is signed by somebody whose key has the same name", async () => {
    const mallory = await createSigner("ES256", jwks.signer.key.kid);
    expect(await refusalOf(await tokenOf(0, {}, mallory))).toBe("connect_error:token_invalid");
  });
});

describe("an admin tool with a key of its own, and no edge", () => {
  const open = async (change: JWTPayload): Promise<TestClient> => {
    const client = cluster.client(node, await tokenOf(0, change));
    await connected(client);
    return client;
  };

  it("throws out whom it names, and nobody else", async () => {
    const mine = await open({ sub: "auth0|out", sid: "s-out" });
    const other = await open({ sub: "auth0|in", sid: "s-in" });
    expect(await revoke([{ kind: "session", sid: "s-out" }])).toBe(202);
    await until("it is out", () => !mine.connected);
    expect(mine.history).toContain("unauthorized:session_revoked");
    expect(other.connected).toBe(true);
  });

  it("throws a person out who may come back with a newer token", async () => {
    const iat = Math.floor(Date.now() / 1000) - 10;
    const mine = await open({ sub: "auth0|back", iat });
    expect(await revoke([{ kind: "subject", sub: "auth0|back", cutoff: iat + 5 }])).toBe(202);
    await until("it is out", () => !mine.connected);
    expect(await refusalOf(await tokenOf(0, { sub: "auth0|back", iat }))).toBe("connect_error:session_revoked");
    await open({ sub: "auth0|back" });
  });

  it("speaks for the issuer that it was configured for, and for no other", async () => {
    const elsewhere = cluster.client(node, await tokenOf(3, { sid: "s-shared" }));
    await connected(elsewhere);
    const here = await open({ sid: "s-shared" });
    expect(await revoke([{ kind: "session", sid: "s-shared" }])).toBe(202);
    await until("it is out", () => !here.connected);
    expect(elsewhere.connected).toBe(true);
  });

  it("is not believed without its key, and cannot let anybody in", async () => {
    const mallory = await createSigner("EdDSA", "admin-tool-1");
    expect(await revoke([{ kind: "everyone", cutoff: 9_000_000_000 }], mallory)).toBe(400);
    expect(await refusalOf(await tokenOf(0, { iss: ADMIN_TOOL }, adminTool))).toBe("connect_error:token_invalid");
  });
});

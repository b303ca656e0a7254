/**
 * The least that each operation can be. A refresh: one Durable Object that reads and writes one row, one signature. A login: a password hash
 * besides, as Keycard's. A key set: a constant. No validation, no throttle, no reuse detection, no cutoffs, no audit. What Keycard costs beyond
 * this is what it does.
 */
import { DurableObject } from "cloudflare:workers";
import { scrypt } from "node:crypto";
import { type CryptoKey, generateKeyPair, SignJWT } from "jose";

interface Bindings {
  readonly SESSION: DurableObjectNamespace<Session>;
}

export class Session extends DurableObject<Bindings> {
  constructor(ctx: DurableObjectState, env: Bindings) {
    super(ctx, env);
    ctx.storage.sql.exec("CREATE TABLE IF NOT EXISTS session (id INTEGER PRIMARY KEY, position INTEGER NOT NULL)");
  }

  advance(): number {
    const { sql } = this.ctx.storage;
    const [row] = sql.exec<{ position: number }>("SELECT position FROM session WHERE id = 1").toArray();
    const position = (row?.position ?? 0) + 1;
    sql.exec("INSERT OR REPLACE INTO session (id, position) VALUES (1, ?)", position);
    return position;
  }
}

let key: CryptoKey | undefined;
/** As long as a set of two RSA keys is. */
const JWKS = {
  keys: ["a", "b"].map((kid) => ({ kty: "RSA", alg: "RS256", use: "sig", kid, e: "AQAB", n: "n".repeat(342) })),
};
/** `edge/accounts/password.ts` */
const SCRYPT = { N: 2 ** 14, r: 8, p: 5, maxmem: 64 * 1024 * 1024 };

function hash(password: string): Promise<void> {
  const salt = crypto.getRandomValues(new Uint8Array(16));
  return new Promise((resolve, reject) => {
    scrypt(password, salt, 32, SCRYPT, (error) => (error === null ? resolve() : reject(error)));
  });
}

export default {
  async fetch(request: Request, env: Bindings): Promise<Response> {
    const { pathname } = new URL(request.url);
    if (pathname === "/healthz") return new Response("ok");
    if (pathname === "/jwks.json") return Response.json(JWKS);
    const { session, password } = await request.json<{ session: string; password?: string }>();
    if (pathname === "/login") await hash(password ?? "");
    const position = await env.SESSION.getByName(session).advance();
    key ??= (await generateKeyPair("RS256")).privateKey;
    const iat = Math.floor(Date.now() / 1000);
    const claims = {
      iss: "https://bare.test",
      aud: "keycard",
      sub: session,
      client_id: "keycard",
      iat,
      exp: iat + 300,
    };
    const token = await new SignJWT({ ...claims, jti: crypto.randomUUID(), sid: session, position })
      .setProtectedHeader({ alg: "RS256", kid: "bare", typ: "at+jwt" })
      .sign(key);
    return Response.json({ access_token: token, expires_in: 300, position });
  },
};

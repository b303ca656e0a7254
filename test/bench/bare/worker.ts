/**
 * The least that a refresh can be: one Worker, one Durable Object that reads and writes one row, one signature. No
 * validation, no hashing, no reuse detection, no cutoffs. What Keycard costs beyond this is what it does.
 */
import { DurableObject } from "cloudflare:workers";
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

export default {
  async fetch(request: Request, env: Bindings): Promise<Response> {
    if (new URL(request.url).pathname === "/healthz") return new Response("ok");
    const { session } = await request.json<{ session: string }>();
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

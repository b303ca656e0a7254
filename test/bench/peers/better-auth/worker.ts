/**
 * better-auth on D1 with its JWT plugin as its documentation has it. What comes nearest to a refresh there is GET /token: the session's cookie is
 * looked up in the database and a token is signed for it. Nothing is written and the cookie stays the same, so that it does less than the others.
 */
import { betterAuth } from "better-auth";
import { getMigrations } from "better-auth/db/migration";
import { jwt } from "better-auth/plugins/jwt";

interface Bindings {
  readonly DB: D1Database;
  readonly ISSUER: string;
}

let auth: ReturnType<typeof build> | undefined;

function optionsOf({ DB, ISSUER }: Bindings) {
  return {
    database: DB,
    baseURL: ISSUER,
    secret: "a secret of a benchmark, and of nothing else",
    emailAndPassword: { enabled: true },
    // Its limits would be what is measured, as one address makes all calls.
    rateLimit: { enabled: false },
    plugins: [jwt()],
  };
}

function build(env: Bindings) {
  return betterAuth(optionsOf(env));
}

export default {
  async fetch(request: Request, env: Bindings): Promise<Response> {
    const { pathname } = new URL(request.url);
    if (pathname === "/healthz") return new Response("ok");
    if (pathname === "/tables") {
      const { runMigrations } = await getMigrations(optionsOf(env));
      await runMigrations();
      return Response.json({});
    }
    auth ??= build(env);
    return await auth.handler(request);
  },
};

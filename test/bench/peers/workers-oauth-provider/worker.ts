/**
 * workers-oauth-provider as its documentation has it: an authorization server alone, on Workers KV, with its lifetimes as they are by default.
 * Who signs in is believed, and asked for no consent, since only refreshes are measured.
 */
import { OAuthAuthorizationServer } from "@cloudflare/workers-oauth-provider";

interface Bindings {
  readonly OAUTH_KV: KVNamespace;
  readonly ISSUER: string;
}

let server: OAuthAuthorizationServer<Bindings> | undefined;

async function authorize(request: Request, env: Bindings, at: OAuthAuthorizationServer<Bindings>): Promise<Response> {
  const oauth = at.getOAuthApi(env);
  const asked = await oauth.parseAuthRequest(request);
  const who = new URL(request.url).searchParams.get("login_hint") ?? "nobody";
  const granted = { request: asked, userId: who, metadata: {}, scope: asked.scope, props: { who } };
  const { redirectTo } = await oauth.completeAuthorization(granted);
  return Response.redirect(redirectTo, 302);
}

export default {
  async fetch(request: Request, env: Bindings, ctx: ExecutionContext): Promise<Response> {
    const { pathname } = new URL(request.url);
    if (pathname === "/healthz") return new Response("ok");
    server ??= new OAuthAuthorizationServer<Bindings>({ issuer: env.ISSUER, resources: [`${env.ISSUER}/api`] });
    if (pathname === "/authorize") return await authorize(request, env, server);
    if (pathname === "/client") {
      const { redirect_uri } = await request.json<{ redirect_uri: string }>();
      return Response.json(await server.getOAuthApi(env).createClient({ redirectUris: [redirect_uri] }));
    }
    return await server.fetch(request, env, ctx);
  },
};

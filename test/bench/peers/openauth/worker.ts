/**
 * OpenAuth on Workers KV as its documentation has it, with its lifetimes as they are by default. The issuer is built once for each isolate: built
 * for each request, as most public Workers do it, it is slower. Who signs in is believed, since only refreshes are measured.
 *
 * It refuses a few good tokens here: what is left of its 60 s of reuse is rounded down to 59 where the clock moves on between two readings, and KV
 * takes no less than 60. On Cloudflare the clock stands still meanwhile, so that this may be a thing of workerd alone.
 */
import { issuer } from "@openauthjs/openauth";
import type { Provider } from "@openauthjs/openauth/provider/provider";
import { CloudflareStorage } from "@openauthjs/openauth/storage/cloudflare";
import { createSubjects } from "@openauthjs/openauth/subject";
import { object, string } from "zod";

interface Bindings {
  readonly STORAGE: KVNamespace;
}

type Issuer = ReturnType<typeof build>;

const subjects = createSubjects({ user: object({ id: string() }) });

const believed: Provider<{ who: string }> = {
  type: "believed",
  init() {},
  client: async ({ clientID }) => ({ who: clientID }),
};

let built: Issuer | undefined;

function build({ STORAGE }: Bindings) {
  return issuer({
    subjects,
    storage: CloudflareStorage({ namespace: STORAGE as never }),
    providers: { believed },
    success: (answer, { who }) => answer.subject("user", { id: who }),
  });
}

export default {
  async fetch(request: Request, env: Bindings, ctx: ExecutionContext): Promise<Response> {
    if (new URL(request.url).pathname === "/healthz") return new Response("ok");
    built ??= build(env);
    return await built.fetch(request, env, ctx);
  },
};

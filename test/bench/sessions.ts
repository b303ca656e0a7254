/**
 * A session at Keycard and at each of its peers, as a client has it: it is opened once, and then one secret is traded for the next. How each is
 * spoken to is hidden here, so that what is measured, or counted, of them is the same.
 */
import { EdgeClient } from "../../infra/edge-client.ts";
import { ADMIN_TOKEN, PEER_WORKERS, type PeerWorker } from "./edge-load.ts";
import { type Call, NotOk } from "./http-calls.ts";

/** Everything at its defaults in each: lifetimes, and how long a secret that was traded is still taken. */
export interface Sessions {
  /** @returns the session's first secret: a refresh token, or the session's cookie */
  open(): Promise<string>;
  /** @returns the next secret @throws {NotOk} */
  trade(secret: string): Promise<string>;
}

export type Contender = "keycard" | PeerWorker;
export const CONTENDERS: readonly Contender[] = ["keycard", ...PEER_WORKERS];

const PASSWORD = "a password of a benchmark";

export function sessionsOf(name: Contender, url: string, call: Call): Promise<Sessions> {
  return OPENING[name](url, call);
}

const OPENING: Readonly<Record<Contender, (url: string, call: Call) => Promise<Sessions>>> = {
  async keycard(url, call) {
    const edge = new EdgeClient({ edgeUrl: url, adminToken: ADMIN_TOKEN });
    return {
      async open() {
        const login = newAddress();
        await edge.createAccount({ login, password: PASSWORD });
        const { refresh_token } = await edge.login(login, PASSWORD);
        return refresh_token;
      },
      trade: async (secret) => refreshTokenOf(await call("POST", `${url}/refresh`, { refresh_token: secret })),
    };
  },

  async openauth(url, call) {
    const token = async (form: object) => {
      return refreshTokenOf(await call("POST", `${url}/token`, new URLSearchParams({ ...form })));
    };
    const believed = { grant_type: "client_credentials", provider: "believed", client_secret: "believed" };
    return {
      open: () => token({ ...believed, client_id: crypto.randomUUID() }),
      trade: (secret) => token({ grant_type: "refresh_token", client_id: "bench", refresh_token: secret }),
    };
  },

  async "workers-oauth-provider"(url, call) {
    const redirect_uri = "http://127.0.0.1/callback";
    const { json } = await call("POST", `${url}/client`, { redirect_uri });
    const { clientId, clientSecret } = json as { clientId: string; clientSecret: string };
    const token = async (form: object) => {
      const body = new URLSearchParams({ client_id: clientId, client_secret: clientSecret, ...form });
      return refreshTokenOf(await call("POST", `${url}/oauth/token`, body));
    };
    return {
      async open() {
        const asked = { client_id: clientId, redirect_uri, response_type: "code", login_hint: crypto.randomUUID() };
        const code = await codeOf(call("GET", `${url}/authorize?${new URLSearchParams(asked)}`));
        return await token({ grant_type: "authorization_code", code, redirect_uri });
      },
      trade: (secret) => token({ grant_type: "refresh_token", refresh_token: secret }),
    };
  },

  async "better-auth"(url, call) {
    await call("POST", `${url}/tables`);
    return {
      async open() {
        const person = { name: "bench", email: newAddress(), password: PASSWORD };
        const { headers } = await call("POST", `${url}/api/auth/sign-up/email`, person, { origin: url });
        const [cookie = ""] = headers["set-cookie"] ?? [];
        return cookie.split(";")[0] ?? "";
      },
      async trade(secret) {
        const { headers } = await call("GET", `${url}/api/auth/token`, undefined, { cookie: secret });
        return headers["set-cookie"]?.[0]?.split(";")[0] ?? secret;
      },
    };
  },
};

function newAddress(): string {
  return `${crypto.randomUUID()}@example.com`;
}

function refreshTokenOf({ json }: { readonly json: unknown }): string {
  return (json as { refresh_token: string }).refresh_token;
}

/** RFC 6749 section 4.1.2 */
async function codeOf(authorized: Promise<unknown>): Promise<string> {
  const refused = await authorized.catch((error: unknown) => error);
  const location = refused instanceof NotOk ? refused.location : undefined;
  const code = location === undefined ? undefined : new URL(location).searchParams.get("code");
  if (code == null) throw new Error("no code was given", { cause: refused });
  return code;
}

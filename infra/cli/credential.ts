/**
 * Whose credential a command uses, and with which edge: `--profile`, else KEYCARD_EDGE and KEYCARD_TOKEN, else KEYCARD_PROFILE,
 * else the current profile, else the stack that runs in this checkout. Access tokens are kept until shortly before they end; a
 * refresh token's successor is kept before anything is done with it.
 */
import { execFile } from "node:child_process";
import { join } from "node:path";
import { promisify } from "node:util";
import { type AdminCredential, type EdgeClient, EdgeRefusal } from "../edge-client.ts";
import { holderOf } from "../lock.ts";
import { CommandFailed, UsageError } from "./failure.ts";
import { nearest } from "./nearest.ts";
import { type Access, type Profile, type Profiles, readPrivate, type Secret } from "./profiles.ts";

/** An edge, and who we are there. */
export interface Identity {
  readonly edgeUrl: string;
  /** How it is told from others: a profile's name, or where it comes from. */
  readonly name: string;
  readonly credential: AdminCredential;
}

export interface CredentialOptions {
  readonly profile: string | undefined;
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly profiles: Profiles;
  /** An edge without a credential, to get tokens from. */
  connect(edgeUrl: string): EdgeClient;
}

/** The profile that needs no login: the stack that `npm start` runs in this checkout. */
export const LOCAL = "local";

/** Where `npm start` keeps its state. Beside an installed package there is none. */
const LOCAL_STATE = join(import.meta.dirname, "..", "..", ".keycard");
/** A token is not used in its last seconds: it would end on the way. */
const LEAVE_SECONDS = 20;
const SECRET_WITHIN_MS = 60_000;
const MAX_SECRET = 64 * 1024;
const TRY_IT = "Run it by itself; it is in the file of profiles.";
const LOOPBACK = /^(localhost|127\.\d+\.\d+\.\d+|\[::1\])$/;

export async function findIdentity(options: CredentialOptions): Promise<Identity> {
  const { env, profiles } = options;
  if (options.profile === undefined && (env.KEYCARD_TOKEN || env.KEYCARD_EDGE)) return fromEnvironment(env);
  const book = await profiles.read();
  const named = options.profile ?? (env.KEYCARD_PROFILE || undefined);
  const name = named ?? book.current;
  const found = name !== undefined && Object.hasOwn(book.profiles, name) ? book.profiles[name] : undefined;
  if (name !== undefined && found !== undefined) {
    return { edgeUrl: found.edge, name, credential: credentialOf(name, found, options) };
  }
  const local = name === undefined || name === LOCAL ? await localIdentity() : undefined;
  if (local !== undefined) return local;
  if (named === undefined) {
    throw new UsageError(
      "There is no credential on this machine yet.",
      "`keycard login https://auth.example.com` takes one; in CI set KEYCARD_EDGE and KEYCARD_TOKEN.",
    );
  }
  if (named === LOCAL) throw new UsageError("No stack runs in this checkout.", "`npm start` runs one.");
  const near = nearest(named, Object.keys(book.profiles));
  throw new UsageError(
    `There is no profile "${named}".`,
    near ? `Did you mean ${near}?` : "`keycard profiles` lists them.",
  );
}

/** The edge's address as it is used: without a slash at the end, and not in the clear over a network. */
export function edgeAddress(text: string): string {
  const whole = /^[a-z]+:\/\//i.test(text) ? text : `https://${text}`;
  if (!URL.canParse(whole)) {
    throw new UsageError(`"${text}" is no address of an edge.`, "It is a URL, as https://auth.example.com.");
  }
  const url = new URL(whole);
  if (url.username !== "" || url.password !== "" || url.search !== "" || url.hash !== "") {
    throw new UsageError("The address of an edge is a plain URL.", "No password, query or fragment belongs into it.");
  }
  if (url.protocol === "http:" && !LOOPBACK.test(url.hostname)) {
    throw new UsageError(
      `${url.host} is not spoken to over plain http: whoever is in between could take the credential.`,
      `Use https://${url.host}.`,
    );
  }
  if (url.protocol !== "https:" && url.protocol !== "http:") {
    throw new UsageError(`${url.protocol} is not http or https.`);
  }
  return `${url.origin}${url.pathname.replace(/\/+$/, "")}`;
}

/** What the command prints, as its first line; or what is kept. */
export async function secretOf(secret: Secret): Promise<string> {
  if ("kept" in secret) return secret.kept;
  try {
    const shell = promisify(execFile);
    const limits = { timeout: SECRET_WITHIN_MS, maxBuffer: MAX_SECRET };
    const { stdout } = await shell("/bin/sh", ["-c", secret.command], limits);
    const [line = ""] = stdout.split(/\r?\n/, 1);
    if (line !== "") return line;
  } catch (error) {
    // Neither its output nor its message is shown: either may hold the secret.
    const { code } = error as { code?: number | string };
    throw new CommandFailed(`The command that tells the secret failed (${code ?? "it took too long"}).`, TRY_IT);
  }
  throw new CommandFailed("The command that tells the secret printed nothing.", TRY_IT);
}

function fromEnvironment({ KEYCARD_EDGE, KEYCARD_TOKEN }: CredentialOptions["env"]): Identity {
  if (!KEYCARD_EDGE) {
    throw new UsageError("KEYCARD_TOKEN is set without KEYCARD_EDGE.", "Name the edge that the token is for.");
  }
  if (!KEYCARD_TOKEN) throw new UsageError("KEYCARD_EDGE is set without KEYCARD_TOKEN.", "Set both, or neither.");
  const token = KEYCARD_TOKEN.trim();
  return { edgeUrl: edgeAddress(KEYCARD_EDGE), name: "environment", credential: { token: async () => token } };
}

/** What `npm start` wrote for its owner alone: its edge, while it runs, and the root credential of it. */
async function localIdentity(): Promise<Identity | undefined> {
  const { edgeUrl } = holderOf(LOCAL_STATE) ?? {};
  if (edgeUrl === undefined || !URL.canParse(edgeUrl) || !LOOPBACK.test(new URL(edgeUrl).hostname)) return undefined;
  const token = (await readPrivate(join(LOCAL_STATE, "admin-token")))?.trim();
  return token === undefined ? undefined : { edgeUrl, name: LOCAL, credential: { token: async () => token } };
}

function credentialOf(name: string, profile: Profile, options: CredentialOptions): AdminCredential {
  if (profile.kind === "token") {
    let token: Promise<string> | undefined;
    return { token: () => (token ??= secretOf(profile.secret)) };
  }
  // Calls that are made at once renew once.
  let latest: Promise<string> | undefined;
  let current = profile.access;
  return {
    token(refused) {
      const usable = current !== undefined && current.token !== refused && isFresh(current);
      if (current !== undefined && usable) return Promise.resolve(current.token);
      latest ??= renewed(name, refused, options)
        .then((access) => {
          current = access;
          return access.token;
        })
        .finally(() => {
          latest = undefined;
        });
      return latest;
    },
  };
}

/** A fresh access token, kept. Another process may just have got one: then that is used. */
function renewed(name: string, refused: string | undefined, { profiles, connect }: CredentialOptions): Promise<Access> {
  return profiles.change(async (book) => {
    const profile = Object.hasOwn(book.profiles, name) ? book.profiles[name] : undefined;
    if (profile === undefined || profile.kind === "token") {
      throw new CommandFailed(`The profile ${name} was taken away meanwhile.`);
    }
    const { access } = profile;
    if (access !== undefined && access.token !== refused && isFresh(access)) return access;
    const { next, fresh } = await traded(profile, connect(profile.edge));
    book.profiles[name] = next;
    return fresh;
  });
}

async function traded(
  profile: Exclude<Profile, { kind: "token" }>,
  edge: EdgeClient,
): Promise<{ next: Profile; fresh: Access }> {
  if (profile.kind === "client") {
    const answer = await edge.clientToken(profile.client_id, await secretOf(profile.secret));
    const fresh = accessOf(answer);
    return { next: { ...profile, access: fresh }, fresh };
  }
  try {
    const answer = await edge.refresh(profile.refresh_token, profile.issuer);
    const fresh = accessOf(answer);
    return { next: { ...profile, refresh_token: answer.refresh_token, access: fresh }, fresh };
  } catch (error) {
    if (!(error instanceof EdgeRefusal) || error.advice !== "login") throw error;
    throw new CommandFailed(
      `The session of ${profile.login} is over (${error.code}).`,
      `Sign in again: \`keycard login ${profile.edge} --login ${profile.login}\`.`,
    );
  }
}

export function accessOf(answer: { readonly access_token: string; readonly expires_in: number }): Access {
  return { token: answer.access_token, expires_at: Math.floor(Date.now() / 1000) + answer.expires_in };
}

function isFresh({ expires_at }: Access): boolean {
  return expires_at - LEAVE_SECONDS > Date.now() / 1000;
}

/**
 * One admin client: how it proves itself, what it may do, and for whom. It is asked at every admin call, so that a client that is
 * disabled or deleted is out at once, and not only when its access token ends.
 *
 * A secret is 256 random bits that we made ourselves, so that one SHA-256 of it is enough: there is no dictionary to try, and
 * scrypt would only make every call dear.
 */
import { DurableObject } from "cloudflare:workers";
import { createHash } from "node:crypto";
import { createLocalJWKSet, type JSONWebKeySet, type JWTPayload, jwtVerify } from "jose";
import { Refusal } from "#contract/refusal";
import { randomName } from "../identifiers.ts";
import { hasSchema, migrate, migrateExisting } from "../migrations.ts";
import { answer, type Outcome } from "../outcome.ts";
import { sameSecret } from "../subkeys.ts";
import { type AdminScope, adminScopesIn } from "./admin-scope.ts";

/** Algorithms of client assertions. HMAC is absent: the secret is not kept in a form that could verify one. */
export const ASSERTION_ALGORITHMS = ["RS256", "PS256", "ES256", "EdDSA"] as const;

export interface NewClient {
  readonly client_id: string;
  readonly name: string;
  readonly scopes: readonly AdminScope[];
  readonly tid: string | null;
  /** Public keys for `private_key_jwt`. Absent: the client gets a secret. */
  readonly jwks: JSONWebKeySet | undefined;
}

/** What everybody who asks is told of a client. Times in milliseconds since the epoch. */
export interface ClientSummary {
  readonly client_id: string;
  readonly name: string;
  readonly scopes: readonly AdminScope[];
  readonly tid: string | null;
  readonly authentication: "client_secret" | "private_key_jwt";
  readonly disabled: boolean;
  readonly created_at: number;
}

/** What a client shows to prove itself. */
export type ClientProof =
  | { readonly secret: string }
  /** A JWT (RFC 7523 section 3) that must be meant for one of `audiences`. */
  | { readonly assertion: string; readonly audiences: readonly string[] };

const SCHEMA = [
  `CREATE TABLE client (
    client_id TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    secret_hash TEXT,
    jwks TEXT,
    scopes TEXT NOT NULL,
    tid TEXT,
    disabled INTEGER NOT NULL,
    created_at INTEGER NOT NULL
  ) WITHOUT ROWID;
  CREATE TABLE assertions (jti TEXT PRIMARY KEY, expires_at INTEGER NOT NULL) WITHOUT ROWID;
  CREATE TABLE revoked_tokens (jti TEXT PRIMARY KEY, expires_at INTEGER NOT NULL) WITHOUT ROWID;`,
];

/** RFC 7523 section 3, rule 4: an assertion that ends unreasonably far in the future is refused. */
const MAX_ASSERTION_SECONDS = 600;
const CLOCK_SKEW_SECONDS = 5;

type ClientRow = {
  client_id: string;
  name: string;
  secret_hash: string | null;
  jwks: string | null;
  scopes: string;
  tid: string | null;
  disabled: number;
  created_at: number;
};

export class Client extends DurableObject<Env> {
  constructor(ctx: DurableObjectState, env: Env) {
    super(ctx, env);
    migrateExisting(ctx.storage, SCHEMA);
  }

  /** @returns the secret, which nobody can be shown again; null for a client with keys */
  create(client: NewClient): Promise<Outcome<string | null>> {
    return answer(() => {
      if (hasSchema(this.ctx.storage)) throw new Refusal("conflict", { detail: "the client exists" });
      migrate(this.ctx.storage, SCHEMA);
      const secret = client.jwks === undefined ? `kcs_${randomName(256)}` : null;
      this.#sql(
        `INSERT INTO client (client_id, name, secret_hash, jwks, scopes, tid, disabled, created_at)
         VALUES (?, ?, ?, ?, ?, ?, 0, ?)`,
        client.client_id,
        client.name,
        secret === null ? null : hashOf(secret),
        client.jwks === undefined ? null : JSON.stringify(client.jwks),
        client.scopes.join(" "),
        client.tid,
        Date.now(),
      );
      return secret;
    });
  }

  /** @throws {Refusal} `not_found` */
  summary(): Promise<Outcome<ClientSummary>> {
    return answer(() => summary(this.#client()));
  }

  /** @throws {Refusal} `not_found` */
  setDisabled(disabled: boolean): Promise<Outcome<ClientSummary>> {
    return answer(() => {
      this.#client();
      this.#sql("UPDATE client SET disabled = ?", disabled ? 1 : 0);
      return summary(this.#client());
    });
  }

  /** Its tokens die with it. @throws {Refusal} `not_found` */
  remove(): Promise<Outcome<null>> {
    return answer(async () => {
      this.#client();
      await this.ctx.storage.deleteAll();
      return null;
    });
  }

  /**
   * Judges a proof. An assertion is good for one use.
   *
   * @throws {Refusal} `client_invalid`, whatever was wrong
   */
  authenticate(proof: ClientProof): Promise<Outcome<ClientSummary>> {
    return answer(async () => {
      const client = this.#usable();
      if ("secret" in proof) demandSecret(client, proof.secret);
      else this.#redeem(await readAssertion(client, proof.assertion, proof.audiences));
      return summary(client);
    });
  }

  /**
   * What a client may do whose access token was verified.
   *
   * @throws {Refusal} `token_invalid` when it is disabled or gone, `token_revoked`
   */
  standing(jti: string): Promise<Outcome<ClientSummary>> {
    return answer(() => {
      const client = hasSchema(this.ctx.storage) ? this.#client() : undefined;
      if (client === undefined || client.disabled !== 0) {
        throw new Refusal("token_invalid", { detail: "the client is disabled or gone" });
      }
      const revoked = this.#sql("SELECT 1 FROM revoked_tokens WHERE jti = ?", jti).length > 0;
      if (revoked) throw new Refusal("token_revoked", { detail: "the client's token is revoked" });
      return summary(client);
    });
  }

  /** @param expiresAt when the token ends by itself, seconds since the epoch */
  revokeToken(jti: string, expiresAt: number): Promise<Outcome<null>> {
    return answer(() => {
      if (!hasSchema(this.ctx.storage)) return null;
      const now = Math.floor(Date.now() / 1000);
      this.#sql("DELETE FROM revoked_tokens WHERE expires_at < ?", now - CLOCK_SKEW_SECONDS);
      this.#sql("INSERT OR IGNORE INTO revoked_tokens (jti, expires_at) VALUES (?, ?)", jti, expiresAt);
      return null;
    });
  }

  #client(): ClientRow {
    const [row] = hasSchema(this.ctx.storage) ? this.#sql<ClientRow>("SELECT * FROM client") : [];
    if (row === undefined) throw new Refusal("not_found", { detail: "no such client" });
    return row;
  }

  #usable(): ClientRow {
    const [row] = hasSchema(this.ctx.storage) ? this.#sql<ClientRow>("SELECT * FROM client") : [];
    if (row === undefined || row.disabled !== 0) {
      throw new Refusal("client_invalid", { detail: "the client is disabled or unknown" });
    }
    return row;
  }

  /** Without an await between looking and writing, so that of two uses at once one is the second. */
  #redeem({ jti, exp }: { readonly jti: string; readonly exp: number }): void {
    this.#sql("DELETE FROM assertions WHERE expires_at < ?", Math.floor(Date.now() / 1000) - CLOCK_SKEW_SECONDS);
    if (this.#sql("SELECT 1 FROM assertions WHERE jti = ?", jti).length > 0) {
      throw new Refusal("client_invalid", { detail: "the assertion was used before" });
    }
    this.#sql("INSERT INTO assertions (jti, expires_at) VALUES (?, ?)", jti, exp);
  }

  #sql<T extends Record<string, SqlStorageValue>>(query: string, ...values: SqlStorageValue[]): T[] {
    return this.ctx.storage.sql.exec<T>(query, ...values).toArray();
  }
}

function demandSecret(client: ClientRow, secret: string): void {
  if (client.secret_hash === null || !sameSecret(hashOf(secret), client.secret_hash)) {
    throw new Refusal("client_invalid", { detail: "the client secret is wrong" });
  }
}

/** RFC 7523 section 3, and RFC 7515 for the signature. The claims are looked at only once the signature is right. */
async function readAssertion(client: ClientRow, assertion: string, audiences: readonly string[]) {
  if (client.jwks === null) throw new Refusal("client_invalid", { detail: "the client has no keys" });
  const { jti, exp } = await verifiedAssertion(client, client.jwks, assertion, audiences);
  const latest = Math.floor(Date.now() / 1000) + MAX_ASSERTION_SECONDS + CLOCK_SKEW_SECONDS;
  if (typeof jti !== "string" || jti.length === 0 || jti.length > 256 || exp === undefined || exp > latest) {
    throw new Refusal("client_invalid", { detail: "the assertion has no jti or ends too late" });
  }
  return { jti, exp };
}

async function verifiedAssertion(
  { client_id }: ClientRow,
  jwks: string,
  assertion: string,
  audiences: readonly string[],
): Promise<JWTPayload> {
  try {
    const verified = await jwtVerify(assertion, createLocalJWKSet(JSON.parse(jwks)), {
      issuer: client_id,
      subject: client_id,
      audience: [...audiences],
      algorithms: [...ASSERTION_ALGORITHMS],
      clockTolerance: CLOCK_SKEW_SECONDS,
      requiredClaims: ["exp", "jti"],
    });
    return verified.payload;
  } catch (error) {
    throw new Refusal("client_invalid", { cause: error, detail: "the assertion does not hold" });
  }
}

function summary({ client_id, name, jwks, scopes, tid, disabled, created_at }: ClientRow): ClientSummary {
  return {
    client_id,
    name,
    scopes: adminScopesIn(scopes),
    tid,
    authentication: jwks === null ? "client_secret" : "private_key_jwt",
    disabled: disabled !== 0,
    created_at,
  };
}

function hashOf(secret: string): string {
  return createHash("sha256").update(secret).digest("base64url");
}

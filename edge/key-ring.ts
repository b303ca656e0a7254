/**
 * The signing keys, one object for the whole edge. It makes a key when one is first needed and publishes every public half that
 * a living token may have been signed with. It never unwraps a key: who signs does that for himself.
 *
 * The current key of an algorithm is its newest. Changing the algorithm makes a new key and leaves the old ones published.
 */
import { DurableObject } from "cloudflare:workers";
import type { JSONWebKeySet, JWK } from "jose";
import type { SignatureAlgorithm } from "#contract/access-token";
import { readConfig } from "./config.ts";
import { migrate } from "./migrations.ts";
import { answer, type Outcome } from "./outcome.ts";
import { generateSigningKey, type WrappedKey } from "./signing-key.ts";

const SCHEMA = [
  `CREATE TABLE keys (
    kid TEXT PRIMARY KEY,
    alg TEXT NOT NULL,
    public_jwk TEXT NOT NULL,
    wrapped TEXT NOT NULL,
    created_at INTEGER NOT NULL
  ) WITHOUT ROWID`,
];

/** There is one. */
export const KEY_RING_NAME = "keys";

export class KeyRing extends DurableObject<Env> {
  constructor(ctx: DurableObjectState, env: Env) {
    super(ctx, env);
    migrate(ctx.storage, SCHEMA);
  }

  /** The key to sign with from now on. */
  current(alg: SignatureAlgorithm): Promise<Outcome<WrappedKey>> {
    return answer(() => this.#current(alg));
  }

  /** The public keys (RFC 7517), the one that signs from now on among them: nodes must know it before they meet it. */
  jwks(alg: SignatureAlgorithm): Promise<Outcome<JSONWebKeySet>> {
    return answer(async () => {
      await this.#current(alg);
      const rows = this.ctx.storage.sql.exec<{ public_jwk: string }>("SELECT public_jwk FROM keys ORDER BY created_at");
      return { keys: rows.toArray().map(({ public_jwk }): JWK => JSON.parse(public_jwk)) };
    });
  }

  async #current(alg: SignatureAlgorithm): Promise<WrappedKey> {
    const known = this.#newest(alg);
    if (known !== undefined) return known;
    const { publicJwk, key } = await generateSigningKey(alg, readConfig(this.env).secret);
    // Others may have come while the key was made: the first one stored is the one.
    const meanwhile = this.#newest(alg);
    if (meanwhile !== undefined) return meanwhile;
    this.ctx.storage.sql.exec(
      "INSERT INTO keys (kid, alg, public_jwk, wrapped, created_at) VALUES (?, ?, ?, ?, ?)",
      key.kid,
      alg,
      JSON.stringify(publicJwk),
      key.wrapped,
      Date.now(),
    );
    return key;
  }

  #newest(alg: SignatureAlgorithm): WrappedKey | undefined {
    const query = "SELECT kid, wrapped FROM keys WHERE alg = ? ORDER BY created_at DESC LIMIT 1";
    const [row] = this.ctx.storage.sql.exec<{ kid: string; wrapped: string }>(query, alg).toArray();
    return row && { kid: row.kid, alg, wrapped: row.wrapped };
  }
}

/**
 * Signatures of tokens, checked by Node itself and in the same turn, with keys that stay imported: for one token WebCrypto and its threads cost more
 * than the check does. Whatever is out of the ordinary, an unknown key, two of one name, a header with more to say, is left to jose.
 *
 * A token that was found good is remembered by its hash together with the key, so that one that comes again is not checked again. That
 * spares the signature and nothing else: all that it says is judged anew, and what was remembered of a key ends with it. Nobody gets in here
 * without a good signature, and a flood of those only makes others be checked once more.
 */
import { createPublicKey, hash, type JsonWebKey, type KeyObject, verify } from "node:crypto";
import type { JSONWebKeySet, JWK, JWTPayload } from "jose";
import { demandCompact, type SignatureAlgorithm, type SignedJwt } from "#contract/access-token";
import { Refusal } from "#contract/refusal";

/** What a token says, of which nothing is to be believed yet. */
export interface DecodedToken {
  readonly token: string;
  readonly header: SignedJwt["header"] & { readonly alg?: unknown };
  readonly payload: JWTPayload;
}

/** An access token comes again with each connection; an event, or a page of the feed, is judged once. */
export type TokenUse = "again" | "once";

interface KnownKey {
  readonly alg: SignatureAlgorithm;
  readonly key: KeyObject;
  /** What it is, to find it again in the next key set. */
  readonly material: string;
}

const KEY_TYPES: Readonly<Record<string, SignatureAlgorithm>> = {
  "OKP Ed25519": "EdDSA",
  "EC P-256": "ES256",
  "RSA ": "RS256",
};
/** RFC 7518 section 3.3. */
const LEAST_RSA_BITS = 2048;
/** Twice as many are remembered at most, for each issuer: some 100 bytes each. */
const GENERATION = 10_000;

/**
 * @param maxLength in characters, if not of a token
 * @throws {Refusal} `token_missing`, `token_invalid` unless it is a JWT in the compact form, of bounded size
 */
export function decodeToken(token: unknown, maxLength?: number): DecodedToken {
  const compact = demandCompact(token, maxLength);
  const [header = "", payload = ""] = compact.split(".", 2);
  return { token: compact, header: decodePart(header), payload: decodePart(payload) };
}

const strictText = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

function decodePart(part: string): Record<string, unknown> {
  try {
    const value: unknown = JSON.parse(strictText.decode(Buffer.from(part, "base64url")));
    if (typeof value === "object" && value !== null && !Array.isArray(value)) return value as Record<string, unknown>;
  } catch {
    // Said below, without a word of what it is.
  }
  throw new Refusal("token_invalid", { detail: "not a JWT" });
}

/** The keys of one issuer, as it published them last. */
export class KnownKeys {
  #keys: ReadonlyMap<string, KnownKey> = new Map();
  /** Hashes of tokens, and by which key they were found good; two generations, of which the older one is forgotten whole. */
  #young = new Map<string, KnownKey>();
  #old = new Map<string, KnownKey>();

  /** Takes the place of what was known. A key that stays is the same as before, and what was remembered of it stands. */
  replace({ keys }: JSONWebKeySet): void {
    const known = new Map<string, KnownKey>();
    for (const [kid, jwk] of onlyOnes(keys)) {
      const key = knownKey(jwk);
      if (key === undefined) continue;
      const before = this.#keys.get(kid);
      known.set(kid, before?.material === key.material && before.alg === key.alg ? before : key);
    }
    this.#keys = known;
  }

  /**
   * Whether one of these keys has signed it.
   *
   * @param use whether its holder may show it again, or it comes once, and remembering it would only push out others
   * @returns false when that is for jose to decide
   * @throws {Refusal} `token_invalid` when the key is known and the signature is not its
   */
  haveSigned({ token, header }: DecodedToken, algorithms: readonly SignatureAlgorithm[], use: TokenUse): boolean {
    const { alg, kid, crit } = header;
    const known = typeof kid === "string" && crit === undefined ? this.#keys.get(kid) : undefined;
    if (known === undefined || known.alg !== alg || !algorithms.includes(known.alg)) return false;
    if (use === "once") {
      demandSignedBy(known, token);
      return true;
    }
    const name = hash("sha256", token, "base64url");
    if (this.#young.get(name) === known || this.#old.get(name) === known) return true;
    demandSignedBy(known, token);
    this.#remember(name, known);
    return true;
  }

  #remember(name: string, key: KnownKey): void {
    if (this.#young.size >= GENERATION) {
      this.#old = this.#young;
      this.#young = new Map();
    }
    this.#young.set(name, key);
  }
}

/** @throws {Refusal} */
function demandSignedBy(known: KnownKey, token: string): void {
  if (!isSignedBy(known, token))
    throw new Refusal("token_invalid", { detail: "ERR_JWS_SIGNATURE_VERIFICATION_FAILED" });
}

function isSignedBy({ alg, key }: KnownKey, token: string): boolean {
  const dot = token.lastIndexOf(".");
  const [signed, signature] = [
    Buffer.from(token.slice(0, dot), "latin1"),
    Buffer.from(token.slice(dot + 1), "base64url"),
  ];
  if (alg === "EdDSA") return verify(null, signed, key, signature);
  if (alg === "RS256") return verify("sha256", signed, key, signature);
  return verify("sha256", signed, { key, dsaEncoding: "ieee-p1363" }, signature);
}

/** Keys by their `kid`, where one has it to itself. */
function onlyOnes(keys: readonly JWK[]): Map<string, JWK> {
  const found = new Map<string, JWK>();
  const shared = new Set<string>();
  for (const jwk of keys) {
    if (typeof jwk.kid !== "string") continue;
    if (found.has(jwk.kid)) shared.add(jwk.kid);
    found.set(jwk.kid, jwk);
  }
  for (const kid of shared) found.delete(kid);
  return found;
}

/** Undefined for one that is not for signatures of ours, or no public key at all: jose says what is the matter. */
function knownKey(jwk: JWK): KnownKey | undefined {
  const { kty, crv, x, y, n, e, use, key_ops: operations, d } = jwk;
  const alg = KEY_TYPES[`${kty} ${crv ?? ""}`];
  const isForSignatures =
    (use ?? "sig") === "sig" &&
    (operations === undefined || (Array.isArray(operations) && operations.includes("verify")));
  if (alg === undefined || (jwk.alg ?? alg) !== alg || !isForSignatures || d !== undefined) return undefined;
  try {
    const key = createPublicKey({ key: { kty, crv, x, y, n, e } as JsonWebKey, format: "jwk" });
    if (alg === "RS256" && (key.asymmetricKeyDetails?.modulusLength ?? 0) < LEAST_RSA_BITS) return undefined;
    return { alg, key, material: JSON.stringify([x, y, n, e]) };
  } catch {
    return undefined;
  }
}

/**
 * All of Node that the edge may use, spelt out, so that anything else of Node does not compile here. workerd has these
 * natively (`nodejs_compat`), and synchronously where it matters: a session is read, judged and written without an await.
 */
declare module "node:crypto" {
  interface Digest {
    update(data: string | Uint8Array): Digest;
    digest(): Uint8Array<ArrayBuffer>;
    digest(encoding: "base64url"): string;
  }
  export function createHash(algorithm: "sha256"): Digest;
  export function createHmac(algorithm: "sha256", key: string | Uint8Array): Digest;
  /** Throws when the lengths differ. */
  export function timingSafeEqual(a: Uint8Array, b: Uint8Array): boolean;
  export function scrypt(
    password: string | Uint8Array,
    salt: Uint8Array,
    length: number,
    options: { readonly N: number; readonly r: number; readonly p: number; readonly maxmem: number },
    callback: (error: Error | null, key: Uint8Array) => void,
  ): void;
}

/** The tests' end of the OpenID providers: give one its keys, tell it how to behave, and sign in its name. */
import { exportJWK, generateKeyPair, type JWK, type JWTHeaderParameters, SignJWT } from "jose";
import { inject } from "vitest";

declare module "vitest" {
  interface ProvidedContext {
    issuerServer: string;
  }
}

export interface Provider {
  manner: "well" | "down" | "another" | "elsewhere" | "endless";
  keys: JWK[];
}

export const AUDIENCE = "the app at the issuer";

/** One provider with one key. */
export class OpenIdProvider {
  readonly issuer: string;
  #key: CryptoKey | undefined;
  #kid = "";

  /** @param name by default one that no other test has */
  constructor(name: string = crypto.randomUUID()) {
    this.issuer = `${inject("issuerServer")}/${name}`;
  }

  /** Makes a key and publishes it in place of the one before. */
  async rotate(): Promise<void> {
    const { privateKey, publicKey } = await generateKeyPair("ES256");
    this.#kid = crypto.randomUUID();
    this.#key = privateKey;
    await this.behave({ keys: [{ ...(await exportJWK(publicKey)), kid: this.#kid, alg: "ES256", use: "sig" }] });
  }

  async behave(provider: Partial<Provider>): Promise<void> {
    await fetch(this.issuer, { method: "PUT", body: JSON.stringify(provider) });
  }

  async fetches(): Promise<number> {
    const { fetches } = await (await fetch(this.issuer)).json<{ fetches: number }>();
    return fetches;
  }

  /** An ID token that is in order but for what is given. */
  async idToken(
    claims: Readonly<Record<string, unknown>> = {},
    header: Partial<JWTHeaderParameters> = {},
  ): Promise<string> {
    if (this.#key === undefined) await this.rotate();
    if (this.#key === undefined) throw new Error("there is no key");
    const now = Math.floor(Date.now() / 1000);
    const payload = { iss: this.issuer, aud: AUDIENCE, sub: "ada", iat: now, exp: now + 300, ...claims };
    return await new SignJWT(payload).setProtectedHeader({ alg: "ES256", kid: this.#kid, ...header }).sign(this.#key);
  }
}

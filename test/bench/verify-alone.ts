/**
 * What verifying a token costs beside what its algorithm costs: Keycard's verifier, from the text to the claims, and under it Node's own check
 * of the same signature with a key that is at hand. Each token is new to the verifier. And what that check takes where the thread has waited
 * before, as a server's has before a handshake.
 */
import { createPublicKey, type KeyObject, verify as verifySignature } from "node:crypto";
import type { SignatureAlgorithm } from "#contract/access-token";
import { createVerifier } from "../../realtime/verifier.ts";
import { AUDIENCE, CLUSTER, type TestIssuer } from "../support/realtime-cluster.ts";
import type { TestSigner } from "../support/tokens.ts";
import { type Spread, spreadOf } from "./distribution.ts";
import { inTurns } from "./in-turns.ts";

/** Microseconds of processor time for one token. */
export type VerifyFigures = Readonly<
  Record<
    SignatureAlgorithm,
    {
      readonly floorUs: Spread;
      readonly keycardUs: Spread;
      readonly aboveUs: Spread;
      /** The floor after a wait, to the floor in a row; both by the clock, round by round. */
      readonly afterWaiting: Spread;
    }
  >
>;

const TOKENS = 300;
const TURNS = { rounds: 7, warmUpRounds: 1 };
const WAIT_MS = 2;

export async function verifyAlone(
  issuer: TestIssuer,
  signers: Readonly<Record<SignatureAlgorithm, TestSigner>>,
): Promise<VerifyFigures> {
  const quiet = { onProblem: () => undefined, onBack: () => undefined };
  const trusted = { issuer: issuer.url, audience: AUDIENCE };
  const verifier = createVerifier({ issuers: [trusted], cluster: CLUSTER, clockSkewSeconds: 5, ...quiet });
  try {
    await verifier.ready();
    const figures = [];
    for (const [alg, signer] of Object.entries(signers)) figures.push([alg, await compare(issuer, signer, verifier)]);
    return Object.fromEntries(figures);
  } finally {
    verifier.close();
  }
}

async function compare(
  issuer: TestIssuer,
  signer: TestSigner,
  verifier: ReturnType<typeof createVerifier>,
): Promise<VerifyFigures[SignatureAlgorithm]> {
  const key = createPublicKey({ key: signer.publicJwk, format: "jwk" });
  const samples = await inTurns(["floor", "keycard"], TURNS, async (name) => {
    const tokens = await mint(issuer, signer);
    const before = process.cpuUsage();
    if (name === "floor") for (const token of tokens) checkSignature(token, key, signer.key.alg);
    else for (const token of tokens) await verifier.accessToken(token);
    const { user, system } = process.cpuUsage(before);
    return (user + system) / TOKENS;
  });
  const { floor, keycard } = samples;
  const { inARow, waited } = await inTurns(["inARow", "waited"], TURNS, async (name) => {
    let spentMs = 0;
    for (const token of await mint(issuer, signer)) {
      if (name === "waited") await new Promise((resolve) => setTimeout(resolve, WAIT_MS));
      const since = performance.now();
      checkSignature(token, key, signer.key.alg);
      spentMs += performance.now() - since;
    }
    return spentMs;
  });
  const above = keycard.map((us, index) => us - (floor[index] ?? Number.NaN));
  const afterWaiting = spreadOf(waited.map((ms, index) => ms / (inARow[index] ?? Number.NaN)));
  return { floorUs: spreadOf(floor), keycardUs: spreadOf(keycard), aboveUs: spreadOf(above), afterWaiting };
}

async function mint(issuer: TestIssuer, signer: TestSigner): Promise<string[]> {
  const tokens: string[] = [];
  while (tokens.length < TOKENS) tokens.push(await issuer.token({}, signer));
  return tokens;
}

function checkSignature(token: string, key: KeyObject, alg: SignatureAlgorithm): void {
  const digest = alg === "EdDSA" ? null : "sha256";
  const how = alg === "ES256" ? ({ key, dsaEncoding: "ieee-p1363" } as const) : key;
  const dot = token.lastIndexOf(".");
  const signature = Buffer.from(token.slice(dot + 1), "base64url");
  if (!verifySignature(digest, Buffer.from(token.slice(0, dot)), how, signature)) throw new Error("a bad signature");
}

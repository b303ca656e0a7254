/**
 * A receipt for keeping: signed by the edge with its key for the world outside, so that whoever has the JWK Set can show years later
 * what was enforced, and when. It is made once, when the receipt is over.
 */
import { decodeJwt } from "jose";
import { type SigningKey, signTyped } from "#contract/access-token";
import { logFailure } from "../log.ts";
import type { StoredDecision } from "./event-table.ts";
import type { Receipt } from "./receipt.ts";

/** The `typ` of a proof. */
export const PROOF_TYPE = "revocation-receipt+jwt";

/** A receipt that only lacks its proof, and what it is about. */
export interface ProvableReceipt {
  readonly event: StoredDecision;
  readonly receipt: Receipt;
}

/** What the proofs need of the log. Synchronous but for the signature. */
export interface ProofBooks {
  provable(limit: number): readonly ProvableReceipt[];
  sign(receipt: Receipt): Promise<string>;
  /** Stores the proof, in one step with all that follows from it. */
  prove(provable: ProvableReceipt, proof: string): void;
  /** Something changed that the alarm may depend on. */
  changed(): void;
}

/** Receipts that are signed at once. */
const BATCH = 16;
const FIRST_RETRY_MS = 1_000;
const LAST_RETRY_MS = 60_000;

export class Proofs {
  readonly #books: ProofBooks;
  #isSigning = false;
  #failures = 0;
  #pausedUntil = 0;

  constructor(books: ProofBooks) {
    this.#books = books;
  }

  /** Starts what can be started now. */
  kick(): void {
    if (this.#isSigning || Date.now() < this.#pausedUntil) return;
    const provable = this.#books.provable(BATCH);
    if (provable.length === 0) return;
    this.#isSigning = true;
    void this.#sign(provable);
  }

  /** When to kick again, milliseconds since the epoch; undefined when nothing lacks a proof. */
  wakeAt(): number | undefined {
    if (!this.#isSigning && this.#books.provable(1).length === 0) return undefined;
    return Math.max(this.#pausedUntil, Date.now() + FIRST_RETRY_MS);
  }

  /** Never rejects: nobody waits for it. */
  async #sign(provable: readonly ProvableReceipt[]): Promise<void> {
    try {
      const proofs = await Promise.all(provable.map(({ receipt }) => this.#books.sign(receipt)));
      for (const [index, each] of provable.entries()) this.#books.prove(each, proofs[index] ?? "");
      this.#failures = 0;
    } catch (error) {
      this.#pausedUntil = Date.now() + Math.min(LAST_RETRY_MS, FIRST_RETRY_MS * 2 ** this.#failures++);
      logFailure("receipts could not be signed", { revocation: provable[0]?.receipt.id }, error);
    }
    this.#isSigning = false;
    this.#books.changed();
  }
}

/** Claims of RFC 7519, with `txn` as in the events (RFC 8417 section 2.2). `issuedAt` in seconds since the epoch. */
export function signProof(receipt: Receipt, issuer: string, issuedAt: number, key: SigningKey): Promise<string> {
  const { id } = receipt;
  return signTyped(PROOF_TYPE, { iss: issuer, iat: issuedAt, jti: id, txn: id, receipt }, key);
}

/** What a proof of our own says, and itself. */
export function provenReceipt(proof: string): Receipt {
  return { ...decodeJwt<{ receipt: Receipt }>(proof).receipt, proof };
}

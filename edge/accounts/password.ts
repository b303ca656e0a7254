/**
 * Password hashes: scrypt, N=2^14, r=8, p=5 (16 MiB, one of OWASP's equivalents that fits an isolate), as a string in PHC
 * form that carries its own parameters, so that they can be raised later and old hashes still verify.
 */
import { scrypt, timingSafeEqual } from "node:crypto";
import { base64url } from "jose";
import { Refusal } from "#contract/refusal";

interface Parameters {
  readonly logN: number;
  readonly r: number;
  readonly p: number;
}

const CURRENT: Parameters = { logN: 14, r: 8, p: 5 };
const KEY_BYTES = 32;
const SALT_BYTES = 16;
/** Twice what N and r need, as headroom; far below what an isolate has. */
const MAX_MEMORY_BYTES = 64 * 1024 * 1024;

/** Hashes that one isolate works on at a time, 16 MiB each. */
const CONCURRENT = 2;
/** Callers that are served or wait for their turn; the next is sent away rather than kept for seconds. */
const MAX_PENDING = 8;
const TURN_CHECK_MS = 1;

const PHC = /^\$scrypt\$ln=(\d{1,2}),r=(\d{1,2}),p=(\d{1,2})\$([A-Za-z0-9_-]{22})\$([A-Za-z0-9_-]{43})$/;

/** A hash that no password has: judging an unknown login against it costs what judging a known one costs. */
export const NOBODYS_HASH = phc(CURRENT, new Uint8Array(SALT_BYTES), new Uint8Array(KEY_BYTES));

/**
 * `$scrypt$ln=14,r=8,p=5$<salt>$<key>`
 *
 * @throws {Refusal} `unavailable` when too many hashes wait already
 */
export async function hashPassword(password: string): Promise<string> {
  const salt = crypto.getRandomValues(new Uint8Array(SALT_BYTES));
  return phc(CURRENT, salt, await inTurn(() => derive(password, salt, CURRENT)));
}

/**
 * @returns whether it matches, and whether the hash was made with other parameters than would be used today
 * @throws {Refusal} `unavailable` when too many hashes wait already
 */
export async function verifyPassword(
  password: string,
  hash: string,
): Promise<{ readonly matches: boolean; readonly outdated: boolean }> {
  const [, logN, r, p, salt, key] = PHC.exec(hash) ?? [];
  if (salt === undefined || key === undefined) throw new Error("a stored hash is not in PHC form");
  const parameters: Parameters = { logN: Number(logN), r: Number(r), p: Number(p) };
  const derived = await inTurn(() => derive(password, base64url.decode(salt), parameters));
  const outdated = parameters.logN !== CURRENT.logN || parameters.r !== CURRENT.r || parameters.p !== CURRENT.p;
  return { matches: timingSafeEqual(derived, base64url.decode(key)), outdated };
}

function derive(password: string, salt: Uint8Array, { logN, r, p }: Parameters): Promise<Uint8Array> {
  const options = { N: 2 ** logN, r, p, maxmem: MAX_MEMORY_BYTES };
  return new Promise((resolve, reject) => {
    // RFC 8265 section 4.2: the same password, typed on another keyboard, must be the same bytes.
    scrypt(password.normalize("NFC"), salt, KEY_BYTES, options, (error, key) => {
      if (error === null) resolve(key);
      else reject(error);
    });
  });
}

function phc({ logN, r, p }: Parameters, salt: Uint8Array, key: Uint8Array): string {
  return `$scrypt$ln=${logN},r=${r},p=${p}$${base64url.encode(salt)}$${base64url.encode(key)}`;
}

let pending = 0;
let running = 0;

async function inTurn<T>(work: () => Promise<T>): Promise<T> {
  if (pending >= MAX_PENDING) {
    throw new Refusal("unavailable", { detail: "too many password hashes", retryAfterSeconds: 1 });
  }
  pending++;
  try {
    await turn();
    running++;
    return await work().finally(() => running--);
  } finally {
    pending--;
  }
}

/**
 * Polls, as a promise that another request resolves must not be waited for in workerd. It pauses at least once: workerd computes
 * scrypt on the isolate's own thread, and behind it callers would pile up unseen and uncounted.
 */
async function turn(): Promise<void> {
  do await scheduler.wait(TURN_CHECK_MS);
  while (running >= CONCURRENT);
}

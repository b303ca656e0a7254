/** The forms that names and times have when they come in from outside: PROTOCOL, "Words". */
import { z } from "zod";

/** `sub`. */
export const subject = z.string().regex(/^[A-Za-z0-9_-]{1,64}$/, "1 to 64 letters, digits, _ or -");
/** `sid`. */
export const sessionId = z.string().regex(/^[A-Za-z0-9_-]{1,64}\.[A-Za-z0-9_-]{22}$/, "not in the form of a session");
/** A tenant, or the `jti` of a token. */
export const name = z.string().regex(/^[\x21-\x7e]{1,128}$/, "1 to 128 printable characters without spaces");
/** Scopes separated by spaces: RFC 6749 section 3.3. */
export const scope = z
  .string()
  .max(1024)
  .regex(/^[\x21\x23-\x5b\x5d-\x7e]+( [\x21\x23-\x5b\x5d-\x7e]+)*$/, "scopes separated by single spaces");
/** Why something is done, for the record. */
export const reason = z.string().trim().min(1).max(500);
/** Milliseconds since the epoch, or RFC 3339. */
export const moment = z
  .union([z.string().regex(/^\d{1,15}$/), z.iso.datetime({ offset: true })])
  .transform((text) => (/^\d+$/.test(text) ? Number(text) : Date.parse(text)));

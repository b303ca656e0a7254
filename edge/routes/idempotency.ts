/**
 * `Idempotency-Key` (draft-ietf-httpapi-idempotency-key-header-07): a request that is repeated with its key gets the answer of the first
 * one, for a day, and is not carried out again.
 */
import { createHash } from "node:crypto";
import { Refusal, toRefusal } from "#contract/refusal";
import { logFailure } from "../log.ts";
import { ask } from "../outcome.ts";
import { revocationLog } from "../revocations/cutoffs.ts";
import { nameOf, type Principal } from "./administrator.ts";
import type { Exchange } from "./request.ts";

interface Task {
  readonly id: string;
  /** It may have been carried out before. */
  readonly again: boolean;
}

/** A structured string, as the draft has it, or the bare characters. */
const KEY = /^(?:"([\x21\x23-\x5b\x5d-\x7e]{1,128})"|([\x21\x23-\x5b\x5d-\x7e]{1,128}))$/;

/**
 * Carries a request out, once however often it comes with the same key.
 *
 * @param request as it was judged: the same key must not come with another one
 * @param freshId the id of what is done, when it was not done before
 * @param carryOut must do nothing twice when it is told `again`
 * @throws {Refusal} `request_malformed`, `idempotency_mismatch`; `conflict` while it is being carried out
 */
export async function carryOutOnce(
  c: Exchange,
  principal: Principal,
  request: unknown,
  freshId: string,
  carryOut: (task: Task) => Promise<Response>,
): Promise<Response> {
  const key = keyOf(c, principal);
  if (key === undefined) return await carryOut({ id: freshId, again: false });
  const log = revocationLog(c.env);
  const fingerprint = digest(JSON.stringify([c.req.method, c.req.path, request]));
  const { answer, ...task } = await ask(log.claim(key, fingerprint, freshId));
  if (answer !== null) return replayed(c, answer);
  try {
    const response = await carryOut(task);
    // What is decided is decided: without the stored answer a repetition finds the decision itself.
    const kept = { location: response.headers.get("location"), body: await response.clone().text() };
    await ask(log.settle(key, JSON.stringify(kept))).catch((error: unknown) => {
      logFailure("an answer was not kept for its Idempotency-Key", { id: task.id }, error);
    });
    return response;
  } catch (error) {
    // A plain refusal changed nothing, and may be mended. After anything else nobody knows, and the key stays taken.
    if (toRefusal(error).status < 500) await ask(log.settle(key, null));
    throw error;
  }
}

/** One principal's keys are not another's, and a key is not kept as it came: nobody said that it is no secret. */
function keyOf(c: Exchange, principal: Principal): string | undefined {
  const header = c.req.header("idempotency-key");
  if (header === undefined) return undefined;
  const [, quoted, bare] = KEY.exec(header) ?? [];
  const key = quoted ?? bare;
  if (key === undefined) throw new Refusal("request_malformed", { detail: "the Idempotency-Key is no short string" });
  return digest(JSON.stringify([nameOf(principal), key]));
}

function replayed(c: Exchange, answer: string): Response {
  const { location, body }: { location: string | null; body: string } = JSON.parse(answer);
  const headers = { "content-type": "application/json", ...(location !== null && { location }) };
  return c.body(body, 202, { ...headers, "idempotency-replayed": "true" });
}

function digest(text: string): string {
  return createHash("sha256").update(text).digest("base64url");
}

/** The one table of every "no", and that a "no" never says more than its row. */
import { describe, expect, test } from "vitest";
import {
  isRefusalCode,
  REFUSALS,
  Refusal,
  type RefusalCode,
  toRefusal,
  unauthorizedErrorData,
} from "#contract/refusal";

const CODES = Object.keys(REFUSALS) as RefusalCode[];
const SECRET = "kcr.u_ada.s1.0.hunter2";

describe("the row of", () => {
  test.for(CODES)("%s has a status, an advice and a sentence that fit each other", (code) => {
    const { status, advice, message } = REFUSALS[code];
    expect(code).toMatch(/^[a-z]+(_[a-z]+)*$/);
    expect(message).toMatch(/^[A-Z].*\.$/);
    const advices: Record<number, readonly string[]> = {
      400: ["fix"],
      401: ["login", "refresh", "fix"],
      403: ["fix"],
      404: ["fix"],
      405: ["fix"],
      409: ["fix"],
      413: ["fix"],
      415: ["fix"],
      422: ["fix"],
      429: ["wait"],
      500: ["retry"],
      503: ["retry"],
    };
    expect(advices[status]).toContain(advice);
  });
});

describe("a refusal", () => {
  test.for(CODES)("%s shows its row and nothing of its detail or cause", (code) => {
    const cause = new Error(`cause ${SECRET}`);
    const refusal = new Refusal(code, { detail: `detail ${SECRET}`, cause });
    const { status, advice, message } = REFUSALS[code];
    expect(refusal.status).toBe(status);
    expect(refusal.answer()).toEqual({ code, advice, message });
    expect(unauthorizedErrorData(refusal)).toEqual({ type: "UnauthorizedError", code, advice, message });
    expect(refusal.message).not.toContain(SECRET);
    expect(refusal.cause).toBe(cause);
  });

  test("says how long to wait where it knows", () => {
    expect(new Refusal("too_many_attempts", { retryAfterSeconds: 30 }).answer().retry_after).toBe(30);
    expect(new Refusal("too_many_attempts", { retryAfterSeconds: 0 }).answer().retry_after).toBe(0);
  });

  test("passes through toRefusal as it is, and anything else becomes internal without showing itself", () => {
    const refusal = new Refusal("not_found");
    expect(toRefusal(refusal)).toBe(refusal);
    for (const thrown of [new Error(SECRET), SECRET, { code: "not_found", message: SECRET }, null, undefined]) {
      const translated = toRefusal(thrown);
      expect(translated.code).toBe("internal");
      expect(JSON.stringify(translated.answer())).not.toContain("hunter2");
    }
  });
});

describe("isRefusalCode", () => {
  test("knows every code and nothing that every object has", () => {
    expect(CODES.every(isRefusalCode)).toBe(true);
    for (const other of ["toString", "__proto__", "constructor", "", "TOKEN_INVALID", 7, null, undefined, {}]) {
      expect(isRefusalCode(other)).toBe(false);
    }
  });
});

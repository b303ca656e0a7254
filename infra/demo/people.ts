/**
 * The people of the demo. Their passwords are printed and shown: they open nothing but this stack. The administrator's is made for
 * each state directory, and printed in the terminal alone: it opens the console, which can throw everybody out.
 */
import type { Stack } from "../stack.ts";

export interface Person {
  readonly login: string;
  readonly password: string;
  readonly sub: string;
  readonly tid: string;
}

export const PEOPLE: readonly Person[] = [
  { login: "ada", password: "correct-horse-ada", sub: "ada", tid: "acme" },
  { login: "grace", password: "correct-horse-grace", sub: "grace", tid: "acme" },
  { login: "linus", password: "correct-horse-linus", sub: "linus", tid: "globex" },
];

/** Whoever signs in to the console. */
export const ADMINISTRATOR = {
  login: "admin",
  sub: "admin",
  scope:
    "revocations:write revocations:read sessions:read sessions:write accounts:read accounts:write audit:read keys:write clients:write",
} as const;

const CONFLICT = 409;

/** Makes the accounts that are not there yet. */
export async function createDemoAccounts(
  { edgeUrl, adminToken }: Pick<Stack, "edgeUrl" | "adminToken">,
  administratorPassword: string,
): Promise<void> {
  const administrator = { ...ADMINISTRATOR, password: administratorPassword };
  await Promise.all(
    [...PEOPLE, administrator].map(async (person) => {
      const response = await fetch(`${edgeUrl}/admin/accounts`, {
        method: "POST",
        headers: { "content-type": "application/json", authorization: `Bearer ${adminToken}` },
        body: JSON.stringify(person),
      });
      if (response.ok || response.status === CONFLICT) return;
      throw new Error(`The account ${person.login} could not be made: ${response.status} ${await response.text()}`);
    }),
  );
}

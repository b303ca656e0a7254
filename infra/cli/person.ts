/** How a person is named on the command line: by login, or by subject where it is said to be one. */
import type { Account } from "../edge-answers.ts";
import { type EdgeClient, EdgeRefusal } from "../edge-client.ts";
import { CommandFailed, UsageError } from "./failure.ts";

export const SUB = { value: "SUB", about: "the person by subject instead of login" } as const;

export type Person = { readonly login: string } | { readonly sub: string };

/** @throws {UsageError} unless exactly one of them is given */
export function personOf(login: string | undefined, sub: string | undefined): Person {
  if (sub !== undefined && login === undefined) return { sub };
  if (login !== undefined && sub === undefined) return { login };
  throw new UsageError(
    login === undefined ? "Who? A login is missing." : "The person is named twice.",
    "Give a login, or --sub and a subject.",
  );
}

/** @throws {CommandFailed} when there is nobody of that name */
export async function findAccount(edge: EdgeClient, person: Person): Promise<Account> {
  try {
    return await ("sub" in person ? edge.account(person.sub) : edge.accountOf(person.login));
  } catch (error) {
    throw error instanceof EdgeRefusal && error.code === "not_found" ? nobody(person) : error;
  }
}

/** That there is nobody of that name, with what may be meant. */
export function nobody(person: Person): CommandFailed {
  if ("sub" in person) {
    return new CommandFailed(`Nobody has the subject ${person.sub}.`, "Leave --sub out if it is a login.");
  }
  const meant = /^[A-Za-z0-9_-]+$/.test(person.login) ? `If it is a subject, say --sub ${person.login}. ` : "";
  return new CommandFailed(
    `Nobody has the login ${person.login}.`,
    `${meant}\`keycard accounts search\` finds people by how they begin.`,
  );
}

/** What administrators can be allowed to do, clients and people alike. A closed list: PROTOCOL, "The edge". */

export const ADMIN_SCOPES = [
  "revocations:write",
  "revocations:read",
  "sessions:read",
  "sessions:write",
  "accounts:read",
  "accounts:write",
  "audit:read",
  "keys:write",
  "clients:write",
] as const;
export type AdminScope = (typeof ADMIN_SCOPES)[number];

/** Those among scopes that are separated by spaces, in the order that they stand in. */
export function adminScopesIn(scope: string | null | undefined): readonly AdminScope[] {
  const known: readonly string[] = ADMIN_SCOPES;
  return (scope ?? "").split(" ").filter((each): each is AdminScope => known.includes(each));
}

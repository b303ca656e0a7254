/** What a view of the console is given: who sits there, what they may do, the API, and the ways to say something and to go elsewhere. */
import type { Me, Scope, Target } from "./answers.ts";
import type { Api } from "./api.ts";

export interface Desk {
  readonly api: Api;
  readonly me: Me;
  /** Aborted when the view is left. */
  readonly signal: AbortSignal;
  may(scope: Scope): boolean;
  /** The heading of the view and the title of the window. */
  title(text: string): void;
  /** Tells whoever cannot see it. */
  say(text: string): void;
  /** Asks for a reason, shows what would go, and revokes. `onDone` is called once something was revoked. */
  revoke(wish: RevocationWish, onDone?: () => void): void;
  /** Puts what was asked for into the address, so that it can be kept and shared. */
  remember(query: Readonly<Record<string, string>>): void;
}

/** Whom somebody wishes to throw out; nobody in particular lets them choose. */
export interface RevocationWish {
  readonly target?: Target;
  /** All of a person's sessions but this one. */
  readonly except?: string;
  /** In words, for the heading: "every session of ada". */
  readonly whom?: string;
  /** What is to be known of it besides. */
  readonly hint?: string;
}

/** A view: a function of the desk, of what its address names, and of the query behind it. */
export type View = (desk: Desk, part: string, query: URLSearchParams) => HTMLElement;

/** `keycard keys`: which keys sign, and replacing one, in good order or at once. */
import type { Key } from "../../edge-answers.ts";
import { command } from "../command.ts";
import { awaitRevocation, WAIT, waitSeconds } from "../enforcement.ts";
import { CommandFailed, EXIT, UsageError } from "../failure.ts";
import type { Invocation } from "../invocation.ts";
import { reasonFor } from "../order.ts";
import { printPage } from "../page.ts";
import { bold, dim, green, t, yellow } from "../text.ts";
import { distance } from "../times.ts";

const PURPOSES = ["access", "events"] as const;
const PURPOSE = {
  value: "PURPOSE",
  choices: PURPOSES,
  about: "access (tokens; the default) or events (receivers outside)",
} as const;
const REASON = { value: "TEXT", short: "r", about: "why, for the audit trail; asked for at a terminal" } as const;
const SCOPES = ["keys:write"];

export const keyCommands = [
  command({
    name: "keys",
    summary: "list the signing keys",
    args: [],
    options: {},
    about: ["A key is next (published, not yet signing), current, retiring (until its last token is dead), and gone."],
    examples: [["keycard keys", ""]],
    scopes: SCOPES,
    async run(invocation) {
      const { keys } = await (await invocation.edge()).keys();
      printKeys(invocation, keys);
      return EXIT.ok;
    },
  }),
  command({
    name: "keys rotate",
    summary: "replace the current key in good order: nobody notices",
    args: [],
    options: { purpose: PURPOSE, reason: REASON },
    about: [
      "The next key is published for an hour before it takes over. What the old one signed stays good until it ends. The edge does this by itself, every KEY_ROTATION_DAYS.",
    ],
    examples: [['keycard keys rotate -r "quarterly"', ""]],
    scopes: SCOPES,
    async run(invocation, { options }) {
      const reason = await reasonFor(invocation, options.reason);
      const { keys } = await (await invocation.edge()).rotateKey({ purpose: options.purpose, reason });
      printKeys(invocation, keys);
      return EXIT.ok;
    },
  }),
  command({
    name: "keys retire",
    summary: "replace a key at once: what it signed is dead everywhere",
    args: ["[KID]"],
    options: { purpose: PURPOSE, reason: REASON, wait: WAIT, yes: { short: "y", about: "do not ask" } },
    about: [
      "For a key that leaked. Without KID it is the current one. Sessions go on: their holders refresh.",
      "Waits until no node believes the key any more. At a terminal it asks; in a script it needs --yes.",
    ],
    examples: [['keycard keys retire --yes -r "key leaked"', ""]],
    scopes: [...SCOPES, "revocations:read"],
    async run(invocation, { args: [given], options }) {
      const seconds = waitSeconds(options.wait);
      const edge = await invocation.edge();
      const purpose = options.purpose ?? "access";
      // Named, so that a repetition after a lost answer does not retire its successor as well.
      const kid = given ?? currentKey((await edge.keys()).keys, purpose);
      const reason = await reasonFor(invocation, options.reason);
      if (options.yes !== true) await confirm(invocation, kid);
      const { revocation, keys } = await edge.rotateKey({ purpose, retire: true, kid, reason });
      if (revocation === undefined) {
        printKeys(invocation, keys);
        return EXIT.ok;
      }
      if (!invocation.json) invocation.output.line(t`Key ${bold(kid)} signs no more.  ${dim(revocation)}`);
      return await awaitRevocation(invocation, revocation, seconds);
    },
  }),
];

function currentKey(keys: readonly Key[], purpose: string): string {
  const current = keys.find((key) => key.purpose === purpose && key.state === "current");
  if (current === undefined) {
    throw new CommandFailed(`No key of purpose ${purpose} is current.`, "`keycard keys` lists them.");
  }
  return current.kid;
}

async function confirm({ prompt }: Invocation, kid: string): Promise<void> {
  if (!prompt.isInteractive) throw new UsageError("Nobody is here to be asked.", "Say --yes if it is meant.");
  const question = t`Everybody's token signed with ${kid} dies. Type ${kid} to go on: `;
  if ((await prompt.ask(question.toString())) !== kid) {
    throw new CommandFailed("Nothing was retired: that was not the key.");
  }
}

function printKeys(invocation: Invocation, keys: readonly Key[]): void {
  printPage(invocation, {
    items: keys,
    next: undefined,
    head: ["key", "purpose", "state", "algorithm", "made", "next step"],
    row: ({ purpose, state, alg, created_at, rotates_at, gone_at, kid }) => [
      kid,
      purpose,
      state === "current" ? green(state) : state === "gone" ? dim(state) : yellow(state),
      alg,
      distance(created_at),
      rotates_at !== undefined
        ? `replaced ${distance(rotates_at)}`
        : gone_at !== undefined
          ? `gone ${distance(gone_at)}`
          : "",
    ],
    empty: "There is no key yet: the first sign-in makes one.",
  });
}

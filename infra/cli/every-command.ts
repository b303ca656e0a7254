/** Every command that there is, in the order in which the overview shows them. */
import { type Command, command } from "./command.ts";
import { accountCommands } from "./commands/accounts.ts";
import { auditCommands } from "./commands/audit.ts";
import { clientCommands } from "./commands/clients.ts";
import { doctorCommands } from "./commands/doctor.ts";
import { keyCommands } from "./commands/keys.ts";
import { loginCommands } from "./commands/login.ts";
import { receiptCommands } from "./commands/receipts.ts";
import { revokeCommands } from "./commands/revoke.ts";
import { sessionCommands } from "./commands/sessions.ts";
import { statusCommands } from "./commands/status.ts";
import { completionScript, SHELLS, type Shell } from "./completion.ts";
import { EXIT, UsageError } from "./failure.ts";
import { helpNames, helpOn, overview } from "./help.ts";
import { nearest } from "./nearest.ts";

export const COMMANDS: readonly Command[] = [
  ...revokeCommands,
  ...receiptCommands,
  ...sessionCommands,
  ...accountCommands,
  ...statusCommands,
  ...doctorCommands,
  ...auditCommands,
  ...keyCommands,
  ...clientCommands,
  ...loginCommands,
  command({
    name: "completion",
    summary: "print a script that completes commands and options",
    args: ["SHELL"],
    options: {},
    about: [`SHELL is ${SHELLS.join(", ")}.`],
    examples: [["source <(keycard completion bash)", "in ~/.bashrc"]],
    scopes: [],
    async run(_invocation, { args: [shell = ""] }) {
      if (!SHELLS.some((each) => each === shell)) {
        throw new UsageError(`There is no completion for "${shell}".`, `There is ${SHELLS.join(", ")}.`);
      }
      process.stdout.write(completionScript(shell as Shell, COMMANDS));
      return EXIT.ok;
    },
  }),
  command({
    name: "help",
    summary: "explain a command",
    args: ["[COMMAND]", "[SUBCOMMAND]"],
    options: {},
    about: [],
    examples: [["keycard help revoke", ""]],
    scopes: [],
    async run({ output }, { args }) {
      const name = args.join(" ");
      const lines = name === "" ? overview(COMMANDS) : helpOn(name, COMMANDS);
      if (lines === undefined) {
        const near = nearest(name, helpNames(COMMANDS));
        throw new UsageError(
          `There is no help on "${name}".`,
          near ? `Did you mean \`keycard help ${near}\`?` : "`keycard help` lists what there is.",
        );
      }
      output.lines(lines);
      return EXIT.ok;
    },
  }),
];

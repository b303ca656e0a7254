/**
 * `keycard`: the command line. Reads what was asked for, runs it, and ends with an exit code that scripts can build on. Talks to
 * nobody but the edge, over the same HTTP API that is open to everybody else.
 */
import { setMaxListeners } from "node:events";
import { createRequire } from "node:module";
import { parseCommandLine } from "./command.ts";
import { COMMANDS } from "./every-command.ts";
import { EXIT, type ExitCode, explain, Interrupted } from "./failure.ts";
import { helpOn, overview } from "./help.ts";
import { Invocation } from "./invocation.ts";
import { Output } from "./output.ts";
import { createPrompt } from "./prompt.ts";
import { dim, red, t } from "./text.ts";

const output = new Output({ stdout: process.stdout, stderr: process.stderr, env: process.env });
process.exitCode = await run(process.argv.slice(2));
// What is still open by now (a prompt, a kept-alive connection) is of no use to anybody.
process.stdout.write("", () => process.exit());

async function run(argv: readonly string[]): Promise<ExitCode> {
  const told = {
    json: argv.includes("--json"),
    verbose: argv.includes("--verbose") || argv.includes("-v"),
    needs: [] as readonly string[],
  };
  try {
    if (argv.length === 1 && (argv[0] === "--version" || argv[0] === "-V")) {
      output.line(createRequire(import.meta.url)("keycard/package.json").version);
      return EXIT.ok;
    }
    const parsed = parseCommandLine(argv, COMMANDS);
    if (parsed === undefined) {
      output.lines(overview(COMMANDS));
      return argv.length === 0 || argv.some((word) => word === "--help" || word === "-h") ? EXIT.ok : EXIT.usage;
    }
    const { command, given, global } = parsed;
    told.needs = command.scopes;
    if (global.help) {
      output.lines(helpOn(command.name, COMMANDS) ?? []);
      return EXIT.ok;
    }
    const signal = interruptSignal();
    const invocation = new Invocation({
      output,
      prompt: createPrompt(process.stdin, process.stderr, signal),
      env: process.env,
      profile: global.profile,
      json: global.json === true,
      verbose: global.verbose === true,
      timeoutSeconds: global.timeout,
      signal,
    });
    return await command.run(invocation, given);
  } catch (error) {
    return tell(error, told);
  }
}

function tell(error: unknown, told: { json: boolean; verbose: boolean; needs: readonly string[] }): ExitCode {
  const { exit, message, hint, code, requestId } = explain(error, told.needs);
  if (told.json) output.jsonNote({ error: message, hint, code, request: requestId });
  else {
    output.note(t`${red("keycard:")} ${message}`);
    if (hint !== undefined) output.note(t`  ${hint}`);
    if (told.verbose && requestId !== undefined) output.note(dim(t`  request ${requestId}`));
  }
  if (told.verbose && error instanceof Error && exit === EXIT.failed) {
    output.note(dim(error.stack?.replaceAll("\n", " ") ?? ""));
  }
  return exit;
}

/** The first Ctrl-C ends the work in good order; a second one ends the process. */
function interruptSignal(): AbortSignal {
  const controller = new AbortController();
  // Every call listens to it while it lasts.
  setMaxListeners(0, controller.signal);
  for (const signal of ["SIGINT", "SIGTERM"] as const) {
    process.on(signal, () => {
      if (controller.signal.aborted) process.exit(EXIT.interrupted);
      controller.abort(new Interrupted());
    });
  }
  return controller.signal;
}

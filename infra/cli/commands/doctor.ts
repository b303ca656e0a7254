/** `keycard doctor`: a deployment looked at from outside, as its users meet it, down to a canary that is thrown out. */
import { command } from "../command.ts";
import { edgeAddress } from "../credential.ts";
import { UsageError } from "../failure.ts";

export const doctorCommands = [
  command({
    name: "doctor",
    summary: "examine a deployment from outside, down to a canary that is thrown out",
    args: ["[EDGE]"],
    options: {
      origin: {
        value: "ORIGIN",
        multiple: true,
        about: "a page that uses it, as https://app.example.com; repeat it for more",
      },
      realtime: {
        value: "URL",
        multiple: true,
        about: "where clients connect; unless given, where the edge pushes to",
      },
      scope: { value: "SCOPES", about: "what the app wants of whoever connects" },
      path: { value: "PATH", about: "where Socket.IO listens; /socket.io" },
    },
    about: [
      "Makes a throw-away account, opens real sockets with it, revokes it and measures how soon they are closed; then deletes it. Nobody else is touched.",
      "Exit code 1 when something fails; what is merely doubtful does not count.",
    ],
    examples: [
      ["keycard doctor --origin https://app.example.com --realtime https://realtime.example.com", ""],
      ["keycard doctor https://auth.example.com", "without a credential: its outside alone"],
    ],
    scopes: ["accounts:write", "revocations:write", "revocations:read"],
    run: async (invocation, { args: [address], options }) => {
      const origins = (options.origin ?? []).map((origin) => originOf(origin));
      const realtime = (options.realtime ?? []).map((url) => edgeAddress(url));
      const place = { origins, realtime, scope: options.scope, path: options.path ?? "/socket.io" };
      // What it examines with is not loaded for anything else.
      const { examine } = await import("../doctor/examine.ts");
      return await examine(invocation, address === undefined ? undefined : edgeAddress(address), place);
    },
  }),
];

function originOf(text: string): string {
  if (URL.canParse(text)) {
    const { origin } = new URL(text);
    if (origin !== "null" && text.replace(/\/$/, "") === origin) return origin;
  }
  throw new UsageError(
    `"${text}" is no origin.`,
    "It is scheme and host, as https://app.example.com, and nothing after.",
  );
}

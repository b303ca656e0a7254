/** The entry: who sits here decides which of two pages there is, the way in or the console. */
import { Api } from "./api.ts";
import { element, fill } from "./dom.ts";
import { problem } from "./loading.ts";
import { OwnSession } from "./own-session.ts";
import type { Problem } from "./refused.ts";
import { openShell, type Shell } from "./shell.ts";
import { signInPage } from "./sign-in.ts";
import { network } from "./wire.ts";

const issuer = document.querySelector<HTMLMetaElement>('meta[name="issuer"]')?.content ?? location.origin;
const session = new OwnSession(issuer);
const api = new Api(session);
let shell: Shell | undefined;

session.addEventListener("begun", () => void enter());
session.addEventListener("ended", (event) => {
  const { detail } = event as CustomEvent<Problem | null>;
  leave();
  fill(document.body, signInPage(session, detail));
});
void begin();

async function begin(): Promise<void> {
  try {
    if (!(await session.restore())) fill(document.body, signInPage(session));
  } catch (error) {
    cannotBegin(error, begin);
  }
}

/** Whoever has a session is shown what they may do. */
async function enter(): Promise<void> {
  const entering = new AbortController();
  session.addEventListener("ended", () => entering.abort(), { once: true });
  try {
    const me = await api.me(entering.signal);
    leave();
    shell = openShell({ api, session, me });
  } catch (error) {
    if (!entering.signal.aborted) cannotBegin(error, enter);
  }
}

function leave(): void {
  shell?.close();
  shell = undefined;
}

function cannotBegin(error: unknown, again: () => Promise<void>): void {
  const once = new AbortController();
  const retry = () => {
    if (once.signal.aborted) return;
    once.abort();
    void again();
  };
  network.addEventListener("change", () => network.isUp && retry(), { signal: once.signal });
  fill(
    document.body,
    element("main", { className: "sign-in" }, element("h1", {}, "Keycard console"), problem(error, retry)),
  );
}

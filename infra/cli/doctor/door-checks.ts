/** The nodes as a client sees them: every way in works, sticky where it has to be, and who has no business there stays out. */

import { clockResult } from "./edge-checks.ts";
import { type Check, fail, pass, type Result, warn } from "./finding.ts";
import { pollingSession } from "./polling.ts";
import { clockOffset, probe } from "./probe.ts";
import type { Site } from "./site.ts";
import { type Visit, visit } from "./visitor.ts";

const TRANSPORTS = ["websocket", "polling"] as const;
const STRANGER = "https://keycard-doctor.invalid";
const SESSIONS = 4;

export const doorChecks: readonly Check<Site>[] = [
  {
    name: "node clock",
    without: ({ noDoor }) => noDoor,
    run: (site) =>
      each(site, async (url) =>
        clockResult(clockOffset(await probe(`${url}/healthz`, { signal: site.options.signal })), "Its clock"),
      ),
  },
  ...TRANSPORTS.map(
    (transport): Check<Site> => ({
      name: transport,
      without: ({ noDoor }) => noDoor,
      run: (site) =>
        each(site, async (url) => {
          const opened = await visit(site, url, { transport, token: site.guest?.tokens.access_token });
          opened.close();
          return handshakeResult(opened, transport);
        }),
    }),
  ),
  { name: "sticky", without: ({ noDoor }) => noDoor, run: (site) => each(site, (url) => checkSticky(site, url)) },
  {
    name: "refusals",
    without: ({ noDoor }) => noDoor,
    run: (site) =>
      each(site, async (url) => {
        const tokens = { token_missing: undefined, token_invalid: "bm90.YQ.dG9rZW4" };
        for (const [due, token] of Object.entries(tokens)) {
          const refused = await visit(site, url, { transport: "websocket", token });
          refused.close();
          if (refused.connected) {
            return fail(
              `It lets in whoever shows ${token === undefined ? "nothing" : "garbage"}.`,
              "Put `protect` on this server: it has no door.",
            );
          }
          if (refused.code !== due) {
            return warn(
              `It refuses, but with ${refused.code ?? refused.why} where ${due} is due.`,
              "Check that this is the server that Keycard protects.",
            );
          }
        }
        return pass("No token and a made-up token stay out, each with its reason.");
      }),
  },
  {
    name: "origins",
    without: ({ noDoor }) => noDoor,
    run: (site) =>
      each(site, async (url) => {
        const token = site.guest?.tokens.access_token;
        for (const origin of site.options.origins) {
          const own = await visit(site, url, { transport: "websocket", token, origin });
          own.close();
          if (!own.connected) {
            return fail(`Pages at ${origin} cannot connect (${own.why}).`, "Add it to ALLOWED_ORIGINS of the nodes.");
          }
        }
        const strange = await visit(site, url, { transport: "websocket", token, origin: STRANGER });
        strange.close();
        if (!strange.connected) return pass("Sockets of strangers' pages are refused.");
        return warn(
          "Sockets of any page are taken: a token that leaks into one can be used there.",
          "Name your pages in ALLOWED_ORIGINS of the nodes.",
        );
      }),
  },
];

/** One result for each place where clients connect; named only where there are several. */
async function each(site: Site, check: (url: string) => Promise<Result>): Promise<Result[]> {
  const results: Result[] = [];
  for (const url of site.realtime) {
    const result = await check(url);
    results.push(site.realtime.length === 1 ? result : { of: url, ...result });
  }
  return results;
}

function handshakeResult({ connected, ms, code, why }: Visit, transport: string): Result {
  if (connected) return pass(`A token lets in, after ${ms} ms.`, { ms });
  if (code === "scope_insufficient") {
    return warn("The token was judged, but this app wants a scope.", "Say which: --scope 'chat read'.", { code });
  }
  if (code === "unavailable" || why.includes("503")) {
    return fail(
      "It lets nobody in: it does not know what is revoked.",
      'Look at `keycard status` and the runbook\'s "One node not ready".',
      { code },
    );
  }
  if (code === "token_invalid") {
    return fail(
      "It refuses a good token.",
      "Check that ISSUER and AUDIENCE of the nodes are the edge's, and that they can fetch its keys.",
      { code },
    );
  }
  if (code !== undefined) return fail(`It refuses a good token: ${code}.`, "Look at the node's log.", { code });
  const proxy =
    transport === "websocket"
      ? "Let the proxy pass `Upgrade` on, and look whether the node runs."
      : "Check the address and --path.";
  return fail(`No socket opens: ${why}.`, proxy);
}

/** Several sessions on polling, each request on a connection of its own, as it happens behind a balancer. */
async function checkSticky(site: Site, url: string): Promise<Result> {
  for (let session = 0; session < SESSIONS; session++) {
    const { outcome, says } = await pollingSession(
      url,
      site.options.path,
      site.guest?.tokens.access_token ?? "",
      site.options.signal,
    );
    if (outcome === "lost") {
      return fail(
        "Requests of one session reach different nodes: long polling breaks off.",
        "Make the balancer sticky, or let clients use websocket only.",
      );
    }
    if (outcome === "odd") return warn(`Polling could not be followed: ${says}.`, "Check the address and --path.");
  }
  return pass(`Every request of ${SESSIONS} polling sessions reached the node that the session is on.`);
}

/**
 * A revocation from end to end: a guest with a socket on every way in is thrown out, and it is measured how soon, and whether the
 * receipt says so.
 */
import { randomUUID } from "node:crypto";
import { createLocalJWKSet, decodeProtectedHeader, type JWK, jwtVerify } from "jose";
import type { Receipt } from "../../edge-answers.ts";
import { EdgeRefusal } from "../../edge-client.ts";
import { isSettled } from "../receipt-view.ts";
import { publicKeys } from "./edge-checks.ts";
import { type Check, fail, pass, type Result, warn } from "./finding.ts";
import type { Site } from "./site.ts";
import { type Visit, visit } from "./visitor.ts";

const NEEDS = ["revocations:write", "revocations:read"];
const NEWS_WITHIN_MS = 2_000;
const PUBLISHED_WITHIN_MS = 15_000;
const LOOK_MS = 1_000;
const ENFORCED_WITHIN_MS = 30_000;
/** What README promises where nothing is broken is milliseconds; past this something is. */
const SLOW_MS = 2_000;
const NO_CANARY = "Without a canary there is nothing to look at.";
const PROOF_TYPE = "revocation-receipt+jwt";

interface Thrown {
  readonly receipt: Receipt;
  readonly sockets: number;
  readonly answeredMs: number;
  /** Of the last socket; undefined when one is still open. */
  readonly closedMs: number | undefined;
  readonly codes: readonly (string | undefined)[];
  /** Until the receipt said so; undefined when it did not in time. */
  readonly enforcedMs: number | undefined;
}

export const canaryChecks: readonly Check<Site>[] = [
  {
    name: "canary",
    without(site) {
      const lacking = site.lacks(...NEEDS);
      return site.noDoor ?? (lacking.length > 0 ? `The credential lacks ${lacking.join(" and ")}.` : undefined);
    },
    async run(site) {
      const visits = await everyWayIn(site);
      try {
        const thrown = await throwOut(site, visits);
        site.receipt = thrown.receipt;
        return canaryResult(thrown);
      } finally {
        for (const { close } of visits) close();
      }
    },
  },
  { name: "tokens", without: ({ receipt }) => (receipt === undefined ? NO_CANARY : undefined), run: afterwards },
  { name: "proof", without: ({ receipt }) => (receipt === undefined ? NO_CANARY : undefined), run: proofResult },
];

async function everyWayIn(site: Site): Promise<Visit[]> {
  const token = site.guest?.tokens.access_token;
  const ways = site.realtime.flatMap((url) =>
    (["websocket", "polling"] as const).map((transport) => ({ url, transport })),
  );
  const visits = await Promise.all(ways.map(({ url, transport }) => visit(site, url, { transport, token })));
  return visits.filter(({ connected }) => connected);
}

async function throwOut(site: Site, visits: readonly Visit[]): Promise<Thrown> {
  const { guest, options } = site;
  const { edge, signal } = options;
  if (edge === undefined || guest === undefined) throw new Error("there is nobody to throw out");
  const began = performance.now();
  const order = { target: { kind: "user", sub: guest.sub }, reason: "keycard doctor: a canary" } as const;
  let receipt = await edge.order(order, randomUUID());
  const answeredMs = Math.round(performance.now() - began);
  const within = AbortSignal.any([signal, AbortSignal.timeout(ENFORCED_WITHIN_MS)]);
  const closing = Promise.all(visits.map(({ ended }) => ended));
  if (!isSettled(receipt)) for await (const next of edge.follow(receipt.id, within)) receipt = next;
  const enforcedMs = receipt.state === "enforced" ? Math.round(performance.now() - began) : undefined;
  // What the receipt says has happened; the news of it may still be on its way to us.
  const ends = await Promise.race([closing, site.pause(NEWS_WITHIN_MS)]);
  const closedMs = ends === undefined ? undefined : Math.round(Math.max(0, ...ends.map(({ at }) => at - began)));
  return {
    receipt,
    sockets: visits.length,
    answeredMs,
    closedMs,
    codes: (ends ?? []).map(({ code }) => code),
    enforcedMs,
  };
}

function canaryResult({ receipt, sockets, answeredMs, closedMs, codes, enforcedMs }: Thrown): Result {
  const measured = {
    answered_ms: answeredMs,
    closed_ms: closedMs,
    enforced_ms: enforcedMs,
    sockets,
    receipt: receipt.id,
  };
  if (receipt.state === "no_clusters") {
    return fail(
      "The edge knows of no cluster: nobody is told to close a socket.",
      "Set CLUSTERS and CLUSTER_SECRETS of the edge.",
      measured,
    );
  }
  if (sockets === 0) {
    return fail(
      "No socket could be opened, so that none could be thrown out.",
      "Mend the handshakes above first.",
      measured,
    );
  }
  if (closedMs === undefined) {
    return fail(
      "A revoked session's socket stayed open.",
      "These sockets are on nodes that the edge does not reach: compare CLUSTERS with where clients connect.",
      measured,
    );
  }
  if (codes.some((code) => code !== "session_revoked")) {
    return warn(
      "The sockets closed without being told why.",
      "Check that nothing else closes sockets on these nodes.",
      measured,
    );
  }
  if (enforcedMs === undefined) {
    return fail(
      `All closed after ${closedMs} ms, but the receipt is not enforced: a node gives no word.`,
      `\`keycard receipts show ${receipt.id}\` names it; see the runbook.`,
      measured,
    );
  }
  if (receipt.closed < sockets) {
    return warn(
      `The receipt counts ${receipt.closed} sockets closed, where ${sockets} were.`,
      "Some of them are on nodes of another cluster: compare CLUSTERS with where clients connect.",
      measured,
    );
  }
  const says = `${sockets} sockets closed after ${closedMs} ms; answered after ${answeredMs} ms, enforced after ${enforcedMs} ms.`;
  return closedMs > SLOW_MS
    ? warn(says, "That is slow: `keycard status` shows lag and links.", measured)
    : pass(says, measured);
}

/** What the guest had must open nothing any more. */
async function afterwards(site: Site): Promise<Result> {
  const { guest, realtime } = site;
  for (const url of realtime) {
    const again = await visit(site, url, { transport: "websocket", token: guest?.tokens.access_token });
    again.close();
    if (again.connected) {
      const says = `${url} lets a revoked token in.`;
      return fail(says, "It does not know what is revoked: look at `keycard status`.");
    }
  }
  try {
    await site.options.anybody.refresh(guest?.tokens.refresh_token ?? "");
    return fail("The edge refreshes a revoked session.", "Tell whoever maintains Keycard.");
  } catch (error) {
    if (!(error instanceof EdgeRefusal) || error.code !== "session_revoked") throw error;
  }
  return pass("What was revoked opens nothing any more, neither at the edge nor at a node.");
}

/** By the keys as they are published now: the one that signs receipts is made for the first of them. */
async function proofResult(site: Site): Promise<Result> {
  const { issuer, receipt: { proof, id } = {} } = site;
  if (proof === undefined) return warn("The receipt has no proof: it is not enforced.", "See above.");
  if (issuer === undefined) return warn("Whose receipt it is could not be checked.", "See the discovery above.");
  const key = await publishedKey(site, kidOf(proof));
  if (key === undefined) {
    const says = "The key that signed the receipt is not published here yet.";
    return warn(says, "A cache in between may keep older keys for five minutes: run it again then.");
  }
  try {
    const { payload } = await jwtVerify(proof, createLocalJWKSet({ keys: [key] }), { issuer, typ: PROOF_TYPE });
    if (payload.jti === id) return pass("The receipt's signature holds by the edge's public keys.");
    return fail("The proof is of another receipt.", "Tell whoever maintains Keycard.");
  } catch {
    // Why it does not hold is nothing that anybody could mend from here.
    const says = "The receipt's signature does not hold by the edge's public keys.";
    return fail(says, "Look what stands between here and the edge, and changes answers.");
  }
}

function kidOf(proof: string): string | undefined {
  try {
    return decodeProtectedHeader(proof).kid;
  } catch {
    return undefined; // no proof at all: no key is of that name
  }
}

/** The edge itself shows a new key within seconds; undefined where it does not. */
async function publishedKey(site: Site, kid: string | undefined): Promise<JWK | undefined> {
  const end = performance.now() + PUBLISHED_WITHIN_MS;
  for (;;) {
    const { keys = [] } = await publicKeys(site);
    const key = keys.find((each) => each.kid === kid);
    if (key !== undefined || performance.now() > end) return key as JWK | undefined;
    await site.pause(LOOK_MS);
  }
}

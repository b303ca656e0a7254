/** How far a revocation reaches from one socket, who would go, and the receipt of what was done. */
import { element } from "./grid.js";
import { call } from "./sessions.js";

const POLL_MS = 120;
const GIVE_UP_AFTER_MS = 20_000;
/** Sockets that should have gone and have not by now are told as such. */
const LATE_AFTER_MS = 5_000;

/** From the narrowest to the widest: what to ask for, and whether a socket's claims are within it. */
export function reachesFrom({ claims, session }) {
  const { login, tid } = session.person;
  const device = `${login} on ${session.device === "this browser" ? "this browser" : `the ${session.device}`}`;
  return [
    {
      name: "Token",
      what: `one access token of ${login}`,
      hint: "comes back with a fresh one",
      target: { kind: "token", jti: claims.jti },
      hits: (other) => other.jti === claims.jti,
    },
    {
      name: "Session",
      what: device,
      hint: "this sign-in only",
      target: { kind: "session", sid: claims.sid },
      hits: (other) => other.sid === claims.sid,
    },
    {
      name: "User",
      what: `${login}, everywhere`,
      hint: "every device",
      target: { kind: "user", sub: claims.sub },
      hits: (other) => other.sub === claims.sub,
    },
    {
      name: "Tenant",
      what: `everybody at ${tid}`,
      hint: "the organisation",
      target: { kind: "tenant", tid },
      hits: (_other, person) => person.tid === tid,
    },
    {
      name: "Everyone",
      what: "everybody, everywhere",
      hint: "all tenants",
      target: { kind: "everyone" },
      hits: () => true,
    },
  ];
}

/** Those of the sockets that are open and within reach. */
export function within(reach, sockets) {
  return sockets.filter(({ isLive, claims, session }) => isLive && claims && reach.hits(claims, session.person));
}

/**
 * Revokes, watches the sockets go and fills in the receipt.
 *
 * @param show called with the state of things whenever it changes
 */
export async function revoke(reach, reason, sockets, show) {
  const began = performance.now();
  const going = within(reach, sockets);
  const open = sockets.filter(({ isLive }) => isLive).length;
  const seen = { reach, reason, going: going.length, went: 0, stayed: open - going.length, ms: undefined };
  const watching = watch(going, began, (went, ms) => show(Object.assign(seen, { went, ms })));
  show(seen);
  try {
    const { id } = await call("POST", "/api/revocations", { target: reach.target, reason });
    for await (const receipt of receipts(id)) show(Object.assign(seen, { receipt }));
  } catch (error) {
    show(Object.assign(seen, { problem: `${error.code}: ${error.message}` }));
  }
  await watching;
}

async function watch(going, began, onGone) {
  const gone = new Set();
  await new Promise((resolve) => {
    if (going.length === 0) return resolve();
    setTimeout(resolve, LATE_AFTER_MS);
    for (const socket of going) {
      const check = ({ detail }) => {
        if (detail.socket !== socket || socket.isLive || gone.has(socket)) return;
        gone.add(socket);
        const last = Math.max(...[...gone].map(({ closedAt }) => closedAt));
        onGone(gone.size, last - began);
        if (gone.size === going.length) resolve();
      };
      socket.session.addEventListener("socket", check);
    }
  });
}

async function* receipts(id) {
  const deadline = Date.now() + GIVE_UP_AFTER_MS;
  for (;;) {
    const receipt = await call("GET", `/api/revocations/${encodeURIComponent(id)}`);
    yield receipt;
    if (receipt.state === "enforced" || Date.now() > deadline) return;
    await new Promise((resolve) => setTimeout(resolve, POLL_MS));
  }
}

const $ = (id) => document.getElementById(id);

/** The receipt on the page. */
export function showReceipt({ reach, reason, went, going, stayed, ms, receipt, problem }) {
  $("receipt").hidden = false;
  $("receipt-what").textContent = `${reach.what} · ${reason}`;
  const shownMs = ms === undefined ? "–" : ms.toFixed(ms < 100 ? 1 : 0);
  $("outcome").hidden = false;
  $("outcome").textContent = `${reach.name}: ${went} went in ${shownMs} ms, ${stayed} stayed`;
  $("figure-ms").textContent = shownMs;
  $("figure-went").textContent = went === going ? String(went) : `${went} of ${going}`;
  $("figure-stayed").textContent = String(stayed);
  const stages = ["pending", "delivered", "enforced"];
  const reached = receipt ? stages.indexOf(receipt.state) : -1;
  for (const [index, stage] of [...$("stages").children].entries()) stage.classList.toggle("done", index <= reached);
  $("receipt-nodes").replaceChildren(...(problem ? [wide(problem)] : rowsOf(receipt)));
  $("receipt-json").textContent = receipt ? JSON.stringify(receipt, null, 2) : "";
}

function rowsOf(receipt) {
  if (!receipt) return [wide("asking the edge…")];
  const rows = receipt.clusters.flatMap((cluster) => [
    ...cluster.applied
      .toSorted(byNode)
      .map(({ node, applied_at, closed }) =>
        line(node, `${Math.max(0, applied_at - receipt.created_at)} ms after the decision`, String(closed)),
      ),
    ...cluster.fenced.map(({ node }) => line(node, "fenced: it is gone, and its sockets with it", "")),
    ...cluster.pending.map((node) => line(node, "not yet", "")),
    ...(cluster.last_error ? [wide(`${cluster.cluster}: ${cluster.last_error}, ${cluster.attempts} attempts`)] : []),
  ]);
  return rows.length > 0 ? rows : [wide("on its way to the nodes")];
}

function byNode(one, other) {
  return one.node.localeCompare(other.node, "en", { numeric: true });
}

function line(...cells) {
  return element("tr", {}, ...cells.map((text, index) => element(index === 0 ? "th" : "td", { textContent: text })));
}

function wide(text) {
  return element("tr", {}, element("td", { colSpan: 3, textContent: text, className: "muted" }));
}

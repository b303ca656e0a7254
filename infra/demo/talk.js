/** The lists of the page: messages with where they arrived, and what happened. */
import { element } from "./grid.js";

const LINES_KEPT = 60;
const GATHER_MS = 400;

const arrivals = new Map();

/** Every socket gets every message: one line for each, that counts where it arrived. */
export function showMessage(socket, { from, node, text, at }) {
  const key = `${at} ${node} ${from} ${text}`;
  const known = arrivals.get(key) ?? newMessage(key, { from, node, text });
  known.nodes.add(socket.node.name);
  known.count += 1;
  known.line.textContent = `${count(known.count, "socket")} on ${count(known.nodes.size, "node")}`;
}

function newMessage(key, { from, node, text }) {
  const line = element("span", { className: "muted" });
  const author = element("strong", { textContent: from });
  author.dataset.person = from;
  const entry = element(
    "li",
    {},
    author,
    ` ${text} `,
    element("small", { className: "muted" }, `via ${node}, to `, line),
  );
  const known = { nodes: new Set(), count: 0, line };
  arrivals.set(key, known);
  prepend(document.getElementById("messages"), entry);
  return known;
}

const count = (number, noun) => `${number} ${noun}${number === 1 ? "" : "s"}`;

const gathered = new Map();

/** One line for what happens to several sockets of a session at once. */
export function gather({ session, node }, what, tone) {
  const key = `${what} ${tone} ${session.sid}`;
  const nodes = gathered.get(key);
  if (nodes) return void nodes.push(node.name);
  const first = [node.name];
  gathered.set(key, first);
  setTimeout(() => {
    gathered.delete(key);
    // Hyphens that do not break a line.
    const names = first.sort().join(", ").replaceAll("-", "\u2011");
    tell(`${session.person.login} (${session.device}): ${what} on ${names}`, tone);
  }, GATHER_MS);
}

/** A line in "What happened". */
export function tell(text, tone = "") {
  const time = new Date().toLocaleTimeString([], { hour12: false });
  prepend(
    document.getElementById("log"),
    element("li", { className: tone }, element("time", { textContent: time }), ` ${text}`),
  );
}

function prepend(list, entry) {
  list.prepend(entry);
  while (list.children.length > LINES_KEPT) list.lastChild.remove();
}

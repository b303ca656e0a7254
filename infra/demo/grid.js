/** The grid: a row for each session, a tile for each of its sockets. */

const SVG = "http://www.w3.org/2000/svg";
const STATES = { connecting: "connecting", live: "open", away: "reconnecting", closed: "closed" };

/** An element with properties and children. */
export function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

/** The row of one session; `on` is told of clicks. */
export class Row {
  constructor(session, on) {
    this.session = session;
    this.tiles = session.sockets.map((socket) => new Tile(socket, () => on.choose(socket)));
    const { login, tid } = session.person;
    this.line = element("p", { className: "guest-line" });
    this.out = element("button", { type: "button", className: "quiet", textContent: "Log out" });
    this.out.setAttribute("aria-label", `Log out ${login} on ${session.device}`);
    this.out.onclick = () => (session.endedBy ? on.remove(session) : on.logout(session));
    this.again = element("button", { type: "button", className: "quiet strong", textContent: "Log in again" });
    this.again.setAttribute("aria-label", `Log in ${login} again on ${session.device}`);
    this.again.onclick = () => on.again(session);
    const face = element("span", { className: "face", textContent: login[0].toUpperCase() });
    face.setAttribute("aria-hidden", "true");
    const name = element("h3", {}, login, element("small", { textContent: ` ${tid} · ${session.device}` }));
    this.element = element(
      "article",
      { className: "guest" },
      element("header", {}, face, element("div", { className: "who" }, name, this.line), this.again, this.out),
      element("div", { className: "tiles" }, ...this.tiles.map((tile) => tile.element)),
    );
    this.element.dataset.person = login;
  }

  update(now) {
    const { endedBy, sid } = this.session;
    this.element.classList.toggle("ended", endedBy !== undefined);
    this.line.textContent = endedBy ? `ended: ${endedBy}` : sid ? `session ${short(sid)}` : "…";
    this.line.title = sid ?? "";
    this.again.hidden = endedBy === undefined;
    this.out.textContent = endedBy ? "Remove" : "Log out";
    for (const tile of this.tiles) tile.update(now);
  }
}

class Tile {
  constructor(socket, onChoose) {
    this.socket = socket;
    this.ring = ring();
    this.id = element("span", { className: "socket-id" });
    this.state = element("span", { className: "state" });
    this.refusal = element("span", { className: "refusal" });
    const text = element("span", { className: "tile-text" }, this.id, this.state, this.refusal);
    const node = element("span", { className: "node", textContent: socket.node.name });
    this.element = element("button", { type: "button", className: "tile" }, node, this.ring.element, text);
    this.element.onclick = onChoose;
  }

  update(now) {
    const { state, claims, lastRefusal, id, node, session } = this.socket;
    const left = state === "live" && claims ? Math.max(0, claims.exp - now / 1000) : 0;
    const { login } = session.person;
    this.element.dataset.state = state;
    this.id.textContent = state === "live" && id ? id.slice(0, 8) : "–";
    this.state.textContent = STATES[state];
    // A zero-width space, so that a narrow tile breaks the code at its underscore.
    this.refusal.textContent = lastRefusal?.code.replaceAll("_", "_\u200b") ?? "";
    this.element.title = id ? `socket ${id}\nsession ${claims?.sid}\ntoken ${claims?.jti}` : "";
    this.element.setAttribute(
      "aria-label",
      `${login}, ${session.device}, ${node.name}: ${STATES[state]}${lastRefusal ? `, last told ${lastRefusal.code}` : ""}`,
    );
    this.ring.show(left, claims ? session.ttl(claims) : 1, state === "live");
  }

  mark(name, on) {
    this.element.classList.toggle(name, on);
  }

  /** A short light when a message comes in. */
  flash() {
    this.element.classList.remove("flash");
    void this.element.offsetWidth;
    this.element.classList.add("flash");
  }
}

/** The seconds left on a token, as a ring that runs out. */
function ring() {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", "0 0 40 40");
  svg.setAttribute("class", "ring");
  svg.setAttribute("aria-hidden", "true");
  const [track, arc] = ["track", "arc"].map((name) => {
    const circle = document.createElementNS(SVG, "circle");
    for (const [key, value] of Object.entries({ cx: 20, cy: 20, r: 17, pathLength: 100, class: name })) {
      circle.setAttribute(key, String(value));
    }
    return circle;
  });
  const label = document.createElementNS(SVG, "text");
  for (const [key, value] of Object.entries({
    x: 20,
    y: 20,
    "text-anchor": "middle",
    "dominant-baseline": "central",
  })) {
    label.setAttribute(key, String(value));
  }
  svg.append(track, arc, label);
  return {
    element: svg,
    show(left, whole, isLive) {
      arc.setAttribute("stroke-dasharray", `${Math.min(100, (left / whole) * 100)} 100`);
      arc.classList.toggle("out", left === 0);
      svg.classList.toggle("low", isLive && left < 10);
      label.textContent = isLive ? String(Math.ceil(left)) : "";
    },
  };
}

/** The telling end of an identifier. */
export function short(id) {
  const tail = id.split(".").at(-1);
  return tail.length > 10 ? `${tail.slice(0, 8)}…` : tail;
}

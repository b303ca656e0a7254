/** The page: who is in, the socket that was chosen, and what happens to it. */
import { element, Row, short } from "./grid.js";
import { reachesFrom, revoke, showReceipt, within } from "./revoking.js";
import { call, Session } from "./sessions.js";
import { gather, showMessage, tell } from "./talk.js";

const TICK_MS = 250;
const POLL_MS = 1_000;
const LATELY_MS = 5_000;
const HAD_SESSION = "keycard: this browser had a session";

const $ = (id) => document.getElementById(id);

const demo = await loaded();
const rows = [];
let chosen;
/** Until a visitor chooses a socket, the first one is. */
let isPicked = false;
let isRevoking = false;

async function loaded() {
  try {
    return await call("GET", "/api/demo");
  } catch {
    $("notice").hidden = false;
  }
  // This page was served before the nodes were known, and may only speak to those that its policy names.
  while (!(await call("GET", "/api/demo").then(Boolean, () => false))) {
    await new Promise((resolve) => setTimeout(resolve, POLL_MS));
  }
  location.reload();
  return new Promise(() => {});
}

const personOf = (login) => demo.people.find((person) => person.login === login);

async function logInHere({ login, password }) {
  // One browser, one cookie: who was in with it goes first.
  const before = rows.find(({ session }) => session.inThisBrowser && !session.endedBy);
  if (before) await logout(before.session);
  const answer = await call("POST", `${demo.edge}/login`, { login, password, device: "this browser" });
  localStorage.setItem(HAD_SESSION, "yes");
  return here(answer);
}

/** The session of this browser: its refresh token is a cookie that this script cannot read. */
function here(answer) {
  for (const row of rows.filter(({ session }) => session.inThisBrowser)) drop(row.session);
  return welcome(
    new Session(personOf(answer.sub), "this browser", {
      answer,
      refresh: () => call("POST", `${demo.edge}/refresh`, {}),
      async logout() {
        localStorage.removeItem(HAD_SESSION);
        await call("POST", `${demo.edge}/logout`, {});
      },
    }),
  );
}

async function logInThere({ login }, device) {
  return there(await call("POST", "/api/sessions", { login, device }));
}

/** A session that the demo server holds, as an app on another device would. */
function there({ id, login, device, ...answer }) {
  return welcome(
    new Session(personOf(login), device, {
      answer: answer.access_token ? answer : undefined,
      refresh: () => call("POST", `/api/sessions/${id}/token`, {}),
      logout: () => call("DELETE", `/api/sessions/${id}`),
    }),
  );
}

function logIn(person, device) {
  return device === "browser" || device === "this browser" ? logInHere(person) : logInThere(person, device);
}

function welcome(session) {
  session.connect(demo.nodes);
  session.addEventListener("socket", onSocket);
  session.addEventListener("change", paint);
  const row = new Row(session, { choose, logout, remove: (gone) => drop(gone), again });
  rows.push(row);
  rows.sort((a, b) => orderOf(a.session) - orderOf(b.session));
  $("guests").replaceChildren(...rows.map(({ element: shown }) => shown));
  paint();
  return session;
}

const orderOf = ({ person }) => demo.people.indexOf(person);

function drop(session) {
  session.end("left");
  session.leave();
  const index = rows.findIndex((row) => row.session === session);
  if (index < 0) return;
  rows[index].element.remove();
  rows.splice(index, 1);
  paint();
}

async function logout(session) {
  tell(`${session.person.login} logs out on ${session.device}`);
  await session.logout().catch(complain);
}

async function again(session) {
  await logIn(session.person, session.device).then(() => drop(session), complain);
}

/** What was open before this page was loaded again. */
async function restore() {
  for (const held of await call("GET", "/api/sessions")) there(held);
  if (!localStorage.getItem(HAD_SESSION)) return;
  await call("POST", `${demo.edge}/refresh`, {}).then(here, () => localStorage.removeItem(HAD_SESSION));
}

function onSocket({ detail: { socket, kind, detail } }) {
  if (kind === "message") arrived(socket, detail);
  else if (kind === "refused") gather(socket, detail.code, detail.advice === "login" ? "hard" : "soft");
  else if (kind === "away" && detail === "live" && !wasRefused(socket)) gather(socket, "connection lost", "soft");
  else if (kind === "live" && detail === "away")
    gather(socket, wasRefused(socket) ? "back, fresh token" : "back", "good");
  paint();
}

/** Lately: an older refusal is not why the socket went. */
function wasRefused({ lastRefusal }) {
  return lastRefusal !== undefined && Date.now() - lastRefusal.at < LATELY_MS;
}

function arrived(socket, message) {
  const tiles = rows.flatMap((row) => row.tiles);
  tiles.find((tile) => tile.socket === socket)?.flash();
  showMessage(socket, message);
}

function complain(error) {
  $("login-note").textContent = error.message;
  tell(error.message, "hard");
}

const sockets = () => rows.flatMap(({ session }) => session.sockets);
const buttons = [];

function choose(socket) {
  chosen = socket;
  isPicked = true;
  paint();
}

function preview(reach) {
  const going = new Set(reach ? within(reach, sockets()) : []);
  $("guests").classList.toggle("previewing", going.size > 0);
  for (const { tiles } of rows) for (const tile of tiles) tile.mark("will-go", going.has(tile.socket));
}

function currentReaches() {
  return chosen?.claims ? reachesFrom(chosen) : [];
}

function makeButtons() {
  for (const name of ["Token", "Session", "User", "Tenant", "Everyone"]) {
    const [number, what] = [element("b"), element("span", { className: "what" })];
    const button = element("button", { type: "button" }, element("span", { textContent: name }), what, number);
    const reachNow = () => currentReaches().find((reach) => reach.name === name);
    button.onmouseenter = button.onfocus = () => preview(reachNow());
    button.onmouseleave = button.onblur = () => preview(undefined);
    button.onclick = () => carryOut(reachNow());
    buttons.push({ button, number, what, reachNow });
    $("reaches").append(button);
  }
}

async function carryOut(reach) {
  if (!reach || isRevoking) return;
  isRevoking = true;
  const reason = $("reason").value.trim() || "no reason given";
  tell(`revoke ${reach.what}: ${reason}`, "act");
  preview(undefined);
  await revoke(reach, reason, sockets(), showReceipt).finally(() => {
    isRevoking = false;
  });
  if (chosen?.session.endedBy) isPicked = false;
  paint();
}

function paint() {
  const all = sockets();
  const open = all.filter(({ isLive }) => isLive).length;
  if (!isPicked || !all.includes(chosen)) chosen = all.find(({ session, claims }) => claims && !session.endedBy);
  $("empty").hidden = rows.length > 0;
  $("tally").textContent = rows.length === 0 ? "" : `${open} of ${all.length} sockets open`;
  for (const row of rows) {
    row.update(Date.now());
    for (const tile of row.tiles) {
      tile.mark("chosen", tile.socket === chosen);
      tile.element.setAttribute("aria-pressed", String(tile.socket === chosen));
    }
  }
  paintDesk();
}

function paintDesk() {
  const isSomebody = chosen?.claims !== undefined;
  const { login } = chosen?.session.person ?? {};
  $("chosen").textContent = isSomebody
    ? `From ${login}'s socket on ${chosen.node.name} (${chosen.session.device}, session ${short(chosen.claims.sid)}). How far?`
    : "Choose a socket: the reach starts from there.";
  $("say-as").textContent = chosen?.isLive ? `As ${login}, on ${chosen.node.name}` : "Message";
  for (const { button, number, what, reachNow } of buttons) {
    const reach = reachNow();
    button.disabled = !reach || isRevoking;
    what.textContent = reach ? `${reach.what} · ${reach.hint}` : "";
    number.textContent = reach ? String(within(reach, sockets()).length) : "";
    number.title = "open sockets on this page that would go";
  }
}

$("person").append(...demo.people.map(({ login, tid }) => new Option(`${login} (${tid})`, login)));
$("login").onsubmit = async (event) => {
  event.preventDefault();
  $("login-note").textContent = "";
  await logIn(personOf($("person").value), $("device").value).catch(complain);
};
$("fill").onclick = async () => {
  const [ada, grace, linus] = demo.people;
  await logInHere(ada).catch(complain);
  await Promise.all([logInThere(ada, "phone"), logInThere(grace, "laptop"), logInThere(linus, "laptop")]).catch(
    complain,
  );
};
$("say").onsubmit = (event) => {
  event.preventDefault();
  const text = $("text").value.trim();
  if (text === "" || !chosen?.isLive) return;
  chosen.send(text);
  $("text").value = "";
};
makeButtons();
$("house").hidden = false;
await restore().catch(complain);
paint();
setInterval(paint, TICK_MS);

/** Around every view: who is signed in, the ways to the views, what is wrong with the network, and the one view that the address names. */
import type { Me, Scope } from "./answers.ts";
import type { Api } from "./api.ts";
import { audit } from "./audit.ts";
import type { Desk, View } from "./desk.ts";
import { element, fill } from "./dom.ts";
import { health } from "./health.ts";
import type { OwnSession } from "./own-session.ts";
import { people } from "./people.ts";
import { person } from "./person.ts";
import { revocation, revocations } from "./revocations.ts";
import { openRevocation } from "./revoke.ts";
import { network } from "./wire.ts";

export interface Shell {
  close(): void;
}

interface Parts {
  readonly api: Api;
  readonly session: OwnSession;
  readonly me: Me;
}

interface Room {
  readonly path: string;
  readonly name: string;
  readonly scope: Scope;
  readonly list: View;
  readonly one?: View;
}

const ROOMS: readonly Room[] = [
  { path: "people", name: "People", scope: "accounts:read", list: people, one: person },
  { path: "revocations", name: "Revocations", scope: "revocations:read", list: revocations, one: revocation },
  { path: "audit", name: "Audit", scope: "audit:read", list: audit },
  { path: "health", name: "Health", scope: "revocations:read", list: health },
];

/** Puts the console in place of what the page shows. */
export function openShell({ api, session, me }: Parts): Shell {
  const closing = new AbortController();
  const may = (scope: Scope) => me.scopes.includes(scope);
  const heading = element("h1", { tabIndex: -1 });
  const main = element("main", { id: "main" });
  const said = element("p", { className: "out", role: "status" });
  const rooms = ROOMS.filter(({ scope }) => may(scope));
  const links = rooms.map(({ path, name }) => element("a", { href: `#/${path}`, textContent: name }));
  let leaving = new AbortController();
  let shownPath: string | undefined;

  function deskFor(signal: AbortSignal): Desk {
    const desk: Desk = {
      ...{ api, me, signal, may },
      title(text) {
        heading.textContent = text;
        document.title = `${text} · Keycard console`;
      },
      say: (text) => {
        said.textContent = text;
      },
      revoke: (wish, onDone) => openRevocation(desk, wish, onDone),
      remember(query) {
        const given = Object.entries(query).filter(([, value]) => value !== "");
        const search = given.length === 0 ? "" : `?${new URLSearchParams(given)}`;
        history.replaceState(null, "", `#${shownPath}${search}`);
      },
    };
    return desk;
  }

  function show(): void {
    const { path, room, part, query } = placeIn(rooms);
    leaving.abort();
    leaving = new AbortController();
    const moved = shownPath !== undefined;
    shownPath = path;
    for (const link of links) {
      if (link.hash === `#/${room?.path}`) link.setAttribute("aria-current", "page");
      else link.removeAttribute("aria-current");
    }
    if (room === undefined) fill(main, nothingToDo(me));
    else fill(main, heading, (part !== "" && room.one ? room.one : room.list)(deskFor(leaving.signal), part, query));
    window.scrollTo(0, 0);
    if (moved) heading.focus();
  }

  fill(
    document.body,
    element("a", {
      href: "#main",
      className: "skip",
      textContent: "To the content",
      onclick: (event) => skip(event, heading),
    }),
    header(me, links, session),
    connectionBanner(closing.signal),
    main,
    said,
  );
  window.addEventListener("hashchange", show, { signal: closing.signal });
  show();
  return {
    close() {
      closing.abort();
      leaving.abort();
    },
  };
}

/** Where the address points: `#/room/part?query`. Elsewhere is the first room. */
function placeIn(rooms: readonly Room[]) {
  const [path = "", search = ""] = location.hash.slice(1).split("?", 2);
  const [, first, part = ""] = path.split("/");
  const known = rooms.find((each) => each.path === first);
  const room = known ?? rooms[0];
  return {
    room,
    path: known === undefined ? `/${room?.path}` : path,
    part: known === undefined ? "" : decoded(part),
    query: new URLSearchParams(known === undefined ? "" : search),
  };
}

function decoded(part: string): string {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

/** The address names the view, so that it cannot name the place within it as well. */
function skip(event: Event, heading: HTMLElement): void {
  event.preventDefault();
  heading.focus();
}

function header(me: Me, links: readonly HTMLElement[], session: OwnSession): HTMLElement {
  const menu = accountMenu(me, session);
  return element(
    "header",
    { className: "masthead" },
    element(
      "a",
      { href: "#/", className: "brand" },
      element("img", { src: "/console/icon.svg", alt: "", width: 26, height: 26 }),
      element("span", {}, "Keycard"),
      element("span", { className: "muted" }, "console"),
    ),
    element("nav", { ariaLabel: "Views" }, ...links),
    menu,
  );
}

/** Who is signed in, what they may do, and the way out. */
function accountMenu(me: Me, session: OwnSession): HTMLElement {
  const scopes = me.scopes.map((scope) => element("li", {}, element("code", {}, scope)));
  const menu = element(
    "details",
    { className: "who" },
    element("summary", {}, element("span", { className: "name", textContent: me.login ?? me.id, title: me.id })),
    element(
      "div",
      { className: "menu" },
      element("p", {}, me.tid === undefined ? "For every tenant." : `For tenant ${me.tid} alone.`),
      element("p", { className: "muted small" }, "What you may do:"),
      element("ul", {}, ...scopes),
      element("button", { type: "button", textContent: "Sign out", onclick: () => void session.signOut() }),
    ),
  );
  menu.addEventListener("focusout", ({ relatedTarget }) => {
    if (!menu.contains(relatedTarget as Node | null)) menu.open = false;
  });
  menu.onkeydown = ({ key }) => {
    if (key !== "Escape" || !menu.open) return;
    menu.open = false;
    menu.querySelector("summary")?.focus();
  };
  return menu;
}

function nothingToDo({ scopes }: Me): HTMLElement {
  const held = scopes.length === 0 ? "none" : scopes.join(", ");
  const text = `Your scopes (${held}) open no view of the console. It shows people with accounts:read, revocations and health with revocations:read, the trail with audit:read.`;
  return element("p", { className: "empty", textContent: text });
}

function connectionBanner(signal: AbortSignal): HTMLElement {
  const text = element("p");
  const banner = element("div", { className: "banner", role: "status", hidden: true }, text);
  const show = () => {
    banner.hidden = network.isUp;
    text.textContent = network.isUp
      ? ""
      : "The edge cannot be reached. What you see may be old; it is tried again by itself.";
  };
  network.addEventListener("change", show, { signal });
  show();
  return banner;
}

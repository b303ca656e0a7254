/** One person: who they are, their sessions, their live sockets by region and node, what was revoked of them, and the ways to throw them out. */
import type { Account, Session, Sockets } from "./answers.ts";
import type { Desk } from "./desk.ts";
import { type Content, element, refill } from "./dom.ts";
import { loading } from "./loading.ts";
import { revocationTable } from "./revocations.ts";
import { deviceName, liveSockets } from "./sockets.ts";
import { openStatusChange } from "./standing.ts";
import { table } from "./table.ts";
import { chip, code, distance, moment, momentText, unbroken } from "./wording.ts";

const SOCKETS_EVERY_MS = 3_000;
const ACCOUNT_EVERY_MS = 10_000;
const RECENT = 5;

export function person(desk: Desk, sub: string): HTMLElement {
  desk.title(sub);
  const view = new PersonView(desk, sub);
  return view.element;
}

class PersonView {
  readonly element: HTMLElement;
  readonly #desk: Desk;
  readonly #sub: string;
  readonly #identity = element("div", { className: "identity" });
  readonly #sessions: ReturnType<typeof sessionTable>;
  readonly #live: ReturnType<typeof liveSockets>;
  #account: Account | undefined;
  #sockets: Sockets | undefined;
  readonly #reloads: (() => void)[] = [];

  constructor(desk: Desk, sub: string) {
    this.#desk = desk;
    this.#sub = sub;
    this.#sessions = sessionTable({
      sockets: (sid) => this.#socketsOf(sid),
      actions: (session) => this.#actionsOn(session),
      isOwn: ({ sid }) => sid === desk.me.sid,
    });
    this.#live = liveSockets((sid) => this.#deviceOf(sid));
    const content = element(
      "div",
      { className: "columns" },
      this.#identity,
      element(
        "div",
        { className: "stack main" },
        section("Sessions", this.#sessions.element),
        desk.may("sessions:read") && this.#socketsSection(),
      ),
      desk.may("revocations:read") && this.#recent(),
    );
    const { notice, reload } = loading(desk, content, {
      load: (signal) => desk.api.account(sub, signal),
      show: (account) => this.#showAccount(account),
      everyMs: ACCOUNT_EVERY_MS,
    });
    this.#reloads.push(reload);
    this.element = element("div", { className: "stack" }, notice, content);
  }

  #showAccount(account: Account): void {
    this.#account = account;
    this.#desk.title(account.login ?? account.sub);
    refill(this.#identity, ...identityParts(account, this.#accountActions(account)));
    this.#sessions.show(account.sessions);
    if (this.#sockets !== undefined) this.#live.show(this.#sockets);
  }

  #socketsSection(): HTMLElement {
    const { notice, reload } = loading(this.#desk, this.#live.element, {
      load: (signal) => this.#desk.api.sockets(this.#sub, signal),
      show: (sockets) => {
        this.#sockets = sockets;
        this.#live.show(sockets);
        if (this.#account !== undefined) this.#sessions.show(this.#account.sessions);
      },
      everyMs: SOCKETS_EVERY_MS,
    });
    this.#reloads.push(reload);
    return section("Live sockets", notice, this.#live.element);
  }

  #recent(): HTMLElement {
    const list = revocationTable("Revocations of this person", "Nothing was revoked in the last seven days.", false);
    const { notice, reload } = loading(this.#desk, list.element, {
      load: (signal) => this.#desk.api.revocations({ sub: this.#sub, limit: RECENT }, signal),
      show: ({ receipts }) => list.show(receipts),
      everyMs: ACCOUNT_EVERY_MS,
    });
    this.#reloads.push(reload);
    return section("Recent revocations", notice, list.element);
  }

  /** A cluster that could not be asked, or that listed the first ones only, may have more. */
  #socketsOf(sid: string): string {
    if (this.#sockets === undefined) return "–";
    const { sockets, clusters } = this.#sockets;
    const listed = clusters.flatMap(({ nodes }) => nodes.flatMap(({ listed }) => listed));
    const count = listed.filter((socket) => socket.sid === sid).length;
    return sockets === listed.length ? String(count) : `${count}+`;
  }

  #deviceOf(sid: string): string {
    const session = this.#account?.sessions.find((each) => each.sid === sid);
    return session === undefined ? "a session that is over" : deviceName(session);
  }

  #name(): string {
    return this.#account?.login ?? this.#sub;
  }

  #reload(): void {
    for (const reload of this.#reloads) reload();
  }

  #actionsOn(session: Session): Content[] {
    const { sid } = session;
    const device = deviceName(session);
    const owner = { kind: "user", sub: this.#sub } as const;
    const one = () =>
      this.#revoke({
        target: { kind: "session", sid },
        whom: `${device} of ${this.#name()}`,
        hint: "This sign-in alone.",
      });
    const others = () =>
      this.#revoke({
        ...{ target: owner, except: sid, whom: `all sessions of ${this.#name()} but ${device}` },
        hint: "This one goes on.",
      });
    return [
      this.#button("Revoke…", `Revoke ${device}`, one, "quiet strong"),
      this.#button("Keep only this…", `Keep only this: ${device}`, others, "quiet"),
    ];
  }

  #accountActions({ disabled }: Account): Content[] {
    const everywhere = () =>
      this.#revoke({
        ...{ target: { kind: "user", sub: this.#sub }, whom: `every session of ${this.#name()}` },
        hint: "On every device and every node. They can sign in again; disable the account to keep them out.",
      });
    const standing = () =>
      openStatusChange(this.#desk, { sub: this.#sub, name: this.#name(), disabled }, () => this.#reload());
    return [
      this.#button("Revoke all sessions…", undefined, everywhere, "danger"),
      this.#desk.may("accounts:write") &&
        element("button", { type: "button", textContent: disabled ? "Enable…" : "Disable…", onclick: standing }),
      !this.#desk.may("revocations:write") &&
        element(
          "p",
          { className: "muted small", id: "cannot-revoke" },
          "You may look but not revoke: that needs revocations:write.",
        ),
    ];
  }

  #button(text: string, label: string | undefined, onclick: () => void, className: string): HTMLElement {
    const may = this.#desk.may("revocations:write");
    const attributes = { "aria-label": label, "aria-describedby": may ? undefined : "cannot-revoke" };
    return element("button", { type: "button", textContent: text, className, disabled: !may, onclick, attributes });
  }

  #revoke(wish: Parameters<Desk["revoke"]>[0]): void {
    this.#desk.revoke(wish, () => this.#reload());
  }
}

function section(title: string, ...content: Content[]): HTMLElement {
  return element("section", { className: "panel" }, element("h2", { textContent: title }), ...content);
}

function identityParts(account: Account, actions: readonly Content[]): HTMLElement[] {
  const { sub, login, tid, scope, disabled, disabled_until, links } = account;
  const fact = (term: string, ...content: Content[]) => [element("dt", {}, term), element("dd", {}, ...content)];
  const state = disabled ? chip("disabled", "bad") : chip("active", "good");
  return [
    section(
      "Account",
      element(
        "dl",
        { className: "facts" },
        ...fact("State", state, disabled_until !== undefined && ` until ${momentText(disabled_until * 1000)}`),
        ...(login === undefined ? [] : fact("Login name", login)),
        ...fact("Subject", code(sub)),
        ...fact("Tenant", tid ?? "none"),
        ...fact("Scope", scope ?? "none"),
        ...links.flatMap(({ issuer, subject }) => fact("Link", `${subject} at ${issuer}`)),
      ),
      element("div", { className: "actions" }, ...actions),
    ),
  ];
}

interface SessionParts {
  sockets(sid: string): string;
  actions(session: Session): Content[];
  isOwn(session: Session): boolean;
}

function sessionTable({ sockets, actions, isOwn }: SessionParts) {
  return table<Session>(
    "Sessions",
    [
      { name: "Device", isHead: true, cell: (session) => deviceParts(session, isOwn(session)) },
      { name: "Signed in", cell: signedInParts },
      { name: "Last used", cell: ({ last_used_at }) => unbroken(distance(last_used_at * 1000)) },
      { name: "Ends", cell: ({ expires_at }) => unbroken(distance(expires_at * 1000)) },
      { name: "Sockets", isNumber: true, cell: ({ sid }) => sockets(sid) },
      { name: "", cell: actions },
    ],
    ({ sid }) => sid,
    "No sessions: this person is signed in nowhere.",
  );
}

function deviceParts(session: Session, isOwn: boolean): Content[] {
  const { user_agent, origin = {} } = session;
  const from = [origin.address, origin.city, origin.country].filter(Boolean).join(", ");
  return [
    element("span", {}, deviceName(session), isOwn && " ", isOwn && chip("you, here", "plain")),
    !!user_agent && element("small", { className: "agent", textContent: user_agent, title: user_agent }),
    from !== "" && element("small", { textContent: `from ${from}` }),
  ];
}

function signedInParts({ created_at, method }: Session): Content[] {
  return [moment(created_at * 1000), element("small", {}, methodText(method))];
}

function methodText(method: string): string {
  const texts: Record<string, string> = {
    password: "by password",
    token_exchange: "by token exchange",
    backend: "by a backend",
  };
  return texts[method] ?? method;
}

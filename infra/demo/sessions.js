/** Sessions and their sockets: what any front-end does with a stock client, and the bookkeeping that the page shows. */
import { io } from "/socket.io.js";

/** Asks for a fresh token when the one at hand has less than this left. */
const FRESH_MARGIN_SECONDS = 2;
/** A socket that was told to refresh comes back after this, so that the eye can see it go. */
const RETURN_AFTER_MS = 2_000;
const RETRY_AFTER_MS = 1_000;
/** A session that ended while a node was away has sockets that nobody tells. */
const LEAVE_AFTER_MS = 5_000;

/** Calls JSON APIs; a refusal is thrown with its `code` and `advice`. */
export async function call(method, url, body) {
  const init = { method, headers: {} };
  if (!url.startsWith("/")) init.credentials = "include";
  if (body !== undefined) {
    init.headers["content-type"] = "application/json";
    init.body = JSON.stringify(body);
  }
  let response;
  try {
    response = await fetch(url, init);
  } catch (cause) {
    throw Object.assign(new Error("Nobody answers.", { cause }), { code: "unavailable", advice: "retry" });
  }
  const text = await response.text();
  const answer = text === "" ? null : JSON.parse(text);
  if (response.ok) return answer;
  const { code = "internal", advice = "retry", title = response.statusText } = answer ?? {};
  throw Object.assign(new Error(title), { code, advice });
}

/** One sign-in, in this browser or held by the demo server, with a socket to each node. */
export class Session extends EventTarget {
  #token;
  #pending;
  #source;

  /**
   * @param person whose it is
   * @param device where it is, for people to read
   * @param source `{ answer, refresh(), logout() }`: the first token answer, if there is one, and how to get the next
   */
  constructor(person, device, source) {
    super();
    this.person = person;
    this.device = device;
    this.endedBy = undefined;
    this.sockets = [];
    this.#source = source;
    if (source.answer) this.#keep(source.answer);
  }

  get sid() {
    return this.#token?.claims.sid ?? this.sockets.find((socket) => socket.claims)?.claims.sid;
  }

  get inThisBrowser() {
    return this.device === "this browser";
  }

  /** How long a token like this lives, in seconds. */
  ttl({ exp }) {
    return this.#token && this.#token.claims.exp >= exp ? this.#token.claims.exp - this.#token.claims.iat : 60;
  }

  connect(nodes) {
    this.sockets = nodes.map((node) => new NodeSocket(this, node));
  }

  /** A token with some life left; several callers share one refresh. */
  async token() {
    if (this.#token && this.#token.claims.exp - Date.now() / 1000 > FRESH_MARGIN_SECONDS) return this.#token.value;
    this.#pending ??= this.#refresh().finally(() => {
      this.#pending = undefined;
    });
    return this.#pending;
  }

  /** The token of a socket was revoked: never show it again. */
  forget(jti) {
    if (this.#token?.claims.jti === jti) this.#token = undefined;
  }

  /** The session is over. Its sockets are the server's to close: that they go is what the page is there to show. */
  end(code) {
    if (this.endedBy) return;
    this.endedBy = code;
    this.dispatchEvent(new Event("change"));
    setTimeout(() => this.leave(), LEAVE_AFTER_MS);
  }

  /** Closes from this side what is still open. */
  leave() {
    for (const socket of this.sockets) if (socket.state !== "closed") socket.close();
  }

  async logout() {
    this.end("logged out");
    await this.#source.logout();
  }

  async #refresh() {
    for (;;) {
      try {
        return this.#keep(await this.#source.refresh());
      } catch (error) {
        if (error.advice !== "retry" && error.advice !== "wait") {
          this.end(error.code);
          throw error;
        }
        await new Promise((resolve) => setTimeout(resolve, RETRY_AFTER_MS));
        if (this.endedBy) throw error;
      }
    }
  }

  #keep(answer) {
    this.#token = { value: answer.access_token, claims: claimsOf(answer.access_token) };
    return this.#token.value;
  }
}

/** One socket to one node. */
export class NodeSocket {
  #socket;

  constructor(session, node) {
    this.session = session;
    this.node = node;
    this.state = "connecting";
    this.claims = undefined;
    this.lastRefusal = undefined;
    this.closedAt = undefined;
    this.#listen(this.#open());
  }

  get id() {
    return this.#socket.id;
  }

  get isLive() {
    return this.state === "live";
  }

  send(text) {
    this.#socket.emit("message", text);
  }

  close() {
    this.#become("closed");
    this.#socket.disconnect();
  }

  #open() {
    this.#socket = io(this.node.url, {
      forceNew: true,
      transports: ["websocket"],
      reconnectionDelayMax: 2_000,
      // Asked at every connection and reconnection: this is all that a front-end needs to survive an expiring token.
      auth: (give) => {
        this.session.token().then(
          (token) => give({ token }),
          () => this.close(),
        );
      },
    });
    return this.#socket;
  }

  #listen(socket) {
    socket.on("welcome", ({ session }) => {
      this.claims = session;
      this.#become("live");
    });
    socket.on("message", (message) => this.#tell("message", message));
    socket.on("unauthorized", ({ data }) => this.#refused(data));
    socket.on("connect_error", (error) => {
      // With `data` the node said no, and a stock client leaves it at that; without, it keeps trying by itself.
      if (error.data?.code) this.#refused(error.data);
      if (!socket.active) this.#follow(this.lastRefusal);
      else this.#become("away");
    });
    socket.on("disconnect", (reason) => {
      if (this.state === "closed") return;
      this.closedAt = performance.now();
      if (reason === "io server disconnect") this.#follow(this.lastRefusal);
      else if (reason !== "io client disconnect") this.#become("away");
    });
  }

  #refused(data) {
    this.lastRefusal = { ...data, at: Date.now() };
    if (data.code === "token_revoked" && this.claims) this.session.forget(this.claims.jti);
    this.#tell("refused", data);
  }

  /** What the advice in a refusal asks for. */
  #follow(refusal) {
    if (!refusal || refusal.advice === "login" || refusal.advice === "fix") {
      this.#become("closed");
      if (refusal?.advice === "login") this.session.end(refusal.code);
      return;
    }
    this.#become("away");
    setTimeout(() => this.session.endedBy || this.#socket.connect(), RETURN_AFTER_MS);
  }

  #become(state) {
    if (state === this.state) return;
    const before = this.state;
    this.state = state;
    this.#tell(state, before);
  }

  #tell(kind, detail) {
    this.session.dispatchEvent(new CustomEvent("socket", { detail: { socket: this, kind, detail } }));
  }
}

/** For display only: nobody may trust a token without verifying it. */
function claimsOf(token) {
  const payload = token.split(".")[1].replaceAll("-", "+").replaceAll("_", "/");
  return JSON.parse(atob(payload));
}

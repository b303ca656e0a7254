/**
 * What the page may ask of its server. Two things that a browser must not or cannot do itself: revoke, with the admin
 * credential that stays here; and hold several sessions at once, since one browser has one cookie. For those this server
 * logs in as a native app would, keeps the refresh token, and gives the page access tokens only.
 */
import { randomUUID } from "node:crypto";
import { Refusal } from "#contract/refusal";
import type { Stack } from "../stack.ts";
import { PEOPLE } from "./people.ts";

/** A status and a JSON body, as the edge gave them. */
export interface Answer {
  readonly status: number;
  readonly body: unknown;
}

export interface Actions {
  /** @throws {Refusal} `not_found`, `request_malformed`, `unavailable` */
  perform(method: string, path: string, body: unknown): Promise<Answer>;
}

/** A session that this server holds for the page. */
interface HeldSession {
  readonly id: string;
  readonly login: string;
  readonly device: string;
  refreshToken: string;
  /** Tabs share it, and a refresh token is for one use. */
  refreshing: Promise<Answer> | undefined;
}

interface TokenAnswer {
  readonly refresh_token: string;
  readonly [field: string]: unknown;
}

const MAX_SESSIONS = 12;

export function createActions(stack: Stack): Actions {
  const sessions = new Map<string, HeldSession>();

  async function askEdge(method: string, path: string, body?: unknown, bearer?: string): Promise<Answer> {
    const headers: Record<string, string> = {};
    if (body !== undefined) headers["content-type"] = "application/json";
    if (bearer !== undefined) headers.authorization = `Bearer ${bearer}`;
    const init: RequestInit = { method, headers, signal: AbortSignal.timeout(10_000) };
    if (body !== undefined) init.body = JSON.stringify(body);
    try {
      const response = await fetch(`${stack.edgeUrl}${path}`, init);
      const text = await response.text();
      return { status: response.status, body: text === "" ? null : JSON.parse(text) };
    } catch (error) {
      throw new Refusal("unavailable", { cause: error });
    }
  }

  const asAdmin = (method: string, path: string, body?: unknown) => askEdge(method, path, body, stack.adminToken);

  async function open(body: unknown): Promise<Answer> {
    const { login, device } = record(body);
    const person = PEOPLE.find((each) => each.login === login);
    if (person === undefined || typeof device !== "string" || device.length > 40)
      throw new Refusal("request_malformed");
    if (sessions.size >= MAX_SESSIONS) throw new Refusal("too_many_attempts", { detail: "sessions held" });
    const answer = await askEdge("POST", "/login", { login: person.login, password: person.password, device });
    if (answer.status !== 200) return answer;
    const { refresh_token, ...shown } = answer.body as TokenAnswer;
    const id = randomUUID();
    sessions.set(id, { id, login: person.login, device, refreshToken: refresh_token, refreshing: undefined });
    return { status: 200, body: { ...shown, id, login: person.login, device } };
  }

  function held(id: string): HeldSession {
    const session = sessions.get(id);
    if (session === undefined) throw new Refusal("not_found");
    return session;
  }

  async function refresh(session: HeldSession): Promise<Answer> {
    const answer = await askEdge("POST", "/refresh", { refresh_token: session.refreshToken });
    if (answer.status !== 200) {
      if (answer.status === 401) sessions.delete(session.id);
      return answer;
    }
    const { refresh_token, ...shown } = answer.body as TokenAnswer;
    session.refreshToken = refresh_token;
    return { status: 200, body: shown };
  }

  function token(session: HeldSession): Promise<Answer> {
    session.refreshing ??= refresh(session).finally(() => {
      session.refreshing = undefined;
    });
    return session.refreshing;
  }

  async function close(session: HeldSession): Promise<Answer> {
    sessions.delete(session.id);
    return askEdge("POST", "/logout", { refresh_token: session.refreshToken });
  }

  return {
    async perform(method, path, body) {
      const [room, id = "", rest] = path.split("/").filter(Boolean);
      switch (`${method} ${room}${id && "/:id"}${rest ? `/${rest}` : ""}`) {
        case "GET demo": {
          const nodes = stack.nodes.map(({ name, url }) => ({ name, url }));
          return { status: 200, body: { edge: stack.edgeUrl, nodes, people: PEOPLE } };
        }
        case "GET sessions":
          return { status: 200, body: [...sessions.values()].map(({ id, login, device }) => ({ id, login, device })) };
        case "POST sessions":
          return open(body);
        case "POST sessions/:id/token":
          return token(held(id));
        case "DELETE sessions/:id":
          return close(held(id));
        case "POST revocations": {
          const { target, reason } = record(body);
          return asAdmin("POST", "/admin/revocations", { target, reason });
        }
        case "GET revocations/:id":
          return asAdmin("GET", `/admin/revocations/${encodeURIComponent(id)}`);
        default:
          throw new Refusal("not_found");
      }
    },
  };
}

function record(value: unknown): Record<string, unknown> {
  if (typeof value !== "object" || value === null || Array.isArray(value)) throw new Refusal("request_malformed");
  return value as Record<string, unknown>;
}

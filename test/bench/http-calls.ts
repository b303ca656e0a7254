/** Node's plain HTTP client over kept connections: `fetch` costs as much again as what is measured. */
import { Agent, type OutgoingHttpHeaders, request } from "node:http";

/** @throws {NotOk} what the other end answers if it is not 200 */
export type Call = (method: "GET" | "POST", url: string, body?: Body, headers?: OutgoingHttpHeaders) => Promise<Answer>;

/** Of JSON, or of a form. */
export type Body = object | URLSearchParams;

export interface Answer {
  readonly headers: Readonly<NodeJS.Dict<string | string[]>>;
  readonly json: unknown;
}

/** An answer with another status than 200. */
export class NotOk extends Error {
  readonly status: number;
  readonly location: string | undefined;

  constructor(url: string, status: number, text: string, location: string | undefined) {
    super(`${url} answered ${status}: ${text}`);
    this.status = status;
    this.location = location;
  }
}

export class HttpCalls {
  readonly #agent = new Agent({ keepAlive: true, maxSockets: 64 });

  readonly call: Call = (method, url, body, headers = {}) => {
    return new Promise((resolve, reject) => {
      const [type, text] = encoded(body);
      const sent = request(url, { agent: this.#agent, method, headers: { ...type, ...headers } }, (response) => {
        let answer = "";
        response.setEncoding("utf8").on("data", (chunk: string) => {
          answer += chunk;
        });
        response.once("error", reject);
        response.once("end", () => {
          const { statusCode = 0, headers } = response;
          if (statusCode === 200) resolve({ headers, json: JSON.parse(answer) });
          else reject(new NotOk(url, statusCode, answer, headers.location));
        });
      });
      sent.once("error", reject);
      sent.end(text);
    });
  };

  close(): void {
    this.#agent.destroy();
  }
}

function encoded(body: Body | undefined): [type: OutgoingHttpHeaders, text?: string] {
  if (body === undefined) return [{}];
  if (body instanceof URLSearchParams) return [{ "content-type": "application/x-www-form-urlencoded" }, `${body}`];
  return [{ "content-type": "application/json" }, JSON.stringify(body)];
}

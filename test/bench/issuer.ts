/**
 * An issuer of this process: its keys, its tokens, its events without a gap in their numbers, and its feed, as the edge has them. For what is
 * measured from the node on, so that workerd does not take the processor from what is measured.
 */
import { KeyObject, sign } from "node:crypto";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { type AccessTokenClaims, signAccessToken } from "#contract/access-token";
import {
  type ClusterReceipt,
  FEED_PAGE_EVENTS,
  FEED_PAGE_TYPE,
  FRESH_SECONDS,
  JWT_MEDIA_TYPE,
  signReceiptQuery,
  verifyFeedQuery,
  verifyReceipts,
} from "#contract/cluster";
import {
  type RevocationEvent,
  type RevocationTarget,
  SECURITY_EVENT_MEDIA_TYPE,
  signRevocation,
} from "#contract/revocation";
import { createSigner } from "../support/tokens.ts";

export const CLUSTER = "bench";
export const CLUSTER_SECRET = "what the nodes of the bench's cluster share";
export const AUDIENCE = "keycard";
/** Longer than any bench takes. */
const LIFE_SECONDS = 1_800;

export interface BenchIssuer {
  readonly url: string;
  /** What a node has to be told of it. */
  readonly settings: Readonly<Record<string, string>>;
  token(claims: Partial<AccessTokenClaims>): Promise<string>;
  /** An event that nobody has been told of yet, numbered after the last one. */
  prepare(targets: readonly RevocationTarget[]): RevocationEvent;
  /** It is in the feed from here on. In the order in which they were prepared. */
  tell(event: RevocationEvent): void;
  /** All that is in the feed, in order. */
  readonly told: readonly RevocationEvent[];
  sign(event: RevocationEvent): Promise<string>;
  /** Pushes to a node as the edge does. @throws {Error} unless it is taken */
  push(port: number, set: string): Promise<void>;
  /** What the cluster knows of at most a hundred events, asked of one node. */
  receipts(port: number, ids: readonly string[]): Promise<readonly ClusterReceipt[]>;
  stop(): Promise<void>;
}

export async function startIssuer(): Promise<BenchIssuer> {
  const signer = await createSigner("RS256", "bench");
  const { kid } = signer.key;
  const privateKey = KeyObject.from(signer.key.privateKey);
  const log: RevocationEvent[] = [];
  let prepared = 0;
  const server = createServer((request, response) => {
    if (!request.url?.startsWith("/revocations")) {
      response.end(JSON.stringify({ keys: [signer.publicJwk] }));
      return;
    }
    answerFeed(request, response).catch(() => response.writeHead(401).end());
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;

  async function answerFeed(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const bearer = request.headers.authorization?.slice("Bearer ".length);
    const { cluster, nonce } = await verifyFeedQuery(bearer, url, () => [CLUSTER_SECRET]);
    const { searchParams } = new URL(request.url ?? "", url);
    const after = Number(searchParams.get("after"));
    await news(after, Number(searchParams.get("wait") ?? 0) * 1000);
    const events = log.slice(after, after + FEED_PAGE_EVENTS);
    const iat = nowSeconds();
    const page = { after, upto: after + events.length, head: log.length, first: 1, events };
    const claims = { iss: url, aud: cluster, iat, exp: iat + FRESH_SECONDS, nonce, ...page };
    response.setHeader("content-type", JWT_MEDIA_TYPE).end(signed({ alg: "RS256", kid, typ: FEED_PAGE_TYPE }, claims));
  }

  /** As `signFeedPage`, for large pages in less time: what the node waits for is not what is measured. */
  function signed(header: object, payload: object): string {
    const input = [header, payload].map((part) => Buffer.from(JSON.stringify(part)).toString("base64url")).join(".");
    return `${input}.${sign("sha256", Buffer.from(input, "latin1"), privateKey).toString("base64url")}`;
  }

  async function news(after: number, waitMs: number): Promise<void> {
    const until = performance.now() + waitMs;
    while (log.length <= after && performance.now() < until) await new Promise((go) => setTimeout(go, 5));
  }

  async function post(port: number, path: string, type: string, body: string): Promise<Response> {
    const headers = { "content-type": type, accept: "application/json" };
    return await fetch(`http://127.0.0.1:${port}${path}`, { method: "POST", headers, body });
  }

  return {
    url,
    settings: { CLUSTER, CLUSTER_SECRET, ISSUER: url, AUDIENCE, TRUSTED_PROXIES: "127.0.0.1" },
    token({ sub = "u_bench", ...claims }) {
      const iat = nowSeconds();
      const times = { iat, exp: iat + LIFE_SECONDS, auth_time: iat - 1, gen: 1 };
      const names = { iss: url, aud: AUDIENCE, sub, client_id: "bench", jti: `t_${sub}`, sid: `${sub}.s` };
      return signAccessToken({ ...names, ...times, ...claims }, signer.key);
    },
    prepare(targets) {
      prepared += 1;
      const seq = prepared;
      const expires_at = nowSeconds() + LIFE_SECONDS;
      const id = `rev_${String(seq).padStart(22, "b")}`;
      return { id, seq, targets, code: "session_revoked", decided_at: Date.now(), expires_at };
    },
    tell: (event) => void log.push(event),
    told: log,
    sign: (event) => signRevocation(event, { issuer: url, audience: CLUSTER, issuedAt: nowSeconds() }, signer.key),
    async push(port, set) {
      const { status } = await post(port, "/events", SECURITY_EVENT_MEDIA_TYPE, set);
      if (status !== 202) throw new Error(`the event was answered ${status}`);
    },
    async receipts(port, ids) {
      const nonce = `n_${ids[0]}`;
      const envelope = { issuer: url, audience: CLUSTER, issuedAt: nowSeconds(), nonce };
      const query = await signReceiptQuery(ids, envelope, signer.key);
      const response = await post(port, "/receipts?wait=5000", JWT_MEDIA_TYPE, query);
      return await verifyReceipts(await response.text(), { cluster: CLUSTER, issuer: url, nonce }, [CLUSTER_SECRET]);
    },
    async stop() {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

function nowSeconds(): number {
  return Math.floor(Date.now() / 1000);
}

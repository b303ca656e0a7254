/**
 * The proxy of `infra/deploy/haproxy.cfg` on this machine: found, or installed where that needs no questions asked, and run on the loopback
 * with nothing changed but the addresses, which are its settings.
 */
import { spawnSync } from "node:child_process";
import { join } from "node:path";
import { type Child, type Exit, startChild } from "./child.ts";
import { findExecutable, installPackage } from "./packages.ts";
import { type Part, startPart } from "./part.ts";
import { LOOPBACK, PortTaken, reservePort, saysPortTaken } from "./ports.ts";
import { untilOk } from "./readiness.ts";

export const HAPROXY_CONFIG = join(import.meta.dirname, "deploy", "haproxy.cfg");
const PACKAGES = { apt: ["haproxy"], apk: ["haproxy"], dnf: ["haproxy"], brew: ["haproxy"] } as const;
const READY_WITHIN_MS = 15_000;
/** Two files each, and a shell at home allows few. */
const MAX_CONNECTIONS = "400";

export interface ProxyOptions {
  readonly binary: string;
  /** `host:port` of the nodes, three. */
  readonly nodes: readonly string[];
  /** Path of a PEM file with certificate and key; without one it speaks plain HTTP. */
  readonly tls?: string;
  /** A reserved port for the public side; any free one unless given. */
  readonly port?: number;
  /** Others of the configuration's settings. */
  readonly settings?: Readonly<Record<string, string>>;
  onLine?(line: string): void;
  onExit?(exit: Exit): void;
}

export interface RunningProxy extends Part {
  /** What clients are told. */
  readonly url: string;
  /** Plain HTTP beside TLS: all it does is send clients there. */
  readonly plainUrl: string;
  /** The side that is published nowhere: `/metrics`, `/healthz`. */
  readonly insideUrl: string;
  /** Whether the proxy sends people to a node, by its name in the configuration. */
  isUp(server: string): Promise<boolean>;
}

/** @throws {Error} when there is none and none can be installed unattended */
export async function obtainHaproxy(onStep: (text: string) => void = () => {}): Promise<string> {
  const found = await findExecutable("haproxy");
  if (found) return found;
  const installed = (await installPackage(PACKAGES, onStep)) ? await findExecutable("haproxy") : undefined;
  if (installed) return installed;
  throw new Error(
    "No HAProxy was found and none could be installed unattended: `apt install haproxy`, `brew install haproxy`.",
  );
}

/** What HAProxy itself says of the configuration with these settings; empty when it has nothing to say. */
export function problemsOfHaproxy(binary: string, settings: Readonly<Record<string, string>>): string[] {
  const checked = spawnSync(binary, ["-c", "-f", HAPROXY_CONFIG], {
    env: { ...process.env, ...settings },
    encoding: "utf8",
  });
  const said = checked.stderr.split("\n").filter((line) => /\[(WARNING|ALERT)\]/.test(line));
  return checked.status === 0 ? said : [...said, `status ${checked.status}`];
}

/** Starts the proxy and waits until it sends people to a node. */
export async function startProxy(options: ProxyOptions): Promise<RunningProxy> {
  const reserved = options.port === undefined ? await reservePort() : undefined;
  const [tls, inside] = [await reservePort(), await reservePort()];
  const plain = options.port ?? (reserved?.port as number);
  const bind = (port: number) => `${LOOPBACK}:${port}`;
  const [one = "", two = "", three = ""] = options.nodes;
  const settings = {
    HTTP_BIND: bind(plain),
    HTTPS_BIND: bind(tls.port),
    METRICS_BIND: bind(inside.port),
    NODE_1: one,
    NODE_2: two,
    NODE_3: three,
    MAX_CONNECTIONS,
    ...(options.tls === undefined ? {} : { TLS_PEM: options.tls }),
    ...options.settings,
  };
  for (const port of [reserved, tls, inside]) await port?.release();
  const insideUrl = `http://${bind(inside.port)}`;
  const part = await startPart(() => launch(options, settings, insideUrl), options.onExit);
  const plainUrl = `http://${bind(plain)}`;
  return {
    url: options.tls === undefined ? plainUrl : `https://${bind(tls.port)}`,
    plainUrl,
    insideUrl,
    get pid() {
      return part.pid;
    },
    get running() {
      return part.running;
    },
    isUp: (server) => isUp(insideUrl, server),
    kill: part.kill,
    restart: part.restart,
    stop: part.stop,
  };
}

async function launch(options: ProxyOptions, env: Record<string, string>, insideUrl: string): Promise<Child> {
  const child = await startChild({
    command: options.binary,
    args: ["-db", "-f", HAPROXY_CONFIG],
    env,
    onLine: (line) => options.onLine?.(line),
  });
  if (await untilOk(`${insideUrl}/healthz`, child, READY_WITHIN_MS)) return child;
  await child.stop();
  if (saysPortTaken(child.lastLines)) throw new PortTaken("A port for the proxy is taken.");
  throw new Error(`The proxy did not start:\n${child.lastLines.slice(-8).join("\n")}`);
}

async function isUp(insideUrl: string, server: string): Promise<boolean> {
  const line = `haproxy_server_status{proxy="nodes",server="${server}",state="UP"} 1`;
  return (await metricsOf(insideUrl)).includes(line);
}

async function metricsOf(insideUrl: string): Promise<string> {
  return (await fetch(`${insideUrl}/metrics`)).text();
}

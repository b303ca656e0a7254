/** The process: settings, start, and a stop that lets sockets go elsewhere. */
import { resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { type Config, readConfig } from "./config.ts";
import { createNodeLog } from "./log-lines.ts";
import { type Handlers, startNode } from "./server.ts";

async function loadHandlers(config: Config): Promise<Handlers | undefined> {
  if (config.HANDLERS === undefined) return undefined;
  const module = (await import(pathToFileURL(resolve(config.HANDLERS)).href)) as { default?: unknown };
  if (typeof module.default !== "function")
    throw new Error("HANDLERS: the module has no function as its default export");
  return module.default as Handlers;
}

function configOrExit(): Config {
  try {
    return readConfig(process.env);
  } catch (error) {
    console.error(error instanceof Error ? error.message : error);
    process.exit(78); // EX_CONFIG
  }
}

const config = configOrExit();
const log = createNodeLog({ node: config.NODE_NAME, cluster: config.CLUSTER, level: config.LOG_LEVEL });
const node = await startNode(config, log, await loadHandlers(config));

let stopping = false;
async function stop(reason: string): Promise<void> {
  if (stopping) return;
  stopping = true;
  log.info({ reason }, "draining");
  setTimeout(() => process.exit(1), config.DRAIN_SECONDS * 1000).unref();
  await node.stop();
  log.info({}, "stopped");
  process.exit(0);
}

process.once("SIGTERM", () => void stop("SIGTERM"));
process.once("SIGINT", () => void stop("SIGINT"));
// Started by a supervisor over a channel: when that is gone, nobody is left to stop us.
process.once("disconnect", () => void stop("the supervisor is gone"));
// An app's handler that forgets a catch must not take everybody's sockets with it.
process.on("unhandledRejection", (error) => log.error({ err: error }, "a promise was rejected and nobody looked"));

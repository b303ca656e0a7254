/**
 * The process in which the Worker lives: workerd under Miniflare, with nothing between it and its port. Its settings
 * come as one message, so that no secret is in arguments or environment. `node infra/edge-host.ts` with a channel.
 */
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { convertV4MiniflareOptions, Log, LogLevel, Miniflare, type V4WorkerOptions } from "miniflare";

export interface EdgeHostSettings {
  readonly bundleDir: string;
  readonly stateDir: string;
  readonly host: string;
  readonly port: number;
  readonly bindings: Readonly<Record<string, string>>;
}

const settings = await new Promise<EdgeHostSettings>((resolve) => process.once("message", resolve));
const miniflare = new Miniflare(
  convertV4MiniflareOptions({
    host: settings.host,
    port: settings.port,
    cf: false,
    telemetry: { enabled: false },
    log: new Log(LogLevel.WARN),
    resourcePersistencePath: settings.stateDir,
    handleStructuredLogs: ({ level, message }) => console.log(`${level}: ${message}`),
    workers: [await workerOptions(settings)],
  }),
);

process.once("SIGTERM", async () => {
  await miniflare.dispose();
  process.exit(0);
});

try {
  await miniflare.ready;
  process.send?.({ ready: true });
} catch (error) {
  console.error(error instanceof Error ? error.message : error);
  process.exit(1);
}

async function workerOptions({ bundleDir, bindings }: EdgeHostSettings): Promise<V4WorkerOptions> {
  const options = JSON.parse(await readFile(join(bundleDir, "options.json"), "utf8")) as Omit<
    V4WorkerOptions,
    "script"
  >;
  return {
    ...options,
    rootPath: bundleDir,
    modulesRoot: bundleDir,
    modules: [{ type: "ESModule", path: join(bundleDir, "worker.js") }],
    bindings: { ...(options.bindings as Record<string, string> | undefined), ...bindings },
  };
}

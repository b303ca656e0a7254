/**
 * Asks the node on this machine how it is, for a container's health check: `node realtime/probe.ts [/healthz]`. Status 0 says that it answered
 * 200. So that the image needs no other program for it.
 */
const [path = "/healthz"] = process.argv.slice(2);
const TIMEOUT_MS = 2_000;
const EVERYWHERE = "0.0.0.0";

try {
  const { PORT = "3000", HOST = EVERYWHERE } = process.env;
  const url = `http://${HOST === EVERYWHERE ? "127.0.0.1" : HOST}:${PORT}${path}`;
  const { ok } = await fetch(url, { signal: AbortSignal.timeout(TIMEOUT_MS) });
  process.exitCode = ok ? 0 : 1;
} catch {
  // Nobody answers there: the same to whoever asks.
  process.exitCode = 1;
}

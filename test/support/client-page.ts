/** A page that uses `realtime/client` as a front-end developer would, in as many tabs of a real Chromium as are wanted. */

import { readFile } from "node:fs/promises";
import { createServer } from "node:http";
import { stripTypeScriptTypes } from "node:module";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { type Browser, type BrowserContext, chromium, type Page } from "playwright-core";
import { obtainChromium } from "../../infra/browser.ts";

const ROOT = join(import.meta.dirname, "..", "..");
export const CHROMIUM_FLAGS = [
  "--headless",
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
];

const HTML = `<!doctype html><title>client</title><script type="module" src="/connect.js"></script>`;

export interface ClientPage {
  readonly origin: string;
  readonly context: BrowserContext;
  /** A tab that has the client loaded. */
  open(viewport?: { width: number; height: number }): Promise<Page>;
  close(): Promise<void>;
}

/** `connect` and `io` as a page has them, in its window: the client is the source itself, with its types taken off. */
export async function clientModule(socketIo: string): Promise<string> {
  const client = stripTypeScriptTypes(await readFile(join(ROOT, "realtime/client/connect.ts"), "utf8"));
  const here = client.replaceAll('"socket.io-client"', JSON.stringify(socketIo));
  return `import * as socketIo from "${socketIo}";\n${here}\nObject.assign(window, { connect, io: socketIo.io });`;
}

/** Serves the page and starts the browser. */
export async function startClientPage(): Promise<ClientPage> {
  const files: Record<string, readonly [type: string, body: string]> = {
    "/": ["text/html", HTML],
    "/connect.js": ["text/javascript", await clientModule("/socket.io.js")],
    "/socket.io.js": [
      "text/javascript",
      await readFile(join(ROOT, "node_modules/socket.io-client/dist/socket.io.esm.min.js"), "utf8"),
    ],
  };
  const server = createServer((request, response) => {
    const file = files[request.url ?? ""];
    if (file === undefined) response.writeHead(404).end();
    else response.writeHead(200, { "content-type": file[0] }).end(file[1]);
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const origin = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  const browser: Browser = await chromium.launch({ executablePath: await obtainChromium(), args: CHROMIUM_FLAGS });
  const context = await browser.newContext();
  return {
    origin,
    context,
    async open(viewport) {
      const page = await context.newPage();
      if (viewport !== undefined) await page.setViewportSize(viewport);
      await page.goto(origin);
      await page.waitForFunction(() => "connect" in window);
      return page;
    },
    async close() {
      await browser.close();
      server.closeAllConnections();
      server.close();
    },
  };
}

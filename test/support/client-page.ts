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

const HTML = `<!doctype html><title>client</title>
<script type="importmap">{"imports": {"socket.io-client": "/socket.io.js"}}</script>
<script type="module">
import { connect } from "/connect.js";
import { io } from "/socket.io.js";
Object.assign(window, { connect, io });
</script>`;

export interface ClientPage {
  readonly origin: string;
  readonly context: BrowserContext;
  /** A tab that has the client loaded. */
  open(viewport?: { width: number; height: number }): Promise<Page>;
  close(): Promise<void>;
}

/** The page by path: the client is the source itself, with its types taken off. */
export async function clientFiles(): Promise<Readonly<Record<string, readonly [type: string, body: string]>>> {
  const client = await readFile(join(ROOT, "realtime/client/connect.ts"), "utf8");
  return {
    "/": ["text/html", HTML],
    "/connect.js": ["text/javascript", stripTypeScriptTypes(client)],
    "/socket.io.js": [
      "text/javascript",
      await readFile(join(ROOT, "node_modules/socket.io-client/dist/socket.io.esm.min.js"), "utf8"),
    ],
  };
}

/** Serves the page and starts the browser. */
export async function startClientPage(): Promise<ClientPage> {
  const files = await clientFiles();
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

/** The console in a real Chromium, each visitor with a browser profile of their own, and everything that must not happen there noted. */
import { readFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { type Browser, type BrowserContext, type BrowserContextOptions, chromium, type Page } from "playwright-core";
import { obtainChromium } from "../../infra/browser.ts";
import { until } from "../../infra/until.ts";

const FLAGS = [
  "--headless",
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
];

export interface Visit {
  readonly page: Page;
  readonly context: BrowserContext;
  /** Violations of the page's policy, errors that nobody caught, requests to elsewhere, and dialogs that a script opened. */
  readonly wrongs: readonly string[];
  signIn(login: string, password: string): Promise<void>;
  /** Goes to a place of the console, as `#/people`. */
  go(place: string): Promise<void>;
}

export interface ConsoleBrowser {
  /** Opens the console in a profile of its own. */
  visit(options?: BrowserContextOptions): Promise<Visit>;
  close(): Promise<void>;
}

/** @param edgeUrl where the edge is */
export async function startConsoleBrowser(edgeUrl: string): Promise<ConsoleBrowser> {
  const browser: Browser = await chromium.launch({ executablePath: await obtainChromium(), args: FLAGS });
  return {
    async visit(options = {}) {
      const context = await browser.newContext(options);
      const page = await context.newPage();
      const wrongs: string[] = [];
      await watch(page, edgeUrl, wrongs);
      await page.goto(`${edgeUrl}/console`);
      return {
        page,
        context,
        wrongs,
        async signIn(login, password) {
          await page.getByLabel("Login name").fill(login);
          await page.getByLabel("Password").fill(password);
          await page.getByRole("button", { name: "Sign in" }).click();
        },
        async go(place) {
          await page.evaluate((hash) => {
            location.hash = hash;
          }, place);
        },
      };
    },
    close: () => browser.close(),
  };
}

async function watch(page: Page, edgeUrl: string, wrongs: string[]): Promise<void> {
  await page.exposeFunction("violated", (what: string) => wrongs.push(what));
  await page.addInitScript(() => {
    document.addEventListener("securitypolicyviolation", ({ effectiveDirective, blockedURI }) => {
      (window as unknown as { violated(what: string): void }).violated(`policy: ${effectiveDirective} ${blockedURI}`);
    });
  });
  page.on("pageerror", (error) => wrongs.push(`error: ${error.message}`));
  page.on("dialog", (dialog) => {
    wrongs.push(`dialog: ${dialog.message()}`);
    void dialog.dismiss();
  });
  page.on("request", (request) => {
    if (new URL(request.url()).origin !== edgeUrl) wrongs.push(`request: ${request.url()}`);
  });
}

const AXE = createRequire(import.meta.url).resolve("axe-core/axe.min.js");

/** What axe-core finds that is serious or critical, one line each. */
export async function seriousFindings(page: Page): Promise<string[]> {
  // Given by the browser's own hand: the page's policy takes no script from elsewhere.
  await page.evaluate(await readFile(AXE, "utf8"));
  return await page.evaluate(async () => {
    const { axe } = globalThis as unknown as { axe: { run(): Promise<{ violations: readonly AxeViolation[] }> } };
    interface AxeViolation {
      readonly id: string;
      readonly impact: string;
      readonly nodes: readonly { readonly html: string; readonly failureSummary: string }[];
    }
    const { violations } = await axe.run();
    return violations
      .filter(({ impact }) => impact === "serious" || impact === "critical")
      .flatMap(({ id, nodes }) => nodes.map(({ html, failureSummary }) => `${id}: ${html} ${failureSummary}`));
  });
}

/** How far the page is wider than its window, in pixels. */
export function overflow(page: Page): Promise<number> {
  return page.evaluate(() => document.documentElement.scrollWidth - window.innerWidth);
}

/** Presses Tab until what has the focus is called so. */
export async function tabTo(page: Page, name: RegExp): Promise<void> {
  let presses = 0;
  await until(`the keyboard comes to ${name}`, async () => {
    if (presses++ > 100) throw new Error(`A hundred times Tab, and nothing was called ${name}.`);
    await page.keyboard.press("Tab");
    const called = await page.evaluate(() => {
      const focused = document.activeElement;
      const label =
        focused instanceof HTMLInputElement || focused instanceof HTMLTextAreaElement ? focused.labels?.[0] : null;
      return focused?.getAttribute("aria-label") ?? label?.textContent ?? focused?.textContent ?? "";
    });
    return name.test(called);
  });
}

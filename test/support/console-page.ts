/** The console in a real Chromium, each visitor with a browser profile of their own, and everything that must not happen there noted. */
import { readFile } from "node:fs/promises";
import { createRequire } from "node:module";
import {
  type Browser,
  type BrowserContext,
  type BrowserContextOptions,
  chromium,
  type Locator,
  type Page,
} from "playwright-core";
import { obtainChromium } from "../../infra/browser.ts";
import { until } from "../../infra/until.ts";

/** Of an account that may do everything at the console. */
export const EVERY_SCOPE =
  "revocations:write revocations:read sessions:read sessions:write accounts:read accounts:write audit:read keys:write clients:write";

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

const LOOKS = [
  { colorScheme: "light", width: 1280 },
  { colorScheme: "dark", width: 1280 },
  { colorScheme: "light", width: 360 },
] as const;

/** What axe-core finds serious, and what is wider than the window: light, dark, and on a phone. */
export async function faultsInEveryLook(page: Page): Promise<string[]> {
  const faults: string[] = [];
  for (const { colorScheme, width } of LOOKS) {
    await page.emulateMedia({ colorScheme });
    await page.setViewportSize({ width, height: 800 });
    const overflow = await page.evaluate(() => document.documentElement.scrollWidth - window.innerWidth);
    const found = [...(await seriousFindings(page)), ...(overflow > 0 ? [`${overflow} pixels too wide`] : [])];
    faults.push(...found.map((fault) => `${colorScheme}, ${width}: ${fault}`));
  }
  return faults;
}

/** What axe-core finds that is serious or critical, one line each. */
async function seriousFindings(page: Page): Promise<string[]> {
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

/** Finds somebody and opens their page. */
export async function lookAt(page: Page, login: string): Promise<void> {
  await page.getByRole("searchbox", { name: "Search people" }).fill(login);
  await page.getByRole("link", { name: login }).click();
  await page.getByRole("heading", { name: login, level: 1 }).waitFor();
}

export function dialog(page: Page): Locator {
  return page.getByRole("dialog");
}

/** Says why, and goes through with it. */
export async function confirm(page: Page, reason: string): Promise<void> {
  await dialog(page).getByLabel("Reason").fill(reason);
  await dialog(page)
    .getByRole("button", { name: /^Revoke/ })
    .click();
}

/** Until the receipt in the dialog says so. */
export async function untilEnforced(page: Page): Promise<void> {
  await dialog(page).getByRole("heading", { name: "Revoked" }).waitFor();
  await dialog(page).locator(".figures").getByText("enforced", { exact: true }).waitFor();
}

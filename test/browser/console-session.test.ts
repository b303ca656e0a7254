/** Who may sit at the console, and what it does when that changes: no scopes, one tenant, a session that ends, a token that ends, no network. */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { until } from "../../infra/until.ts";
import { type ConsoleBrowser, startConsoleBrowser, type Visit } from "../support/console-page.ts";
import { type Person, startTestStack, type TestStack } from "../support/test-stack.ts";

const TTL_SECONDS = 5;
const LOOKING = "accounts:read sessions:read revocations:read audit:read";

let stack: TestStack;
let browser: ConsoleBrowser;

beforeAll(async () => {
  stack = await startTestStack({ ACCESS_TOKEN_TTL_SECONDS: String(TTL_SECONDS) }, { nodes: 1 });
  browser = await startConsoleBrowser(stack.stack.edgeUrl);
});

afterAll(async () => {
  await browser?.close();
  await stack?.stop();
});

async function seated(person: Person): Promise<Visit> {
  const visit = await browser.visit();
  await visit.signIn(person.login, person.password);
  await visit.page.getByRole("navigation").waitFor();
  return visit;
}

const seatedWith = async (scope: string, tid?: string) => {
  const person = await stack.newPerson({ scope, ...(tid !== undefined && { tid }) });
  return { person, ...(await seated(person)) };
};

describe("the console", () => {
  it("lets nobody in without an admin scope, or with a wrong password, and says which", async () => {
    const person = await stack.newPerson({ scope: "chat" });
    const { page, signIn, context } = await browser.visit();
    await signIn(person.login, "not the password");
    await page.getByRole("alert").getByText("wrong").waitFor();
    await signIn(person.login, person.password);
    await page.getByText("This account has no admin scopes.").waitFor();
    expect(await page.getByRole("navigation").count()).toBe(0);
    expect(await context.cookies()).toEqual([]);
  });

  it("keeps the refresh token from scripts, and the access token out of every store", async () => {
    const { page, context } = await seatedWith(LOOKING);
    const [cookie, ...others] = await context.cookies();
    expect(cookie).toMatchObject({ httpOnly: true, secure: true, sameSite: "Strict" });
    expect(others).toEqual([]);
    const stored = await page.evaluate(() => [document.cookie, localStorage.length, sessionStorage.length]);
    expect(stored).toEqual(["", 0, 0]);
    await page.reload();
    await page.getByRole("navigation").waitFor();
  });

  it("shows no view without its scope, and no way to revoke without revocations:write", async () => {
    const { page, go } = await seatedWith("accounts:read sessions:read");
    const { sub } = await stack.newPerson();
    expect(await page.getByRole("navigation").getByRole("link").allTextContents()).toEqual(["People"]);
    await go(`#/people/${sub}`);
    expect(await page.getByRole("button", { name: "Revoke all sessions…" }).isDisabled()).toBe(true);
    await page.getByText("that needs revocations:write").waitFor();
    expect(await page.getByRole("button", { name: "Disable…" }).count()).toBe(0);
  });

  it("shows whoever looks after one tenant that one alone", async () => {
    const ours = await stack.newPerson({ login: "ours@example.com", tid: "acme" });
    const theirs = await stack.newPerson({ login: "theirs@example.com", tid: "globex" });
    const { page, go } = await seatedWith(`${LOOKING} revocations:write`, "acme");
    await page.getByRole("link", { name: ours.login }).waitFor();
    expect(await page.getByRole("link", { name: theirs.login }).count()).toBe(0);
    await go(`#/people/${theirs.sub}`);
    await page.getByRole("alert").getByText("belongs to another tenant").waitFor();
    await go("#/health");
    await page.getByText("you look after acme").waitFor();
    await go("#/revocations");
    await page.getByRole("button", { name: "Revoke…" }).click();
    expect(await page.getByLabel("Whom").locator("option").allTextContents()).not.toContain("everyone");
    await page.getByLabel("Whom").selectOption("tenant");
    expect(await page.getByRole("textbox", { name: "Tenant" }).inputValue()).toBe("acme");
  });

  it("renews its token before it ends, and nobody notices", async () => {
    const { page, go, wrongs } = await seatedWith(LOOKING);
    const refreshes: number[] = [];
    page.on("response", (response) => {
      if (response.url().endsWith("/refresh")) refreshes.push(response.status());
    });
    await go("#/revocations");
    await until("it was renewed twice", () => refreshes.length >= 2, { withinMs: 60_000 });
    expect(new Set(refreshes)).toEqual(new Set([200]));
    expect(await page.getByRole("alert").count()).toBe(0);
    expect(wrongs).toEqual([]);
  });

  it("signs out when its session is ended elsewhere, says so, and comes back to where it was", async () => {
    const { person, page, go, signIn } = await seatedWith(LOOKING);
    const { login, sub } = await stack.newPerson();
    await go(`#/people/${sub}`);
    await page.getByRole("heading", { name: login, level: 1 }).waitFor();
    await stack.edge.revoke({ kind: "user", sub: person.sub }, "left the team");
    await page.getByRole("alert").getByText("You are signed out.").waitFor();
    await page.getByText("The session has been ended.").waitFor();
    expect(await page.getByRole("navigation").count()).toBe(0);
    await signIn(person.login, person.password);
    await page.getByRole("heading", { name: login, level: 1 }).waitFor();
  });

  it("signs out in every tab at once", async () => {
    const { page, context } = await seatedWith(LOOKING);
    const other = await context.newPage();
    await other.goto(`${stack.stack.edgeUrl}/console`);
    await other.getByRole("navigation").waitFor();
    await page.getByRole("group").locator("summary").click();
    await page.getByRole("button", { name: "Sign out" }).click();
    await page.getByText("You are signed out.").waitFor();
    await other.getByText("You signed out in another tab.").waitFor();
    expect(await context.cookies()).toEqual([]);
  });

  it("says that the network is gone, keeps what it showed, and goes on when it is back", async () => {
    const { page, context, go } = await seatedWith(LOOKING);
    await go("#/revocations");
    await page.getByText("Nothing was revoked").or(page.getByRole("rowheader").first()).first().waitFor();
    await context.setOffline(true);
    await page.getByText("What you see may be old").waitFor();
    await page.getByText(/^As of .* since then the edge cannot be reached/).waitFor();
    const { id } = await stack.edge.revoke(
      { kind: "user", sub: (await stack.newPerson()).sub },
      "while nobody could see it",
    );
    await context.setOffline(false);
    await page.locator(`a[href="#/revocations/${id}"]`).waitFor();
    expect(await page.getByText("What you see may be old").isVisible()).toBe(false);
  });

  it("says so when the edge is down at the start, and begins when it is up", async () => {
    const person = await stack.newPerson({ scope: LOOKING });
    const { page, context } = await seated(person);
    await context.route("**/refresh", (route) => route.abort());
    await page.reload();
    await page.getByRole("alert").getByText("The edge cannot be reached.").waitFor();
    await context.unroute("**/refresh");
    await page.getByRole("button", { name: "Try again" }).click();
    await page.getByRole("navigation").waitFor();
  });
});

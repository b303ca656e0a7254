/** The console against a real stack: somebody is found, looked at and thrown out, with the mouse or without one, and it can be seen. */
import { decodeJwt } from "jose";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { until } from "../../infra/until.ts";
import {
  type ConsoleBrowser,
  confirm,
  dialog,
  EVERY_SCOPE,
  faultsInEveryLook,
  lookAt,
  startConsoleBrowser,
  tabTo,
  untilEnforced,
  type Visit,
} from "../support/console-page.ts";
import { type Person, startTestStack, type TestStack } from "../support/test-stack.ts";

/** What an attacker chooses where a name is asked for. */
const MARKUP = "<img src=x onerror=alert(1)>";

let stack: TestStack;
let browser: ConsoleBrowser;
let administrator: Person;
let desk: Visit;

beforeAll(async () => {
  stack = await startTestStack({}, { nodes: 3 });
  browser = await startConsoleBrowser(stack.stack.edgeUrl);
  administrator = await stack.newPerson({ login: "the.whole.operations.team@example.com", scope: EVERY_SCOPE });
  desk = await browser.visit();
  await desk.signIn(administrator.login, administrator.password);
  await desk.page.getByRole("heading", { name: "People", level: 1 }).waitFor();
});

beforeEach(() => desk.go("#/people"));

afterAll(async () => {
  await browser?.close();
  await stack?.stop();
});

/** Somebody with one socket on each node, under one session. */
async function somebodyOnline(extra: Partial<Person> = {}, device = "laptop") {
  const person = await stack.newPerson(extra);
  const tokens = await stack.logIn(person, device);
  const sockets = await stack.openEverywhere(tokens.access_token);
  const gone = () => sockets.every(({ socket }) => !socket.connected);
  return { person, tokens, sockets, gone };
}

describe("the console", () => {
  it("finds a person, shows their sessions and their sockets by node, and throws them out with a receipt", async () => {
    const { page } = desk;
    const { person, sockets, gone } = await somebodyOnline({ login: "ada@example.com", tid: "acme" });
    await lookAt(page, person.login);
    await page.getByRole("cell", { name: "3", exact: true }).waitFor();
    for (const { name } of stack.stack.nodes) await page.getByRole("rowheader", { name }).waitFor();
    await page.getByRole("button", { name: "Revoke all sessions…" }).click();
    await dialog(page).getByText("1 session, 3 sockets").waitFor();
    await confirm(page, "laptop stolen");
    await untilEnforced(page);
    await until("the sockets are gone", gone);
    expect(sockets.flatMap(({ unauthorized }) => unauthorized.map(({ code }) => code))).toEqual(
      Array(3).fill("session_revoked"),
    );
    await dialog(page).getByText("3 of 3").waitFor();
    expect(await dialog(page).getByRole("row").count()).toBe(4);
    await dialog(page).getByRole("button", { name: "Done" }).click();
    await page.getByText("signed in nowhere").waitFor();
    await page.getByText("laptop stolen").first().waitFor();
  });

  it("revokes one session, or all others, and leaves the rest", async () => {
    const { page } = desk;
    const { person, gone } = await somebodyOnline({ login: "grace@example.com" }, "phone");
    const tablet = await stack.openEverywhere((await stack.logIn(person, "tablet")).access_token);
    const watch = await stack.openEverywhere((await stack.logIn(person, "watch")).access_token);
    await lookAt(page, person.login);
    await page.getByRole("button", { name: "Revoke phone" }).click();
    await dialog(page).getByText("1 session, 3 sockets").waitFor();
    await confirm(page, "phone lost");
    await untilEnforced(page);
    await until("the phone is gone", gone);
    await dialog(page).getByRole("button", { name: "Done" }).click();
    await page.getByRole("button", { name: "Keep only this: tablet" }).click();
    await dialog(page).getByText("1 session, 3 sockets").waitFor();
    await confirm(page, "only the tablet is known");
    await untilEnforced(page);
    await until("the watch is gone", () => watch.every(({ socket }) => !socket.connected));
    expect(tablet.every(({ socket }) => socket.connected)).toBe(true);
    await dialog(page).getByRole("button", { name: "Done" }).click();
  });

  it("wants the name of a tenant before it throws out all of it, and shows the receipt in the list", async () => {
    const { page } = desk;
    const { gone } = await somebodyOnline({ tid: "globex" });
    await desk.go("#/revocations");
    await page.getByRole("button", { name: "Revoke…" }).click();
    await dialog(page).getByLabel("Whom").selectOption("tenant");
    await dialog(page).getByRole("textbox", { name: "Tenant" }).fill("globex");
    await dialog(page).getByText("3 sockets").first().waitFor();
    await confirm(page, "contract ended");
    await dialog(page).getByLabel("type globex").fill("acme");
    await dialog(page)
      .getByRole("button", { name: /^Revoke/ })
      .click();
    expect(gone()).toBe(false);
    await dialog(page).getByLabel("type globex").fill("globex");
    await dialog(page)
      .getByRole("button", { name: /^Revoke/ })
      .click();
    await untilEnforced(page);
    await until("they are gone", gone);
    await dialog(page).getByRole("link", { name: "Open the receipt" }).click();
    await page.getByRole("heading", { name: "Receipt", level: 1 }).waitFor();
    await page.getByText("signed receipt (JWT)").waitFor();
    await page.getByRole("link", { name: "All revocations" }).click();
    await page.getByRole("row").filter({ hasText: "tenant globex" }).getByText("enforced").waitFor();
  });

  it("revokes a token that was found, without showing it again", async () => {
    const { page } = desk;
    const { tokens, gone } = await somebodyOnline();
    await desk.go("#/revocations");
    await page.getByRole("button", { name: "Revoke…" }).click();
    await dialog(page).getByLabel("Whom").selectOption("token");
    await dialog(page).getByLabel("Access token, or its jti").fill(tokens.access_token);
    await dialog(page).getByText("3 sockets").first().waitFor();
    await confirm(page, "found in a log");
    await untilEnforced(page);
    await until("they are gone", gone);
    expect(await page.locator("body").innerText()).not.toContain(tokens.access_token);
    await dialog(page).getByRole("button", { name: "Done" }).click();
  });

  it("disables an account, so that whoever was thrown out stays out", async () => {
    const { page } = desk;
    const { person, gone } = await somebodyOnline({ login: "mallory@example.com" });
    await lookAt(page, person.login);
    await page.getByRole("button", { name: "Disable…" }).click();
    await dialog(page).getByLabel("Reason").fill("compromised");
    await dialog(page).getByRole("button", { name: "Disable", exact: true }).click();
    await page.getByText("disabled", { exact: true }).waitFor();
    await until("they are gone", gone);
    await expect(stack.logIn(person)).rejects.toMatchObject({ code: "account_disabled" });
  });

  it("can be used from the sign-in to the receipt with a keyboard alone", async () => {
    const { person, gone } = await somebodyOnline({ login: "keys@example.com" });
    const { page, wrongs, context } = await browser.visit();
    await page.getByLabel("Login name").waitFor();
    await page.keyboard.type(administrator.login);
    await page.keyboard.press("Tab");
    await page.keyboard.type(administrator.password);
    await page.keyboard.press("Enter");
    await page.getByRole("heading", { name: "People", level: 1 }).waitFor();
    await tabTo(page, /Search people/);
    await page.keyboard.type(person.login);
    await page.keyboard.press("Enter");
    await tabTo(page, /^keys@example/);
    await page.keyboard.press("Enter");
    await page.getByRole("heading", { name: person.login, level: 1 }).waitFor();
    await tabTo(page, /^Revoke all sessions/);
    await page.keyboard.press("Enter");
    await dialog(page).getByText("3 sockets").first().waitFor();
    await page.keyboard.press("Escape");
    await dialog(page).waitFor({ state: "detached" });
    expect(gone()).toBe(false);
    await page.keyboard.press("Enter");
    await page.keyboard.type("seen on a stranger's screen");
    await tabTo(page, /^Revoke and close 3 sockets/);
    await page.keyboard.press("Enter");
    await untilEnforced(page);
    await until("they are gone", gone);
    expect(wrongs).toEqual([]);
    await context.close();
  });

  it("shows who did it in the audit trail, filters it, and finds the chain intact", async () => {
    const { page } = desk;
    const { person } = await somebodyOnline({ login: "audited@example.com" });
    await lookAt(page, person.login);
    await page.getByRole("button", { name: "Revoke all sessions…" }).click();
    await confirm(page, "for the record");
    await untilEnforced(page);
    await dialog(page).getByRole("button", { name: "Done" }).click();
    await desk.go(`#/audit?sub=${person.sub}&type=revocation`);
    const row = page.getByRole("row").filter({ hasText: "for the record" });
    await row.getByText(administrator.sub.slice(0, 10)).waitFor();
    expect(await page.getByRole("row").count()).toBe(2);
    await row.getByRole("link", { name: "revocation" }).click();
    await page.getByRole("heading", { name: "Receipt", level: 1 }).waitFor();
    await desk.go("#/audit");
    await page.getByRole("button", { name: "Verify the chain" }).click();
    await page.getByText("intact").waitFor();
  });

  it("shows every node's health, a node that is gone, and how long revocations took", async () => {
    const { page } = desk;
    await desk.go("#/health");
    for (const { name } of stack.stack.nodes) {
      await page.getByRole("row").filter({ hasText: name }).getByText("Redis").waitFor();
    }
    await page.getByText("3 of 3").waitFor();
    await page.locator(".plot circle").first().waitFor();
    await page.locator(".plot").focus();
    await page.keyboard.press("ArrowLeft");
    await page.getByText(/half within \d/).waitFor();
    await page.getByText("The same as a table").click();
    expect(
      await page.getByRole("region", { name: "Revocation latency as a table" }).getByRole("row").count(),
    ).toBeGreaterThan(1);
    await stack.stack.kill("node-3");
    await page.getByRole("row").filter({ hasText: "node-3" }).waitFor({ state: "detached" });
    await stack.stack.restart("node-3");
  });

  it("revokes once, however often it is tried after an answer was lost", async () => {
    const { page } = desk;
    const { person, gone } = await somebodyOnline({ login: "once@example.com" });
    await lookAt(page, person.login);
    await page.getByRole("button", { name: "Revoke all sessions…" }).click();
    await dialog(page).getByText("1 session, 3 sockets").waitFor();
    await page.route("**/admin/revocations", async (route) => {
      await route.fetch();
      await route.abort();
    });
    await confirm(page, "the train is in a tunnel");
    await dialog(page).getByText("It may have been carried out.").waitFor();
    await until("it was carried out", gone);
    await page.unroute("**/admin/revocations");
    await dialog(page)
      .getByRole("button", { name: /^Revoke/ })
      .click();
    await untilEnforced(page);
    await dialog(page).getByText("3 of 3").waitFor();
    await dialog(page).getByRole("button", { name: "Done" }).click();
    await dialog(page).waitFor({ state: "detached" });
    await page.getByText("the train is in a tunnel").first().waitFor();
    expect(await page.getByText("the train is in a tunnel").count()).toBe(1);
  });

  it("leaves the focus where it is while it reads everything anew", async () => {
    const { page } = desk;
    const { person } = await somebodyOnline({ login: "focus@example.com" });
    await lookAt(page, person.login);
    const button = page.getByRole("button", { name: "Revoke laptop" });
    await button.focus();
    await page.waitForResponse((response) => response.url().endsWith("/sockets"));
    expect(await button.evaluate((element) => element === document.activeElement)).toBe(true);
  });

  it("fetches another token when the edge does not take its own any more", async () => {
    const { page } = desk;
    await desk.go("#/revocations");
    const called = await page.waitForRequest(/\/admin\/revocations/);
    const { jti = "" } = decodeJwt((await called.headerValue("authorization"))?.replace("Bearer ", "") ?? "");
    const refreshed = page.waitForResponse((response) => response.url().endsWith("/refresh"));
    const { id } = await stack.edge.revoke({ kind: "token", jti }, "shown on a screen");
    await desk.go("#/people");
    await desk.go("#/revocations");
    await page.locator(`a[href="#/revocations/${id}"]`).waitFor();
    expect((await refreshed).status()).toBe(200);
    expect(await page.getByRole("alert").count()).toBe(0);
  });

  it("takes what somebody chose for text, wherever it shows it", async () => {
    const { page } = desk;
    const login = `${MARKUP}@example.com`;
    const { person } = await somebodyOnline({ login, tid: "<svg/onload=alert(2)>" }, `<script>alert(3)</script>`);
    await lookAt(page, person.login);
    await page.getByRole("button", { name: "Revoke <script>alert(3)</script>" }).click();
    await dialog(page)
      .getByRole("heading", { name: `<script>alert(3)</script> of ${login}` })
      .waitFor();
    await confirm(page, `"><iframe src=javascript:alert(4)>`);
    await untilEnforced(page);
    await dialog(page).getByRole("link", { name: "Open the receipt" }).click();
    await page.getByText(`"><iframe src=javascript:alert(4)>`).waitFor();
    await desk.go("#/revocations");
    await page.getByText(`"><iframe src=javascript:alert(4)>`).waitFor();
    await desk.go(`#/audit?sub=${person.sub}`);
    await page.getByText("<svg/onload=alert(2)>").first().waitFor();
    await desk.go(`#/people?query=${encodeURIComponent(MARKUP)}`);
    await page.getByRole("link", { name: login }).waitFor();
    expect(await page.locator("img[src=x], iframe, svg[onload], body script").count()).toBe(0);
    expect(desk.wrongs).toEqual([]);
  });

  it("has nothing serious for axe in any view, and fits: light, dark, and on a phone", async () => {
    const { person } = await somebodyOnline({ login: `a-very-long-name-${"x".repeat(150)}@example.com` });
    const { sid } = await stack.logIn(person);
    const { id } = await stack.edge.revoke({ kind: "session", sid }, "because ".repeat(60));
    const { page, wrongs, go, signIn, context } = await browser.visit();
    expect(await faultsInEveryLook(page), "the way in").toEqual([]);
    await signIn(administrator.login, administrator.password);
    const places: Record<string, string> = {
      "#/people": `a[href="#/people/${person.sub}"]`,
      [`#/people/${person.sub}`]: ".cluster tbody tr",
      "#/revocations": "tbody tr",
      [`#/revocations/${id}`]: ".stages .done:last-child",
      "#/audit": "tbody tr",
      "#/health": ".plot svg",
      "#/people/nobody": "[role=alert]",
    };
    for (const [place, sign] of Object.entries(places)) {
      await go(place);
      await page.locator(sign).first().waitFor();
      expect(await faultsInEveryLook(page), place).toEqual([]);
    }
    await go(`#/people/${person.sub}`);
    await page.getByRole("button", { name: "Revoke all sessions…" }).click();
    await dialog(page).getByText("3 sockets").first().waitFor();
    expect(await faultsInEveryLook(page), "the dialog").toEqual([]);
    expect(wrongs).toEqual([]);
    await context.close();
  });
});

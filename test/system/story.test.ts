/** The story that `npm run story` tells, held to its word. */
import { expect, test } from "vitest";
import { runStory } from "../../infra/story/run-story.ts";

test("every step of the story holds", { timeout: 180_000 }, async () => {
  const report = await runStory();
  expect(report.steps.filter((step) => !step.held)).toEqual([]);
  expect(report.held).toBe(true);
  expect(report.steps.map((step) => step.title)).toEqual([
    "Start",
    "Accounts",
    "Login",
    "Connect",
    "Broadcast",
    "Refresh",
    "Retried refresh",
    "Reused refresh",
    "Revoke a token",
    "Revoke a session",
    "Revoke a user",
    "Log in again in that second",
    "Tokens from before",
    "A node that starts later",
    "Revoke a tenant",
    "Revoke everyone",
    "Who is there",
    "Start a second stack",
    "Expiry",
    "Put away",
  ]);
});

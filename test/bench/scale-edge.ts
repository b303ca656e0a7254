/** What the edge costs: processor time of workerd for one of each operation, and how fast the log's one writer is. */
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { EdgeClient } from "../../infra/edge-client.ts";
import type { UnitCosts } from "../../infra/scale/model.ts";
import { type Stack, startStack } from "../../infra/stack.ts";
import { round } from "./distribution.ts";

const REFRESHES = 300;
const LOGINS = 12;
const REVOCATIONS = 200;
const AT_ONCE = 16;
const PASSWORD = "a password for measuring";
/** Linux counts a process's time in hundredths of a second. */
const TICKS_PER_SECOND = 100;

export async function measureEdge(tell: (text: string) => void): Promise<UnitCosts["edge"]> {
  const dir = await mkdtemp(join(tmpdir(), "keycard-bench-"));
  const stack = await startStack({ dir, nodes: 1, nodeSettings: { LOG_LEVEL: "warn" } });
  try {
    tell("the edge: refreshes, logins, revocations");
    return await measure(stack, new EdgeClient(stack));
  } finally {
    await stack.stop();
    await rm(dir, { recursive: true, force: true });
  }
}

async function measure(stack: Stack, edge: EdgeClient): Promise<UnitCosts["edge"]> {
  await edge.createAccount({ login: "ada@example.com", password: PASSWORD });
  let { refresh_token } = await edge.login("ada@example.com", PASSWORD);
  const refresh = async () => {
    ({ refresh_token } = await edge.refresh(refresh_token));
  };
  const revoke = () => edge.revoke({ kind: "token", jti: crypto.randomUUID() }, "measuring");
  await times(REFRESHES, 1, refresh);
  await times(REVOCATIONS, AT_ONCE, revoke);
  const refreshing = await cpuOf(stack, () => times(REFRESHES, 1, refresh));
  const loggingIn = await cpuOf(stack, () => times(LOGINS, 1, () => edge.login("ada@example.com", PASSWORD)));
  const began = performance.now();
  const revoking = await cpuOf(stack, () => times(REVOCATIONS, AT_ONCE, revoke));
  const log_us = ((performance.now() - began) * 1000) / REVOCATIONS;
  return {
    refresh_us: round(refreshing / REFRESHES),
    login_us: round(loggingIn / LOGINS),
    revocation_us: round(revoking / REVOCATIONS),
    log_us: round(log_us),
  };
}

async function times(count: number, atOnce: number, act: () => Promise<unknown>): Promise<void> {
  let given = 0;
  const worker = async () => {
    while (given++ < count) await act();
  };
  await Promise.all(Array.from({ length: atOnce }, worker));
}

/** Microseconds of the edge's processes; of the clock, where there is no /proc. */
async function cpuOf({ pids }: Stack, work: () => Promise<unknown>): Promise<number> {
  const [before, began] = [await cpuTicks(pids.edge ?? 0), performance.now()];
  await work();
  const [after, ended] = [await cpuTicks(pids.edge ?? 0), performance.now()];
  if (before === undefined || after === undefined) return (ended - began) * 1000;
  return ((after - before) * 1e6) / TICKS_PER_SECOND;
}

/** Of a process and of those that it has started. */
async function cpuTicks(pid: number): Promise<number | undefined> {
  try {
    const fields = (await readFile(`/proc/${pid}/stat`, "utf8")).split(") ")[1]?.split(" ") ?? [];
    const children = (await readFile(`/proc/${pid}/task/${pid}/children`, "utf8")).split(" ").filter(Boolean);
    const theirs = await Promise.all(children.map((child) => cpuTicks(Number(child))));
    return theirs.reduce<number>((total, ticks) => total + (ticks ?? 0), Number(fields[11]) + Number(fields[12]));
  } catch {
    return undefined;
  }
}

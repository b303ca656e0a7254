/** Waiting for a process to answer. */
import type { Child } from "./child.ts";

const POLL_MS = 25;

/** Whether the address answered 200 while the process was alive and the time was not up. */
export async function untilOk(url: string, child: Child, withinMs: number): Promise<boolean> {
  const deadline = Date.now() + withinMs;
  while (child.running && Date.now() < deadline) {
    if (await answersOk(url)) return child.running;
    await new Promise((resolve) => setTimeout(resolve, POLL_MS));
  }
  return false;
}

async function answersOk(url: string): Promise<boolean> {
  try {
    const response = await fetch(url, { signal: AbortSignal.timeout(2_000) });
    await response.body?.cancel();
    return response.ok;
  } catch {
    // Nobody listens there yet.
    return false;
  }
}

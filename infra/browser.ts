/** A Chromium for looking at pages without a person: found, or installed where that needs no questions asked. */
import { findExecutable, installPackage, isExecutable } from "./packages.ts";

const NAMES = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"] as const;
const BUNDLES = [
  "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
  "/Applications/Chromium.app/Contents/MacOS/Chromium",
] as const;
const PACKAGES = { apt: ["chromium", "chromium-browser"], apk: ["chromium"], dnf: ["chromium"] } as const;
const ADVICE =
  "No Chromium was found and none could be installed unattended: install Chromium or Chrome, or set CHROMIUM to its path.";

/** The path of a Chromium or Chrome: CHROMIUM, one on this machine, or one installed by the system's package manager. */
export async function obtainChromium(onStep: (text: string) => void = () => {}): Promise<string> {
  const named = process.env.CHROMIUM;
  if (named) return named;
  const found = (await findChromium()) ?? ((await installPackage(PACKAGES, onStep)) ? await findChromium() : undefined);
  if (found === undefined) throw new Error(ADVICE);
  return found;
}

async function findChromium(): Promise<string | undefined> {
  for (const name of NAMES) {
    const path = await findExecutable(name);
    if (path) return path;
  }
  for (const path of BUNDLES) if (await isExecutable(path)) return path;
  return undefined;
}
